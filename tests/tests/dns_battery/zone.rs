//! The zone that all three servers serve.

use crate::packet;

/// Its apex.
pub(crate) const APEX: &str = "battery.test";

/// Its records but SOA and NS of the apex, which acmegate makes itself, in master file form.
pub(crate) fn records() -> Vec<String> {
    let long = |length: usize, letter: &str| letter.repeat(length);
    let mut records: Vec<String> = RECORDS.iter().map(|line| (*line).to_owned()).collect();
    records.push(format!("long.{APEX}. 300 TXT \"{}\" \"{}\" \"end\"", long(255, "a"), long(245, "b")));
    records.extend(["c", "d", "e", "f"].map(|letter| format!("mid.{APEX}. 300 TXT \"{}\"", long(200, letter))));
    records.extend((0..10).map(|n| format!("big.{APEX}. 300 TXT \"{n}{}\"", long(200, "g"))));
    records.push(format!("{}. 300 TXT \"deep\"", deep()));
    records.push(format!("{}. 300 TXT \"longest\"", longest()));
    records
}

/// An owner of many labels.
pub(crate) fn deep() -> String {
    let labels: String = (0..60).map(|n| format!("l{}.", n % 10)).collect();
    format!("{labels}deep.{APEX}")
}

/// An owner of 255 bytes, the most that a name may have.
pub(crate) fn longest() -> String {
    let labels = format!("{}.{}.{}.", "x".repeat(63), "y".repeat(63), "z".repeat(63));
    let rest = 255 - packet::wire(&format!("{labels}{APEX}")).len() - 1;
    format!("{labels}{}.{APEX}", "w".repeat(rest))
}

const RECORDS: &[&str] = &[
    "ns1.battery.test. 3600 A 198.51.100.1",
    "ns1.battery.test. 3600 AAAA 2001:db8::1",
    "ns2.battery.test. 3600 A 198.51.100.2",
    "battery.test. 300 A 198.51.100.80",
    "battery.test. 300 TXT \"v=spf1 -all\"",
    "battery.test. 300 MX 10 mail.battery.test.",
    "battery.test. 300 MX 20 mx.example.org.",
    "battery.test. 300 CAA 0 issue \"ca.example; accounturi=https://ca.example/1\"",
    "battery.test. 300 CAA 128 iodef \"mailto:hostmaster@example.org\"",
    "www.battery.test. 300 A 198.51.100.81",
    "www.battery.test. 300 A 198.51.100.82",
    "www.battery.test. 300 AAAA 2001:db8::81",
    "mail.battery.test. 300 A 198.51.100.25",
    "mail.battery.test. 300 AAAA 2001:db8::25",
    "txt.battery.test. 300 TXT \"one\" \"two\"",
    "txt.battery.test. 300 TXT \"three; \\\"quoted\\\" \\\\\"",
    "empty.battery.test. 300 TXT \"\"",
    "Upper.Case.battery.test. 300 TXT \"Letters Kept\"",
    "host.battery.test. 300 HINFO \"cpu\" \"os\"",
    "_sip._tcp.battery.test. 300 SRV 1 2 5060 www.battery.test.",
    "_sip._tcp.battery.test. 300 SRV 2 2 5060 sip.example.org.",
    "1.ptr.battery.test. 300 PTR www.battery.test.",
    "_443._tcp.battery.test. 300 TLSA 3 1 1 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
    "strange.battery.test. 300 TYPE65280 \\# 3 0a0b0c",
    // Aliases.
    "alias.battery.test. 300 CNAME www.battery.test.",
    "alias2.battery.test. 300 CNAME alias.battery.test.",
    "alias-upper.battery.test. 300 CNAME UPPER.Case.battery.test.",
    "alias-txt.battery.test. 300 CNAME txt.battery.test.",
    "alias-big.battery.test. 300 CNAME big.battery.test.",
    "alias-out.battery.test. 300 CNAME www.example.org.",
    "alias-none.battery.test. 300 CNAME none.battery.test.",
    "alias-ent.battery.test. 300 CNAME ent.battery.test.",
    "alias-cut.battery.test. 300 CNAME www.sub.battery.test.",
    "alias-wild.battery.test. 300 CNAME a.wild.battery.test.",
    "loop1.battery.test. 300 CNAME loop2.battery.test.",
    "loop2.battery.test. 300 CNAME loop1.battery.test.",
    "self.battery.test. 300 CNAME self.battery.test.",
    // Delegations: glue below the cut, in a sibling zone, partly, none; and one with a DS.
    "sub.battery.test. 300 NS ns1.sub.battery.test.",
    "sub.battery.test. 300 NS ns2.sub.battery.test.",
    "ns1.sub.battery.test. 300 A 198.51.100.11",
    "ns1.sub.battery.test. 300 AAAA 2001:db8::11",
    "ns2.sub.battery.test. 300 A 198.51.100.12",
    "sibling.battery.test. 300 NS ns1.sub.battery.test.",
    "foreign.battery.test. 300 NS ns1.example.org.",
    "foreign.battery.test. 300 NS ns2.example.org.",
    "inside.battery.test. 300 NS www.battery.test.",
    "signed.battery.test. 300 NS ns1.example.org.",
    "signed.battery.test. 300 DS 12345 13 2 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
    "a.b.cut.battery.test. 300 NS ns1.example.org.",
    // Empty non-terminals and a wildcard.
    "a.b.ent.battery.test. 300 TXT \"below\"",
    "*.wild.battery.test. 300 TXT \"wild\"",
    "*.wild.battery.test. 300 A 198.51.100.90",
    "x.y.wild.battery.test. 300 TXT \"tame\"",
    "*.wildalias.battery.test. 300 CNAME www.battery.test.",
];

/// Names to ask for: every kind of place that a zone has.
pub(crate) fn names() -> Vec<(&'static str, String)> {
    let mut names: Vec<(&str, String)> = NAMES.iter().map(|(label, name)| (*label, (*name).to_owned())).collect();
    names.push(("deep", deep()));
    names.push(("deep-ent", deep().split_once('.').map(|(_, rest)| rest.to_owned()).unwrap_or_default()));
    names.push(("longest", longest()));
    names
}

const NAMES: &[(&str, &str)] = &[
    ("apex", "battery.test"),
    ("ns1", "ns1.battery.test"),
    ("www", "www.battery.test"),
    ("mail", "mail.battery.test"),
    ("txt", "txt.battery.test"),
    ("empty", "empty.battery.test"),
    ("long", "long.battery.test"),
    ("mid", "mid.battery.test"),
    ("big", "big.battery.test"),
    ("upper", "upper.case.battery.test"),
    ("upper-ent", "case.battery.test"),
    ("host", "host.battery.test"),
    ("srv", "_sip._tcp.battery.test"),
    ("ptr", "1.ptr.battery.test"),
    ("tlsa", "_443._tcp.battery.test"),
    ("strange", "strange.battery.test"),
    ("alias", "alias.battery.test"),
    ("alias2", "alias2.battery.test"),
    ("alias-upper", "alias-upper.battery.test"),
    ("alias-txt", "alias-txt.battery.test"),
    ("alias-big", "alias-big.battery.test"),
    ("alias-out", "alias-out.battery.test"),
    ("alias-none", "alias-none.battery.test"),
    ("alias-ent", "alias-ent.battery.test"),
    ("alias-cut", "alias-cut.battery.test"),
    ("alias-wild", "alias-wild.battery.test"),
    ("below-alias", "x.alias.battery.test"),
    ("loop", "loop1.battery.test"),
    ("self", "self.battery.test"),
    ("cut", "sub.battery.test"),
    ("below-cut", "www.sub.battery.test"),
    ("glue", "ns1.sub.battery.test"),
    ("sibling", "sibling.battery.test"),
    ("foreign", "foreign.battery.test"),
    ("inside", "inside.battery.test"),
    ("signed", "signed.battery.test"),
    ("below-signed", "www.signed.battery.test"),
    ("cut-ent", "b.cut.battery.test"),
    ("ent", "ent.battery.test"),
    ("ent2", "b.ent.battery.test"),
    ("below-ent", "a.b.ent.battery.test"),
    ("beside-ent", "c.b.ent.battery.test"),
    ("below-leaf", "x.www.battery.test"),
    ("none", "none.battery.test"),
    ("deep-none", "a.b.c.none.battery.test"),
    ("wild-ent", "wild.battery.test"),
    ("wild", "a.wild.battery.test"),
    ("wild-deep", "a.b.wild.battery.test"),
    ("wild-itself", "*.wild.battery.test"),
    ("wild-blocked", "a.y.wild.battery.test"),
    ("wild-blocker", "y.wild.battery.test"),
    ("wild-tame", "x.y.wild.battery.test"),
    ("wildalias", "a.wildalias.battery.test"),
    ("parent", "test"),
    ("root", ""),
    ("suffix", "xbattery.test"),
    ("elsewhere", "www.example.org"),
];
