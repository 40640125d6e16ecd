//! A million payloads, most of them nearly right: what is read of them is what the door may act upon, and what is said of them is short, plain, and the same each time.
//!
//! The inputs come from a generator with a fixed seed, so that a failure can be had again: it prints the input.

use serde_json::{Map, Value as Json, json};

use super::*;

/// Inputs of one run, on each of two threads.
const INPUTS: u32 = 500_000;
const GROUP: &str = "acme.corp.test";
/// Longest message, in bytes: a name of 255 bytes may be quoted, and a short text around it.
const LONGEST_MESSAGE: usize = 1024;

#[test]
fn half_a_million_payloads() {
    run(0x5EED);
}

#[test]
fn half_a_million_other_payloads() {
    run(0xFEED);
}

fn run(seed: u64) {
    let mut random = Random(seed);
    let (mut read, mut whole) = (0, 0);
    for _ in 0..INPUTS {
        let body = body(&mut random);
        let outcome = std::panic::catch_unwind(|| judge(&body));
        match outcome {
            Ok(Judged { parsed, complete }) => {
                read += u32::from(parsed);
                whole += u32::from(complete);
            }
            Err(_panic) => panic!("the input was {:?}", String::from_utf8_lossy(&body)),
        }
    }
    // Otherwise the generator would miss what it is for.
    assert!(read > INPUTS / 4 && whole > INPUTS / 50 && read < INPUTS, "{read} were requests, {whole} of them without a fault");
}

struct Judged {
    parsed: bool,
    /// Everything could be read of it.
    complete: bool,
}

fn judge(body: &[u8]) -> Judged {
    let challenge = match Challenge::parse(body, GROUP) {
        Ok(challenge) => challenge,
        Err(status) => {
            plain(status.message());
            assert_eq!(status.message(), Challenge::parse(body, GROUP).map(drop).unwrap_err().message());
            return Judged { parsed: false, complete: false };
        }
    };
    let mut complete = true;
    let mut faults = Vec::new();
    let mut note = |fault: Option<Invalid>| {
        complete &= fault.is_none();
        faults.extend(fault);
    };
    note(challenge.action().err());
    note(challenge.check_type().err());
    note(challenge.dns_name().err());
    match challenge.value() {
        Ok(value) => assert!((1..=crate::ledger::MAX_VALUE).contains(&value.as_str().len()) && value.as_str().is_ascii()),
        Err(fault) => note(Some(fault)),
    }
    match challenge.owner() {
        Ok(owner) => assert_eq!(owner.to_string().parse::<Name>().as_ref(), Ok(&owner)),
        Err(fault) => note(Some(fault)),
    }
    match (challenge.namespace(), challenge.holder()) {
        (Ok(namespace), Ok(holder)) => {
            assert!(!namespace.contains(['/', '@', ':']) && holder.as_str().starts_with(&format!("webhook:{namespace}/")));
            assert_eq!(holder.tenant(), format!("webhook:{namespace}"));
        }
        (namespace, holder) => {
            note(namespace.err());
            assert!(holder.is_err());
            note(holder.err());
        }
    }
    match challenge.selection() {
        Ok(selection) => {
            let backend = selection.backend_in("team-a");
            let secret = backend.as_ref().and_then(Backend::secret);
            assert_eq!(secret.map(|(namespace, _)| namespace), selection.secret.as_ref().map(|_| "team-a"), "its own namespace, always");
            assert_eq!(secret.map(|(_, name)| name), selection.secret.as_deref());
            assert_eq!(backend.as_ref().map(Backend::configured), selection.backend.as_deref());
        }
        Err(fault) => note(Some(fault)),
    }
    faults.iter().for_each(|fault| plain(&fault.to_string()));
    // The answer is JSON, says what was asked, and whose answer it is.
    let reply = serde_json::to_vec(&challenge.reply(Err("no"))).expect("an answer");
    let reply: Reread = serde_json::from_slice(&reply).expect("JSON");
    assert_eq!(reply.request.get(), challenge.raw.get());
    assert_eq!((reply.response.uid.as_str(), reply.response.success), (text(&challenge.fields.uid), false));
    Judged { parsed: true, complete }
}

/// On one line of a log, and of a bounded length.
fn plain(message: &str) {
    assert!(message.len() <= LONGEST_MESSAGE && !message.contains(char::is_control), "{} bytes: {message:?}", message.len());
}

#[derive(Deserialize)]
struct Reread {
    request: Box<RawValue>,
    response: RereadOutcome,
}

#[derive(Deserialize)]
struct RereadOutcome {
    uid: String,
    success: bool,
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap_or(0)
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn of<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len())]
    }
}

/// A request as cert-manager sends it, with none, one or some things wrong.
fn body(random: &mut Random) -> Vec<u8> {
    let mut request = json!({
        "uid": "b7c6", "action": "Present", "type": "dns-01", "dnsName": "www.example.com", "key": "vWmP2bW2Xh7FuQKQYwJcyVzQ1LqBv9xHBQzpyA4nJyo",
        "resourceNamespace": "team-a", "resolvedFQDN": "_acme-challenge.www.example.com.", "resolvedZone": "example.com.",
        "allowAmbientCredentials": false, "config": {"backend": "corp-aws", "secret": {"name": "dns-token"}},
    });
    let mut envelope = json!({"apiVersion": "webhook.acme.cert-manager.io/v1alpha1", "kind": "ChallengePayload"});
    if let Some(request) = request.as_object_mut() {
        for _ in 0..[0, 1, 1, 2, 4][random.below(5)] {
            mutate(random, request);
        }
    }
    envelope["request"] = request;
    if random.one_in(8)
        && let Some(envelope) = envelope.as_object_mut()
    {
        mutate(random, envelope);
    }
    let mut bytes = envelope.to_string().into_bytes();
    if random.one_in(3) {
        for _ in 0..=random.below(3) {
            scramble(random, &mut bytes);
        }
    }
    bytes
}

fn mutate(random: &mut Random, object: &mut Map<String, Json>) {
    let keys: Vec<String> = object.keys().cloned().collect();
    let Some(key) = keys.get(random.below(keys.len().max(1))).cloned() else { return };
    match random.below(6) {
        0 => drop(object.remove(&key)),
        1 => drop(object.insert(unusual(random), value(random, 0))),
        2 if object[&key].is_object() => {
            if let Some(inner) = object[&key].as_object_mut() {
                mutate(random, inner);
            }
        }
        _ => drop(object.insert(key, value(random, 0))),
    }
}

/// A text that means something somewhere, or to somebody.
fn unusual(random: &mut Random) -> String {
    let text = random.of(&[
        "",
        "Present",
        "CleanUp",
        "present",
        "dns-01",
        "http-01",
        "backend",
        "secret",
        "name",
        "namespace",
        "config",
        "url",
        "embedded",
        "team-b",
        "kube-system",
        "-a",
        "a-",
        "A",
        "a/b",
        "a@b",
        "corp-aws@team-b/dns",
        "../../etc/passwd",
        "https://attacker.test/",
        "*.example.com",
        "_acme-challenge.example.com.",
        "..",
        ".",
        "a..b",
        "xn--nxasmq6b",
        "ключ",
        "\u{0}",
        "\u{1b}[31m",
        "\r\nX-Remote-User: root",
        "\u{202e}",
        "\"",
        "\\",
        "\\000",
        "webhook.acme.cert-manager.io/v1alpha1",
        "acme.corp.test/v1alpha1",
        "ChallengePayload",
        "null",
        "1e400",
        "\u{feff}",
        "🦀",
    ]);
    match random.below(8) {
        0 => text.repeat(random.below(300)),
        1 => format!("{text}.{}", "x".repeat(random.below(70))),
        2 => format!("{}{text}", char::from_u32(u32::try_from(random.below(0x11_0000)).unwrap_or(0)).unwrap_or('?')),
        _ => text.to_owned(),
    }
}

fn value(random: &mut Random, depth: u32) -> Json {
    match random.below(if depth < 4 { 10 } else { 7 }) {
        0 => Json::Null,
        1 => json!(random.one_in(2)),
        2 => json!(random.next()),
        3 => json!(f64::from_bits(random.next())),
        4..=6 => json!(unusual(random)),
        7 => (0..random.below(4)).map(|_| value(random, depth + 1)).collect(),
        _ => {
            let key =
                |random: &mut Random| if random.one_in(2) { random.of(&["backend", "secret", "name"]).to_owned() } else { unusual(random) };
            Json::Object((0..random.below(4)).map(|_| (key(random), value(random, depth + 1))).collect())
        }
    }
}

/// What no serializer would write.
fn scramble(random: &mut Random, bytes: &mut Vec<u8>) {
    let at = random.below(bytes.len() + 1);
    match random.below(7) {
        0 => bytes.truncate(at),
        1 => bytes.insert(at, u8::try_from(random.below(256)).unwrap_or(0)),
        2 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        3 => {
            let length = random.below(40).min(bytes.len() - at);
            let piece = bytes[at..at + length].to_vec();
            let to = random.below(bytes.len() + 1);
            bytes.splice(to..to, piece);
        }
        4 => drop(bytes.splice(at..at, b",\"action\":\"CleanUp\"".iter().copied())),
        5 => drop(bytes.splice(at..at, vec![b'['; random.below(300)])),
        _ => {
            let end = (at + random.below(20)).min(bytes.len());
            bytes.drain(at..end);
        }
    }
}
