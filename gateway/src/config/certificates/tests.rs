use std::{fs, path::Path};

use crate::config::{Config, example, schema};

use super::*;

/// A file with two directories, the second without a staging directory, and `rest` as the list.
fn file(rest: &str) -> String {
    format!(
        "version: v1\nissuer:\n  directories:\n    - {{name: le, url: \"https://acme-v02.api.letsencrypt.org/directory\", profile: classic}}\n    - {{name: other, url: \"https://other.test/dir\"}}\n    - {{name: third, url: \"https://third.test/dir\", staging: \"https://try.third.test/dir\", preferred_chain: Root}}\ncertificates:\n{rest}"
    )
}

fn parse(rest: &str) -> Result<Config, String> {
    Config::from_yaml(&file(rest), Path::new("acmegate.yaml")).map_err(|error| error.to_string())
}

fn errors(rest: &str) -> String {
    parse(rest).expect_err("an error")
}

fn one(rest: &str) -> Certificate {
    let mut certificates = parse(rest).unwrap_or_else(|error| panic!("{error}")).certificates;
    certificates.pop().expect("a certificate")
}

#[test]
fn the_shortest_entry_has_defaults_and_stays_in_the_data_folder() {
    let certificate = one("  - {name: www, names: [Example.com.]}\n");
    assert_eq!((&*certificate.name, certificate.names.to_strings()), ("www", vec!["example.com".to_owned()]));
    let [directory] = certificate.directories.as_slice() else { panic!("{certificate:?}") };
    assert_eq!((directory.name.as_str(), directory.profile.as_deref()), ("le", Some("classic")));
    assert_eq!((certificate.key_type, certificate.reuse_key, certificate.dry_run), (KeyType::EcdsaP256, false, false));
    assert!(
        certificate.renew_before.is_none() && certificate.deployment.files.is_empty() && certificate.deployment.notifications.is_empty()
    );
}

#[test]
fn an_entry_in_full() {
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("secret");
    fs::write(&secret, "s3cret\n").expect("written");
    let secret = secret.display();
    let certificate = one(&format!(
        "  - name: www
    names: [example.com, \"*.example.com\"]
    directory: third
    fallbacks: [le, other]
    key_type: rsa3072
    reuse_key: true
    renew_before: 30d
    profile: tlsserver
    preferred_chain: Other Root
    store:
      - files: ./certs
      - files: {{folder: ./live, layout: live, keep: 2, owner: \"1000:1001\", mode: \"640\"}}
      - files: {{folder: ./keystores, layout: pkcs12, name: web, password_file: {secret}}}
      - secret: apps/www
      - secret: {{name: apps/api, ca: true, force: true}}
    notify:
      - rollout_restart: apps/web
      - exec: \"'/opt/my hook' --now\"
      - exec: [/opt/hook, a b]
      - exec: {{command: /opt/hook, timeout: 5s}}
      - http: https://hooks.test/s3cret
      - http: {{url: \"http://127.0.0.1:1/\", token_file: {secret}, send: key, timeout: 3s}}
      - signal: /run/a.pid
      - signal: {{pid_file: /run/b.pid, signal: USR2}}
      - systemd_reload: nginx
"
    ));
    let directories: Vec<_> = certificate.directories.iter().map(|one| (&*one.name, one.profile.as_deref())).collect();
    assert_eq!(directories, [("third", Some("tlsserver")), ("le", Some("classic")), ("other", None)]);
    assert_eq!(certificate.directories[0].preferred_chain.as_deref(), Some("Other Root"));
    assert_eq!((certificate.key_type, certificate.reuse_key), (KeyType::Rsa3072, true));
    assert_eq!(certificate.renew_before, Some(Duration::from_secs(30 * 86_400)));
    let Deployment { name, files, secrets, notifications } = &certificate.deployment;
    assert_eq!((&**name, certificate.deployment.needs_cluster()), ("www", true));
    let [flat, live, keystore] = files.as_slice() else { panic!("{files:?}") };
    assert!(matches!(flat.layout, Layout::Flat) && flat.key_mode == KeyMode::default() && flat.folder == Path::new("./certs"), "{flat:?}");
    assert!(matches!(live.layout, Layout::Live { keep: 2 }) && live.key_mode.bits() == 0o640 && live.name == "www", "{live:?}");
    assert_eq!(live.owner, "1000:1001".parse().ok());
    assert!(matches!(keystore.layout, Layout::Pkcs12 { password: SecretSource::File(_) }) && keystore.name == "web", "{keystore:?}");
    let shown: Vec<_> = secrets.iter().map(|secret| (secret.to_string(), secret.ca, secret.force)).collect();
    let expected = [("Secret apps/www", CaCertificate::None, false), ("Secret apps/api", CaCertificate::LastOfChain, true)];
    assert_eq!(shown, expected.map(|(text, ca, force)| (text.to_owned(), ca, force)));
    let told: Vec<_> = notifications.iter().map(ToString::to_string).collect();
    let expected = [
        "restart of the Deployment apps/web",
        "command /opt/my hook",
        "command /opt/hook",
        "command /opt/hook",
        "HTTP hook at https://hooks.test",
        "HTTP hook at http://127.0.0.1:1",
        "SIGHUP to the process of /run/a.pid",
        "SIGUSR2 to the process of /run/b.pid",
        "systemctl reload nginx",
    ];
    assert_eq!(told, expected);
    let limits: Vec<_> = notifications
        .iter()
        .filter_map(|notification| match notification {
            Notification::Command(command) => Some((command.argv.len(), command.limit.as_secs())),
            Notification::Hook(hook) => Some((usize::from(hook.token.is_some()), hook.limit.as_secs())),
            Notification::Reload(_) => None,
        })
        .collect();
    assert_eq!(limits, [(2, 120), (2, 120), (1, 5), (0, 10), (1, 3)]);
    assert!(!format!("{certificate:?}").contains("s3cret"), "{certificate:?}");
}

#[test]
fn a_rehearsal_is_at_the_staging_directories_that_there_are() {
    let certificate =
        one("  - {name: www, names: [example.com], directory: third, fallbacks: [other, le], dry_run: true, profile: short}\n");
    assert!(certificate.dry_run);
    let directories: Vec<_> = certificate.directories.iter().map(|one| (one.url.as_str(), one.profile.as_deref())).collect();
    let staging = "https://acme-staging-v02.api.letsencrypt.org/directory";
    assert_eq!(directories, [("https://try.third.test/dir", Some("short")), (staging, Some("classic"))]);
    assert_eq!(certificate.directories[0].preferred_chain, None, "staging has other chains");
    let error = errors("  - {name: www, names: [example.com], directory: other, dry_run: true}\n");
    assert_eq!(
        error,
        "acmegate.yaml:8:66: certificates[0].dry_run: no staging directory of \"other\" is known: give its URL as `staging` of the directory in issuer.directories"
    );
}

#[test]
fn a_staging_directory_that_is_listed_keeps_its_own_account() {
    let text = "version: v1\nissuer:\n  directories:\n    - {name: a, url: \"https://a.test/\", staging: \"https://b.test/\", contact: a@a.test, profile: p}\n    - {name: b, url: \"https://b.test/\", contact: b@b.test}\ncertificates: [{name: www, names: [example.com], dry_run: true}]\n";
    let config = Config::from_yaml(text, Path::new("a.yaml")).expect("valid");
    let directory = &config.certificates[0].directories[0];
    assert_eq!((directory.name.as_str(), directory.contact.as_deref(), directory.profile.as_deref()), ("b", Some("b@b.test"), Some("p")));
}

#[test]
fn certificates_share_their_directories() {
    let config = parse(
        "  - {name: a, names: [a.example.com]}\n  - {name: b, names: [b.example.com]}\n  - {name: c, names: [c.example.com], profile: p}\n",
    );
    let certificates = config.expect("valid").certificates;
    let [a, b, c] = certificates.as_slice() else { panic!("three") };
    assert!(Arc::ptr_eq(&a.directories[0], &b.directories[0]) && !Arc::ptr_eq(&a.directories[0], &c.directories[0]));
}

#[test]
fn every_wrong_shape_is_reported_with_its_place() {
    let text = "  - nmae: www
    names: example.com
    store: ./certs
    notify: [nginx]
  - name: a
    names: [a.example.com]
    key: p256
    dry_run: maybe
    store:
      - ./certs
      - fiels: ./certs
      - {files: ./certs, secret: apps/www}
      - {}
      - files: {folder: ./certs, layout: flet, mode: 640, foo: bar}
      - files: 5
      - secret: {ca: yes please}
    notify:
      - exec: {timeout: 5s}
      - exec: 5
      - webhook: https://hooks.test/
      - http: {url: \"https://hooks.test/\", send: everything, token: s3cret}
      - signal: {pidfile: /run/a.pid}
      - systemd_reload: [nginx]
";
    insta::assert_snapshot!("certificate_shape_errors", errors(text));
}

#[test]
fn every_wrong_value_is_reported_with_its_place() {
    let text = "  - name: WWW
    names: []
    directory: nowhere
    fallbacks: [le, le, nowhere]
    key_type: p521
    renew_before: soon
    profile: \"\"
  - name: a
    names: [example.com, a_b.example.com, \"*\"]
    fallbacks: [other, le]
    store:
      - files: ./certs/a
      - files: certs/a/.
      - files: {folder: \"\", layout: pem, name: a/b, keep: 5, owner: \"a:b:c\", mode: \"644\"}
      - files: {folder: ./p12, layout: pkcs12}
      - files: {folder: ./p12, layout: pkcs12, password_file: /dev/null}
      - files: {folder: ./p12, password_env: PASSWORD}
      - secret: www
      - secret: apps/www
  - name: a
    names: [example.org]
    store:
      - files: {folder: ./certs/a, layout: pem, name: cert}
      - files: {folder: ./certs, layout: live}
      - files: {folder: ./certs, layout: live, name: a}
      - secret: {name: apps/www}
    notify:
      - exec: \"'open\"
      - exec: []
      - exec: {command: \"\", timeout: \"5\"}
      - http: hooks.test
      - http: https://me:s3cret@hooks.test/
      - http: {url: \"http://hooks.test/\", send: key, token_env: PATH, timeout: never, ca_file: /no/such/file}
      - http: {url: \"https://hooks.test/\", token_file: /no/such/file}
      - signal: \"\"
      - signal: {pid_file: /run/a.pid, signal: KILL}
      - systemd_reload: --all
      - rollout_restart: web
";
    insta::assert_snapshot!("certificate_value_errors", errors(text));
}

#[test]
fn without_a_directory_there_is_nobody_to_ask() {
    let text = "version: v1\nissuer: {directories: []}\ncertificates: [{name: www, names: [example.com]}]\n";
    let error = Config::from_yaml(text, Path::new("a.yaml")).expect_err("no CA").to_string();
    assert_eq!(error, "a.yaml:3:16: certificates[0]: has no CA to ask: add one to issuer.directories");
}

#[test]
fn example_and_schema_carry_every_form() {
    let example = example();
    for word in [
        "# certificates:",
        "- files:",
        "- secret:",
        "- exec:",
        "- http:",
        "- signal:",
        "- systemd_reload: nginx",
        "- rollout_restart: apps/web",
    ] {
        assert!(example.contains(word), "{word} is not in\n{example}");
    }
    let schema = schema().to_string();
    for key in ["renew_before", "password_env", "token_file", "pid_file", "staging"] {
        assert!(schema.contains(&format!("\"{key}\"")), "{key}");
    }
}
