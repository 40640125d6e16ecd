use super::*;

const GROUP: &str = "acme.corp.test";

fn challenge(request: &str) -> Challenge {
    Challenge::parse(format!("{{\"request\":{request}}}").as_bytes(), GROUP).unwrap()
}

#[test]
fn the_envelope_may_name_its_kind_or_not() {
    let parse = |envelope: &str| Challenge::parse(format!("{{{envelope}\"request\":{{}}}}").as_bytes(), GROUP).map(|_| ());
    assert_eq!(parse(""), Ok(()));
    assert_eq!(parse(r#""apiVersion":"webhook.acme.cert-manager.io/v1alpha1","kind":"ChallengePayload","#), Ok(()));
    assert_eq!(parse(r#""apiVersion":"acme.corp.test/v1alpha1","kind":"ChallengePayload","#), Ok(()));
    assert_eq!(parse(r#""apiVersion":null,"kind":"","metadata":{},"#), Ok(()));
    assert!(parse(r#""apiVersion":"v1","kind":"Pod","#).is_err());
    assert!(parse(r#""kind":"Pod","#).is_err());
    assert!(parse(r#""kind":5,"#).is_err());
}

#[test]
fn the_request_is_needed() {
    for body in [
        "",
        "{}",
        "null",
        "[]",
        "{\"request\":null}",
        "{\"request\":5}",
        "{\"request\":{\"key\":5}}",
        "{\"request\":[null]}",
        "[null,null,{}]",
    ] {
        assert!(Challenge::parse(body.as_bytes(), GROUP).is_err(), "{body}");
    }
}

#[test]
fn the_reply_echoes_the_request_as_it_came() {
    let request = r#"{ "uid":"u-1", "config":{"b":1.0,"a":[ ]},"action":"Present"}"#;
    let challenge = challenge(request);
    let reply = serde_json::to_string(&challenge.reply(Ok(()))).unwrap();
    let expected = format!(
        r#"{{"apiVersion":"webhook.acme.cert-manager.io/v1alpha1","kind":"ChallengePayload","request":{request},"response":{{"uid":"u-1","success":true}}}}"#
    );
    assert_eq!(reply, expected);
}

#[test]
fn a_failure_is_never_silent() {
    let challenge = challenge("{}");
    let reply = serde_json::to_string(&challenge.reply(Err(""))).unwrap();
    assert!(
        reply.ends_with(r#""success":false,"status":{"status":"Failure","message":"the request failed; acmegate's log says why"}}}"#),
        "{reply}"
    );
}

#[test]
fn fields_are_checked() {
    assert!(challenge(r#"{"type":"http-01"}"#).check_type().is_err());
    assert!(challenge("{}").check_type().is_ok());
    assert!(challenge(r#"{"action":"present"}"#).action().is_err());
    assert!(challenge(r#"{"key":"123d=="}"#).value().is_ok());
    assert!(challenge(r#"{"key":""}"#).value().is_err());
    assert!(challenge(r#"{"resolvedFQDN":"a..b"}"#).owner().is_err());
    for (namespace, good) in [("cert-manager", true), ("", false), ("a/b", false), ("-a", false), ("A", false)] {
        let request = format!(r#"{{"resourceNamespace":"{namespace}"}}"#);
        assert_eq!(challenge(&request).namespace().is_ok(), good, "{namespace}");
    }
    let holder = |name: &str| challenge(&format!(r#"{{"resourceNamespace":"ns","dnsName":"{name}"}}"#)).holder();
    assert_eq!(holder("Example.COM."), holder("example.com"));
    assert_eq!(holder("example.com").unwrap(), Holder::webhook("ns", "example.com"));
}

#[test]
fn an_issuer_s_config_picks_a_backend_and_nothing_else() {
    let selection = |config: &str| challenge(&format!("{{\"config\":{config}}}")).selection().map_err(|error| error.to_string());
    assert_eq!(challenge("{}").selection(), Ok(Selection::default()));
    for nothing in ["null", "{}", " { } "] {
        assert_eq!(selection(nothing), Ok(Selection::default()), "{nothing}");
    }
    let picked = |config: &str| selection(config).map(|selection| selection.backend_in("team-a"));
    assert_eq!(picked(r#"{"backend": "corp-aws"}"#), Ok(Some(Backend::Provider("corp-aws".into()))));
    assert_eq!(picked(r#"{"backend": "embedded"}"#), Ok(Some(Backend::Embedded)));
    let with_secret = picked(r#"{"secret": {"name": "dns.token-1"}, "backend": "corp-aws"}"#).unwrap().unwrap();
    assert_eq!((with_secret.configured(), with_secret.secret()), ("corp-aws", Some(("team-a", "dns.token-1"))));
    let long = "x".repeat(100_000);
    for (config, error) in [
        ("[]", Invalid::Config),
        ("5", Invalid::Config),
        (r#""corp-aws""#, Invalid::Config),
        (&format!(r#""{long}""#), Invalid::Config),
        (&format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)), Invalid::Config),
        (&format!("{{\"a\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000)), Invalid::Config),
        (r#"{"url": "https://attacker.test/"}"#, Invalid::ConfigKey(Quoted::new("url"))),
        (r#"{"Backend": "corp-aws"}"#, Invalid::ConfigKey(Quoted::new("Backend"))),
        (r#"{"backend": "corp-aws", "namespace": "kube-system"}"#, Invalid::ConfigKey(Quoted::new("namespace"))),
        (&format!(r#"{{"{long}": 1}}"#), Invalid::ConfigKey(Quoted::new(&long))),
        (r#"{"backend": 5}"#, Invalid::ConfigBackend),
        (r#"{"backend": null}"#, Invalid::ConfigBackend),
        (r#"{"backend": ["corp-aws"]}"#, Invalid::ConfigBackend),
        (r#"{"backend": ""}"#, Invalid::ConfigBackend),
        (r#"{"backend": "https://attacker.test/"}"#, Invalid::ConfigBackend),
        (&format!(r#"{{"backend": "{long}"}}"#), Invalid::ConfigBackend),
        (r#"{"backend": "a@b/c"}"#, Invalid::ConfigBackend),
        (r#"{"secret": {"name": "dns"}}"#, Invalid::ConfigSecretAlone),
        (r#"{"backend": "corp-aws", "secret": "dns"}"#, Invalid::ConfigSecret),
        (r#"{"backend": "corp-aws", "secret": true}"#, Invalid::ConfigSecret),
        (r#"{"backend": "corp-aws", "secret": null}"#, Invalid::ConfigSecret),
        (r#"{"backend": "corp-aws", "secret": {}}"#, Invalid::ConfigSecret),
        (r#"{"backend": "corp-aws", "secret": {"name": ""}}"#, Invalid::ConfigSecret),
        (r#"{"backend": "corp-aws", "secret": {"name": "../kube-system/dns"}}"#, Invalid::ConfigSecret),
        (r#"{"backend": "corp-aws", "secret": {"name": "a..b"}}"#, Invalid::ConfigSecret),
        (r#"{"backend": "corp-aws", "secret": {"name": "dns", "namespace": "kube-system"}}"#, Invalid::ConfigSecret),
        (r#"{"backend": "corp-aws", "secret": {"name": "dns", "key": "token"}}"#, Invalid::ConfigSecret),
        (&format!(r#"{{"backend": "corp-aws", "secret": {{"name": "{long}"}}}}"#), Invalid::ConfigSecret),
    ] {
        let message = selection(config).expect_err(config.get(..80).unwrap_or(config));
        assert_eq!(message, error.to_string());
        assert!(message.len() < 300 && message.contains("backend, secret"), "{message}");
    }
}

#[test]
fn what_is_quoted_is_short_and_escaped() {
    let long = format!(r#"{{"action":"\u001b[31m{}"}}"#, "x".repeat(5_000));
    let message = challenge(&long).action().unwrap_err().to_string();
    assert!(message.len() < 200 && !message.contains('\u{1b}'), "{message}");
}
