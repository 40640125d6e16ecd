//! Answers judged by the tools that people have: dig, delv, dnspython, and unbound with its strictest habits.

#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::{collections::BTreeSet, net::SocketAddr, process::Command};

use acmegate_tests::{
    acmedns::{Account, register, update, value},
    acmegate::{Acmegate, Config},
    addresses::Address,
    bind::{self, Bind},
    dns,
    process::{Output, run},
    program, python, temporary_folder,
    unbound::Unbound,
    wait::LIMIT,
    write,
};
use hickory_proto::{op::ResponseCode, rr::RecordType};
use reqwest::Client;

const ZONE: &str = "auth.gateway.test";

#[tokio::test]
async fn dig_sees_the_apex_as_it_is_configured() {
    let acmegate = Acmegate::started(config(any())).await;
    let soa = dig(&acmegate, &[ZONE, "SOA"]).await;
    assert_eq!((soa.status.as_str(), soa.flags.as_str()), ("NOERROR", "qr aa"));
    let [record] = &soa.answer[..] else { panic!("{:?}", soa.answer) };
    assert!(record.starts_with("auth.gateway.test. 10 IN SOA ns1.auth.gateway.test. hostmaster.auth.gateway.test. "), "{record}");
    let numbers: Vec<u32> = record.split(' ').skip(6).map(|number| number.parse().expect("a number")).collect();
    assert_eq!((numbers.len(), numbers.last()), (5, Some(&10)), "serial, refresh, retry, expire and a short negative TTL: {record}");

    let ns = dig(&acmegate, &[ZONE, "NS"]).await;
    assert_eq!(ns.answer, ["auth.gateway.test. 3600 IN NS ns1.auth.gateway.test.", "auth.gateway.test. 3600 IN NS ns2.elsewhere.test."]);
    assert_eq!(ns.additional, ["ns1.auth.gateway.test. 3600 IN A 198.51.100.1"]);
    let caa = dig(&acmegate, &[ZONE, "CAA"]).await;
    assert_eq!(caa.answer, ["auth.gateway.test. 60 IN CAA 0 issue \"ca.example; validationmethods=dns-01\""]);
    let upper = dig(&acmegate, &["Upper.auth.gateway.test", "CNAME"]).await;
    assert_eq!(
        upper.answer,
        ["Upper.auth.gateway.test. 60 IN CNAME Target.Elsewhere.Test."],
        "static records are kept as they are written"
    );
}

#[tokio::test]
async fn dig_sees_the_values_of_updates() {
    let acmegate = Acmegate::started(config(any())).await;
    let account = account_with_values(&acmegate, 1..=3).await;
    let expected: Vec<String> = (1..=3).map(|seed| format!("{} 1 IN TXT \"{}\"", dotted(&account), value(seed))).collect();
    for options in
        [&["+norec"][..], &["+rec"], &["+tcp"], &["+bufsize=512"], &["+bufsize=4096"], &["+noedns"], &["+dnssec"], &["+qr", "+nocookie"]]
    {
        let answer = dig(&acmegate, &[&[account.fulldomain.as_str(), "TXT"], options].concat()).await;
        assert_eq!((answer.status.as_str(), &answer.answer), ("NOERROR", &expected), "{options:?}");
        assert!(answer.flags.starts_with("qr aa") && !answer.flags.contains(" ra"), "{options:?}: {}", answer.flags);
    }
    let shouted = dig(&acmegate, &[&account.fulldomain.to_uppercase(), "TXT"]).await;
    assert_eq!(
        shouted.answer.iter().map(|line| line.to_lowercase()).collect::<Vec<_>>(),
        expected.iter().map(|l| l.to_lowercase()).collect::<Vec<_>>()
    );
    let any = dig(&acmegate, &[&account.fulldomain, "ANY", "+notcp"]).await;
    assert_eq!((any.status.as_str(), any.answer.len()), ("NOERROR", 3), "one RRset, RFC 8482");
    assert_eq!(dig(&acmegate, &[&account.fulldomain, "TXT", "CH"]).await.status, "REFUSED");
}

#[tokio::test]
async fn dig_sees_what_is_not_there() {
    let acmegate = Acmegate::started(config(any())).await;
    let account = account_with_values(&acmegate, 1..=1).await;
    let names = |labels: &str| format!("{labels}.{}", account.fulldomain);
    for rtype in ["A", "AAAA", "CAA", "SOA", "NS", "CNAME", "MX", "DNSKEY", "TYPE65280"] {
        nodata(&dig(&acmegate, &[&account.fulldomain, rtype]).await, rtype);
        nodata(&dig(&acmegate, &["b.deep.auth.gateway.test", rtype]).await, rtype);
    }
    for missing in [names("x"), names("a.b"), format!("none.{ZONE}"), format!("00000000-0000-4000-8000-000000000000.{ZONE}")] {
        for rtype in ["A", "TXT", "ANY"] {
            let answer = dig(&acmegate, &[&missing, rtype, "+notcp"]).await;
            assert_eq!((answer.status.as_str(), answer.answer.len()), ("NXDOMAIN", 0), "{missing} {rtype}");
            assert_soa(&answer);
        }
    }
    for foreign in ["gateway.test", "test", ".", "example.org", "xauth.gateway.test", "auth.gateway.test.example.org"] {
        let answer = dig(&acmegate, &[foreign, "TXT"]).await;
        assert_eq!((answer.status.as_str(), answer.flags.as_str()), ("REFUSED", "qr"), "{foreign}");
        assert!(answer.answer.is_empty() && answer.authority.is_empty() && answer.additional.is_empty(), "{foreign}");
    }
    let transfer = dig_output(&acmegate, &[ZONE, "AXFR"]).await;
    transfer.says("Transfer failed");
}

/// An answer too large for a datagram is cut, and dig comes back over TCP by itself.
#[tokio::test]
async fn dig_comes_back_over_tcp_for_what_is_too_large() {
    let acmegate = Acmegate::started(config(any())).await;
    let cut = dig(&acmegate, &["big.auth.gateway.test", "TXT", "+ignore"]).await;
    assert_eq!((cut.flags.as_str(), cut.answer.len()), ("qr aa tc", 0), "nothing is better than a part of it");
    let whole = dig(&acmegate, &["big.auth.gateway.test", "TXT"]).await;
    assert_eq!((whole.flags.as_str(), whole.answer.len()), ("qr aa", 10));
    let one = dig(&acmegate, &["long.auth.gateway.test", "TXT", "+bufsize=512"]).await;
    assert_eq!(one.answer, [format!("long.auth.gateway.test. 60 IN TXT \"{}\" \"{}\"", "a".repeat(255), "b".repeat(145))]);
}

#[tokio::test]
async fn delv_takes_the_answers_for_unsigned_ones() {
    let acmegate = Acmegate::started(config(any())).await;
    let account = account_with_values(&acmegate, 1..=2).await;
    let folder = temporary_folder("delv");
    let anchors = folder.path().join("anchors");
    // delv wants an anchor: one of another name, under which our zone does not lie.
    write(&anchors, &format!("trust-anchors {{ other.test. static-ds 1 8 2 \"{}\"; }};\n", "00".repeat(32)));
    let delv = async |name: &str, rtype: &str| {
        let mut command = Command::new(program("delv"));
        command.args(server(&acmegate)).arg("-a").arg(&anchors).args(["+root=other.test", "+nosplit", name, rtype]);
        run("delv", command, LIMIT).await
    };
    let answer = delv(&account.fulldomain, "TXT").await;
    answer.succeeded().says(&value(1)).says(&value(2)).never_says("fully validated").never_says("failed");
    delv(&format!("none.{ZONE}"), "TXT").await.says("negative response, unsigned answer").says("nxdomain");
    delv(&account.fulldomain, "A").await.says("negative response, unsigned answer").says("nxrrset");
}

#[tokio::test]
async fn dnspython_reads_every_answer_to_the_last_byte() {
    let acmegate = Acmegate::started(config(any())).await;
    let account = account_with_values(&acmegate, 1..=8).await;
    let mut script = python::script(DNSPYTHON);
    script.args([acmegate.dns().ip().to_string(), acmegate.dns().port().to_string(), account.fulldomain.clone()]);
    script.args((1..=8).map(value));
    run("dnspython", script, LIMIT).await.succeeded().says("all is well");
}

/// `python - IP PORT NAME VALUES…`. dnspython refuses a response with another question, with bytes too many, or with a broken name.
const DNSPYTHON: &str = r#"
import random, sys
import dns.edns, dns.flags, dns.message, dns.name, dns.query, dns.rcode, dns.rdatatype as t

ip, port, name, values = sys.argv[1], int(sys.argv[2]), dns.name.from_text(sys.argv[3]), set(sys.argv[4:])
zone = dns.name.from_text('auth.gateway.test')

def ask(name, rdtype, tcp=False, **options):
    query = dns.message.make_query(name, rdtype, **options)
    reply = (dns.query.tcp if tcp else dns.query.udp)(query, ip, port=port, timeout=30)
    assert query.is_response(reply), reply
    assert bool(reply.flags & dns.flags.RD) == bool(query.flags & dns.flags.RD), reply
    assert not reply.flags & (dns.flags.RA | dns.flags.AD | dns.flags.CD), reply
    assert (reply.edns == 0 and reply.payload == 1232) if query.edns == 0 else reply.edns == -1, reply
    return reply

def txt(reply):
    return {b''.join(rdata.strings).decode() for rrset in reply.answer for rdata in rrset if rrset.rdtype == t.TXT}

def soa(reply):
    return [rrset for rrset in reply.authority if rrset.rdtype == t.SOA and rrset.name == zone]

for tcp in (False, True):
    for options in ({}, {'use_edns': 0, 'payload': 4096}, {'use_edns': 0, 'payload': 1232, 'want_dnssec': True}, {'flags': 0}):
        reply = ask(name, t.TXT, tcp, **options)
        small = not tcp and 'payload' not in options
        if reply.flags & dns.flags.TC:
            assert small, reply
            continue
        assert txt(reply) == values, reply
        assert reply.flags & dns.flags.AA and reply.rcode() == dns.rcode.NOERROR, reply
        assert all(rrset.ttl <= 60 for rrset in reply.answer), reply
        for rdtype in (t.A, t.CAA, t.SOA, t.DNSKEY):
            none = ask(name, rdtype, tcp, **options)
            assert none.rcode() == dns.rcode.NOERROR and not none.answer and soa(none), none
            assert soa(none)[0].ttl <= 60 and soa(none)[0][0].minimum <= 60, none
        missing = ask(dns.name.from_text('x', name), t.TXT, tcp, **options)
        assert missing.rcode() == dns.rcode.NXDOMAIN and soa(missing), missing
        foreign = ask('example.org', t.A, tcp, **options)
        assert foreign.rcode() == dns.rcode.REFUSED and not foreign.flags & dns.flags.AA, foreign

# 0x20: the question comes back letter by letter.
for _ in range(50):
    mixed = ''.join(random.choice((c.lower(), c.upper())) for c in str(name))
    reply = ask(mixed, t.TXT, use_edns=0, payload=1232)
    assert reply.question[0].name.to_text() == mixed, reply
    assert txt(reply) == values, reply

# What is to come: options that nobody knows yet, and another version of EDNS.
strange = ask(name, t.TXT, use_edns=0, payload=1232, options=[dns.edns.GenericOption(65001, b'x'), dns.edns.GenericOption(3, b'')])
assert txt(strange) == values, strange
query = dns.message.make_query(name, t.TXT, use_edns=1)
reply = dns.query.udp(query, ip, port=port, timeout=30)
assert reply.rcode() == dns.rcode.BADVERS and reply.edns == 0 and not reply.answer, reply
print('all is well')
"#;

#[tokio::test]
async fn the_serial_grows_with_every_change_and_never_goes_back() {
    let mut acmegate = Acmegate::started(config(any())).await;
    let client = Client::new();
    let mut last = serial(&acmegate).await;
    let account = register(&client, &acmegate.url("acmedns", "")).await.expect("it registers");
    for round in 0..4 {
        for number in 0..5 {
            update(&client, &acmegate.url("acmedns", ""), &account, &value(round * 10 + number)).await.expect("it updates");
            let now = serial(&acmegate).await;
            assert!(now > last, "an update changed the zone, and its serial went from {last} to {now}");
            last = now;
        }
        if round % 2 == 0 {
            acmegate.stop().await;
        } else {
            acmegate.kill();
        }
        acmegate.start().await;
        let now = serial(&acmegate).await;
        assert!(now >= last, "over a restart the serial went back from {last} to {now}");
        last = now;
    }
}

/// The strictest resolver there is: it asks label by label, takes no NXDOMAIN of an empty non-terminal for granted, and wants its letters back.
#[tokio::test]
async fn unbound_resolves_label_by_label_in_mixed_letters() {
    let (bind, resolver, gateway) = (Address::reserve(), Address::reserve(), Address::reserve());
    let delegation =
        |zone: &str, server: &str, address: &Address| format!("{zone}. NS {server}.{zone}.\n{server}.{zone}. A {}\n", address.ip());
    let root = bind::zone("", &bind) + &delegation("gateway.test", "ns", &bind) + &delegation("example.test", "ns", &bind);
    let parent = bind::zone("gateway.test", &bind) + &delegation(ZONE, "ns1", &gateway);
    let customer = bind::zone("example.test", &bind);
    let bind = Bind::start(bind, &[(".", root), ("gateway.test", parent), ("example.test", customer)]).await;
    let strict =
        "    qname-minimisation: yes\n    qname-minimisation-strict: yes\n    use-caps-for-id: yes\n    harden-below-nxdomain: yes";
    let unbound = Unbound::with(resolver, bind.dns().ip(), strict).await;
    let mut acmegate = Acmegate::started(config(gateway.dns())).await;
    acmegate.keep(gateway);

    let account = account_with_values(&acmegate, 1..=8).await;
    let values: BTreeSet<_> = (1..=8).map(value).collect();
    assert_eq!(dns::txt(unbound.dns(), &account.fulldomain).await, values);
    bind.add(&format!("_acme-challenge.www.example.test. 60 CNAME {}.", account.fulldomain)).await;
    assert_eq!(dns::txt(unbound.dns(), "_acme-challenge.www.example.test").await, values, "over a CNAME");
    assert_eq!(
        dns::txt(unbound.dns(), "a.b.deep.auth.gateway.test").await,
        BTreeSet::from(["deep".to_owned()]),
        "through empty non-terminals"
    );
    assert_eq!(dns::txt(unbound.dns(), "big.auth.gateway.test").await.len(), 10, "over TCP");

    let code = async |name: &str, rtype| {
        let mut query = dns::query(name, rtype);
        query.metadata.recursion_desired = true;
        acmegate_tests::wait::until("unbound's answer", || dns::exchange(unbound.dns(), &query)).await.metadata.response_code
    };
    assert_eq!(code(&format!("none.{ZONE}"), RecordType::TXT).await, ResponseCode::NXDomain);
    assert_eq!(code(&format!("x.{}", account.fulldomain), RecordType::TXT).await, ResponseCode::NXDomain);
    assert_eq!(code(&account.fulldomain, RecordType::CAA).await, ResponseCode::NoError);
    assert_eq!(code(&format!("b.deep.{ZONE}"), RecordType::TXT).await, ResponseCode::NoError);
    assert_eq!(code(ZONE, RecordType::DS).await, ResponseCode::NoError, "the parent has no DS");

    let client = Client::new();
    update(&client, &acmegate.url("acmedns", ""), &account, &value(9)).await.expect("it updates");
    let newest: Vec<_> = (2..=9).map(value).collect();
    dns::txt_becomes(unbound.dns(), &account.fulldomain, &newest.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

// --- What they share.

fn any() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn config(listen: SocketAddr) -> Config {
    // The name server's address has to be the real one where a resolver asks for it.
    let glue = format!("ns1.{ZONE}. 3600 A {}", if listen.port() == 53 { listen.ip().to_string() } else { "198.51.100.1".into() });
    let mut records = vec![
        glue,
        format!("{ZONE}. 60 CAA 0 issue \"ca.example; validationmethods=dns-01\""),
        format!("Upper.{ZONE}. 60 CNAME Target.Elsewhere.Test."),
        format!("a.b.deep.{ZONE}. 60 TXT deep"),
        format!("long.{ZONE}. 60 TXT \"{}\" \"{}\"", "a".repeat(255), "b".repeat(145)),
    ];
    records.extend((0..10).map(|number| format!("big.{ZONE}. 60 TXT \"{number}{}\"", "x".repeat(200))));
    let nameservers = if listen.port() == 53 { format!("ns1.{ZONE}") } else { format!("ns1.{ZONE}, ns2.elsewhere.test") };
    let records: Vec<&str> = records.iter().map(String::as_str).collect();
    Config::new().dns(listen).zone_with(ZONE, &nameservers, &records).acmedns()
}

async fn account_with_values(acmegate: &Acmegate, seeds: std::ops::RangeInclusive<u64>) -> Account {
    let client = Client::new();
    let base = acmegate.url("acmedns", "");
    let account = register(&client, &base).await.expect("it registers");
    for seed in seeds {
        update(&client, &base, &account, &value(seed)).await.expect("it updates");
    }
    account
}

fn dotted(account: &Account) -> String {
    format!("{}.", account.fulldomain)
}

fn server(acmegate: &Acmegate) -> [String; 3] {
    [format!("@{}", acmegate.dns().ip()), "-p".into(), acmegate.dns().port().to_string()]
}

/// What dig shows of a response; blanks are single, sections sorted.
#[derive(Debug, Default)]
struct Dug {
    status: String,
    flags: String,
    answer: Vec<String>,
    authority: Vec<String>,
    additional: Vec<String>,
}

async fn dig_output(acmegate: &Acmegate, arguments: &[&str]) -> Output {
    let mut command = Command::new(program("dig"));
    // No ~/.digrc, no second try of its own mind, no copy of the records in another form.
    command.arg("-r").args(server(acmegate)).args(["+norec", "+time=30", "+tries=1", "+nosplit"]).args(arguments);
    run("dig", command, LIMIT).await
}

async fn dig(acmegate: &Acmegate, arguments: &[&str]) -> Dug {
    let output = dig_output(acmegate, arguments).await;
    output.succeeded().never_says("WARNING: Message").never_says("malformed").never_says("mismatch");
    let response = output.stdout.rsplit(";; Got answer:").next().unwrap_or_default();
    let mut dug = Dug::default();
    let mut section = None;
    for line in response.lines() {
        if let Some(rest) = line.strip_prefix(";; ->>HEADER<<- ") {
            dug.status = field(rest, "status: ");
        } else if let Some(rest) = line.strip_prefix(";; flags: ") {
            dug.flags = rest.split(';').next().unwrap_or_default().to_owned();
        } else if let Some(rest) = line.strip_prefix(";; ").and_then(|line| line.strip_suffix(" SECTION:")) {
            section = Some(rest.to_owned());
        } else if !line.starts_with(';') && !line.is_empty() {
            let record = line.split_whitespace().collect::<Vec<_>>().join(" ");
            match section.as_deref() {
                Some("ANSWER") => dug.answer.push(record),
                Some("AUTHORITY") => dug.authority.push(record),
                Some("ADDITIONAL") => dug.additional.push(record),
                other => panic!("{record} in {other:?}:\n{response}"),
            }
        }
    }
    for records in [&mut dug.answer, &mut dug.authority, &mut dug.additional] {
        records.sort();
    }
    dug
}

fn field(text: &str, key: &str) -> String {
    text.split_once(key).and_then(|(_, rest)| rest.split(',').next()).unwrap_or_default().to_owned()
}

fn nodata(answer: &Dug, what: &str) {
    assert_eq!((answer.status.as_str(), answer.flags.as_str(), answer.answer.len()), ("NOERROR", "qr aa", 0), "{what}");
    assert_soa(answer);
}

fn assert_soa(answer: &Dug) {
    let [soa] = &answer.authority[..] else { panic!("one SOA and nothing else: {answer:?}") };
    assert!(soa.starts_with("auth.gateway.test. 10 IN SOA "), "{soa}");
}

async fn serial(acmegate: &Acmegate) -> u32 {
    let answer = dig(acmegate, &[ZONE, "SOA"]).await.answer;
    answer.first().and_then(|soa| soa.split(' ').nth(6)).and_then(|serial| serial.parse().ok()).unwrap_or_else(|| panic!("{answer:?}"))
}
