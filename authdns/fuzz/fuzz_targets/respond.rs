//! Any bytes through the answer function: no panic, and a response that fits, has the ID and repeats the question.
//!
//! In `authdns/`, on stable Rust:
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run -s none respond fuzz/corpus/respond fuzz/seeds/respond -- -max_len=1400 -max_total_time=30`
#![no_main]

use std::sync::LazyLock;

use authdns::{Name, Outcome, Transport, ZoneConfig, Zones, respond};
use libfuzzer_sys::fuzz_target;

const RECORDS: &[&str] = &[
    "ns1.auth.example.org. A 198.51.100.1",
    "www.auth.example.org. CNAME x.auth.example.org.",
    "loop.auth.example.org. CNAME loop.auth.example.org.",
    "sub.auth.example.org. NS ns.sub.auth.example.org.",
    "ns.sub.auth.example.org. AAAA 2001:db8::1",
    "*.wild.auth.example.org. MX 10 ns1.auth.example.org.",
    "*.alias.auth.example.org. CNAME q.wild.auth.example.org.",
];

static ZONES: LazyLock<Zones> = LazyLock::new(|| {
    let name = |text: &str| text.parse::<Name>().expect("a name");
    let zone = |apex: &str, records: &[&str]| {
        let mut config = ZoneConfig::new(name(apex), vec![name("ns1.auth.example.org")], name("hostmaster.example.org"));
        config.records = records.iter().map(|record| record.parse().expect("a record")).collect();
        config
    };
    let apex = name("auth.example.org");
    let zones = Zones::new(vec![zone("auth.example.org", RECORDS), zone("in.auth.example.org", &[])]).expect("sound zones");
    let long = (0..30).map(|number| format!("{number:043}").into()).collect();
    let changes =
        [("x", vec!["one".into(), "two".into()]), ("long", long), ("a.b.c", vec!["".into()]), ("*.dyn", vec!["y".repeat(700).into()])];
    zones.set_txt(&apex, 7, changes.map(|(owner, values)| (name(owner).under(&apex).expect("short"), values)));
    zones
});

fuzz_target!(|message: &[u8]| {
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut out = Vec::new();
        if respond(&ZONES, message, transport, &mut out) == Outcome::Dropped {
            assert!(out.is_empty());
            continue;
        }
        assert!(out.len() <= if transport == Transport::Udp { 1232 } else { 65_535 });
        assert_eq!((&out[..2], out[2] & 0x80), (&message[..2], 0x80));
        if out[5] == 1 {
            let end = question_end(&out);
            assert_eq!(out[12..end], message[12..end]);
        }
    }
});

/// Where the question of a response ends.
fn question_end(response: &[u8]) -> usize {
    let mut at = 12;
    while response[at] != 0 {
        at += usize::from(response[at]) + 1;
    }
    at + 5
}
