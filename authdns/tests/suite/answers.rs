//! What is answered to well-formed queries.

use authdns::{RecordType, Transport, ZoneError, Zones};

use crate::common::*;

const NXDOMAIN: u16 = 3;
const REFUSED: u16 = 5;

fn nodata(response: &Response) -> bool {
    response.rcode() == 0 && response.is_authoritative() && response.answers().is_empty() && response.authorities() == [SOA]
}

fn nxdomain(response: &Response) -> bool {
    response.rcode() == NXDOMAIN && response.is_authoritative() && response.answers().is_empty() && response.authorities() == [SOA]
}

#[test]
fn a_value_is_answered_with_authority_and_nothing_else() {
    let zones = zones();
    set(&zones, 1, "x.auth.example.org", &["one", "Two"]);
    let response = ask(&zones, "x.auth.example.org", RecordType::TXT);
    assert_eq!(response.flags(), 0x8400);
    assert_eq!(response.answers(), ["x.auth.example.org. 1 TXT \"one\"", "x.auth.example.org. 1 TXT \"Two\""].map(|t| t.replace('"', "")));
    assert_eq!((response.authorities().len(), response.additionals().len()), (0, 0));
    // Header, question, and two records whose owner is a pointer: 12 bytes and the RDATA each.
    assert_eq!(response.bytes.len(), 12 + 24 + 2 * (12 + 4));
}

#[test]
fn letter_case_does_not_matter_and_the_question_comes_back_as_sent() {
    let zones = zones();
    set(&zones, 1, "X.Auth.Example.Org", &["v"]);
    let query = raw_query(b"\x01x\x04aUtH\x07EXAMPLE\x03orG\0", RecordType::TXT, 1);
    let response = ask_bytes(&zones, &query);
    assert_eq!(response.answers().len(), 1);
    assert_eq!(response.bytes[12..query.len()], query[12..]);
    assert_eq!(response.answers(), ["x.aUtH.EXAMPLE.orG. 1 TXT v"]);
}

#[test]
fn static_records_are_answered_as_written() {
    let zones = zones();
    assert_eq!(ask(&zones, "ns1.auth.example.org", RecordType::A).answers(), ["ns1.auth.example.org. 3600 A 198.51.100.1"]);
    let response = ask(&zones, APEX, RecordType::NS);
    assert_eq!(response.answers(), ["auth.example.org. 3600 NS ns1.auth.example.org."]);
    assert_eq!(response.additionals().len(), 2, "addresses of the server");
    assert_eq!(ask(&zones, APEX, RecordType::SOA).answers(), [SOA]);
    let mail = ask(&zones, "mail.auth.example.org", RecordType::MX);
    assert_eq!(mail.answers(), ["mail.auth.example.org. 3600 MX 10 ns1.auth.example.org."]);
    assert_eq!(mail.additionals().len(), 2);
}

#[test]
fn static_and_dynamic_values_stand_in_one_set() {
    let zones = zones();
    assert_eq!(ask(&zones, "mixed.auth.example.org", RecordType::TXT).answers(), ["mixed.auth.example.org. 60 TXT Fixed Value"]);
    set(&zones, 1, "mixed.auth.example.org", &["new", "Fixed Value"]);
    let expected = ["mixed.auth.example.org. 1 TXT new", "mixed.auth.example.org. 1 TXT Fixed Value"];
    assert_eq!(ask(&zones, "mixed.auth.example.org", RecordType::TXT).answers(), expected);
    assert_eq!(zones.txt(&name("mixed.auth.example.org")), ["new".into(), "Fixed Value".into()]);
    assert_eq!(ask(&zones, "mixed.auth.example.org", RecordType::A).answers().len(), 1);
    set(&zones, 1, "mixed.auth.example.org", &[]);
    assert_eq!(ask(&zones, "mixed.auth.example.org", RecordType::TXT).answers(), ["mixed.auth.example.org. 60 TXT Fixed Value"]);
}

#[test]
fn names_without_the_type_are_nodata_and_names_below_nothing_do_not_exist() {
    let zones = zones();
    set(&zones, 1, "a.b.c.auth.example.org", &["v"]);
    assert!(nodata(&ask(&zones, "a.b.c.auth.example.org", RecordType::A)));
    assert!(nodata(&ask(&zones, "a.b.c.auth.example.org", RecordType::SOA)));
    assert!(nodata(&ask(&zones, "a.b.c.auth.example.org", RecordType::CAA)));
    for empty in ["b.c.auth.example.org", "c.auth.example.org", "y.auth.example.org", "x.y.auth.example.org"] {
        assert!(nodata(&ask(&zones, empty, RecordType::TXT)), "{empty}");
        assert!(nodata(&ask(&zones, empty, RecordType::ANY)), "{empty}");
    }
    for missing in ["z.auth.example.org", "z.a.b.c.auth.example.org", "z.b.c.auth.example.org", "z.ns1.auth.example.org"] {
        assert!(nxdomain(&ask(&zones, missing, RecordType::TXT)), "{missing}");
    }
    set(&zones, 1, "a.b.c.auth.example.org", &[]);
    assert!(nxdomain(&ask(&zones, "c.auth.example.org", RecordType::TXT)));
}

#[test]
fn what_is_not_ours_is_refused() {
    let zones = zones();
    for foreign in ["example.org", "org", ".", "example.com", "xauth.example.org"] {
        let response = ask(&zones, foreign, RecordType::TXT);
        assert_eq!((response.rcode(), response.flags() & 0x0400, response.authorities().len()), (REFUSED, 0, 0), "{foreign}");
    }
    for class in [0, 3, 4, 254, 255] {
        let response = ask_bytes(&zones, &raw_query(name(APEX).as_wire(), RecordType::SOA, class));
        assert_eq!((response.rcode(), response.answers().len()), (REFUSED, 0), "class {class}");
    }
    for transfer in [RecordType::AXFR, RecordType::IXFR] {
        assert_eq!(ask(&zones, APEX, transfer).rcode(), REFUSED);
        assert_eq!(ask_over(&zones, &query(APEX, transfer), Transport::Tcp).expect("a response").rcode(), REFUSED);
    }
    assert_eq!(ask(&Zones::default(), APEX, RecordType::SOA).rcode(), REFUSED);
}

#[test]
fn any_is_answered_with_one_set() {
    let zones = zones();
    set(&zones, 1, "x.auth.example.org", &["one", "two"]);
    assert_eq!(ask(&zones, "x.auth.example.org", RecordType::ANY).answers().len(), 2);
    assert_eq!(ask(&zones, "mixed.auth.example.org", RecordType::ANY).answers(), ["mixed.auth.example.org. 60 A 192.0.2.7"]);
    assert_eq!(
        ask(&zones, "www.auth.example.org", RecordType::ANY).answers(),
        ["www.auth.example.org. 300 CNAME Target.auth.example.org."]
    );
    assert_eq!(ask(&zones, APEX, RecordType::ANY).answers(), ["auth.example.org. 3600 NS ns1.auth.example.org."]);
    assert!(nxdomain(&ask(&zones, "missing.auth.example.org", RecordType::ANY)));
}

#[test]
fn aliases_are_followed_inside_the_zone() {
    let zones = zones();
    let alias = "www.auth.example.org. 300 CNAME Target.auth.example.org.";
    assert_eq!(ask(&zones, "www.auth.example.org", RecordType::CNAME).answers(), [alias]);
    let followed = ask(&zones, "www.auth.example.org", RecordType::AAAA);
    // The owner points at the name in the RDATA before it, and so has its letter case.
    assert_eq!(followed.answers(), [alias, "Target.auth.example.org. 300 AAAA 2001:db8::1"]);
    let nothing = ask(&zones, "www.auth.example.org", RecordType::A);
    assert_eq!((nothing.rcode(), nothing.answers(), nothing.authorities()), (0, vec![alias.to_owned()], vec![SOA.to_owned()]));
    let away = ask(&zones, "away.auth.example.org", RecordType::A);
    assert_eq!((away.rcode(), away.answers().len(), away.authorities().len()), (0, 1, 0));
    // The response code is that of the last name (RFC 6604, 2.1).
    let nowhere = ask(&zones, "nowhere.auth.example.org", RecordType::A);
    assert_eq!((nowhere.rcode(), nowhere.answers().len(), nowhere.authorities()), (NXDOMAIN, 1, vec![SOA.to_owned()]));
    assert_eq!(ask(&zones, "loop1.auth.example.org", RecordType::A).answers().len(), 2);
    let down = ask(&zones, "down.auth.example.org", RecordType::A);
    assert_eq!((down.is_authoritative(), down.answers().len(), down.authorities().len(), down.additionals().len()), (true, 1, 2, 1));
    let dynamic = Zones::new(vec![config(APEX, &["alias.auth.example.org. CNAME x.auth.example.org."])]).expect("sound");
    set(&dynamic, 1, "x.auth.example.org", &["v"]);
    assert_eq!(ask(&dynamic, "alias.auth.example.org", RecordType::TXT).answers()[1], "x.auth.example.org. 1 TXT v");
}

#[test]
fn delegations_are_referred_with_glue_and_without_authority() {
    let zones = zones();
    for (owner, rtype) in
        [("sub.auth.example.org", RecordType::A), ("a.b.sub.auth.example.org", RecordType::DS), ("sub.auth.example.org", RecordType::ANY)]
    {
        let response = ask(&zones, owner, rtype);
        assert_eq!((response.rcode(), response.is_authoritative(), response.answers().len()), (0, false, 0), "{owner}");
        assert_eq!(response.authorities()[0], "sub.auth.example.org. 3600 NS ns.sub.auth.example.org.");
        assert_eq!(response.additionals(), ["ns.sub.auth.example.org. 3600 A 198.51.100.2"]);
    }
    // The glue itself is no answer of ours.
    assert!(!ask(&zones, "ns.sub.auth.example.org", RecordType::A).is_authoritative());
    let ds = ask(&zones, "sub.auth.example.org", RecordType::DS);
    assert_eq!((ds.is_authoritative(), ds.answers().len()), (true, 1));
    assert!(nodata(&ask(&zones, "plain.auth.example.org", RecordType::DS)));
    // A delegation and an alias hide what is put below or beside them; it is kept.
    for hidden in ["x.sub.auth.example.org", "sub.auth.example.org", "www.auth.example.org"] {
        set(&zones, 1, hidden, &["hidden"]);
        assert!(!ask(&zones, hidden, RecordType::TXT).answers().iter().any(|answer| answer.contains("hidden")), "{hidden}");
        assert_eq!(zones.txt(&name(hidden)), ["hidden".into()]);
    }
}

#[test]
fn wildcards_stand_for_names_that_do_not_exist() {
    let zones = zones();
    assert_eq!(ask(&zones, "a.b.wild.auth.example.org", RecordType::TXT).answers(), ["a.b.wild.auth.example.org. 3600 TXT anything"]);
    assert!(nodata(&ask(&zones, "a.wild.auth.example.org", RecordType::A)));
    assert!(nodata(&ask(&zones, "wild.auth.example.org", RecordType::TXT)));
    assert_eq!(ask(&zones, "*.wild.auth.example.org", RecordType::TXT).answers().len(), 1);
    let alias = ask(&zones, "a.alias.auth.example.org", RecordType::AAAA);
    assert_eq!(alias.answers()[0], "a.alias.auth.example.org. 3600 CNAME target.auth.example.org.");
    assert_eq!(alias.answers().len(), 2);
    // A name that exists, even an empty one, keeps the wildcard off itself and what is below (RFC 4592, 2.2.1).
    set(&zones, 1, "x.y.wild.auth.example.org", &["v"]);
    assert!(nodata(&ask(&zones, "y.wild.auth.example.org", RecordType::TXT)));
    assert!(nxdomain(&ask(&zones, "z.y.wild.auth.example.org", RecordType::TXT)));
    // A wildcard that exists only because of a name below it has no data to give (RFC 4592, 2.2.2).
    set(&zones, 1, "x.*.e.auth.example.org", &["v"]);
    assert!(nodata(&ask(&zones, "q.e.auth.example.org", RecordType::TXT)));
    // Dynamic owners can be wildcards too.
    set(&zones, 1, "*.dyn.auth.example.org", &["v"]);
    assert_eq!(ask(&zones, "q.dyn.auth.example.org", RecordType::TXT).answers(), ["q.dyn.auth.example.org. 1 TXT v"]);
    set(&zones, 1, "*.dyn.auth.example.org", &[]);
    assert!(nxdomain(&ask(&zones, "q.dyn.auth.example.org", RecordType::TXT)));
}

#[test]
fn zones_may_nest() {
    let inner = "in.auth.example.org";
    let records = ["a.auth.example.org. TXT outer", "in.auth.example.org. NS ns1.auth.example.org.", "in.auth.example.org. DS 1 13 2 00"];
    let zones = Zones::new(vec![config(inner, &["a.in.auth.example.org. TXT inner"]), config(APEX, &records)]).expect("sound");
    assert_eq!(zones.zone_of(&name("x.in.auth.example.org")), Some(name(inner)));
    assert_eq!(zones.zone_of(&name("xin.auth.example.org")), Some(name(APEX)));
    assert_eq!(zones.zone_of(&name("example.org")), None);
    let answer = ask(&zones, "a.in.auth.example.org", RecordType::TXT);
    assert_eq!((answer.is_authoritative(), answer.answers()), (true, vec!["a.in.auth.example.org. 3600 TXT inner".to_owned()]));
    assert!(ask(&zones, "missing.in.auth.example.org", RecordType::A).authorities()[0].starts_with("in.auth.example.org. 10 SOA"));
    // The DS of the inner zone is the outer zone's; that of the outer one would be its parent's, which is not here.
    let ds = ask(&zones, inner, RecordType::DS);
    assert_eq!((ds.is_authoritative(), ds.answers().len(), ds.authorities().len()), (true, 1, 0));
    assert!(nodata(&ask(&zones, APEX, RecordType::DS)));
    // Values go to the zone that their owner is in.
    zones.set_txt(&name(APEX), 9, [(name("x.in.auth.example.org"), vec!["v".into()]), (name("x.example.org"), vec!["v".into()])]);
    assert_eq!(ask(&zones, "x.in.auth.example.org", RecordType::TXT).rcode(), NXDOMAIN);
    assert_eq!((zones.serial(&name(APEX)), zones.serial(&name(inner))), (Some(9), Some(1)));
    // Names between two apexes exist.
    let far = Zones::new(vec![config("a.b.auth.example.org", &[]), config(APEX, &[])]).expect("sound");
    assert!(nodata(&ask(&far, "b.auth.example.org", RecordType::A)));
    assert_eq!(ask(&far, "a.b.auth.example.org", RecordType::DS).authorities(), [SOA]);
}

#[test]
fn the_serial_is_the_one_that_was_set() {
    let zones = zones();
    set(&zones, 4_294_967_295, "x.auth.example.org", &["v"]);
    assert!(ask(&zones, APEX, RecordType::SOA).answers()[0].contains(" 4294967295 3600 "));
    assert!(ask(&zones, "missing.auth.example.org", RecordType::A).authorities()[0].contains(" 4294967295 3600 "));
    assert_eq!(zones.serial(&name("example.com")), None);
}

#[test]
fn negative_answers_last_a_minute_at_most() {
    let mut config = config(APEX, &[]);
    config.negative_ttl = 3600;
    let zones = Zones::new(vec![config]).expect("sound");
    let soa = &ask(&zones, "missing.auth.example.org", RecordType::A).authorities()[0];
    assert!(soa.starts_with("auth.example.org. 60 SOA") && soa.ends_with(" 60"), "{soa}");
}

#[test]
fn values_may_be_long_and_many_and_empty() {
    let zones = zones();
    let long = "y".repeat(600);
    set(&zones, 1, "x.auth.example.org", &[&long, "", ""]);
    let response = ask_over(&zones, &query("x.auth.example.org", RecordType::TXT), Transport::Tcp).expect("a response");
    assert_eq!(response.answers().len(), 2, "each value once");
    assert_eq!(zones.txt(&name("x.auth.example.org")), [long.into_boxed_str(), "".into()]);
    let values: Vec<String> = (0..500).map(|number| format!("{number:043}")).collect();
    set(&zones, 1, "many.auth.example.org", &values.iter().map(String::as_str).collect::<Vec<_>>());
    let response = ask_over(&zones, &query("many.auth.example.org", RecordType::TXT), Transport::Tcp).expect("a response");
    assert_eq!((response.answers().len(), response.is_truncated()), (500, false));
}

#[test]
fn unsound_zones_are_refused() {
    let error = |records: &[&str]| Zones::new(vec![config(APEX, records)]).map(|_| ()).expect_err("unsound");
    let beside = ZoneError::CnameBesideData(name("x.auth.example.org"));
    assert_eq!(error(&["x.auth.example.org. CNAME y.", "x.auth.example.org. TXT t"]), beside);
    assert_eq!(error(&["auth.example.org. CNAME y."]), ZoneError::CnameBesideData(name(APEX)));
    assert_eq!(
        error(&["x.auth.example.org. CNAME y.", "x.auth.example.org. CNAME z."]),
        ZoneError::SeveralCnames(name("x.auth.example.org"))
    );
    assert_eq!(error(&["*.auth.example.org. NS y."]), ZoneError::DelegatedWildcard(name("*.auth.example.org")));
    assert_eq!(
        error(&["x.example.org. A 192.0.2.1"]).to_string(),
        "the record \"x.example.org. 3600 A 192.0.2.1\" is outside its zone auth.example.org."
    );
    let twice = Zones::new(vec![config(APEX, &[]), config(APEX, &[])]).map(|_| ());
    assert_eq!(twice, Err(ZoneError::Duplicate(name(APEX))));
    let mut bare = config(APEX, &[]);
    bare.nameservers.clear();
    assert_eq!(Zones::new(vec![bare]).map(|_| ()), Err(ZoneError::NoNameserver(name(APEX))));
}

#[test]
fn lookup_is_typed() {
    let zones = zones();
    set(&zones, 1, "x.auth.example.org", &["v"]);
    let answer = zones.lookup(&name("x.auth.example.org"), RecordType::TXT);
    assert_eq!((answer.rcode, answer.authoritative, answer.txt()), (authdns::Rcode::NoError, true, vec![b"v".to_vec()]));
    drop(answer);
    assert_eq!(zones.lookup(&name("example.com"), RecordType::TXT).rcode, authdns::Rcode::Refused);
}
