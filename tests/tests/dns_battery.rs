//! The differential battery: one zone in acmegate, Knot and NSD, the same queries to each, plain, odd and broken, and every field of the replies
//! compared. Where acmegate answers otherwise than one of the two, `differences.rs` says what it answers and which RFC says so; a
//! difference that is not in the table fails the test, and so does an entry of the table that is none any more.

#[path = "dns_battery/cases.rs"]
mod cases;
#[path = "dns_battery/differences.rs"]
mod differences;
#[path = "dns_battery/packet.rs"]
mod packet;
#[path = "dns_battery/reply.rs"]
mod reply;
#[path = "dns_battery/zone.rs"]
mod zone;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::SocketAddr,
    time::Duration,
};

use acmegate_tests::{
    acmegate::{Acmegate, Config},
    addresses::Address,
    dns,
    knot::Knot,
    nsd::Nsd,
    wait::{LIMIT, bounded},
};
use anyhow::{Context, bail, ensure};
use hickory_proto::rr::RecordType;
use tokio::{
    net::{TcpStream, UdpSocket},
    time::{sleep, timeout},
};

use self::{
    cases::Case,
    differences::{Peer, TABLE},
    packet::Packet,
    reply::Fields,
};

#[tokio::test]
async fn acmegate_answers_as_knot_and_nsd_do() {
    let cases = cases::all();
    let names: BTreeSet<_> = cases.iter().map(|case| &case.name).collect();
    assert_eq!(names.len(), cases.len(), "the names of the cases are unique");

    let ours = acmegate().await;
    let text = text_of_the_zone(ours.dns()).await;
    let knot = Knot::start(Address::reserve(), &[(zone::APEX, text.clone())]).await;
    let nsd = Nsd::start(Address::reserve(), &[(zone::APEX, text)]).await;

    let (ours, knot, nsd) = tokio::join!(replies(ours.dns(), &cases), replies(knot.dns(), &cases), patient_replies(nsd.dns(), &cases));
    let ours = ours.expect("acmegate's replies");
    let peers = [(Peer::Knot, knot.expect("Knot's replies")), (Peer::Nsd, nsd.expect("NSD's replies"))];
    for (case, fields) in cases.iter().zip(&ours) {
        let size = fields.get("size").map_or(0, |size| size.parse().unwrap_or(usize::MAX));
        assert!(case.tcp || size <= case.largest_reply(), "{}: {size} bytes over UDP", case.name);
    }

    let mut unexplained = BTreeMap::<String, Vec<&str>>::new();
    let mut used = BTreeSet::new();
    let mut count = 0;
    for (peer, theirs) in &peers {
        for ((case, ours), theirs) in cases.iter().zip(&ours).zip(theirs) {
            for (field, our, their) in differing(ours, theirs) {
                count += 1;
                match differences::explain(&case.name, *peer, field, our) {
                    Some(places) => used.extend(places),
                    None => unexplained.entry(format!("{peer:?} {field}: ours {our:?}, theirs {their:?}")).or_default().push(&case.name),
                }
            }
        }
    }
    let mut report = String::new();
    for (what, cases) in unexplained {
        let _ = writeln!(report, "{what}\n    {}", cases.join(" "));
    }
    for place in differences::places().filter(|place| !used.contains(place)) {
        let _ = writeln!(report, "stale: {place:?} in the entry that says: {}", TABLE[place.entry].why);
    }
    assert!(report.is_empty(), "{} queries, {count} fields that differ; not explained:\n{report}", cases.len());
    eprintln!("{} queries, {count} fields that differ, all of them explained", cases.len());
}

/// The fields in which two replies differ. With another response code all else differs too; what stands in truncated replies is nobody's
/// business (RFC 2181, 9).
fn differing<'f>(ours: &'f Fields, theirs: &'f Fields) -> Vec<(&'static str, &'f str, &'f str)> {
    for verdict in ["reply", "rcode"] {
        let [our, their] = [ours, theirs].map(|fields| fields.get(verdict).map_or("", String::as_str));
        if our != their {
            return vec![(verdict, our, their)];
        }
    }
    let truncated = [ours, theirs].iter().any(|fields| fields.get("tc").is_some_and(|tc| tc == "1"));
    let compared = |field: &&str| *field != "size" && !(truncated && ["answer", "authority", "additional"].contains(field));
    let fields = ours.iter().filter(|(field, _)| compared(field));
    fields.filter(|(field, our)| theirs[*field] != **our).map(|(field, our)| (*field, &**our, &*theirs[field])).collect()
}

async fn acmegate() -> Acmegate {
    let address = Address::reserve();
    let records = zone::records();
    let records: Vec<&str> = records.iter().map(String::as_str).collect();
    let nameservers = format!("ns1.{apex}, ns2.{apex}", apex = zone::APEX);
    let mut acmegate = Acmegate::started(Config::new().dns(address.dns()).zone_with(zone::APEX, &nameservers, &records)).await;
    acmegate.keep(address);
    acmegate
}

/// The zone in master file form: SOA and NS as acmegate made them, and the records that it was given.
async fn text_of_the_zone(server: SocketAddr) -> String {
    let mut lines = Vec::new();
    for rtype in [RecordType::SOA, RecordType::NS] {
        let answer = dns::ask(server, zone::APEX, rtype).await;
        lines.extend(answer.answers.iter().map(ToString::to_string));
    }
    assert_eq!(lines.len(), 3, "an SOA and two NS: {lines:?}");
    lines.extend(zone::records());
    lines.join("\n") + "\n"
}

/// Asks one server everything, one query after another: with several at once NSD swaps replies when it leaves a query unanswered.
async fn replies(server: SocketAddr, cases: &[Case]) -> anyhow::Result<Vec<Fields>> {
    let mut all = Vec::with_capacity(cases.len());
    for case in cases {
        all.push(ask(server, case).await?);
    }
    Ok(all)
}

/// The same of NSD, which answers a number of errors in each second and then none: its silence counts when it lasts.
async fn patient_replies(server: SocketAddr, cases: &[Case]) -> anyhow::Result<Vec<Fields>> {
    let mut all = replies(server, cases).await?;
    loop {
        sleep(NEXT_SECOND).await;
        let mut news = false;
        for (case, fields) in cases.iter().zip(&mut all).filter(|(_, fields)| fields["reply"] == "no") {
            *fields = ask(server, case).await?;
            news |= fields["reply"] == "yes";
        }
        if !news {
            return Ok(all);
        }
    }
}

/// Long enough for the clock to show another second.
const NEXT_SECOND: Duration = Duration::from_millis(1100);

async fn ask(server: SocketAddr, case: &Case) -> anyhow::Result<Fields> {
    let reply = if case.tcp { over_tcp(server, &case.query).await } else { over_udp(server, &case.query).await };
    let reply = reply.with_context(|| format!("{} to {server}", case.name))?;
    let mut fields = reply::fields(reply.as_deref()).with_context(|| format!("{} to {server}: {reply:02x?}", case.name))?;
    fields.insert("size", reply.map_or(0, |reply| reply.len()).to_string());
    Ok(fields)
}

/// The id of the query that is sent behind each: its answer proves that there is none to the first.
const WITNESS: u16 = 0xfffe;

fn witness() -> Vec<u8> {
    let mut query = Packet::ask(zone::APEX, packet::SOA).bytes();
    query[..2].copy_from_slice(&WITNESS.to_be_bytes());
    query
}

/// Sends a query and a witness behind it, which each of these servers answers in turn. A datagram that is lost is sent again.
async fn over_udp(server: SocketAddr, query: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
    for _ in 0..5 {
        let socket = UdpSocket::bind("127.0.0.1:0").await?;
        socket.connect(server).await?;
        socket.send(query).await?;
        socket.send(&witness()).await?;
        let mut reply = None;
        let mut buffer = vec![0; 65_535];
        while let Ok(length) = timeout(LIMIT / 10, socket.recv(&mut buffer)).await {
            let message = &buffer[..length?];
            if message.starts_with(&WITNESS.to_be_bytes()) {
                return Ok(reply);
            }
            ensure!(reply.is_none(), "two replies");
            reply = Some(message.to_vec());
        }
    }
    bail!("the witness is not answered")
}

/// The same over TCP, where a server may also close the connection instead.
async fn over_tcp(server: SocketAddr, query: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
    let exchange = async {
        let mut stream = TcpStream::connect(server).await?;
        dns::write_framed(&mut stream, query).await?;
        // A server that has closed already may refuse the bytes.
        let _ = dns::write_framed(&mut stream, &witness()).await;
        let mut reply = None;
        while let Some(message) = dns::read_framed(&mut stream).await? {
            if message.starts_with(&WITNESS.to_be_bytes()) {
                break;
            }
            ensure!(reply.is_none(), "two replies");
            reply = Some(message);
        }
        Ok(reply)
    };
    bounded("a reply over TCP", exchange).await
}

impl Case {
    /// The most that may come back over UDP: 1232 bytes, and no more than the client takes; 512 if it does not say, or if it cannot be read.
    fn largest_reply(&self) -> usize {
        let size = || {
            let name = self.query.get(12..)?.iter().position(|&octet| octet == 0)? + 12 + 1;
            let opt = self.query.get(name + 4..).filter(|opt| opt.starts_with(&[0, 0, 41]))?;
            Some(usize::from(u16::from_be_bytes([*opt.get(3)?, *opt.get(4)?])))
        };
        size().unwrap_or(0).clamp(512, 1232)
    }
}
