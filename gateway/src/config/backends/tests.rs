use std::path::Path;

use async_trait::async_trait;
use providers::{Calls, Change, Error, Listing, Receipt, TxtSet, Zone, http, secret::SecretRef};
use schemars::JsonSchema;

use super::*;
use crate::config::{Config, KINDS, Problems, example, example_with, parse_yaml, read_yaml, schema, shape};

/// A provider for the tests alone.
#[allow(dead_code, reason = "read by serde and schemars alone")]
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Paper {
    /// The API token.
    token: SecretRef,
    /// The base URL of the API.
    #[serde(default)]
    #[schemars(example = &"https://dns.example.net/")]
    endpoint: Option<String>,
    /// How to log in, instead of the usual way.
    #[serde(default)]
    login: Option<Login>,
    /// Most calls a minute.
    #[serde(default = "calls")]
    #[schemars(range(min = 1, max = 1000))]
    calls: u32,
}

/// How to log in.
#[allow(dead_code, reason = "read by serde and schemars alone")]
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Login {
    /// By a file.
    #[serde(rename_all = "snake_case")]
    Certificate {
        /// PEM.
        pem: SecretRef,
    },
    /// By a role.
    Role(String),
}

fn calls() -> u32 {
    60
}

#[async_trait]
impl Provider for Paper {
    async fn zones(&self, _: Option<&Name>) -> Result<Listing, Error> {
        Ok(Listing::default())
    }

    async fn read(&self, _: &Zone, _: &[Name]) -> Vec<Result<TxtSet, Error>> {
        Vec::new()
    }

    async fn apply(&self, _: &Zone, _: &[Change]) -> Vec<Result<Receipt, Error>> {
        Vec::new()
    }

    async fn verify(&self) -> Result<String, Error> {
        Ok(String::new())
    }

    fn calls(&self) -> Calls {
        Calls::default()
    }
}

const TEST_KINDS: &[Kind] = &[
    Kind {
        id: "paper",
        title: "Records on paper",
        schema: || schemars::schema_for!(Paper).to_value(),
        build: |settings, _| {
            let paper: Paper = serde_json::from_value(settings).map_err(|error| error.to_string())?;
            paper.endpoint.as_deref().map(http::endpoint).transpose()?;
            Ok(Arc::new(paper))
        },
    },
    Kind {
        id: "stone",
        title: "Records in stone",
        schema: || serde_json::json!({"type": "object"}),
        build: |_, _| Err("too hard".to_owned()),
    },
];

fn parse(text: &str) -> Result<Config, String> {
    let mut problems = Problems::default();
    let text = format!("version: v1\n{text}");
    parse_yaml(&text, TEST_KINDS, &mut problems).ok_or_else(|| problems.into_error(Path::new("acmegate.yaml")).to_string())
}

fn errors(text: &str) -> String {
    parse(text).expect_err("an error")
}

#[test]
fn a_backend_in_full() {
    let text = "\
backends:
  - name: corp-1
    provider: paper
    zones: [example.com, {name: example.org, id: Z0123}]
    ttl: 5m
    check: recursive
    verify: 1h
    settings:
      token: {file: ./token}
      login: {certificate: {pem: {kubernetes: {name: dns, key: pem}}}}
  - {name: corp-2, provider: paper, settings: {token: {env: TOKEN}, login: {role: r}}}
";
    let backends = parse(text).expect("valid").backends;
    let [first, second] = backends.as_slice() else { panic!("two") };
    assert_eq!((&*first.name, first.kind.id, first.ttl, first.check), ("corp-1", "paper", 300, Some(Check::Recursive)));
    assert_eq!(first.verify, Duration::from_secs(3600));
    let allowed = |name: &str, id: Option<&str>| Allowed { name: name.parse().expect(name), id: id.map(str::to_owned) };
    assert_eq!(first.zones, [allowed("example.com", None), allowed("example.org", Some("Z0123"))]);
    let places = |backend: &Backend| backend.settings.secrets().iter().map(|(key, place)| format!("{key}: {place}")).collect::<Vec<_>>();
    assert_eq!(places(first), ["token: the file ./token", "login.certificate.pem: the key pem of the Secret dns"]);
    assert_eq!(places(second), ["token: the environment variable TOKEN"]);
    assert_eq!((second.ttl, second.check, second.zones.len(), second.verify), (60, None, 0, Duration::from_secs(900)));
    assert_eq!(format!("{:?}", second.settings), r#"{"token", "login"}"#);
}

#[test]
fn every_wrong_key_is_reported_with_its_place() {
    let text = "\
backends:
  - name: a
    provider: papier
  - name: b
    provider: paper
  - name: c
    provider: paper
    settings:
      token: s3cret
      endpont: https://x/
      calls: 5000
      login: {certificate: {pem: {file: a, env: B}}, role: r}
  - name: d
    provider: paper
    setings: {}
    zones: [{name: example.com}, 5]
    settings: {token: {}, login: {rôle: x}}
  - name: e
    provider: paper
    settings: {token: {path: ./x}, login: {certificate: {pem: 12345}}}
";
    let errors = errors(text);
    assert!(!errors.contains("s3cret") && !errors.contains("12345"), "{errors}");
    insta::assert_snapshot!("backend_shape_errors", errors);
}

#[test]
fn every_wrong_value_is_reported_with_its_place() {
    let text = "\
backends:
  - {name: embedded, provider: paper, settings: {token: {env: A}}}
  - {name: Corp DNS, provider: paper, settings: {token: {env: A}}}
  - {name: twice, provider: paper, ttl: 0s, verify: never, settings: {token: {env: A}}}
  - {name: twice, provider: paper, ttl: 25h, verify: 1s, settings: {token: {env: A}}}
  - name: zones
    provider: paper
    zones: [example..com, ., {name: example.org, id: \"\"}, example.net, EXAMPLE.net]
    settings: {token: {env: A}}
  - name: endpoint
    provider: paper
    settings:
      endpoint: http://dns.example.net/
      token: {env: A}
  - {name: stone, provider: stone}
";
    insta::assert_snapshot!("backend_value_errors", errors(text));
}

#[test]
fn zones_that_two_could_write_are_warned_of() {
    let text = "\
dns:
  listen: 127.0.0.1:0
  zones: [{name: auth.test, nameservers: [ns.elsewhere.test]}]
backends:
  - {name: a, provider: paper, zones: [auth.test, example.com], settings: {token: {env: A}}}
  - {name: b, provider: paper, zones: [example.com, sub.example.com], settings: {token: {env: A}}}
";
    let warnings = parse(text).expect("valid").warnings();
    assert_eq!(
        warnings,
        [
            "the zone auth.test. stands under dns.zones and is one of the backend a's: acmegate writes it in its own DNS server only; leave it out of one of the two",
            "the zone example.com. is one of the backend a's and of the backend b's: the first is taken; leave it out of one of the two"
        ]
    );
}

#[test]
fn the_example_shows_each_provider_and_is_valid_when_uncommented() {
    let example = example_with(TEST_KINDS);
    let from = example.find("\n# backends:").expect("the section") + 1;
    let section: String = example[from..].lines().take_while(|line| line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    insta::assert_snapshot!("backend_example", section);
    let uncommented: String = section.lines().map(|line| format!("{}\n", line.strip_prefix("# ").unwrap_or(line))).collect();
    let uncommented = uncommented.replace("provider: stone", "provider: paper").replace("settings: {}", "settings: {token: {env: A}}");
    let backends = parse(&uncommented).expect("valid").backends;
    assert_eq!(backends.iter().map(|backend| &*backend.name).collect::<Vec<_>>(), ["corp-dns", "corp-dns-2"]);
}

#[test]
fn the_example_of_the_real_providers_has_the_right_shape_and_every_key() {
    let example = example();
    let from = example.find("\n# backends:").expect("the section") + 1;
    let section: String = example[from..]
        .lines()
        .take_while(|line| line.starts_with('#'))
        .map(|line| format!("{}\n", line.strip_prefix("# ").unwrap_or(line)))
        .collect();
    let mut problems = Problems::default();
    let text = format!("version: v1\n{section}");
    let tree = read_yaml(&text, &mut problems).expect("YAML");
    if !KINDS.is_empty() {
        shape::check(&schema(), &tree, &mut problems);
    }
    assert!(problems.is_empty(), "{}\n{text}", problems.into_error(Path::new("example.yaml")));
    for kind in KINDS {
        let block = section.split("  - ").find(|block| block.contains(&format!("provider: {}\n", kind.id))).expect(kind.id);
        let settings = (kind.schema)();
        for key in settings["properties"].as_object().expect("an object").keys() {
            assert!(block.contains(&format!("      {key}:")), "{} lacks {key} in\n{block}", kind.id);
        }
    }
}

#[test]
fn the_schema_refers_to_what_is_there() {
    fn references(value: &Json, found: &mut Vec<String>) {
        match value {
            Json::Object(entries) => {
                found.extend(entries.get("$ref").and_then(Json::as_str).map(str::to_owned));
                entries.values().for_each(|value| references(value, found));
            }
            Json::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    for schema in [schema(), crate::config::schema_with(TEST_KINDS)] {
        let mut found = Vec::new();
        references(&schema, &mut found);
        assert!(!found.is_empty());
        for reference in found {
            assert!(schema.pointer(reference.trim_start_matches('#')).is_some(), "{reference} leads nowhere");
        }
    }
}
