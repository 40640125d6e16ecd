//! Every way to a credential of AWS, judged by a ministack that checks signatures, trust policies and permissions.
#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

#[allow(dead_code, reason = "each test file uses a part of it")]
#[path = "route53/common.rs"]
mod common;

use std::{path::Path, process::Command, time::Duration};

use acmegate_tests::{ministack::Ministack, process, python, temporary_folder, write};
use axum::{
    Json, Router,
    http::{HeaderMap, StatusCode, Uri},
    routing::{get, put},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use common::{build, change, owner};
use providers::{Context, Error, Zone, secret::LocalSecrets};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What the child of a test builds its provider from.
const SETTINGS: &str = "ACMEGATE_TEST_ROUTE53";

/// An account with a user, roles and a zone.
struct Account {
    ministack: Ministack,
    folder: TempDir,
    key: String,
    secret: String,
    zone: String,
}

impl Account {
    async fn new() -> Self {
        let ministack = Ministack::start_strict().await;
        let mut command = python::clouds(
            r#"
import boto3, json, sys
make = lambda service: boto3.client(service, endpoint_url=sys.argv[1], region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test")
iam, route53 = make("iam"), make("route53")
policy = lambda *actions: json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": list(actions), "Resource": "*"}]})
def trust(action, principal, condition):
    statement = {"Effect": "Allow", "Action": action, "Principal": principal, "Condition": {"StringEquals": condition}}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})
iam.create_user(UserName="acme")
iam.put_user_policy(UserName="acme", PolicyName="p", PolicyDocument=policy("route53:*", "sts:AssumeRole"))
user = {"AWS": "arn:aws:iam::000000000000:user/acme"}
outside = trust("sts:AssumeRole", user, {"sts:ExternalId": "outside-1"})
for name, actions in {"dns": ["route53:*"], "narrow": ["route53:ListResourceRecordSets", "route53:ChangeResourceRecordSets"]}.items():
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=outside)
    iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=policy(*actions))
issuer = {"Federated": "arn:aws:iam::000000000000:oidc-provider/issuer.test"}
web = trust("sts:AssumeRoleWithWebIdentity", issuer, {"issuer.test:sub": "acmegate"})
iam.create_role(RoleName="web", AssumeRolePolicyDocument=web)
iam.put_role_policy(RoleName="web", PolicyName="p", PolicyDocument=policy("route53:*"))
key = iam.create_access_key(UserName="acme")["AccessKey"]
zone = route53.create_hosted_zone(Name="example.com", CallerReference="1")["HostedZone"]["Id"].rsplit("/")[-1]
print(json.dumps([key["AccessKeyId"], key["SecretAccessKey"], zone]))
"#,
        );
        command.arg(ministack.url());
        let output = process::run("boto3", command, Duration::from_secs(60)).await;
        assert_eq!(output.code, Some(0), "{}", output.stderr);
        let (key, secret, zone): (String, String, String) = serde_json::from_str(output.stdout.trim()).expect("JSON");
        let folder = temporary_folder("credentials");
        let account = Self { ministack, folder, key, secret, zone };
        account.put("id", &account.key);
        account.put("key", &account.secret);
        account
    }

    fn put(&self, file: &str, text: &str) {
        write(&self.folder.path().join(file), text);
    }

    fn path(&self, file: &str) -> String {
        self.folder.path().join(file).display().to_string()
    }

    /// Settings with the endpoints and more.
    fn settings(&self, more: &Value) -> Value {
        let mut settings = json!({"endpoint": self.ministack.url(), "sts_endpoint": self.ministack.url(), "region": "us-east-1"});
        if let (Some(settings), Some(more)) = (settings.as_object_mut(), more.as_object()) {
            settings.extend(more.clone());
        }
        settings
    }

    /// The settings with the user's key in files.
    fn keys(&self, more: &Value) -> Value {
        let mut settings =
            self.settings(&json!({"access_key_id": {"file": self.path("id")}, "secret_access_key": {"file": self.path("key")}}));
        if let (Some(settings), Some(more)) = (settings.as_object_mut(), more.as_object()) {
            settings.extend(more.clone());
        }
        settings
    }

    fn zone(&self) -> Zone {
        Zone { id: self.zone.clone(), name: "example.com".parse().expect("a name"), nameservers: Default::default() }
    }

    /// A web identity's token: the judge reads its claims and not its signature.
    fn put_token(&self, subject: &str) {
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let claims = json!({"iss": "https://issuer.test", "sub": subject, "aud": "sts.amazonaws.com"});
        self.put("token", &format!("{}.{}.c2ln", part(json!({"alg": "none"})), part(claims)));
    }

    /// What `verify` says in a process with this environment and no other of AWS.
    async fn said(&self, settings: &Value, environment: &[(&str, &str)]) -> String {
        let mut command = Command::new(std::env::current_exe().expect("a path"));
        command.args(["--exact", "in_an_environment_of_its_own", "--nocapture"]);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
            command.env_remove(name);
        }
        let nowhere = self.path("nowhere");
        command.env("AWS_CONFIG_FILE", &nowhere).env("AWS_SHARED_CREDENTIALS_FILE", &nowhere).env("AWS_EC2_METADATA_DISABLED", "true");
        command.env(SETTINGS, settings.to_string()).envs(environment.iter().copied());
        let output = process::run("the test in an environment", command, Duration::from_secs(60)).await;
        assert_eq!(output.code, Some(0), "{}{}", output.stdout, output.stderr);
        let said = output.stdout.lines().find_map(|line| line.split_once("verify: ")).map(|(_, said)| said.to_owned());
        said.unwrap_or_else(|| panic!("it said nothing: {}{}", output.stdout, output.stderr))
    }
}

/// What other tests here run in a process of their own; alone it has nothing to do.
#[tokio::test]
async fn in_an_environment_of_its_own() {
    let Ok(settings) = std::env::var(SETTINGS) else { return };
    let provider = build(&serde_json::from_str(&settings).expect("JSON"));
    let said = match provider.verify().await {
        Ok(said) => said,
        Err(error) => format!("{error:?}"),
    };
    // Not through the test harness, which would take it for itself.
    std::io::Write::write_all(&mut std::io::stdout(), format!("\nverify: {said}\n").as_bytes()).expect("written");
}

#[tokio::test]
async fn a_fixed_key_is_read_anew_and_never_told() {
    let account = Account::new().await;
    let provider = build(&account.keys(&json!({})));
    let said = provider.verify().await.expect("a good key");
    assert_eq!(said, "AWS account 000000000000 (arn:aws:iam::000000000000:user/acme) may list hosted zones");

    account.put("key", "wrong-secret-of-the-key");
    let error = provider.verify().await.expect_err("a wrong key");
    assert!(matches!(&error, Error::Auth(text) if text.contains("SignatureDoesNotMatch")), "{error:?}");
    account.put("id", "AKIAWRONGWRONGWRONG1");
    let unknown = provider.verify().await.expect_err("an unknown key");
    assert!(matches!(unknown, Error::Auth(_)), "{unknown:?}");
    std::fs::remove_file(account.path("key")).expect("removed");
    let missing = provider.verify().await.expect_err("no key");
    assert!(matches!(&missing, Error::Auth(text) if text.contains("cannot be read")), "{missing:?}");
    for text in [format!("{error:?} {unknown:?} {missing:?}"), format!("{provider:?}")] {
        assert!(!text.contains("wrong-secret") && !text.contains(&account.secret), "{text}");
    }

    account.put("id", &account.key);
    account.put("key", &format!("{}\n", account.secret));
    provider.verify().await.expect("the rotated key is used at once");
}

#[tokio::test]
async fn a_role_is_taken_with_its_external_id() {
    let account = Account::new().await;
    let role =
        |name: &str, id: &str| json!({"assume_role": {"role_arn": format!("arn:aws:iam::000000000000:role/{name}"), "external_id": id}});
    let provider = build(&account.keys(&role("dns", "outside-1")));
    let said = provider.verify().await.expect("a role");
    assert_eq!(said, "AWS account 000000000000 (arn:aws:sts::000000000000:assumed-role/dns/acmegate) may list hosted zones");

    let refused = build(&account.keys(&role("dns", "outside-2")));
    let error = refused.verify().await.expect_err("another external id");
    assert!(matches!(&error, Error::Auth(text) if text.contains("role/dns") && text.contains("AccessDenied")), "{error:?}");
    assert_eq!(refused.verify().await.expect_err("still"), error, "the same text each time");

    let mut away = account.keys(&role("dns", "outside-1"));
    away["sts_endpoint"] = json!("http://127.0.0.1:1");
    let error = build(&away).read(&account.zone(), &[owner("www").parse().expect("a name")]).await.remove(0).expect_err("no token service");
    assert!(matches!(&error, Error::Unsent(text) if text.contains("role/dns")), "{error:?}");
}

#[tokio::test]
async fn a_minimal_policy_is_enough_for_a_pinned_zone() {
    let account = Account::new().await;
    let role =
        json!({"assume_role": {"role_arn": "arn:aws:iam::000000000000:role/narrow", "external_id": "outside-1", "session_name": "gate-7"}});
    let provider = build(&account.keys(&role));
    let said = provider.verify().await.expect("a credential");
    assert!(said.contains("assumed-role/narrow/gate-7") && said.contains("may not list hosted zones"), "{said}");
    let listing = provider.zones(None).await.expect("a listing");
    assert!(!listing.complete && listing.zones.is_empty());
    let error = provider.zones(Some(&account.zone().name)).await.expect_err("not allowed");
    assert!(matches!(&error, Error::Auth(text) if text.contains("route53:ListHostedZonesByName")), "{error:?}");
    provider.apply(&account.zone(), &[change(&owner("www"), &["ours"], &[])]).await.remove(0).expect("made");
    let read = provider.read(&account.zone(), &[owner("www").parse().expect("a name")]).await.remove(0).expect("read");
    assert_eq!(read.values, ["ours".to_owned()].into());
}

#[tokio::test]
async fn a_web_identity_takes_a_role() {
    let account = Account::new().await;
    let role = "arn:aws:iam::000000000000:role/web";
    account.put_token("somebody");
    let provider = build(&account.settings(&json!({"web_identity": {"token_file": account.path("token"), "role_arn": role}})));
    let error = provider.verify().await.expect_err("another subject");
    assert!(matches!(&error, Error::Auth(text) if text.contains("role/web")), "{error:?}");
    account.put_token("acmegate");
    let said = provider.verify().await.expect("the new token is read");
    assert!(said.contains("assumed-role/web/acmegate"), "{said}");

    // As on EKS, by the environment alone.
    let mut settings = account.settings(&json!({}));
    settings["sts_endpoint"] = json!(null);
    let (token, sts) = (account.path("token"), account.ministack.url());
    let environment = [("AWS_WEB_IDENTITY_TOKEN_FILE", token.as_str()), ("AWS_ROLE_ARN", role), ("AWS_ENDPOINT_URL_STS", sts.as_str())];
    let said = account.said(&settings, &environment).await;
    assert!(said.contains("assumed-role/web/web-identity-token)") && said.contains("may list"), "{said}");
    account.put_token("somebody");
    let said = account.said(&settings, &environment).await;
    assert!(said.starts_with("Auth(") && said.contains("AccessDenied"), "{said}");
}

#[tokio::test]
async fn the_environment_and_profiles_give_a_credential() {
    let account = Account::new().await;
    let settings = account.settings(&json!({}));
    let said = account.said(&settings, &[("AWS_ACCESS_KEY_ID", &account.key), ("AWS_SECRET_ACCESS_KEY", &account.secret)]).await;
    assert!(said.contains("user/acme"), "{said}");

    account.put("credentials", &format!("[dns]\naws_access_key_id = {}\naws_secret_access_key = {}\n", account.key, account.secret));
    let role = "role_arn = arn:aws:iam::000000000000:role/dns\nsource_profile = dns\nexternal_id = outside-1\nrole_session_name = shared";
    account.put("config", &format!("[profile other]\n{role}\n"));
    let (credentials, config, sts) = (account.path("credentials"), account.path("config"), account.ministack.url());
    let files = [
        ("AWS_SHARED_CREDENTIALS_FILE", credentials.as_str()),
        ("AWS_CONFIG_FILE", config.as_str()),
        ("AWS_ENDPOINT_URL_STS", sts.as_str()),
    ];
    let mut both = files.to_vec();
    both.extend([("AWS_ACCESS_KEY_ID", "AKIAWRONGWRONGWRONG1"), ("AWS_SECRET_ACCESS_KEY", "wrong")]);
    let said = account.said(&account.settings(&json!({"profile": "dns"})), &both).await;
    assert!(said.contains("user/acme"), "the profile that is asked for goes before the environment: {said}");
    let said = account.said(&account.settings(&json!({"profile": "other"})), &files).await;
    assert!(said.contains("assumed-role/dns/shared"), "{said}");
    let said = account.said(&account.settings(&json!({"profile": "missing"})), &files).await;
    assert!(said.starts_with("Auth(") && said.contains("missing"), "{said}");

    let said = account.said(&settings, &[]).await;
    assert!(said.starts_with("Auth(\"there is no AWS credential"), "{said}");
}

#[tokio::test]
async fn containers_and_instances_give_a_credential() {
    let account = Account::new().await;
    let settings = account.settings(&json!({}));
    let given = json!({
        "Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": account.key, "SecretAccessKey": account.secret, "Token": "",
        "LastUpdated": "2020-01-01T00:00:00Z", "Expiration": "2099-01-01T00:00:00Z",
    });
    let container = given.clone();
    let credentials = move |headers: HeaderMap| async move {
        match headers.get("authorization") {
            Some(token) if token == "pod-token" => Ok(Json(container)),
            _ => Err(StatusCode::FORBIDDEN),
        }
    };
    let instance = move |headers: HeaderMap, uri: Uri| async move {
        if headers.get("x-aws-ec2-metadata-token").is_none_or(|token| token != "session") {
            return Err(StatusCode::UNAUTHORIZED);
        }
        let role = uri.path().rsplit('/').next() == Some("acme");
        Ok(if role { given.to_string() } else { "acme".to_owned() })
    };
    let token = || async { ([("x-aws-ec2-metadata-token-ttl-seconds", "21600")], "session") };
    let app = Router::new()
        .route("/v1/credentials", get(credentials))
        .route("/latest/api/token", put(token))
        .route("/latest/meta-data/{*path}", get(instance));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    let server = tokio::spawn(async move { axum::serve(listener, app).await });

    account.put("pod", "pod-token");
    let (pod, uri) = (account.path("pod"), format!("{base}/v1/credentials"));
    let environment = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri.as_str()), ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", pod.as_str())];
    let said = account.said(&settings, &environment).await;
    assert!(said.contains("user/acme"), "{said}");
    account.put("pod", "another-token");
    let said = account.said(&settings, &environment).await;
    assert!(!said.contains("user/acme") && !said.contains("another-token"), "{said}");

    let environment = [("AWS_EC2_METADATA_DISABLED", "false"), ("AWS_EC2_METADATA_SERVICE_ENDPOINT", base.as_str())];
    let said = account.said(&settings, &environment).await;
    assert!(said.contains("user/acme"), "{said}");
    server.abort();
}

#[tokio::test]
async fn https_is_trusted_by_the_file_that_is_given() {
    let ministack = Ministack::start_https().await;
    let folder = temporary_folder("https");
    let file = |name: &str, text: &str| {
        write(&folder.path().join(name), text);
        json!({"file": folder.path().join(name)})
    };
    let (id, key) = (file("id", "test"), file("key", "test"));
    let settings = |ca_file: Option<&Path>| json!({"access_key_id": id, "secret_access_key": key, "endpoint": ministack.url(), "sts_endpoint": ministack.url(), "ca_file": ca_file});
    let said = build(&settings(Some(&ministack.ca_file()))).verify().await.expect("a trusted server");
    assert!(said.contains("may list"), "{said}");
    let error = build(&settings(None)).verify().await.expect_err("the system does not know it");
    assert!(matches!(&error, Error::Unsent(text) if text.contains("certificate")), "{error:?}");
}

#[test]
fn settings_that_cannot_be_meant_are_refused() {
    let folder = temporary_folder("settings");
    let (empty, text) = (folder.path().join("empty.pem"), folder.path().join("text.pem"));
    write(&empty, "");
    write(&text, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let (id, key) = (json!({"env": "A"}), json!({"env": "B"}));
    let role = json!({"role_arn": "arn:aws:iam::1:role/x", "token_file": "t"});
    let context = Context { backend: "aws".into(), ttl: 60, mark: "acmegate".to_owned(), secrets: std::sync::Arc::new(LocalSecrets) };
    let kind = providers::kind("route53").expect("it is in the table");
    for (settings, said) in [
        (json!({"access_key_id": id}), "belong together"),
        (json!({"session_token": id}), "belongs to an access key"),
        (json!({"access_key_id": id, "secret_access_key": key, "profile": "p"}), "give one of them"),
        (json!({"profile": "p", "web_identity": role}), "give one of them"),
        (json!({"endpoint": "http://route53.example.com"}), "endpoint: "),
        (json!({"sts_endpoint": "http://sts.example.com"}), "sts_endpoint: "),
        (json!({"ca_file": folder.path().join("missing.pem")}), "cannot be read"),
        (json!({"ca_file": empty}), "holds no certificate"),
        (json!({"ca_file": text}), "is not PEM with certificates"),
        (json!({"secret": "x"}), "unknown field"),
    ] {
        let refused = (kind.build)(settings.clone(), &context).err();
        assert!(refused.as_ref().is_some_and(|text| text.contains(said)), "{settings}: {refused:?}");
    }
    assert!((kind.build)(json!({}), &context).is_ok(), "the SDK's own chain needs no setting");
}
