//! Things that go wrong around acmegate while cert-manager works: in the end each certificate is ready, and no value, no Challenge and no namespace is left.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    os::unix::fs::symlink,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use acmegate_tests::{
    acmegate::{Acmegate, Config},
    addresses::Address,
    certificates,
    certmanager::{CertManager, Certificates, Issuer, Solver},
    dns,
    gate::Gate,
    http::{Connection, request},
    kubernetes::{Authority, Cluster},
    relay::Relay,
    temporary_folder,
    wait::{LIMIT, bounded, until},
    webhook::{EVERYTHING, SERVICE, Webhook},
    world::{CUSTOMER, World, ZONE},
};
use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::lab::{self, DOMAIN_SOLVER, EVENTS, GROUP, SOLVER, payload};

/// In each round cert-manager has a value presented, which was acknowledged, and has told the authority that it may look; the authority's look-up waits at
/// a gate. Then acmegate is killed and started again, and the look-up goes on: it has to find the value, though the process that acknowledged it is no
/// more. A value that only the process knew would fail the certificate for an hour. The CleanUp comes to the new process, which knows the value from the
/// ledger alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_present_and_the_look_up() {
    let rounds: u64 = std::env::var("ACMEGATE_WEBHOOK_KILL_ROUNDS")
        .map_or(50, |rounds| rounds.parse().expect("ACMEGATE_WEBHOOK_KILL_ROUNDS is a number"));
    let gate = Gate::start().await;
    let mut site = Site::start(Cluster::start().await, Some(&gate), |config| config).await;
    let issuer = Issuer::create_cluster_wide(&site.cluster, "killed", &site.world.ca, &site.solver().at_once()).await;
    let begun = Instant::now();
    for round in 0..rounds {
        let (label, name) = (format!("round-{round}"), format!("round-{round}.{ZONE}"));
        let certificates = Certificates::of(&site.cluster, "killed").await;
        gate.shut();
        certificates.create(&label, &issuer, &[&name]).await;
        gate.has_visitor().await;
        site.world.acmegate.kill();
        site.world.acmegate.start().await;
        gate.open(site.world.resolver.dns());
        certificates.ready(&[&label]).await;
        site.nothing_is_left(&certificates, &[&name]).await;
    }
    eprintln!("{rounds} rounds, {} s", begun.elapsed().as_secs());
}

/// The DNS server that takes the updates is down. What is wrong is told in the Challenge, in the same words each time, and in an Event; when the server is
/// back, cert-manager's next attempt succeeds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_backend_is_down_for_a_while() {
    let address = Address::reserve();
    let server = address.dns();
    let backend = format!("- {{ name: corp, provider: rfc2136, zones: [{CUSTOMER}], settings: {{ server: \"{server}\" }} }}");
    let site = Site::start(Cluster::start().await, None, move |config| config.section("backends", &backend)).await;
    let issuer = Issuer::create_cluster_wide(&site.cluster, "down", &site.world.ca, &site.solver()).await;
    let certificates = Certificates::of(&site.cluster, "down").await;
    let name = format!("down.{CUSTOMER}");
    certificates.create("down", &issuer, &[&name]).await;

    let failed =
        |challenge: &Value| challenge["status"]["reason"].as_str().filter(|reason| reason.contains(&server.to_string())).map(str::to_owned);
    let reason = certificates.challenge("a challenge that says what is down", failed).await;
    let tries = || async {
        let log = site.world.acmegate.process().stderr();
        let failures: Vec<_> = audited(&log, "present").filter(|line| line["outcome"] == "failed").collect();
        let told: BTreeSet<_> = failures.iter().map(|line| line["reason"].as_str().unwrap_or_default().to_owned()).collect();
        assert!(told.len() <= 1, "a text that changes makes cert-manager try without a pause: {told:?}");
        if failures.len() > 1 { Ok(told) } else { Err(format!("{failures:?}")) }
    };
    for said in until("cert-manager to try again", tries).await {
        assert!(reason.ends_with(&said), "{reason:?} does not end with {said:?}");
        let is_told = |_: &str, event: &Value| (event["note"] == format!("{name}: {said}")).then(|| event["reason"].clone());
        let event = site.cluster.api().watch("/apis/events.k8s.io/v1/namespaces/cert-manager/events", LIMIT, is_told).await;
        assert_eq!(event, Some("ChallengeFailed".into()), "for a ClusterIssuer it is cert-manager's namespace that is told");
    }

    let _up = Relay::start(server, site.world.bind.dns());
    certificates.ready(&["down"]).await;
    certificates.without_challenges().await;
    assert_eq!(dns::txt(site.world.bind.dns(), &format!("_acme-challenge.{name}")).await, BTreeSet::new());
}

/// acmegate is away, and people delete namespaces in which values of theirs stand. Neither can go as long as nobody takes the values away; when acmegate is
/// back, both do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespaces_are_deleted_while_acmegate_is_away() {
    let mut site = Site::start(Cluster::start_with_controllers().await, None, |config| config).await;
    let issuer = Issuer::create_cluster_wide(&site.cluster, "stuck", &site.world.ca, &site.solver().stuck()).await;
    let (namespaces, mut doomed) = (["doomed-a", "doomed-b"], Vec::new());
    let owner = |namespace: &str| format!("_acme-challenge.{namespace}.{ZONE}");
    for namespace in namespaces {
        let certificates = Certificates::of(&site.cluster, namespace).await;
        certificates.create("doomed", &issuer, &[&format!("{namespace}.{ZONE}")]).await;
        let presented = |challenge: &Value| (challenge["status"]["presented"] == true).then_some(());
        certificates.challenge("a challenge to be presented", presented).await;
        assert_eq!(dns::txt(site.world.acmegate.dns(), &owner(namespace)).await.len(), 1, "{namespace}");
        doomed.push(certificates);
    }
    site.world.acmegate.kill();
    for certificates in &doomed {
        certificates.begin_deletion().await;
    }
    for certificates in &doomed {
        let in_vain = |challenge: &Value| {
            let said = challenge["status"]["reason"].as_str().is_some_and(|reason| reason.starts_with("Error cleaning up challenge"));
            (said && challenge["metadata"]["deletionTimestamp"].is_string()).then_some(())
        };
        certificates.challenge("a CleanUp in vain", in_vain).await;
    }
    site.world.acmegate.start().await;
    for certificates in doomed {
        certificates.gone().await;
    }
    for namespace in namespaces {
        assert_eq!(dns::txt(site.world.acmegate.dns(), &owner(namespace)).await, BTreeSet::new(), "{namespace}");
    }
}

/// Another authority signs acmegate's certificate from now on. The roots of both are in the APIService, then the files change as a kubelet changes them,
/// then the old root goes; and while all of this happens no call fails, through the API server or past it, and no connection is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_serving_certificate_changes_under_load() {
    let (cluster, mounted) = (Cluster::start().await, temporary_folder("mounted"));
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    for (authority, version) in [(&old, "1"), (&new, "2")] {
        let folder = mounted.path().join(version);
        fs::create_dir(&folder).expect("a folder");
        authority.server(&[&format!("{}.{}.svc", SERVICE.1, SERVICE.0), "localhost"]).write(&folder, "tls");
    }
    mount(mounted.path(), "1");
    let (address, kubeconfig) = (lab::service(&cluster).await, cluster.delegated("acmegate", "acmegate").await);
    let files = format!("{{ certificate: {:?}, key: {:?} }}", mounted.path().join("data/tls.crt"), mounted.path().join("data/tls.key"));
    let section = format!("listen: \"{address}\"\ntls: {files}\n{EVERYTHING}\ncallers: {{cluster: true}}");
    let config = lab::zone().section("kubernetes", &format!("kubeconfig: {kubeconfig:?}")).section("webhook", &section);
    let acmegate = Acmegate::started(config).await;
    cluster.register(GROUP, SERVICE, address.port(), &format!("{}{}", old.certificate(), new.certificate())).await;
    cluster.apply(DOMAIN_SOLVER).await;
    cluster.service_account("cert-manager", "cert-manager").await;
    let token = cluster.token("cert-manager", "cert-manager").await;
    let (called, enough) = (AtomicU64::new(0), AtomicBool::new(false));
    let go_on = |count: u64| {
        let stop = enough.load(Ordering::Relaxed);
        called.fetch_add(1, Ordering::Relaxed);
        !stop || !count.is_multiple_of(2)
    };

    let through = (0..8).map(async |caller| {
        let api = cluster.api_with(Some(token.clone()));
        let mut count = 0;
        while go_on(count) {
            let action = if count % 2 == 0 { "Present" } else { "CleanUp" };
            let body = payload(action, "cert-manager", &format!("through-{caller}-{}.{ZONE}", count / 2));
            let answer = api.ask(Method::POST, &format!("/apis/{GROUP}/v1alpha1/{SOLVER}"), Some(&body)).await.expect("an answer");
            assert_eq!((answer.status, &answer.body["response"]["success"]), (StatusCode::CREATED, &Value::Bool(true)), "{answer:?}");
            count += 1;
        }
    });
    let past = (0..2).map(async |caller| {
        let mut connection = connect(address, &old).await.expect("a connection under the old authority");
        let (bearer, mut count) = (format!("Authorization: Bearer {token}"), 0);
        while go_on(count) {
            let action = if count % 2 == 0 { "Present" } else { "CleanUp" };
            let body = payload(action, "cert-manager", &format!("past-{caller}-{}.{ZONE}", count / 2)).to_string();
            let path = format!("/apis/{GROUP}/v1alpha1/{SOLVER}");
            let sent = request("POST", &path, &["Content-Type: application/json", &bearer], body.as_bytes());
            let answer = connection.exchange(&sent).await.expect("the connection holds").expect("an answer");
            assert_eq!((answer.status, answer.text().contains("\"success\":true")), (201, true), "{answer:?}");
            count += 1;
        }
    });
    let rotation = async {
        let more = async |count: u64| {
            let end = called.load(Ordering::Relaxed) + count;
            let reached = || async { if called.load(Ordering::Relaxed) < end { Err("too few") } else { Ok(()) } };
            until("more calls", reached).await;
        };
        more(100).await;
        mount(mounted.path(), "2");
        let read = |line: &str| line.contains("the TLS certificate was read again").then_some(());
        acmegate.process().stderr_line("its reading the new certificate", read).await;
        connect(address, &new).await.expect("the new authority's certificate");
        connect(address, &old).await.map(drop).expect_err("the old one's is no longer shown");
        // Whenever the roots are others, the API server connects anew.
        for roots in [format!("{}{}", new.certificate(), old.certificate()), new.certificate().to_owned()] {
            more(100).await;
            cluster.register(GROUP, SERVICE, address.port(), &roots).await;
        }
        more(200).await;
        enough.store(true, Ordering::Relaxed);
    };
    futures_util::join!(join_all(through), join_all(past), rotation);
    eprintln!("{} calls", called.load(Ordering::Relaxed));
}

/// The authority that acmegate made for itself is lost with its data folder. The next start makes another one, and mends the APIService by itself.
#[tokio::test]
async fn an_authority_that_is_lost_is_made_again() {
    let (namespace, name) = SERVICE;
    let cluster = Cluster::start().await;
    let (address, kubeconfig) = (lab::service(&cluster).await, lab::self_made(&cluster).await);
    let section =
        format!("listen: \"{address}\"\nservice: {{name: {name}, namespace: {namespace}}}\ncallers: {{cluster: true}}\n{EVERYTHING}");
    let config = lab::zone().section("kubernetes", &format!("kubeconfig: {kubeconfig:?}")).section("webhook", &section);
    let mut acmegate = Acmegate::started(config).await;
    cluster.register(GROUP, SERVICE, address.port(), Authority::new("somebody").certificate()).await;
    let path = format!("/apis/apiregistration.k8s.io/v1/apiservices/v1alpha1.{GROUP}");
    let bundle = cluster.api().get(&path).await["spec"]["caBundle"].clone();

    acmegate.stop().await.succeeded();
    fs::remove_file(acmegate.data().join("webhook-ca.pem")).expect("the authority's file");
    acmegate.start().await;
    let mended = |_: &str, found: &Value| (found["spec"]["caBundle"] != bundle).then_some(());
    let list = format!("/apis/apiregistration.k8s.io/v1/apiservices?fieldSelector=metadata.name=v1alpha1.{GROUP}");
    cluster.api().watch(&list, LIMIT, mended).await.expect("the new authority's certificate in the APIService");
    cluster.available(GROUP).await;
    let answer =
        cluster.api().create(&format!("/apis/{GROUP}/v1alpha1/{SOLVER}"), &payload("Present", "default", &format!("mended.{ZONE}"))).await;
    assert_eq!(answer["response"]["success"], true, "{answer}");
}

/// acmegate behind a Service of its own, so that it is found again after a restart, with cert-manager's controllers and a small internet.
struct Site {
    _certmanager: CertManager,
    cluster: Cluster,
    world: World,
    _door: Arc<Webhook>,
}

impl Site {
    /// The authority's look-ups go through `gate`, if there is one.
    async fn start(cluster: Cluster, gate: Option<&Gate>, change: impl FnOnce(Config) -> Config + Send + 'static) -> Self {
        cluster.apply(EVENTS).await;
        let (address, kubeconfig) = (lab::service(&cluster).await, cluster.delegated("acmegate", "acmegate").await);
        let door = Arc::new(Webhook::new());
        let (configured, gate) = (Arc::clone(&door), gate.map(Gate::address));
        let world = World::builder()
            .config(move |config| change(lab::configuration(&configured, address, &kubeconfig, config)))
            .ca(move |options| match gate {
                // The last one counts.
                Some(gate) => options.argument("-dnsserver").argument(&gate.to_string()),
                None => options,
            })
            .start()
            .await;
        cluster.register(GROUP, SERVICE, address.port(), door.certificate()).await;
        cluster.apply(DOMAIN_SOLVER).await;
        let _certmanager = CertManager::start(&cluster, world.resolver.dns()).await;
        Self { _certmanager, cluster, world, _door: door }
    }

    fn solver(&self) -> Solver {
        Solver::webhook(GROUP, SOLVER)
    }

    /// Waits until no Challenge is left, so that each had its CleanUp; then no value may be left either.
    async fn nothing_is_left(&self, certificates: &Certificates<'_>, names: &[&str]) {
        certificates.without_challenges().await;
        for name in names {
            assert_eq!(dns::txt(self.world.acmegate.dns(), &format!("_acme-challenge.{name}")).await, BTreeSet::new(), "{name}");
        }
    }
}

/// Has the files `data/tls.crt` and `data/tls.key` be those of a version, both at once, as a kubelet does it: by a symbolic link.
fn mount(folder: &Path, version: &str) {
    let next = folder.join("next");
    symlink(version, &next).and_then(|()| fs::rename(&next, folder.join("data"))).expect("another link");
}

/// A connection to the door itself, which has to show a certificate of this authority.
async fn connect(address: SocketAddr, authority: &Authority) -> std::io::Result<Connection> {
    let root = certificates::certificates(authority.certificate()).remove(0);
    bounded("a TLS handshake", Connection::open_tls(address, &root)).await
}

/// The audit lines of an action.
fn audited<'a>(log: &'a str, action: &'a str) -> impl Iterator<Item = Value> + 'a {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(move |line| line["target"] == "acmegate::audit" && line["action"] == action)
}
