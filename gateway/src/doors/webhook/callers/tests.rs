//! Attackers and others, over real TLS, against the layer before a handler that says who got through. The API server is a stand-in that knows two tokens and one
//! permission; a real one asks the same questions in the tests of the whole program.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{
    Json, Router,
    extract::Request,
    http::StatusCode,
    middleware::from_fn_with_state,
    routing::{any, post},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::aws_lc_rs,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Caller, Callers, Certificates, ClusterCallers, Gate, check};
use crate::{
    kubernetes::{AuthenticationConfig, Cluster, FrontProxy, FrontProxyHeaders},
    web::{
        Authority, Clients, Limits, ReloadedTls,
        testing::{Client, Reply, Site},
    },
};

const RESOURCE: &str = "/apis/acme.corp.test/v1alpha1/mysolver";
const GOOD_TOKEN: &str = "Authorization: Bearer good\r\n";

/// An authority for clients.
struct Ca(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
type Identity = (CertificateDer<'static>, PrivateKeyDer<'static>);

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn authority(&self) -> Authority {
        Authority::from_pem(self.0.pem().as_bytes()).unwrap()
    }

    fn client(&self, name: &str, organization: &str) -> Identity {
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, organization);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }
}

/// The API server: `good` is cert-manager's token, `other` somebody's; cert-manager may create our resource, and whoever is known may read `/apis`.
struct Api {
    site: Site,
    reviews: Arc<AtomicUsize>,
}

impl Api {
    fn start() -> Self {
        let reviews = Arc::new(AtomicUsize::new(0));
        let token = |Json(review): Json<Value>| async move {
            let user = match review["spec"]["token"].as_str() {
                Some("good") => "system:serviceaccount:cert-manager:cert-manager",
                Some("other") => "system:serviceaccount:tenant:default",
                _ => return Json(json!({"metadata": {}, "spec": {}, "status": {"authenticated": false, "error": "token has expired"}})),
            };
            let user = json!({"username": user, "groups": ["system:authenticated"]});
            Json(json!({"metadata": {}, "spec": {}, "status": {"authenticated": true, "user": user}}))
        };
        let access = {
            let reviews = reviews.clone();
            move |Json(review): Json<Value>| async move {
                reviews.fetch_add(1, Ordering::Relaxed);
                let spec = &review["spec"];
                let create = json!({"verb": "create", "group": "acme.corp.test", "version": "v1alpha1", "resource": "mysolver"});
                let known = spec["groups"].as_array().is_some_and(|groups| groups.contains(&json!("system:authenticated")));
                let allowed = spec["resourceAttributes"] == create && spec["user"] == "system:serviceaccount:cert-manager:cert-manager"
                    || spec["nonResourceAttributes"] == json!({"verb": "get", "path": "/apis"}) && known;
                Json(json!({"metadata": {}, "spec": {}, "status": {"allowed": allowed}}))
            }
        };
        let router = Router::new()
            .route("/apis/authentication.k8s.io/v1/tokenreviews", post(token))
            .route("/apis/authorization.k8s.io/v1/subjectaccessreviews", post(access));
        Self { site: Site::start(router, Limits::default(), None), reviews }
    }

    fn callers(&self) -> Arc<ClusterCallers> {
        let cluster = Cluster::at(&format!("http://{}", self.site.address));
        Arc::new(ClusterCallers::new(cluster, "acme.corp.test", "v1alpha1", "mysolver"))
    }
}

/// A door whose every path says who called, and what of their headers came through.
struct Door(Site);

impl Door {
    fn open(callers: Callers) -> Self {
        let who = async |request: Request| {
            let left: Vec<_> = request.headers().keys().filter(|name| name.as_str() != "host").map(ToString::to_string).collect();
            format!("{} {}", request.extensions().get::<Caller>().map_or("nobody", |caller| &caller.0), left.join(","))
        };
        let router = Router::new().fallback(any(who)).layer(from_fn_with_state(Gate::new(callers), check));
        let tls = ReloadedTls::self_signed(&["localhost".to_owned()], Clients::MayShowCertificate).unwrap();
        Self(Site::start(router, Limits::default(), Some(tls)))
    }

    async fn call(&self, identity: Option<&Identity>, request: &str, headers: &str) -> Reply {
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer));
        let config = match identity {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => config.with_client_auth_cert(vec![certificate.clone()], key.clone_key()).unwrap(),
        };
        let stream = TcpStream::connect(self.0.address).await.unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
        Client::new(stream).ask(&format!("{request} HTTP/1.1\r\nHost: x\r\n{headers}\r\n")).await
    }

    /// Who got through to our resource; else the status.
    async fn create(&self, identity: Option<&Identity>, headers: &str) -> Result<String, String> {
        let reply = self.call(identity, &format!("POST {RESOURCE}"), headers).await;
        if reply.status == "200 OK" {
            return Ok(reply.body);
        }
        let status: Value = serde_json::from_str(&reply.body).unwrap();
        assert_eq!((&status["kind"], &status["status"]), (&json!("Status"), &json!("Failure")));
        assert_eq!(reply.header("retry-after"), "");
        Err(reply.status)
    }
}

/// What the cluster says: the front proxy's authority, and its clients'.
fn config(front_proxy: &Ca, clients: &Ca) -> AuthenticationConfig {
    let list = |name: &str| vec![name.to_owned()];
    let headers = FrontProxyHeaders {
        user: list("x-remote-user"),
        uid: list("x-remote-uid"),
        groups: list("x-remote-group"),
        extra_prefixes: list("x-remote-extra-"),
    };
    let front_proxy = FrontProxy { authority: front_proxy.authority(), allowed_names: list("front-proxy-client"), headers };
    AuthenticationConfig { front_proxy: Some(front_proxy), client_authority: Some(clients.authority()) }
}

const UNAUTHORIZED: Result<String, &str> = Err("401 Unauthorized");
const FORBIDDEN: Result<String, &str> = Err("403 Forbidden");
const UNDECIDED: Result<String, &str> = Err("503 Service Unavailable");

fn through(name: &str) -> Result<String, &'static str> {
    Ok(format!("{name} "))
}

fn crypto() {
    let _ = aws_lc_rs::default_provider().install_default();
}

#[tokio::test]
async fn whom_the_cluster_does_not_let_gets_nowhere() {
    crypto();
    let (front_proxy, clients, stranger) = (Ca::new(), Ca::new(), Ca::new());
    let api = Api::start();
    let callers = api.callers();
    callers.learn(config(&front_proxy, &clients));
    let door = Door::open(Callers::Cluster(callers));
    let manager = "X-Remote-User: system:serviceaccount:cert-manager:cert-manager\r\nX-Remote-Group: system:authenticated\r\n";
    let (proxy, tenant) = (front_proxy.client("front-proxy-client", ""), "X-Remote-User: system:serviceaccount:tenant:default\r\n");
    let masters = "X-Remote-User: x\r\nX-Remote-Group: system:masters\r\n";
    for (identity, headers, outcome, why) in [
        (None, "", UNAUTHORIZED, "nothing to show"),
        (None, manager, UNAUTHORIZED, "a forged header alone"),
        (None, masters, UNAUTHORIZED, "a forged group alone"),
        (Some(stranger.client("front-proxy-client", "system:masters")), masters, UNAUTHORIZED, "another authority's certificate"),
        (Some(front_proxy.client("somebody", "")), manager, UNAUTHORIZED, "a name that is not allowed"),
        (Some(clients.client("front-proxy-client", "")), manager, FORBIDDEN, "a client that calls itself the front proxy is itself alone"),
        (Some(front_proxy.client("front-proxy-client", "system:masters")), "", UNAUTHORIZED, "the front proxy for nobody"),
        (Some(clients.client("", "system:masters")), "", UNAUTHORIZED, "a client without a name"),
        (None, "Authorization: Bearer expired\r\n", UNAUTHORIZED, "an expired token"),
        (None, "Authorization: Basic Z29vZA==\r\n", UNAUTHORIZED, "no bearer token"),
        (None, "Authorization: Bearer other\r\n", FORBIDDEN, "another service account"),
        (Some(proxy), tenant, FORBIDDEN, "another service account, through the front proxy"),
    ] {
        assert_eq!(door.create(identity.as_ref(), headers).await, outcome.map_err(str::to_owned), "{why}");
    }
}

#[tokio::test]
async fn whom_the_cluster_lets_gets_through_and_their_credentials_do_not() {
    crypto();
    let (front_proxy, clients) = (Ca::new(), Ca::new());
    let api = Api::start();
    let callers = api.callers();
    callers.learn(config(&front_proxy, &clients));
    let door = Door::open(Callers::Cluster(callers));
    let manager = "system:serviceaccount:cert-manager:cert-manager";
    let headers =
        format!("X-Remote-User: {manager}\r\nX-Remote-Group: system:authenticated\r\nX-Remote-Uid: 7\r\nX-Remote-Extra-a%2Fb: c\r\n");
    let proxy = front_proxy.client("front-proxy-client", "");
    assert_eq!(door.create(Some(&proxy), &headers).await, through(manager).map_err(str::to_owned));
    assert_eq!(door.create(None, GOOD_TOKEN).await, through(manager).map_err(str::to_owned));
    // Whoever is in system:masters may do anything, without a question.
    let before = api.reviews.load(Ordering::Relaxed);
    let admin = clients.client("admin", "system:masters");
    assert_eq!(door.create(Some(&admin), "").await, through("admin").map_err(str::to_owned));
    assert_eq!(api.reviews.load(Ordering::Relaxed), before);
    // What is no resource is asked for by its path.
    assert_eq!(door.call(None, "GET /apis", "Authorization: Bearer other\r\n").await.status, "200 OK");
    assert_eq!(door.call(None, "GET /version", "Authorization: Bearer other\r\n").await.status, "403 Forbidden");
    // Everybody who is known is in system:authenticated, said or unsaid; who is not known, is not.
    assert_eq!(door.call(Some(&proxy), "GET /apis", "X-Remote-User: system:aggregator\r\n").await.status, "200 OK");
    for anonymous in ["X-Remote-User: system:anonymous\r\n", "X-Remote-User: x\r\nX-Remote-Group: system:unauthenticated\r\n"] {
        assert_eq!(door.call(Some(&proxy), "GET /apis", anonymous).await.status, "403 Forbidden");
    }
    // Kubelets ask without anything.
    assert_eq!(door.call(None, "GET /readyz", "").await.body, "nobody ");
    assert_eq!(door.call(None, "GET /readyz/x", "").await.status, "401 Unauthorized");
}

#[tokio::test]
async fn an_answer_of_the_cluster_holds_for_a_while_and_its_silence_does_not() {
    crypto();
    let api = Api::start();
    let callers = api.callers();
    callers.learn(config(&Ca::new(), &Ca::new()));
    let door = Door::open(Callers::Cluster(callers));
    for _ in 0..3 {
        assert!(door.create(None, GOOD_TOKEN).await.is_ok());
        assert!(door.create(None, "Authorization: Bearer other\r\n").await.is_err());
    }
    assert_eq!(api.reviews.load(Ordering::Relaxed), 2, "one question for each of the two");
    let Api { site, .. } = api;
    site.stop.cancel();
    site.served.await.unwrap();
    assert!(door.create(None, GOOD_TOKEN).await.is_ok(), "what is known holds");
    assert_eq!(door.create(None, "Authorization: Bearer third\r\n").await, UNDECIDED.map_err(str::to_owned));
}

#[tokio::test]
async fn nobody_is_let_in_before_it_is_known_who_may() {
    crypto();
    let api = Api::start();
    let callers = Callers::Cluster(api.callers());
    assert!(!callers.ready());
    let door = Door::open(callers);
    assert_eq!(door.create(None, GOOD_TOKEN).await, UNDECIDED.map_err(str::to_owned));
    assert_eq!(door.call(None, "GET /livez", "").await.status, "200 OK");
}

#[tokio::test]
async fn without_a_cluster_it_is_the_name_in_a_certificate() {
    crypto();
    let (ours, theirs) = (Ca::new(), Ca::new());
    let certificates = Certificates { authority: ours.authority(), names: vec!["cert-manager".to_owned()] };
    let callers = Callers::Certificates(Arc::new(certificates));
    assert!(callers.ready());
    let door = Door::open(callers);
    let good = ours.client("cert-manager", "");
    assert_eq!(door.create(Some(&good), GOOD_TOKEN).await, through("cert-manager").map_err(str::to_owned));
    assert_eq!(door.create(Some(&ours.client("other", "")), "").await.unwrap_err(), StatusCode::FORBIDDEN.to_string());
    assert_eq!(door.create(Some(&theirs.client("cert-manager", "")), "").await.unwrap_err(), StatusCode::UNAUTHORIZED.to_string());
    assert_eq!(door.create(None, GOOD_TOKEN).await.unwrap_err(), StatusCode::UNAUTHORIZED.to_string());
}

/// Takes any server: it is not what is tested.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
