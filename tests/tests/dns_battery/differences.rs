//! Where acmegate answers otherwise than Knot or NSD, and why it is right.

/// With whom acmegate is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    Knot,
    Nsd,
}
use Peer::{Knot, Nsd};

/// A difference that is meant.
pub(crate) struct Difference {
    /// The cases: names, where `*` stands for any text.
    pub(crate) cases: &'static [&'static str],
    pub(crate) peers: &'static [Peer],
    /// The fields, and what acmegate says there; `*` stands for any text.
    pub(crate) fields: &'static [(&'static str, &'static str)],
    /// What says so.
    pub(crate) why: &'static str,
}

/// A part of an entry that has to differ somewhere, or else is stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) entry: usize,
    pub(crate) part: Part,
}

/// A case pattern, or a field of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Case(&'static str),
    Field(Peer, &'static str),
}

/// The parts of the table that explain a difference; `None`: nothing does.
pub(crate) fn explain(case: &str, peer: Peer, field: &str, ours: &str) -> Option<Vec<Place>> {
    TABLE.iter().enumerate().find_map(|(entry, difference)| {
        let pattern = difference.cases.iter().find(|pattern| matches(pattern, case))?;
        let peer = difference.peers.iter().find(|&&known| known == peer)?;
        let (field, _) = difference.fields.iter().find(|(known, value)| *known == field && matches(value, ours))?;
        Some(vec![Place { entry, part: Part::Case(pattern) }, Place { entry, part: Part::Field(*peer, field) }])
    })
}

/// Every part of the table.
pub(crate) fn places() -> impl Iterator<Item = Place> {
    TABLE.iter().enumerate().flat_map(|(entry, difference)| {
        let cases = difference.cases.iter().map(|case| Part::Case(case));
        let fields = difference.peers.iter().flat_map(|peer| difference.fields.iter().map(|(field, _)| Part::Field(*peer, field)));
        cases.chain(fields).map(move |part| Place { entry, part })
    })
}

/// Whether a text is what a pattern says.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => {
            text.strip_prefix(head).is_some_and(|tail| (0..=tail.len()).any(|at| tail.is_char_boundary(at) && matches(rest, &tail[at..])))
        }
    }
}

/// In the order of the groups of cases.
pub(crate) const TABLE: &[Difference] = &[
    // All groups.
    Difference {
        cases: &[
            "class/*",
            "opcode/*",
            "update/*",
            "edns/*",
            "option/broken-*",
            "tsig/*",
            "count/*-missing*",
            "label/*/edns",
            "short/*",
            "record/*",
        ],
        peers: &[Nsd],
        fields: &[("question", "*")],
        why: "RFC 1035, 7.3: a resolver matches a response by its question, so an error repeats one that could be read; Knot's do",
    },
    // Types and names.
    Difference {
        cases: &["type/apex/0", "type/www/0", "type/alias/0", "type/cut/0"],
        peers: &[Knot],
        fields: &[("rcode", "0")],
        why: "RFC 3597, 3: a type that is not known is handled as any other, so it is data that is not there; NSD says so too",
    },
    Difference {
        cases: &["type/none/0"],
        peers: &[Knot],
        fields: &[("rcode", "3")],
        why: "RFC 8020, 2: a name that does not exist has no type at all, 0 as little as any; NSD says so too",
    },
    Difference {
        cases: &["type/elsewhere/0"],
        peers: &[Knot],
        fields: &[("rcode", "5")],
        why: "RFC 1035, 4.1.1: a foreign name is refused whatever is asked of it; NSD says so too",
    },
    Difference {
        cases: &["type/alias/46", "type/alias/47"],
        peers: &[Knot],
        fields: &[("answer", "alias.battery.test. 300 1 5 www.battery.test.")],
        why: "RFC 1034, 4.3.2, 3a: an alias without such a record is followed. RRSIG and NSEC may stand beside it (RFC 4035, 2.5) where a zone is signed",
    },
    Difference {
        cases: &["type/alias/50"],
        peers: &[Nsd],
        fields: &[("answer", "alias.battery.test. 300 1 5 www.battery.test.")],
        why: "RFC 1034, 4.3.2, 3a: an alias is followed; NSEC3 stands nowhere beside one (RFC 5155, 7.1 gives it owners of its own). Knot follows it",
    },
    Difference {
        cases: &["type/apex/255", "name/apex/ANY"],
        peers: &[Nsd],
        fields: &[("answer", "battery.test. 300 1 1 c6336450")],
        why: "RFC 8482, 4.1: any one of the RRsets; ours and Knot's is another than NSD's",
    },
    Difference {
        cases: &["type/apex/15", "name/apex/MX", "name/srv/SRV", "name/srv/ANY"],
        peers: &[Nsd],
        fields: &[("additional", "*.battery.test. 300 1 28 20010db80000*")],
        why: "RFC 1035, 3.3.9, and RFC 2782: the addresses of MX and SRV targets are worth adding. NSD was told to be minimal; Knot adds them",
    },
    Difference {
        cases: &["name/parent/*", "name/root/*", "name/suffix/*", "name/elsewhere/*", "tcp/*/A", "edns/*/elsewhere"],
        peers: &[Knot, Nsd],
        fields: &[("edns", "v0 size=1232 do=* options=")],
        why: "RFC 8914, 2: an extended error is a courtesy; this one (20, Not Authoritative) says what REFUSED says already",
    },
    // Classes.
    Difference {
        cases: &["class/255/www", "class/255/apex", "class/255/none", "class/255/any"],
        peers: &[Knot, Nsd],
        fields: &[("rcode", "5")],
        why: "RFC 1035, 6.2: an answer to QCLASS * can never be authoritative, and an authoritative server has no other",
    },
    Difference {
        cases: &["class/*/any"],
        peers: &[Nsd],
        fields: &[("edns", "v0 size=1232 do=0 options=")],
        why: "RFC 8914, 2: an extended error (21, Not Supported) is a courtesy",
    },
    // Opcodes.
    Difference {
        cases: &["opcode/4/*", "notify/*"],
        peers: &[Knot, Nsd],
        fields: &[("rcode", "4")],
        why: "RFC 1996, 3.12: NOTIMP from who does not implement NOTIFY, which is for secondaries",
    },
    Difference {
        cases: &["opcode/5/*", "update/*"],
        peers: &[Knot],
        fields: &[("rcode", "4")],
        why: "RFC 2136, 2.2: NOTIMP, the opcode is not supported",
    },
    Difference {
        cases: &["opcode/*/edns", "update/*/edns", "count/additional-missing-edns"],
        peers: &[Nsd],
        fields: &[("edns", "v0 size=1232 do=0 options=")],
        why: "RFC 6891, 6.1.1: a response to a query with OPT must have one, errors included; Knot's has",
    },
    Difference {
        cases: &["opcode/*/apex", "edns/version1-flags"],
        peers: &[Nsd],
        fields: &[("cd", "0")],
        why: "RFC 4035, 3.1.6: CD is cleared in an authoritative server's responses; Knot does",
    },
    // Header.
    Difference {
        cases: &["flags/0001/*", "flags/0003/*", "flags/0005/*", "flags/000f/*", "flags/07ff/*"],
        peers: &[Nsd],
        fields: &[("rcode", "*")],
        why: "RFC 1035, 4.1.1: RCODE is a field of responses; in a query it means nothing. Knot answers as well",
    },
    // EDNS.
    Difference {
        cases: &["edns/twice/*", "edns/version1-twice", "edns/two-versions", "count/additional-missing-edns", "tail/*/edns"],
        peers: &[Knot],
        fields: &[("edns", "v0 size=1232 do=0 options=")],
        why: "RFC 6891, 6.1.1: a response to a query with OPT must have one; it could be read before the error was found",
    },
    Difference {
        cases: &["edns/twice/*", "edns/version1-twice", "edns/two-versions"],
        peers: &[Nsd],
        fields: &[("edns", "v0 size=1232 do=0 options=")],
        why: "RFC 6891, 6.1.1: a response to a query with OPT must have one, errors included",
    },
    Difference {
        cases: &["edns/version1-flags"],
        peers: &[Nsd],
        fields: &[("edns", "v0 size=1232 do=1 options=")],
        why: "RFC 3225, 3: DO is copied",
    },
    Difference {
        cases: &["edns/version1-broken-option"],
        peers: &[Knot],
        fields: &[("rcode", "16")],
        why: "RFC 6891, 6.1.3: BADVERS to every version that is not known, whose options may look otherwise; NSD says so too",
    },
    Difference {
        cases: &["edns/owned", "edns/owner-pointer"],
        peers: &[Knot],
        fields: &[("rcode", "1")],
        why: "RFC 6891, 6.1.2: the owner of OPT must be the root; NSD says FORMERR too",
    },
    Difference {
        cases: &["edns/no-question", "edns/no-question-cookie"],
        peers: &[Nsd],
        fields: &[("rcode", "1")],
        why: "RFC 7873, 5.4: a query without a question means something to a server with cookies alone; Knot says FORMERR too",
    },
    Difference {
        cases: &["option/expire", "option/expire/tcp"],
        peers: &[Knot],
        fields: &[("edns", "v0 size=1232 do=0 options=")],
        why: "RFC 7314, 1: EXPIRE is for secondaries, of which there are none; NSD is silent too",
    },
    Difference {
        cases: &["size/1/*"],
        peers: &[Knot],
        fields: &[("rcode", "0")],
        why: "RFC 6891, 6.2.3: a size below 512 counts as 512; NSD says so too",
    },
    // TSIG.
    Difference {
        cases: &["tsig/elsewhere", "tsig/elsewhere/tcp"],
        peers: &[Knot],
        fields: &[("rcode", "9")],
        why: "RFC 8945, 5.2: an unknown key is NOTAUTH before anything is looked up; NSD says so too",
    },
    Difference {
        cases: &["tsig/axfr"],
        peers: &[Knot],
        fields: &[("rcode", "9")],
        why: "RFC 8945, 5.2: an unknown key is NOTAUTH before anything is looked up; NSD says so too",
    },
    Difference {
        cases: &["tsig/class-in"],
        peers: &[Knot],
        fields: &[("rcode", "1")],
        why: "RFC 8945, 4.2 and 5.2: the class must be ANY; a TSIG that cannot be understood is FORMERR",
    },
    // What cannot be read.
    Difference {
        cases: &[
            "count/0-with-question",
            "count/2-*",
            "count/1-none-there",
            "count/65535",
            "label/64*",
            "label/256*",
            "label/257*",
            "label/too-many*",
            "label/type-40*",
            "label/type-80*",
            "label/type-bf*",
            "label/bitstring*",
            "label/pointer-*",
            "label/no-root*",
            "short/1*",
            "short/2*",
            "short/3*",
        ],
        peers: &[Knot, Nsd],
        fields: &[("reply", "yes")],
        why: "RFC 1035, 4.1.1: FORMERR, the query cannot be read (RFC 9619, 4: QDCOUNT is 1). The id is there, and who waits for nothing asks again",
    },
    Difference {
        cases: &["count/0/tcp"],
        peers: &[Nsd],
        fields: &[("reply", "yes")],
        why: "RFC 9619, 4: FORMERR, a query has one question; NSD says so over UDP and closes a TCP connection, Knot says so over both",
    },
    Difference {
        cases: &["label/root-inside", "label/root-inside/tcp"],
        peers: &[Nsd],
        fields: &[("rcode", "1")],
        why: "RFC 1035, 4.1.1: bytes after the last record are none that the counts know; Knot says FORMERR too",
    },
    Difference {
        cases: &["count/additional-0-edns", "tail/*"],
        peers: &[Nsd],
        fields: &[("rcode", "1")],
        why: "RFC 1035, 4.1.1: bytes after the last record are none that the counts know; Knot says FORMERR too",
    },
    // Records that a query does not need.
    Difference {
        cases: &["record/*/empty", "record/*/short-a"],
        peers: &[Knot],
        fields: &[("rcode", "0")],
        why: "RFC 1035, 4.1.1: records in a query mean nothing; they have to be whole, and their data is nobody's business",
    },
    Difference {
        cases: &["record/*", "edns/after-a", "edns/before-a", "tsig/sig0"],
        peers: &[Nsd],
        fields: &[("rcode", "0")],
        why: "RFC 1035, 4.1.1: records in a query mean nothing and do no harm (SIG(0), RFC 2931, 3.2, need not be checked); Knot answers as well",
    },
    Difference {
        cases: &["label/pointer-opcode4"],
        peers: &[Nsd],
        fields: &[("rcode", "4")],
        why: "RFC 1035, 4.1.1: NOTIMP; in a kind of query that is not known nothing has to be readable",
    },
    // Transfers.
    Difference {
        cases: &["type/*/252", "axfr/*"],
        peers: &[Knot, Nsd],
        fields: &[("rcode", "5"), ("rcode", "9")],
        why: "RFC 5936, 2.2.1: REFUSED to who may not transfer, NOTAUTH for what is no zone here; the same over UDP, where there is no AXFR (4.2)",
    },
    Difference {
        cases: &["type/*/251", "ixfr/*"],
        peers: &[Knot],
        fields: &[("rcode", "5")],
        why: "RFC 5936, 2.2.1: REFUSED to who may not transfer; NSD says so too",
    },
    Difference {
        cases: &["type/apex/251", "axfr/apex/edns/tcp"],
        peers: &[Nsd],
        fields: &[("edns", "v0 size=1232 do=0 options=")],
        why: "RFC 8914, 2: an extended error (18, Prohibited) says what REFUSED says already",
    },
];
