//! Every form of credential of Azure DNS against the emulated Microsoft Entra and its kin.

#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::{path::PathBuf, process::Command, sync::Arc, time::Duration};

use acmegate_tests::process;
use emulators::{
    Fault, Nameservers,
    azuredns::{APP_SERVICE_HEADER, AzureDns, CLIENT, IDENTITY, SECRET, SUBSCRIPTION, TENANT},
};
use providers::{Context, Error, Provider, kind, secret::LocalSecrets};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Holds the settings for a process with an environment of its own.
const SETTINGS: &str = "AZUREDNS_TEST_SETTINGS";

struct Site {
    cloud: AzureDns,
    folder: TempDir,
}

impl Site {
    async fn start() -> Self {
        Self { cloud: AzureDns::start(Nameservers::none()).await, folder: tempfile::tempdir().expect("a folder") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn put(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.path(name), text).expect("written");
        self.path(name)
    }

    fn settings(&self, credential: Value) -> Value {
        json!({"subscription": SUBSCRIPTION, "authority": self.cloud.url(), "endpoint": self.cloud.url(), "credential": credential})
    }

    fn provider(&self, credential: Value) -> Arc<dyn Provider> {
        build(self.settings(credential))
    }

    /// The provider with the client secret in the file `secret`.
    fn secret(&self) -> Arc<dyn Provider> {
        self.provider(json!({"client_secret": {"tenant": TENANT, "client_id": CLIENT, "secret": {"file": self.path("secret")}}}))
    }

    /// The provider with the PEM in the file `pem`.
    fn certificate(&self, send_chain: bool) -> Arc<dyn Provider> {
        self.provider(json!({"client_certificate": {
            "tenant": TENANT, "client_id": CLIENT, "certificate": {"file": self.path("pem")}, "send_chain": send_chain,
        }}))
    }

    /// What `verify` says in a process with this environment and no other of Azure.
    async fn said(&self, mut settings: Value, environment: &[(&str, &str)]) -> String {
        // Given by the environment, or not at all.
        settings.as_object_mut().expect("a map").remove("authority");
        let mut command = Command::new(std::env::current_exe().expect("a path"));
        command.args(["--exact", "in_an_environment_of_its_own", "--nocapture"]);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AZURE_") || name.starts_with("IDENTITY_")) {
            command.env_remove(name);
        }
        command.env(SETTINGS, settings.to_string()).env("AZURE_AUTHORITY_HOST", self.cloud.url()).envs(environment.iter().copied());
        let output = process::run("the test in an environment", command, Duration::from_secs(60)).await;
        assert_eq!(output.code, Some(0), "{}{}", output.stdout, output.stderr);
        let said = output.stdout.lines().find_map(|line| line.split_once("verify: ")).map(|(_, said)| said.to_owned());
        said.unwrap_or_else(|| panic!("it said nothing: {}{}", output.stdout, output.stderr))
    }
}

fn build(settings: Value) -> Arc<dyn Provider> {
    let context = Context { backend: "test".into(), ttl: 60, mark: String::new(), secrets: Arc::new(LocalSecrets) };
    (kind("azuredns").expect("it is in the table").build)(settings, &context).expect("good settings")
}

/// A refusal; none may hold a secret.
async fn refused(provider: &dyn Provider) -> String {
    let error = provider.verify().await.expect_err("it has to be refused");
    let text = format!("{error:?} {error} {provider:?}");
    assert!(!text.contains(SECRET) && !text.contains("s3cret") && !text.contains("token-") && !text.contains("BEGIN"), "{text}");
    match error {
        Error::Auth(text) => text,
        other => panic!("it is no refusal: {other:?}"),
    }
}

/// What other tests here run in a process of their own; alone it has nothing to do.
#[tokio::test]
async fn in_an_environment_of_its_own() {
    let Ok(settings) = std::env::var(SETTINGS) else { return };
    let provider = build(serde_json::from_str(&settings).expect("JSON"));
    let said = match provider.verify().await {
        Ok(said) => said,
        Err(error) => format!("{error:?}"),
    };
    // Not through the test harness, which would take it for itself.
    std::io::Write::write_all(&mut std::io::stdout(), format!("\nverify: {said}\n").as_bytes()).expect("written");
}

#[tokio::test]
async fn a_client_secret_is_read_again_when_another_token_is_needed() {
    let site = Site::start().await;
    site.put("secret", &format!("{SECRET}\n"));
    let provider = site.secret();
    for _ in 0..5 {
        provider.verify().await.expect("a good secret");
    }
    assert_eq!(site.cloud.token_calls(), 1, "a token is used until shortly before it ends");
    site.cloud.expire_tokens();
    provider.verify().await.expect("a refused token is asked for anew");
    assert_eq!((site.cloud.token_calls(), site.cloud.faults().calls().0), (2, 7));

    site.cloud.set_secret(Some("another~s3cret"));
    let first = refused(&*provider).await;
    assert!(first.starts_with("HTTP 401: Microsoft Entra: invalid_client: AADSTS7000215: Invalid client secret provided"), "{first}");
    assert_eq!(refused(&*provider).await, first, "the same words each time");
    site.put("secret", "another~s3cret");
    provider.verify().await.expect("the new secret is used at once");

    site.cloud.set_secret(None);
    std::fs::remove_file(site.path("secret")).expect("removed");
    assert!(refused(&*provider).await.contains("secret cannot be read"));
    site.put("secret", "two\nlines");
    assert!(refused(&*provider).await.contains("line ends"));
}

#[tokio::test]
async fn many_callers_share_one_token() {
    let site = Site::start().await;
    site.put("secret", SECRET);
    let provider = site.secret();
    let all = futures_util::future::join_all((0..20).map(|_| provider.verify())).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    assert_eq!(site.cloud.token_calls(), 1);
}

#[tokio::test]
async fn who_is_unknown_is_told_so() {
    let site = Site::start().await;
    let secret = site.put("secret", SECRET);
    let of = |tenant: &str, client: &str| {
        site.provider(json!({"client_secret": {"tenant": tenant, "client_id": client, "secret": {"file": secret}}}))
    };
    assert!(refused(&*of("contoso.example", CLIENT)).await.contains("AADSTS90002: Tenant 'contoso.example' not found"));
    assert!(refused(&*of(TENANT, "nobody")).await.contains("AADSTS700016: Application with identifier 'nobody' was not found"));
    let mut elsewhere = site.settings(json!({"client_secret": {"tenant": TENANT, "client_id": CLIENT, "secret": {"file": secret}}}));
    elsewhere["audience"] = json!("https://vault.azure.net");
    let text = refused(&*build(elsewhere)).await;
    assert_eq!(text, "InvalidAuthenticationToken: The access token is invalid", "a token for something else");
}

#[tokio::test]
async fn troubles_of_the_authority_leave_nothing_in_doubt() {
    let site = Site::start().await;
    site.put("secret", SECRET);
    for fault in [Fault::ErrorBefore, Fault::LostReply, Fault::LostRequest] {
        let provider = site.secret();
        site.cloud.token_faults().on_reads([fault]);
        let error = provider.verify().await.expect_err("no token");
        assert!(matches!(&error, Error::Unsent(text) if text.contains("Microsoft Entra")), "{fault:?}: {error:?}");
        provider.verify().await.expect("the next time there is one");
    }
    site.cloud.token_faults().on_reads([Fault::Throttle(Duration::from_secs(60))]);
    let provider = site.secret();
    for _ in 0..2 {
        let error = provider.verify().await.expect_err("no token");
        assert!(matches!(&error, Error::RateLimited { retry_after: Some(_), .. }), "{error:?}");
    }
    assert_eq!(site.cloud.token_calls(), 3, "for so long nobody is asked");
    assert_eq!(site.cloud.faults().calls(), (3, 0), "without a token nothing is sent");
}

#[tokio::test]
async fn a_certificate_signs_with_its_key() {
    let site = Site::start().await;
    let pem = site.cloud.issue_certificate();
    site.put("pem", &pem);
    for send_chain in [false, true] {
        let text = site.certificate(send_chain).verify().await.expect("a good certificate");
        assert!(text.starts_with(&format!("the application {CLIENT} (certificate) may list")), "{text}");
    }
    // In whatever order, and with an authority's certificate in front.
    let (certificate, key) = pem.split_at(pem.find("-----BEGIN PRIVATE").expect("a key"));
    site.put("pem", &format!("{key}{}{certificate}", site.cloud.ca()));
    let provider = site.certificate(true);
    provider.verify().await.expect("a good certificate");
    site.cloud.forget_certificates();
    assert!(refused(&*provider).await.contains("AADSTS700027: The certificate with identifier used to sign"));
    site.put("pem", &site.cloud.issue_certificate());
    provider.verify().await.expect("the renewed certificate is used at once");
}

#[tokio::test]
async fn unusable_certificates_are_explained() {
    let site = Site::start().await;
    let (pem, other) = (site.cloud.issue_certificate(), site.cloud.issue_certificate());
    let cut = |pem: &str| {
        let (certificate, key) = pem.split_at(pem.find("-----BEGIN PRIVATE").expect("a key"));
        (certificate.to_owned(), key.to_owned())
    };
    let ((certificate, key), (_, other_key)) = (cut(&pem), cut(&other));
    for (text, said) in [
        (String::new(), "holds no private key that can be read"),
        (certificate.clone(), "holds no private key that can be read"),
        (key.replace("PRIVATE", "ENCRYPTED PRIVATE"), "has to be decrypted first"),
        (key, "holds no certificate of its private key"),
        (format!("{certificate}{other_key}"), "holds no certificate of its private key"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".to_owned(), "is not RSA, or broken"),
        ("-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n".to_owned(), "is not RSA: Entra takes no other"),
    ] {
        site.put("pem", &text);
        let text = refused(&*site.certificate(false)).await;
        assert!(text.starts_with("client_certificate: ") && text.contains(said), "{text}");
    }
    assert_eq!(site.cloud.token_calls(), 0);
}

#[tokio::test]
async fn a_workload_identity_is_read_again_as_it_rotates() {
    let site = Site::start().await;
    let token = site.put("token", "header.claims.s3cret-one\n");
    site.cloud.trust_assertion("header.claims.s3cret-one");
    let provider = site.provider(json!({"workload_identity": {"tenant": TENANT, "client_id": CLIENT, "token_file": token}}));
    let text = provider.verify().await.expect("a trusted token");
    assert!(text.starts_with(&format!("the application {CLIENT} (workload identity) may list")), "{text}");
    site.put("token", "header.claims.s3cret-two");
    provider.verify().await.expect("Entra's own token is still good");
    site.cloud.expire_tokens();
    assert!(refused(&*provider).await.contains("AADSTS700027"), "the kubelet's new token is not trusted yet");
    site.cloud.trust_assertion("header.claims.s3cret-two");
    provider.verify().await.expect("the new token is read");
    site.cloud.expire_tokens();
    std::fs::remove_file(&token).expect("removed");
    assert!(refused(&*provider).await.contains("token cannot be read"));
    assert!(
        refused(&*site.provider(json!({"workload_identity": {"tenant": TENANT, "client_id": CLIENT}})))
            .await
            .contains("workload identity: token_file is not set, and neither is the environment variable AZURE_FEDERATED_TOKEN_FILE")
    );
}

#[tokio::test]
async fn managed_identities_of_a_virtual_machine() {
    let site = Site::start().await;
    let of = |id: Option<&str>| site.provider(json!({"managed_identity": {"client_id": id, "endpoint": site.cloud.url()}}));
    let text = of(None).verify().await.expect("the machine's own");
    assert!(text.starts_with("the managed identity of this machine may list"), "{text}");
    let assigned = of(Some(IDENTITY));
    let text = assigned.verify().await.expect("the user-assigned one");
    assert!(text.starts_with(&format!("the managed identity {IDENTITY} may list")), "{text}");
    site.cloud.expire_tokens();
    assigned.verify().await.expect("asked for anew");
    assert_eq!(site.cloud.token_calls(), 3);
    assert_eq!(refused(&*of(Some("nobody"))).await, "HTTP 400: the metadata service: invalid_request: Identity not found");
    site.cloud.token_faults().on_reads([Fault::ErrorBefore]);
    let error = of(None).verify().await.expect_err("it is being updated");
    assert!(matches!(&error, Error::Unsent(text) if text.contains("the metadata service")), "{error:?}");
    let nowhere = site.provider(json!({"managed_identity": {"endpoint": "http://127.0.0.1:1"}}));
    let error = nowhere.verify().await.expect_err("this is no machine of Azure");
    assert!(matches!(&error, Error::Unsent(text) if text.starts_with("the metadata service: no connection")), "{error:?}");
}

/// Which credential the environment holds is seen by a process that has it.
#[tokio::test]
async fn the_environment_holds_a_credential() {
    let site = Site::start().await;
    let list = format!("may list the zones of the subscription {SUBSCRIPTION}");
    let good = format!("the credential of the environment {list}");
    let mut settings = site.settings(json!("environment"));
    let pem = site.put("pem", &site.cloud.issue_certificate()).display().to_string();
    let token = site.put("token", "header.claims.s3cret").display().to_string();
    site.cloud.trust_assertion("header.claims.s3cret");
    let principal = [("AZURE_TENANT_ID", TENANT), ("AZURE_CLIENT_ID", CLIENT)];
    for (name, value) in [("AZURE_CLIENT_SECRET", SECRET), ("AZURE_CLIENT_CERTIFICATE_PATH", &pem), ("AZURE_FEDERATED_TOKEN_FILE", &token)]
    {
        assert_eq!(site.said(settings.clone(), &[principal[0], principal[1], (name, value)]).await, good, "{name}");
    }
    let said = site.said(settings.clone(), &[principal[0], principal[1], ("AZURE_CLIENT_SECRET", "wr0ng")]).await;
    assert!(said.starts_with("Auth(\"HTTP 401: Microsoft Entra: invalid_client: AADSTS7000215") && !said.contains("wr0ng"), "{said}");
    // In a pod with the webhook's label, nothing has to be configured for the workload identity.
    settings["credential"] = json!({"workload_identity": {}});
    let said = site.said(settings.clone(), &[principal[0], principal[1], ("AZURE_FEDERATED_TOKEN_FILE", &token)]).await;
    assert_eq!(said, format!("the workload identity of the environment {list}"));
    // In App Service the environment says where tokens are.
    settings["credential"] = json!({"managed_identity": {"client_id": IDENTITY}});
    let endpoint = site.cloud.app_service();
    let service = |header| [("IDENTITY_ENDPOINT", endpoint.as_str()), ("IDENTITY_HEADER", header)];
    assert_eq!(site.said(settings.clone(), &service(APP_SERVICE_HEADER)).await, format!("the managed identity {IDENTITY} {list}"));
    let said = site.said(settings.clone(), &service("wr0ng")).await;
    assert_eq!(said, "Auth(\"HTTP 403: the identity service of App Service: no token: The header is not that of the environment\")");
    let said = site.said(settings, &[("IDENTITY_ENDPOINT", "http://msi.example.com/token"), ("IDENTITY_HEADER", "h")]).await;
    assert!(said.starts_with("Auth(") && said.contains("leads away from this machine without HTTPS"), "{said}");
}
