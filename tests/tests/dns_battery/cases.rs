//! The queries.

use crate::{
    packet::{self, A, ANY, AXFR, IN, IXFR, NS, OPT, Packet, SOA, TXT, opt, option, question, record, soa, tsig, wire},
    zone,
};

/// A query to be sent to each server.
pub(crate) struct Case {
    /// Group, and what is special about it.
    pub(crate) name: String,
    pub(crate) tcp: bool,
    pub(crate) query: Vec<u8>,
}

const WWW: &str = "www.battery.test";

/// All of them. The names are unique.
pub(crate) fn all() -> Vec<Case> {
    let mut cases = Cases(Vec::new());
    cases.types();
    cases.names();
    cases.letters();
    cases.classes();
    cases.opcodes();
    cases.flags();
    cases.edns();
    cases.sizes();
    cases.signatures();
    cases.counts();
    cases.labels();
    cases.cuts();
    cases.tails();
    cases.records_in_queries();
    cases.transfers();
    cases.notifies_and_updates();
    cases.no_queries();
    cases.0
}

struct Cases(Vec<Case>);

impl Cases {
    fn bytes(&mut self, name: impl Into<String>, query: Vec<u8>) {
        self.0.push(Case { name: name.into(), tcp: false, query });
    }

    fn udp(&mut self, name: impl Into<String>, packet: &Packet) {
        self.bytes(name, packet.bytes());
    }

    fn both(&mut self, name: impl Into<String>, packet: &Packet) {
        let name = name.into();
        self.0.push(Case { name: format!("{name}/tcp"), tcp: true, query: packet.bytes() });
        self.udp(name, packet);
    }

    /// Every type that IANA knows and some that it does not, where there is data, where there is none, and elsewhere.
    fn types(&mut self) {
        let known = (0..=66).chain([99, 100, 101, 104, 105, 106, 107, 108, 109, 128, 200]);
        let high = (248..=262).chain([300, 32768, 32769, 65280, 65281, 65534, 65535]);
        for rtype in known.chain(high) {
            self.udp(format!("type/apex/{rtype}"), &Packet::ask(zone::APEX, rtype).edns(1232));
            self.udp(format!("type/www/{rtype}"), &Packet::ask(WWW, rtype));
            if rtype > 127 || [0, 41, 46, 47, 50].contains(&rtype) {
                self.udp(format!("type/alias/{rtype}"), &Packet::ask("alias.battery.test", rtype));
                self.udp(format!("type/cut/{rtype}"), &Packet::ask("sub.battery.test", rtype));
                self.udp(format!("type/none/{rtype}"), &Packet::ask("none.battery.test", rtype));
                self.udp(format!("type/elsewhere/{rtype}"), &Packet::ask("www.example.org", rtype));
            }
        }
    }

    /// Every kind of place in the zone, for the types that matter there.
    fn names(&mut self) {
        let types = [
            ("A", A),
            ("TXT", TXT),
            ("NS", NS),
            ("SOA", SOA),
            ("CNAME", 5),
            ("DS", 43),
            ("MX", 15),
            ("SRV", 33),
            ("CAA", 257),
            ("ANY", ANY),
        ];
        for (label, name) in zone::names() {
            for (mnemonic, rtype) in types {
                self.udp(format!("name/{label}/{mnemonic}"), &Packet::ask(&name, rtype).edns(1232));
            }
            self.udp(format!("plain/{label}/A"), &Packet::ask(&name, A));
            self.udp(format!("plain/{label}/TXT"), &Packet::ask(&name, TXT).flags(packet::RD));
            self.0.push(Case { name: format!("tcp/{label}/TXT"), tcp: true, query: Packet::ask(&name, TXT).bytes() });
            self.0.push(Case { name: format!("tcp/{label}/A"), tcp: true, query: Packet::ask(&name, A).edns(4096).bytes() });
        }
        for (label, name) in [("host", "host.battery.test"), ("ptr", "1.ptr.battery.test"), ("strange", "strange.battery.test")] {
            for rtype in [12, 13, 65280] {
                self.udp(format!("name/{label}/{rtype}"), &Packet::ask(name, rtype).edns(1232));
            }
        }
    }

    fn letters(&mut self) {
        let names = [
            "WWW.BATTERY.TEST",
            "wWw.BaTtErY.tEsT",
            "UPPER.CASE.BATTERY.TEST",
            "Alias-Upper.Battery.Test",
            "NONE.Battery.test",
            "Sub.BATTERY.test",
        ];
        for name in names {
            self.both(format!("letters/{name}/A"), &Packet::ask(name, A).edns(1232));
            self.udp(format!("letters/{name}/TXT"), &Packet::ask(name, TXT));
        }
        // Letters are A to Z alone: what differs by the same bit is another name (RFC 4343, 3).
        for (label, name) in [("bracket", b"\x01[\x03www\x07battery\x04test\0"), ("at", b"\x01@\x03www\x07battery\x04test\0")] {
            self.udp(format!("letters/{label}"), &Packet::empty().question(question(name, A, IN)));
        }
        for byte in [0x00, b'.', b' ', b'\\', 0x7f, 0x80, 0xc0, 0xff] {
            let name = [&[3, b'w', byte, b'w'], &wire(zone::APEX)[..]].concat();
            self.udp(format!("letters/byte{byte:02x}"), &Packet::empty().question(question(&name, A, IN)));
        }
    }

    fn classes(&mut self) {
        for class in [0, 2, 3, 4, 5, 128, 254, 255, 256, 65280, 65535] {
            for (label, name, rtype) in
                [("www", WWW, A), ("apex", zone::APEX, SOA), ("none", "none.battery.test", TXT), ("elsewhere", "www.example.org", A)]
            {
                self.udp(format!("class/{class}/{label}"), &Packet::empty().question(question(&wire(name), rtype, class)));
            }
            self.udp(format!("class/{class}/any"), &Packet::empty().question(question(&wire(WWW), ANY, class)).edns(1232));
        }
        for name in ["version.bind", "version.server", "hostname.bind", "id.server", "authors.bind"] {
            self.both(format!("class/chaos/{name}"), &Packet::empty().question(question(&wire(name), TXT, 3)));
        }
    }

    fn opcodes(&mut self) {
        for opcode in 1..=15 {
            self.udp(format!("opcode/{opcode}/www"), &Packet::ask(WWW, A).opcode(opcode));
            self.udp(format!("opcode/{opcode}/apex"), &Packet::ask(zone::APEX, SOA).opcode(opcode).flags(packet::RD | packet::CD));
            self.udp(format!("opcode/{opcode}/edns"), &Packet::ask(zone::APEX, SOA).opcode(opcode).edns(1232));
            self.udp(format!("opcode/{opcode}/elsewhere"), &Packet::ask("example.org", SOA).opcode(opcode));
            self.udp(format!("opcode/{opcode}/empty"), &Packet::empty().opcode(opcode));
        }
    }

    fn flags(&mut self) {
        let flags = [packet::AA, packet::TC, packet::RD, packet::RA, packet::Z, packet::AD, packet::CD, 1, 3, 5, 15, 0x07ff];
        for bits in flags {
            for (label, name) in
                [("www", WWW), ("none", "none.battery.test"), ("cut", "sub.battery.test"), ("elsewhere", "www.example.org")]
            {
                self.udp(format!("flags/{bits:04x}/{label}"), &Packet::ask(name, A).flags(bits));
            }
            self.0.push(Case {
                name: format!("flags/{bits:04x}/tcp"),
                tcp: true,
                query: Packet::ask(WWW, A).flags(bits).edns(1232).bytes(),
            });
        }
        self.udp("flags/rd-cd", &Packet::ask(WWW, A).flags(packet::RD | packet::CD));
        self.udp("flags/ad-do", &Packet::ask(WWW, A).flags(packet::AD).additional(opt(1232, 0x8000, &[])));
    }

    fn edns(&mut self) {
        let asks = [("www", WWW), ("none", "none.battery.test"), ("cut", "sub.battery.test"), ("elsewhere", "www.example.org")];
        for (label, name) in asks {
            let ask = Packet::ask(name, A);
            for version in [1, 2, 255] {
                self.udp(format!("edns/version{version}/{label}"), &ask.clone().additional(opt(1232, version << 16, &[])));
            }
            self.udp(format!("edns/do/{label}"), &ask.clone().additional(opt(1232, 0x8000, &[])));
            self.udp(format!("edns/flags/{label}"), &ask.clone().additional(opt(1232, 0x7fff, &[])));
            self.udp(format!("edns/rcode/{label}"), &ask.clone().additional(opt(1232, 0xff00_0000, &[])));
            self.udp(format!("edns/twice/{label}"), &ask.clone().edns(1232).edns(1232));
        }
        self.udp("edns/version1-flags", &Packet::ask(WWW, A).flags(packet::RD | packet::CD).additional(opt(1232, 0x0001_8000, &[])));
        self.udp("edns/version1-option", &Packet::ask(WWW, A).additional(opt(1232, 0x0001_0000, &option(65001, b"x"))));
        self.udp("edns/version1-broken-option", &Packet::ask(WWW, A).additional(opt(1232, 0x0001_0000, &[0, 3, 0])));
        self.udp("edns/version1-type0", &Packet::ask(WWW, 0).additional(opt(1232, 0x0001_0000, &[])));
        self.udp("edns/version1-chaos", &Packet::empty().question(question(&wire(WWW), A, 3)).additional(opt(1232, 0x0001_0000, &[])));
        self.udp("edns/version1-twice", &Packet::ask(WWW, A).additional(opt(1232, 0x0001_0000, &[])).edns(1232));
        self.udp("edns/two-versions", &Packet::ask(WWW, A).edns(1232).additional(opt(1232, 0x0001_0000, &[])));
        let options = [
            ("nsid", option(3, b"")),
            ("nsid-data", option(3, b"what")),
            ("subnet", option(8, &[0, 1, 24, 0, 198, 51, 100])),
            ("subnet-broken", option(8, &[0, 1, 64, 0, 198])),
            ("expire", option(9, b"")),
            ("cookie", option(10, b"12345678")),
            ("cookie-server", option(10, b"1234567812345678")),
            ("cookie-short", option(10, b"1234567")),
            ("cookie-middle", option(10, b"1234567812345")),
            ("cookie-long", option(10, &[7; 41])),
            ("keepalive", option(11, b"")),
            ("keepalive-time", option(11, &[0, 100])),
            ("padding", option(12, &[0; 40])),
            ("chain", option(13, &wire("test"))),
            ("key-tag", option(14, &[1, 2])),
            ("error", option(15, &[0, 22])),
            ("unknown", option(65001, b"anything")),
            ("unknown-empty", option(65535, b"")),
            ("zero", option(0, b"")),
            ("many", (0..30).flat_map(|n| option(65001 + n, b"x")).collect()),
            ("nsid-twice", [option(3, b""), option(3, b"")].concat()),
            ("cookie-twice", [option(10, b"12345678"), option(10, b"12345678")].concat()),
            ("broken-1", vec![0]),
            ("broken-3", vec![0, 3, 0]),
            ("broken-length", vec![0, 3, 0, 9, 1]),
            ("broken-second", [option(3, b""), vec![0, 3, 0, 1]].concat()),
        ];
        for (label, options) in options {
            self.both(format!("option/{label}"), &Packet::ask(WWW, A).additional(opt(1232, 0, &options)));
        }
        // Where an OPT does not belong.
        let owned = record(&wire(WWW), OPT, 1232, 0, &[]);
        let pointed = record(&[0xc0, 12], OPT, 1232, 0, &[]);
        self.udp("edns/owned", &Packet::ask(WWW, A).additional(owned));
        self.udp("edns/owner-pointer", &Packet::ask(WWW, A).additional(pointed));
        self.udp("edns/in-answer", &Packet::ask(WWW, A).answer(opt(1232, 0, &[])));
        self.udp("edns/in-authority", &Packet::ask(WWW, A).authority(opt(1232, 0, &[])));
        self.udp("edns/after-a", &Packet::ask(WWW, A).additional(record(&wire(WWW), A, IN, 0, &[1, 2, 3, 4])).edns(1232));
        self.udp("edns/before-a", &Packet::ask(WWW, A).edns(1232).additional(record(&wire(WWW), A, IN, 0, &[1, 2, 3, 4])));
        self.udp("edns/cut-short", &Packet::ask(WWW, A).additional(opt(1232, 0, &[])[..8].to_vec()));
        self.udp("edns/no-question", &Packet::empty().edns(1232));
        self.udp("edns/no-question-cookie", &Packet::empty().additional(opt(1232, 0, &option(10, b"12345678"))));
    }

    /// How large answers may be, and what becomes of those that are larger.
    fn sizes(&mut self) {
        for size in [0, 1, 511, 512, 513, 600, 1000, 1231, 1232, 1233, 1400, 4096, 65535] {
            for name in ["www", "long", "mid", "big", "alias-big"] {
                self.udp(format!("size/{size}/{name}"), &Packet::ask(&format!("{name}.{}", zone::APEX), TXT).edns(size));
            }
        }
        for name in ["long", "mid", "big", "alias-big"] {
            let name = format!("{name}.{}", zone::APEX);
            self.both(format!("size/none/{name}"), &Packet::ask(&name, TXT));
            self.both(format!("size/any/{name}"), &Packet::ask(&name, ANY));
        }
    }

    fn signatures(&mut self) {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let good = tsig("key.example", "hmac-sha256", now);
        let asks = [("www", WWW, A), ("none", "none.battery.test", TXT), ("elsewhere", "www.example.org", A)];
        for (label, name, rtype) in asks {
            self.both(format!("tsig/{label}"), &Packet::ask(name, rtype).additional(good.clone()));
        }
        self.udp("tsig/edns", &Packet::ask(WWW, A).edns(1232).additional(good.clone()));
        self.udp("tsig/before-edns", &Packet::ask(WWW, A).additional(good.clone()).edns(1232));
        self.udp("tsig/twice", &Packet::ask(WWW, A).additional(good.clone()).additional(good.clone()));
        self.udp("tsig/in-answer", &Packet::ask(WWW, A).answer(good.clone()));
        self.udp("tsig/old", &Packet::ask(WWW, A).additional(tsig("key.example", "hmac-sha256", 1)));
        self.udp("tsig/unknown-algorithm", &Packet::ask(WWW, A).additional(tsig("key.example", "hmac-nothing", now)));
        let broken = |rdata: &[u8], class| record(&wire("key.example"), packet::TSIG, class, 0, rdata);
        self.udp("tsig/empty", &Packet::ask(WWW, A).additional(broken(&[], 255)));
        self.udp("tsig/short", &Packet::ask(WWW, A).additional(broken(&[0, 0, 0, 0, 0, 1], 255)));
        self.udp("tsig/class-in", &Packet::ask(WWW, A).additional([&good[..13 + 2], &[0, 1], &good[13 + 4..]].concat()));
        let sig0 = record(
            &[0],
            24,
            255,
            0,
            &[&[0, 0, 5, 0, 0, 0, 0, 0, 0x7f, 255, 255, 255, 0, 0, 0, 0, 0, 1], &wire("key.example")[..], &[1; 64]].concat(),
        );
        self.udp("tsig/sig0", &Packet::ask(WWW, A).additional(sig0));
        self.both("tsig/axfr", &Packet::ask(zone::APEX, AXFR).additional(good.clone()));
        self.udp("tsig/soa", &Packet::ask(zone::APEX, SOA).additional(good));
    }

    fn counts(&mut self) {
        let (www, apex) = (question(&wire(WWW), A, IN), question(&wire(zone::APEX), SOA, IN));
        self.both("count/0", &Packet::empty());
        self.udp("count/0-flags", &Packet::empty().flags(packet::RD | packet::CD));
        self.udp("count/0-with-question", &Packet::empty().question(www.clone()).counts([0, 0, 0, 0]));
        self.both("count/2-same", &Packet::empty().question(www.clone()).question(www.clone()));
        self.udp("count/2-different", &Packet::empty().question(www.clone()).question(apex));
        self.udp("count/2-one-there", &Packet::empty().question(www.clone()).counts([2, 0, 0, 0]));
        self.udp("count/2-edns", &Packet::empty().question(www.clone()).question(www.clone()).edns(1232));
        self.udp("count/1-none-there", &Packet::empty().counts([1, 0, 0, 0]));
        self.udp("count/65535", &Packet::empty().question(www).counts([65535, 0, 0, 0]));
        for (section, counts) in
            [("answer", [1, 1, 0, 0]), ("authority", [1, 0, 1, 0]), ("additional", [1, 0, 0, 1]), ("all", [1, 65535, 65535, 65535])]
        {
            self.udp(format!("count/{section}-missing"), &Packet::ask(WWW, A).counts(counts));
            self.udp(
                format!("count/{section}-missing-edns"),
                &Packet::ask(WWW, A).edns(1232).counts([counts[0], counts[1], counts[2], counts[3] + u16::from(counts[3] < 2)]),
            );
        }
        self.udp("count/additional-0-edns", &Packet::ask(WWW, A).edns(1232).counts([1, 0, 0, 0]));
    }

    fn labels(&mut self) {
        let apex = wire(zone::APEX);
        let label = |length: usize, letter: u8| [vec![length as u8], vec![letter; length]].concat();
        let below = |labels: &[Vec<u8>]| [labels.concat(), apex.clone()].concat();
        let fill = |total: usize| {
            // Three labels of 63, and one that makes the name as long as asked for.
            let full = [label(63, b'x'), label(63, b'y'), label(63, b'q')];
            let rest = total - 3 * 64 - apex.len() - 1;
            below(&[full.concat(), label(rest, b'w')])
        };
        let names: Vec<(&str, Vec<u8>)> = vec![
            ("63", below(&[label(63, b'n')])),
            ("64", below(&[label(64, b'n')])),
            ("254", fill(254)),
            ("255", fill(255)),
            ("256", fill(256)),
            ("257", fill(257)),
            ("many", below(&[label(1, b'm').repeat(120)])),
            ("too-many", below(&[label(1, b'm').repeat(130)])),
            ("type-40", [&[0x41, 1, 1][..], &apex].concat()),
            ("type-80", [&[0x81, 1, 1][..], &apex].concat()),
            ("type-bf", [&[0xbf][..], &[0; 63], &apex].concat()),
            ("bitstring", [&[0x41, 8, 0xaa][..], &apex].concat()),
            ("pointer-self", vec![0xc0, 12]),
            ("pointer-header", vec![0xc0, 0]),
            ("pointer-id", vec![0xc0, 4]),
            ("pointer-forward", vec![0xc0, 18]),
            ("pointer-end", vec![0xff, 0xff]),
            ("pointer-after-label", [&b"\x03www"[..], &[0xc0, 12]].concat()),
            ("pointer-loop", [&b"\x03www"[..], &[0xc0, 16]].concat()),
            ("no-root", b"\x03www\x07battery\x04test".to_vec()),
            ("root-inside", b"\x03www\0\x07battery\x04test\0".to_vec()),
        ];
        for (name, bytes) in names {
            self.both(format!("label/{name}"), &Packet::empty().question(question(&bytes, A, IN)));
            self.udp(format!("label/{name}/edns"), &Packet::empty().question(question(&bytes, A, IN)).edns(1232));
        }
        for opcode in [4, 5] {
            self.udp(format!("label/pointer-opcode{opcode}"), &Packet::empty().question(question(&[0xc0, 12], SOA, IN)).opcode(opcode));
        }
    }

    /// A good query, cut off at each of its bytes.
    fn cuts(&mut self) {
        let whole = Packet::ask(WWW, A).edns(1232).bytes();
        for length in 0..whole.len() {
            self.bytes(format!("short/{length}"), whole[..length].to_vec());
        }
        for length in [0, 1, 11, 12, 13, 20, 33] {
            self.0.push(Case { name: format!("short/{length}/tcp"), tcp: true, query: whole[..length].to_vec() });
        }
    }

    fn tails(&mut self) {
        for (label, tail) in [
            ("1", vec![0]),
            ("4", vec![1; 4]),
            ("11", vec![0; 11]),
            ("100", vec![0xff; 100]),
            ("1000", vec![0; 1000]),
            ("opt", opt(1232, 0, &[])),
        ] {
            self.both(format!("tail/{label}"), &Packet::ask(WWW, A).tail(&tail));
            self.udp(format!("tail/{label}/edns"), &Packet::ask(WWW, A).edns(1232).tail(&tail));
            self.udp(format!("tail/{label}/none"), &Packet::ask("none.battery.test", A).tail(&tail));
        }
    }

    fn records_in_queries(&mut self) {
        let a = record(&wire(WWW), A, IN, 60, &[192, 0, 2, 1]);
        let pointed = record(&[0xc0, 12], A, IN, 60, &[192, 0, 2, 1]);
        let cases = [
            ("a", a),
            ("pointed", pointed),
            ("soa", record(&wire(zone::APEX), SOA, IN, 60, &soa(1))),
            ("unknown", record(&wire(WWW), 65280, IN, 60, &[1, 2, 3])),
            ("empty", record(&wire(WWW), A, IN, 60, &[])),
            ("short-a", record(&wire(WWW), A, IN, 60, &[1, 2])),
            ("any-class", record(&wire(WWW), A, 255, 0, &[])),
            ("bad-owner", record(&[0x80, 0], A, IN, 60, &[1, 2, 3, 4])),
            ("pointer-self", record(&[0xc0, 34], A, IN, 60, &[1, 2, 3, 4])),
            ("pointer-end", record(&[0xff, 0xff], A, IN, 60, &[1, 2, 3, 4])),
            ("rdata-short", record(&wire(WWW), A, IN, 60, &[1, 2, 3, 4])[..22].to_vec()),
        ];
        for (label, bytes) in cases {
            self.udp(format!("record/answer/{label}"), &Packet::ask(WWW, A).answer(bytes.clone()));
            self.udp(format!("record/authority/{label}"), &Packet::ask(WWW, A).authority(bytes.clone()));
            self.udp(format!("record/additional/{label}"), &Packet::ask(WWW, A).additional(bytes));
        }
        let many = (0..40).fold(Packet::ask(WWW, A), |packet, n| packet.additional(record(&wire(WWW), A, IN, 60, &[192, 0, 2, n])));
        self.both("record/many", &many);
    }

    fn transfers(&mut self) {
        let names = [
            ("apex", zone::APEX),
            ("www", WWW),
            ("cut", "sub.battery.test"),
            ("none", "none.battery.test"),
            ("parent", "test"),
            ("elsewhere", "example.org"),
        ];
        for (label, name) in names {
            self.both(format!("axfr/{label}"), &Packet::ask(name, AXFR));
            self.both(format!("axfr/{label}/edns"), &Packet::ask(name, AXFR).edns(4096));
            self.both(format!("ixfr/{label}"), &Packet::ask(name, IXFR));
            self.both(format!("ixfr/{label}/soa"), &Packet::ask(name, IXFR).authority(record(&wire(name), SOA, IN, 0, &soa(0))));
            self.both(
                format!("ixfr/{label}/newer"),
                &Packet::ask(name, IXFR).authority(record(&wire(name), SOA, IN, 0, &soa(0x7fff_0000))),
            );
        }
        self.both("axfr/chaos", &Packet::empty().question(question(&wire(zone::APEX), AXFR, 3)));
    }

    fn notifies_and_updates(&mut self) {
        for (label, name) in [("apex", zone::APEX), ("www", WWW), ("elsewhere", "example.org")] {
            let notify = Packet::ask(name, SOA).opcode(4).flags(packet::AA);
            self.both(format!("notify/{label}"), &notify);
            self.udp(format!("notify/{label}/soa"), &notify.clone().answer(record(&wire(name), SOA, IN, 0, &soa(9))));
            self.udp(format!("notify/{label}/tsig"), &notify.additional(tsig("key.example", "hmac-sha256", 1)));
            let update = Packet::ask(name, SOA).opcode(5);
            let new = record(&wire(&format!("new.{name}")), TXT, IN, 60, b"\x03new");
            self.both(format!("update/{label}"), &update.clone().authority(new.clone()));
            self.udp(format!("update/{label}/edns"), &update.clone().authority(new.clone()).edns(1232));
            self.udp(format!("update/{label}/tsig"), &update.clone().authority(new).additional(tsig("key.example", "hmac-sha256", 1)));
            self.udp(format!("update/{label}/delete"), &update.clone().authority(record(&wire(name), ANY, 255, 0, &[])));
            self.udp(format!("update/{label}/prerequisite"), &update.answer(record(&wire(name), ANY, 255, 0, &[])));
            self.udp(format!("update/{label}/nothing"), &Packet::ask(name, SOA).opcode(5));
            self.udp(format!("update/{label}/zone-type"), &Packet::ask(name, A).opcode(5));
        }
        self.udp("update/chaos", &Packet::empty().question(question(&wire(zone::APEX), SOA, 3)).opcode(5));
        self.udp("notify/chaos", &Packet::empty().question(question(&wire(zone::APEX), SOA, 3)).opcode(4));
        self.udp("notify/type", &Packet::ask(zone::APEX, A).opcode(4));
    }

    /// Responses, which nobody answers.
    fn no_queries(&mut self) {
        self.both("response/www", &Packet::ask(WWW, A).flags(packet::QR));
        self.udp("response/edns", &Packet::ask(WWW, A).flags(packet::QR | packet::AA).edns(1232));
        self.udp("response/empty", &Packet::empty().flags(packet::QR));
        self.udp("response/formerr", &Packet::empty().flags(packet::QR | 1));
        self.udp("response/refused", &Packet::ask(WWW, A).flags(packet::QR | 5));
        for opcode in [1, 4, 5, 15] {
            self.udp(format!("response/opcode{opcode}"), &Packet::ask(zone::APEX, SOA).opcode(opcode).flags(packet::QR));
        }
        self.udp("response/two-questions", &Packet::ask(WWW, A).question(question(&wire(WWW), A, IN)).flags(packet::QR));
        self.udp("response/broken", &Packet::empty().flags(packet::QR).counts([1, 1, 1, 1]).tail(&[0xff; 30]));
        self.udp("response/answer", &Packet::ask(WWW, A).flags(packet::QR).answer(record(&wire(WWW), A, IN, 60, &[1, 2, 3, 4])));
    }
}
