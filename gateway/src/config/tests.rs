use super::*;

fn parse(text: &str) -> Result<Config, String> {
    Config::from_yaml(text, Path::new("acmegate.yaml")).map_err(|error| error.to_string())
}

fn errors(text: &str) -> String {
    parse(text).expect_err("an error")
}

/// A minimal file with a zone, and `rest` after it.
fn with_zone(rest: &str) -> String {
    format!(
        "version: v1\ndns:\n  listen: 127.0.0.1:0\n  zones:\n    - name: auth.test\n      nameservers: [ns1.auth.test]\n      records: [\"ns1.auth.test 60 A 127.0.0.1\"]\n{rest}"
    )
}

#[test]
fn nothing_but_the_version_closes_every_door() {
    let config = parse("version: v1\n").expect("valid");
    assert!(config.dns.is_none() && config.acmedns.is_none() && config.webhook.is_none() && config.metrics.is_none());
    assert_eq!(config.data, Path::new("./acmegate-data"));
    assert_eq!(config.propagation.timeout, Duration::from_secs(120));
    assert_eq!(config.issuer.directories[0].name, "letsencrypt");
}

#[test]
fn the_embedded_defaults_open_every_door_on_loopback() {
    let config = Config::embedded().expect("valid");
    let dns = config.dns.expect("dns");
    let acmedns = config.acmedns.expect("acmedns");
    assert_eq!(acmedns.zone, dns.zones[0].name);
    assert_eq!(acmedns.values.get(), 8);
    assert_eq!(acmedns.lifetime, Some(Duration::from_secs(86_400)));
    assert_eq!(dns.zones[0].contact, "hostmaster.example.org".parse().expect("name"));
    let listen = [dns.listen, acmedns.listen, config.webhook.expect("webhook").listen, config.metrics.expect("metrics").listen].concat();
    assert_eq!(listen.len(), 4);
    assert!(listen.iter().all(|address| address.ip().is_loopback()), "{listen:?}");
}

#[test]
fn the_example_is_the_embedded_defaults() {
    let example = example();
    let config = Config::from_yaml(&example, Path::new("example.yaml")).expect("the example is valid");
    assert_eq!(format!("{config:?}"), format!("{:?}", Config::embedded().expect("valid")));
    // Without the providers, which tell of their settings themselves.
    insta::assert_snapshot!("example", example_with(&[]));
}

#[test]
fn the_example_with_everything_uncommented_has_known_keys_only() {
    let uncommented: String = example()
        .lines()
        .map(|line| {
            let (indent, rest) = line.split_at(line.len() - line.trim_start().len());
            let key = rest.strip_prefix("# ").unwrap_or(rest);
            let is_key = |key: &str| !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            match key.trim_start().split_once(':') {
                Some((word, _)) if is_key(word.trim_start_matches("- ")) => format!("{indent}{key}\n"),
                _ => format!("{line}\n"),
            }
        })
        .collect();
    let mut problems = Problems::default();
    let tree: Node = read_yaml(&uncommented, &mut problems).expect("YAML");
    shape::check(&schema(), &tree, &mut problems);
    assert!(problems.is_empty(), "{}\n{uncommented}", problems.into_error(Path::new("example.yaml")));
    let mut paths = Vec::new();
    schema_paths(&schema(), &schema(), "", &mut paths);
    for path in ["issuer.directories.eab.hmac_env", "acmedns.tls.key", "dns.zones.records", "webhook.tls.certificate"] {
        assert!(paths.iter().any(|known| known == path), "{path} is not in the schema: {paths:?}");
    }
    for path in paths {
        assert!(leads_somewhere(&tree, &path), "the example lacks {path}\n{uncommented}");
    }
}

/// Every key path of the schema.
fn schema_paths(root: &serde_json::Value, schema: &serde_json::Value, path: &str, out: &mut Vec<String>) {
    let reference = schema.get("$ref").and_then(|target| target.as_str());
    if let Some(target) = reference {
        return schema_paths(root, root.pointer(target.trim_start_matches('#')).expect("definition"), path, out);
    }
    for branch in ["anyOf", "oneOf"].into_iter().filter_map(|union| schema.get(union)?.as_array()).flatten() {
        schema_paths(root, branch, path, out);
    }
    if let Some(items) = schema.get("items") {
        schema_paths(root, items, path, out);
    }
    for (key, property) in schema.get("properties").and_then(|p| p.as_object()).into_iter().flatten() {
        let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        schema_paths(root, property, &below, out);
        out.push(below);
    }
}

fn leads_somewhere(node: &Node, path: &str) -> bool {
    let (step, rest) = path.split_once('.').map_or((path, None), |(step, rest)| (step, Some(rest)));
    match &node.value {
        tree::Value::Map(entries) => {
            entries.iter().any(|(key, child)| *key.text == *step && rest.is_none_or(|rest| leads_somewhere(child, rest)))
        }
        tree::Value::List(items) => items.iter().any(|item| leads_somewhere(item, path)),
        _ => false,
    }
}

#[test]
fn every_wrong_key_and_kind_is_reported_at_once_with_its_place() {
    let text = "\
version: v2
dns:
  listne: 127.0.0.1:53
  zones:
    - name: auth.test
      nameserver: [ns1.auth.test]
acmedns:
  listen: 8080
  registration: opne
  lifetime: 24
  values: -1
metrics:
ledger: {}
";
    insta::assert_snapshot!("shape_errors", errors(text));
}

#[test]
fn every_wrong_value_is_reported_at_once_with_its_place() {
    let text = "\
version: v1
data: \"\"
dns:
  listen: [127.0.0.1, \":53\", \"localhost:53\", \"127.0.0.1:53\", \"127.0.0.1:53\"]
  zones:
    - name: auth..test
      nameservers: []
    - name: auth.test
      nameservers: [ns1.auth.test]
      contact: host master@auth.test
      records:
        - ns1.other.test. 3600 A 198.51.100.1
        - www.auth.test. 3600 A 198.51.100.1111
propagation:
  resolvers: [9.9.9.9]
  timeout: 2 minutes
acmedns:
  listen: 127.0.0.1:8080
  zone: elsewhere.test
  registration: token
  values: 8
  lifetime: 0s
  prefixes: [\"/a b\"]
  trusted_proxies: [10.0.0.0/33]
  client_ip_header: \"X Real IP\"
  cors_origins: [example.org]
webhook:
  listen: [127.0.0.1:8443, 0.0.0.0:8443]
  group: acme
  solver: My_Solver
issuer:
  directories:
    - name: pebble
      url: http://127.0.0.1:14000/dir
      contact: nobody
      ca_file: ./no-such-file.pem
    - name: pebble
      url: https://127.0.0.1:14000/dir
      eab: {kid: k, hmac_file: ./no-such-file, hmac_env: NO_SUCH_VARIABLE}
";
    insta::assert_snapshot!("value_errors", errors(text));
}

#[test]
fn broken_yaml_names_its_line() {
    for (text, expected) in [
        ("", "1:1: version: is missing"),
        ("- a\n", "1:1: must be a section with keys, not a list"),
        ("version: v1\ndns: [\n", "2:6: unclosed bracket '['"),
        ("version: v1\ndata: a\ndata: b\n", "3:1: the key data stands here twice"),
        ("version: v1\n---\nversion: v1\n", "3:1: a second document begins here (---); a configuration is one document"),
    ] {
        assert_eq!(errors(text), format!("acmegate.yaml:{expected}"));
    }
}

#[test]
fn a_long_file_is_read_and_one_that_grows_in_the_reader_is_not() {
    let mut problems = Problems::default();
    let long = format!("[{}x]", "x,".repeat(300_000));
    let tree: Option<Node> = read_yaml(&long, &mut problems);
    assert!(matches!(tree.map(|tree| tree.value), Some(tree::Value::List(items)) if items.len() == 300_001));
    let mut bomb = "version: v1\na0: &a0 [x]\n".to_owned();
    for level in 1..10 {
        let below = format!("*a{},", level - 1).repeat(9);
        bomb.push_str(&format!("a{level}: &a{level} [{below}]\n"));
    }
    assert!(errors(&bomb).contains("limit"), "{}", errors(&bomb));
}

#[test]
fn listen_takes_one_address_or_a_list() {
    let listen =
        |text: &str| parse(&format!("version: v1\nmetrics:\n  listen: {text}\n")).map(|config| config.metrics.expect("metrics").listen);
    let address = |text: &str| text.parse::<SocketAddr>().expect("address");
    assert_eq!(listen("127.0.0.1:9090"), Ok(vec![address("127.0.0.1:9090")]));
    assert_eq!(listen("\"[::1]:0\""), Ok(vec![address("[::1]:0")]));
    assert_eq!(
        listen("[\"127.0.0.1:0\", \"127.0.0.1:0\", \"[::1]:9090\"]"),
        Ok(vec![address("127.0.0.1:0"), address("127.0.0.1:0"), address("[::1]:9090")])
    );
    assert!(listen("[]").is_err());
    assert_eq!(listen("127.0.0.1"), Err("acmegate.yaml:3:11: metrics.listen: \"127.0.0.1\" has no port: write 127.0.0.1:8080".to_owned()));
}

#[test]
fn a_lifetime_may_be_never() {
    let config = parse(&with_zone("acmedns: {listen: \"127.0.0.1:0\", lifetime: never}\n")).expect("valid");
    assert_eq!(config.acmedns.expect("acmedns").lifetime, None);
    assert!(errors("version: v1\npropagation: {timeout: never}\n").contains("propagation.timeout"));
}

#[test]
fn resolvers_are_asked_over_udp_tcp_or_https() {
    let parse = |rest: &str| parse(&format!("version: v1\npropagation:\n  {rest}\n"));
    let resolvers = parse(r#"resolvers: ["127.0.0.53:53", "udp://[::1]:53", "tcp://127.0.0.1:53", "https://dns.test/dns-query"]"#);
    assert_eq!(
        resolvers.expect("valid").propagation.resolvers,
        [
            ResolverAddress::Udp(([127, 0, 0, 53], 53).into()),
            ResolverAddress::Udp((std::net::Ipv6Addr::LOCALHOST, 53).into()),
            ResolverAddress::Tcp(([127, 0, 0, 1], 53).into()),
            ResolverAddress::Https("https://dns.test/dns-query".parse().expect("a URL")),
        ]
    );
    for (rest, wrong) in [
        (r#"resolvers: ["tls://127.0.0.1:853"]"#, "propagation.resolvers[0]: \"tls://127.0.0.1:853\": tls is not among udp, tcp and https"),
        (r#"resolvers: ["tcp://127.0.0.1"]"#, "propagation.resolvers[0]: \"127.0.0.1\" has no port: write 127.0.0.1:53"),
        (r#"resolvers: ["https://me@dns.test/"]"#, "is not a URL such as"),
        (r#"ca_file: /dev/null"#, "has no effect without a resolver over HTTPS"),
    ] {
        let error = parse(rest).map(|config| config.propagation).expect_err(wrong);
        assert!(error.contains(wrong), "{error}");
    }
}

#[test]
fn a_contact_may_be_a_mail_address_or_a_name() {
    let contact = |text: &str| {
        let text = with_zone("").replace("      records", &format!("      contact: {text}\n      records"));
        parse(&text).expect("valid").dns.expect("dns").zones[0].contact.to_string()
    };
    assert_eq!(contact("hostmaster@example.org"), "hostmaster.example.org.");
    assert_eq!(contact("dns.admin@example.org"), "dns\\.admin.example.org.");
    assert_eq!(contact("hostmaster.example.org."), "hostmaster.example.org.");
    assert_eq!(parse(&with_zone("")).expect("valid").dns.expect("dns").zones[0].contact.to_string(), "hostmaster.auth.test.");
}

#[test]
fn who_may_call_the_webhook_is_one_thing_or_the_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, "").expect("written");
    let callers = |text: &str| format!("version: v1\nwebhook:\n  listen: \"127.0.0.1:1\"\n  callers: {text}\n");
    for (text, said) in [
        ("{}".to_owned(), "4:12: webhook.callers: wants one of `cluster: true` and `ca_file: FILE`"),
        (format!("{{cluster: true, ca_file: {}}}", file.display()), "4:12: webhook.callers: wants one of"),
        (format!("{{ca_file: {}}}", file.display()), "webhook.callers.names: is empty: list the common names"),
        ("{cluster: true, names: [x]}".to_owned(), "webhook.callers.names: goes with ca_file"),
        ("{ca_file: ./nowhere.pem, names: [x]}".to_owned(), "webhook.callers.ca_file: "),
    ] {
        let errors = errors(&callers(&text));
        assert!(errors.contains(said), "{errors}");
    }
}

#[test]
fn the_acme_dns_door_needs_a_zone() {
    let errors = errors("version: v1\nacmedns:\n  listen: 127.0.0.1:1\n");
    assert!(errors.contains("acmedns: needs a zone for its accounts"), "{errors}");
}

#[test]
fn a_name_server_in_its_own_zone_should_have_an_address() {
    let warnings = |text: &str| parse(text).expect("valid").warnings();
    assert_eq!(warnings(&with_zone("")), Vec::<String>::new());
    let without = with_zone("").replace("      records: [\"ns1.auth.test 60 A 127.0.0.1\"]\n", "");
    assert_eq!(
        warnings(&without),
        [
            "the name server ns1.auth.test. lies in the zone auth.test. and has no address there: add \"ns1.auth.test. 3600 A <address>\" to its records"
        ]
    );
    assert_eq!(warnings(&without.replace("[ns1.auth.test]", "[ns1.elsewhere.test]")), Vec::<String>::new());
}

#[test]
fn records_that_make_no_zone_are_told_with_the_zone() {
    let text = with_zone("").replace("[\"ns1", "[\"auth.test CNAME other.test\", \"ns1");
    assert!(errors(&text).starts_with("acmegate.yaml:5:7: dns.zones[0]: auth.test. has a CNAME beside other data"), "{}", errors(&text));
}

#[test]
fn tokens_come_from_a_file_and_never_show() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("tokens");
    let door = |file: &Path| with_zone(&format!("acmedns: {{listen: \"127.0.0.1:0\", registration: token, tokens_file: {file:?}}}\n"));
    fs::write(&file, "first-token-0123456789\n\nsecond-token-0123456789\n").expect("written");
    let config = parse(&door(&file)).expect("valid");
    assert!(!format!("{config:?}").contains("0123456789"));
    let Registration::Token(tokens) = config.acmedns.expect("acmedns").registration else { panic!("not by token") };
    assert_eq!(tokens.len(), 2);

    fs::write(&file, "good-token-0123456789 bad/token-0123456789").expect("written");
    let refused = errors(&door(&file));
    assert!(refused.contains("acmedns.tokens_file: token 2 must be"), "{refused}");
    assert!(!refused.contains("0123456789"), "{refused}");
    fs::write(&file, "\n").expect("written");
    assert!(errors(&door(&file)).contains("holds no token"));
}

#[test]
fn an_eab_key_comes_from_a_file_and_never_shows() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("hmac");
    let text =
        format!("version: v1\nissuer: {{directories: [{{name: a, url: \"https://a.test/\", eab: {{kid: k, hmac_file: {file:?}}}}}]}}\n");
    fs::write(&file, "c2VjcmV0LXNlY3JldA==\n").expect("written");
    let config = parse(&text).expect("valid");
    assert!(config.issuer.directories[0].eab.is_some());
    assert!(!format!("{config:?}").contains("c2Vj"));
    fs::write(&file, "c2VjcmV0 secret").expect("written");
    let refused = errors(&text);
    assert!(refused.contains("issuer.directories[0].eab.hmac_file") && !refused.contains("c2Vj"), "{refused}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::load(Some(Path::new("./no-such.yaml"))).expect_err("no file").to_string();
    assert!(error.starts_with("./no-such.yaml: cannot be read: "), "{error}");
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "(version: v1\n)?[a-z:\\[\\]{}\n \"'&*!|>-]{0,60}") {
        let _ = parse(&text);
    }
}
