//! The form of messages: headers, EDNS, sizes, and what is not a proper query.

use authdns::{Outcome, RecordType, Transport, respond};
use proptest::prelude::*;

use crate::common::*;

const FORMERR: u16 = 1;
const NOTIMP: u16 = 4;
const NOTAUTH: u16 = 9;
const BADVERS: u16 = 16;

fn plain() -> Vec<u8> {
    query("mixed.auth.example.org", RecordType::TXT)
}

fn rcode_of(query: &[u8]) -> u16 {
    ask_bytes(&zones(), query).rcode()
}

fn is_dropped(query: &[u8]) -> bool {
    ask_over(&zones(), query, Transport::Udp).is_none()
}

#[test]
fn header_bits() {
    let zones = zones();
    for (sent, expected) in [(0x0000, 0x8400), (0x0100, 0x8500), (0x0010, 0x8400), (0x0020, 0x8400), (0x07f0, 0x8500), (0x000f, 0x8400)] {
        let mut query = plain();
        query[2..4].copy_from_slice(&u16::to_be_bytes(sent));
        query[..2].copy_from_slice(&[0xab, 0xcd]);
        let response = ask_bytes(&zones, &query);
        assert_eq!((response.flags(), &response.bytes[..2]), (expected, &[0xab, 0xcd][..]), "{sent:#06x}");
    }
}

#[test]
fn responses_and_runts_get_no_response() {
    for length in 0..12 {
        assert!(is_dropped(&plain()[..length]), "{length} bytes");
    }
    let mut response = plain();
    response[2] = 0x80;
    assert!(is_dropped(&response));
    response[2] = 0xa8;
    assert!(is_dropped(&response), "an UPDATE response");
}

#[test]
fn other_opcodes_are_not_implemented() {
    for opcode in 1..16 {
        let mut query = with_opt(plain(), 1232);
        query[2] = opcode << 3;
        let response = ask_bytes(&zones(), &query);
        assert_eq!((response.rcode(), response.flags(), response.answers().len()), (NOTIMP, 0x8004 | u16::from(opcode) << 11, 0));
        assert!(response.message.edns.is_some());
        assert_eq!(rcode_of(&query[..15]), NOTIMP, "whatever the body");
    }
}

#[test]
fn there_is_exactly_one_question() {
    for count in [0, 2, 3, 255] {
        let mut query = plain();
        query[5] = count;
        assert_eq!(rcode_of(&query), FORMERR, "{count} questions");
    }
    let mut none = vec![1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(ask_bytes(&zones(), &none).bytes, [1, 2, 0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    none = with_opt(none, 1232);
    let response = ask_bytes(&zones(), &none);
    assert_eq!((response.rcode(), response.message.edns.is_some()), (FORMERR, true));
}

#[test]
fn what_cannot_be_read_is_a_format_error() {
    let whole = with_opt(plain(), 1232);
    let question = plain().len();
    for length in 12..whole.len() {
        let response = ask_bytes(&zones(), &whole[..length]);
        let questions = usize::from(length >= question);
        assert_eq!((response.rcode(), response.message.queries.len()), (FORMERR, questions), "cut at {length}");
        assert_eq!(response.bytes[..2], whole[..2]);
    }
    let mut trailing = plain();
    trailing.push(0);
    assert_eq!(rcode_of(&trailing), FORMERR);
    for name in [&b"\xc0\x0c"[..], b"\xc0\x00", b"\x05mixed\xc0\x0c", b"\x40a\0", b"\x80a\0", b"\x41\x01\x80\0"] {
        assert_eq!(rcode_of(&raw_query(name, RecordType::TXT, 1)), FORMERR, "{name:?}");
    }
    let label = [&[63][..], &[b'a'; 63]].concat();
    let too_long = [label.repeat(4), name(APEX).as_wire().to_vec()].concat();
    assert_eq!(rcode_of(&raw_query(&too_long, RecordType::TXT, 1)), FORMERR);
    let fits = [label.repeat(3), b"\x2c".to_vec(), vec![b'b'; 44], name(APEX).as_wire().to_vec()].concat();
    assert_eq!((fits.len(), rcode_of(&raw_query(&fits, RecordType::TXT, 1))), (255, 3));
}

#[test]
fn other_records_of_a_query_are_ignored_if_whole() {
    for count in [6, 8, 10] {
        assert_eq!(rcode_of(&with_record(plain(), count, b"\xc0\x0c", 1, 1, 5, &[1, 2, 3, 4])), 0);
        let mut missing = plain();
        missing[count + 1] = 1;
        assert_eq!(rcode_of(&missing), FORMERR);
    }
    for pointer in [b"\xff\xff".as_slice(), b"\xc0\x0b", &[0xc0, plain().len() as u8]] {
        assert_eq!(rcode_of(&with_record(plain(), ADDITIONAL, pointer, 1, 1, 5, &[1, 2, 3, 4])), FORMERR, "{pointer:?}");
    }
}

#[test]
fn opt_is_answered_with_opt() {
    let zones = zones();
    assert!(ask_bytes(&zones, &plain()).message.edns.is_none());
    for (ttl, flags) in [(0, 0), (0x8000, 0x80), (0xff00_7fff, 0)] {
        let query = with_record(plain(), ADDITIONAL, &[0], 41, 4096, ttl, &[0xfd, 0xe9, 0, 1, 7]);
        let response = ask_bytes(&zones, &query);
        assert_eq!(response.rcode(), 0);
        // Root, OPT, 1232, extended rcode 0, version 0, the DO bit alone, no options.
        assert_eq!(response.bytes[response.bytes.len() - 11..], [0, 0, 41, 4, 0xd0, 0, 0, flags, 0, 0, 0], "{ttl:#x}");
    }
}

#[test]
fn other_versions_of_edns_are_refused() {
    for version in [1, 2, 255] {
        let query = with_record(plain(), ADDITIONAL, &[0], 41, 1232, version << 16 | 0x8000, &[]);
        let response = ask_bytes(&zones(), &query);
        assert_eq!((response.rcode(), response.flags(), response.answers().len()), (BADVERS, 0x8000, 0));
        assert_eq!(response.bytes[response.bytes.len() - 11..], [0, 0, 41, 4, 0xd0, 1, 0, 0x80, 0, 0, 0]);
    }
}

#[test]
fn malformed_edns_is_a_format_error() {
    let opt = |query, owner: &[u8], rdata: &[u8]| with_record(query, ADDITIONAL, owner, 41, 1232, 0, rdata);
    assert_eq!(rcode_of(&opt(opt(plain(), &[0], &[]), &[0], &[])), FORMERR, "two OPTs");
    assert_eq!(rcode_of(&opt(plain(), b"\x01a\0", &[])), FORMERR, "not at the root");
    assert_eq!(rcode_of(&opt(plain(), &[0], &[0, 3, 0])), FORMERR, "half an option");
    assert_eq!(rcode_of(&opt(plain(), &[0], &[0, 3, 0, 9, 1])), FORMERR, "an option that is too long");
    for section in [6, 8] {
        assert_eq!(rcode_of(&with_record(plain(), section, &[0], 41, 1232, 0, &[])), FORMERR, "outside the additional section");
    }
}

#[test]
fn unknown_keys_are_said_to_be_unknown() {
    let mut rdata = b"\x0bhmac-sha256\0".to_vec();
    rdata.extend([0, 0, 1, 2, 3, 4, 1, 44, 0, 4, 9, 9, 9, 9, 0x12, 0x34, 0, 0, 0, 0]);
    let tsig = |query| with_record(query, ADDITIONAL, b"\x03key\0", 250, 255, 0, &rdata);
    let response = ask_bytes(&zones(), &tsig(with_opt(plain(), 1232)));
    assert_eq!((response.rcode(), response.answers().len()), (NOTAUTH, 0));
    let unsigned = b"\x03key\0\0\xfa\0\xff\0\0\0\0\0\x1d\x0bhmac-sha256\0\0\0\x01\x02\x03\x04\x01\x2c\0\0\x12\x34\0\x11\0\0";
    assert!(response.bytes.ends_with(unsigned), "{:x?}", response.bytes);
    assert_eq!(response.bytes[11], 2, "OPT and TSIG");
    assert_eq!(rcode_of(&with_opt(tsig(plain()), 1232)), FORMERR, "not the last record");
    assert_eq!(rcode_of(&tsig(tsig(plain()))), FORMERR, "two of them");
    assert_eq!(rcode_of(&with_record(plain(), ADDITIONAL, b"\x03key\0", 250, 1, 0, &rdata)), FORMERR, "wrong class");
    assert_eq!(rcode_of(&with_record(plain(), ADDITIONAL, b"\x03key\0", 250, 255, 0, &rdata[..20])), FORMERR, "cut short");
}

#[test]
fn udp_responses_fit_and_say_when_they_do_not() {
    let zones = zones();
    let values: Vec<String> = (0..21).map(|number| format!("{number:043}")).collect();
    let put = |count: usize| set(&zones, 1, "x.auth.example.org", &values[..count].iter().map(String::as_str).collect::<Vec<_>>());
    let ask = |query: &[u8]| ask_bytes(&zones, query);
    let question = query("x.auth.example.org", RecordType::TXT);
    let length = |count: usize| question.len() + count * 56;
    // Without EDNS 512 bytes: 8 values are 484, 9 are 540.
    put(8);
    assert_eq!((length(8), ask(&question).bytes.len(), ask(&question).is_truncated()), (484, 484, false));
    put(9);
    let truncated = ask(&question);
    assert_eq!((truncated.is_truncated(), truncated.answers().len(), truncated.bytes.len()), (true, 0, question.len()));
    assert!(truncated.is_authoritative());
    // With it, exactly what was announced, up to 1232.
    let exact = length(9) as u16 + 11;
    assert_eq!(ask(&with_opt(question.clone(), exact)).bytes.len(), usize::from(exact));
    let short = ask(&with_opt(question.clone(), exact - 1));
    assert_eq!((short.is_truncated(), short.bytes.len(), short.message.edns.is_some()), (true, question.len() + 11, true));
    for small in [0, 1, 511] {
        assert!(ask(&with_opt(question.clone(), small)).is_truncated());
        put(8);
        assert!(!ask(&with_opt(question.clone(), small)).is_truncated(), "512 is the least");
        put(9);
    }
    put(21);
    assert!(length(21) + 11 <= 1232 && !ask(&with_opt(question.clone(), 65_535)).is_truncated());
    let more = [&values[..], &["last".to_owned()]].concat();
    set(&zones, 1, "x.auth.example.org", &more.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(ask(&with_opt(question.clone(), 65_535)).is_truncated());
    let tcp = ask_over(&zones, &question, Transport::Tcp).expect("a response");
    assert_eq!((tcp.is_truncated(), tcp.answers().len()), (false, 22));
}

#[test]
fn referrals_without_their_glue_are_truncated() {
    let mut records: Vec<String> = (0..15).map(|n| format!("sub.auth.example.org. NS ns{n}.sub.auth.example.org.")).collect();
    records.extend((0..15).map(|n| format!("ns{n}.sub.auth.example.org. AAAA 2001:db8::{n:x}")));
    let records: Vec<&str> = records.iter().map(String::as_str).collect();
    let zones = authdns::Zones::new(vec![config(APEX, &records)]).expect("sound");
    let question = query("sub.auth.example.org", RecordType::A);
    let small = ask_bytes(&zones, &question);
    assert_eq!((small.is_truncated(), small.authorities().len()), (true, 15), "what fits stands");
    assert!(small.additionals().len() < 15 && small.bytes.len() <= 512);
    let large = ask_bytes(&zones, &with_opt(question, 1232));
    assert_eq!((large.is_truncated(), large.additionals().len()), (false, 15));
    // Addresses that are only useful are left out without a word.
    let apex = ask_bytes(&zones, &query(APEX, RecordType::NS));
    assert!(!apex.is_truncated());
}

/// Queries that are nearly right, and bytes that are not at all.
fn messages() -> impl Strategy<Value = Vec<u8>> {
    let owners =
        prop::sample::select(vec!["mixed", "x", "www", "a.sub", "sub", "a.wild", "missing", "x.y", "loop1", "down", "mail", "ns1"]);
    let owner = owners.prop_map(|owner| format!("{owner}.auth.example.org"));
    let rtype =
        prop_oneof![prop::sample::select(vec![1u16, 2, 5, 6, 15, 16, 28, 33, 41, 43, 46, 249, 250, 251, 252, 255, 257]), any::<u16>()];
    let shaped = (owner, rtype, prop::option::of(any::<u16>()), prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3));
    let shaped = shaped.prop_map(|(owner, rtype, size, edits)| {
        let query = query(&owner, RecordType(rtype));
        let mut query = size.map_or(query.clone(), |size| with_opt(query, size));
        for (at, byte) in edits {
            let length = query.len();
            query[at.index(length)] = byte;
        }
        query
    });
    prop_oneof![4 => shaped, 1 => prop::collection::vec(any::<u8>(), 0..600)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_message_gets_a_sound_response_or_none(message in messages(), many in 0..40usize) {
        let zones = zones();
        let values: Vec<String> = (0..many).map(|number| format!("{number:043}")).collect();
        set(&zones, 1, "x.auth.example.org", &values.iter().map(String::as_str).collect::<Vec<_>>());
        for transport in Transport::ALL {
            let mut out = Vec::new();
            let outcome = respond(&zones, &message, transport, &mut out);
            if message.len() < 12 || message[2] & 0x80 != 0 {
                prop_assert_eq!(outcome, Outcome::Dropped);
                continue;
            }
            prop_assert!(outcome != Outcome::Dropped);
            prop_assert_eq!(&out[..2], &message[..2]);
            prop_assert_eq!(out[2] & 0xf9, 0x80 | message[2] & 0x79, "QR, the opcode and RD; AA and TC are free");
            prop_assert_eq!(out[3] & 0xf0, 0);
            prop_assert!(transport != Transport::Udp || out.len() <= 1232);
            let response = Response::new(out);
            if !response.message.queries.is_empty() {
                let question = response.message.queries[0].name().to_lowercase();
                prop_assert!(message.len() >= 17);
                let end = 12 + response.message.queries[0].name().len() + 4;
                prop_assert_eq!(&response.bytes[12..end], &message[12..end], "{}", question);
            }
        }
    }

    #[test]
    fn a_response_is_no_larger_than_the_client_takes(size in any::<u16>(), values in prop::collection::vec("[a-z]{0,300}", 0..30)) {
        let zones = zones();
        set(&zones, 1, "x.auth.example.org", &values.iter().map(String::as_str).collect::<Vec<_>>());
        let question = query("x.auth.example.org", RecordType::TXT);
        prop_assert!(ask_bytes(&zones, &question).bytes.len() <= 512);
        let response = ask_bytes(&zones, &with_opt(question.clone(), size));
        prop_assert!(response.bytes.len() <= usize::from(size.clamp(512, 1232)));
        let whole = ask_over(&zones, &with_opt(question, size), Transport::Tcp).expect("a response");
        prop_assert_eq!(response.is_truncated(), whole.bytes.len() > usize::from(size.clamp(512, 1232)));
    }
}
