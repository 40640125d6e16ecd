use std::net::Ipv4Addr;

use hickory_proto::{op::Query, rr::RData};

use super::*;

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

#[tokio::test]
async fn a_zone_is_answered_with_authority() {
    let servers = Nameservers::start(&[(ANY_PORT, Duration::ZERO)]).await;
    let server = servers.addresses()[0];
    assert_eq!(ask(server, "a.example.test.", RecordType::TXT).await.metadata.response_code, ResponseCode::Refused);

    servers.publish(
        "example.test",
        vec![
            txt("_acme-challenge.a.example.test", &["one"]),
            txt("_acme-challenge.A.example.test.", &["two"]),
            txt("example.test", &["apex"]),
            txt("*.wild.example.test", &["wild"]),
            record("alias.example.test", "CNAME", "_acme-challenge.a.example.test"),
            record("away.example.test", "CNAME", "elsewhere.test."),
            record("loop.example.test", "CNAME", "loop.example.test."),
            record("sub.example.test", "NS", "ns1.sub.example.test."),
            record("ns1.sub.example.test", "A", "127.0.0.9"),
        ],
    );
    let answer = ask(server, "_ACME-challenge.a.example.test.", RecordType::TXT).await;
    assert!(answer.metadata.authoritative && !answer.metadata.recursion_available);
    assert_eq!(values(&answer), ["one", "two"]);
    assert_eq!(values(&ask(server, "example.test.", RecordType::TXT).await), ["apex"]);
    for name in ["anything.wild.example.test.", "*.wild.example.test.", "x.y.wild.example.test."] {
        assert_eq!(values(&ask(server, name, RecordType::TXT).await), ["wild"], "{name}");
    }
    let alias = ask(server, "alias.example.test.", RecordType::TXT).await;
    assert_eq!((alias.answers[0].record_type(), values(&alias)), (RecordType::CNAME, vec!["one".to_owned(), "two".to_owned()]));
    let away = ask(server, "away.example.test.", RecordType::TXT).await;
    assert_eq!((away.answers.len(), away.authorities.len()), (1, 0), "the rest is somebody else's");
    assert!(!ask(server, "loop.example.test.", RecordType::TXT).await.answers.is_empty(), "a loop ends");

    let referral = ask(server, "x.sub.example.test.", RecordType::TXT).await;
    assert!(!referral.metadata.authoritative && referral.answers.is_empty());
    assert_eq!((referral.authorities[0].record_type(), referral.additionals.len()), (RecordType::NS, 1));

    let ns = ask(server, "example.test.", RecordType::NS).await;
    assert_eq!(ns.answers[0].data.to_string(), "ns1.example.test.");
    let glue = ask(server, "ns1.example.test.", RecordType::A).await;
    assert_eq!(glue.answers[0].data.to_string(), "127.0.0.1");

    servers.withdraw("example.test");
    assert_eq!(ask(server, "example.test.", RecordType::SOA).await.metadata.response_code, ResponseCode::Refused);
}

#[tokio::test]
async fn what_is_not_there_is_denied_with_the_soa() {
    let servers = Nameservers::start(&[(ANY_PORT, Duration::ZERO)]).await;
    let server = servers.addresses()[0];
    servers.publish("example.test", vec![txt("_acme-challenge.a.example.test", &["one"])]);
    let cases = [
        ("_acme-challenge.a.example.test.", RecordType::A, ResponseCode::NoError),
        ("a.example.test.", RecordType::TXT, ResponseCode::NoError),
        ("b.example.test.", RecordType::TXT, ResponseCode::NXDomain),
        ("b._acme-challenge.a.example.test.", RecordType::TXT, ResponseCode::NXDomain),
    ];
    for (name, kind, code) in cases {
        let answer = ask(server, name, kind).await;
        assert_eq!((answer.metadata.response_code, answer.answers.len()), (code, 0), "{name} {kind}");
        let soa = &answer.authorities[0];
        assert!(matches!(soa.data, RData::SOA(_)) && soa.ttl <= 1, "no resolver may keep it: {soa}");
    }
    let serial = |answer: &Message| match &answer.answers[0].data {
        RData::SOA(soa) => soa.serial,
        other => panic!("{other} is no SOA"),
    };
    let before = serial(&ask(server, "example.test.", RecordType::SOA).await);
    servers.publish("example.test", vec![]);
    assert!(serial(&ask(server, "example.test.", RecordType::SOA).await) > before);
}

#[tokio::test]
async fn a_late_server_shows_what_was_before_and_a_silent_one_nothing() {
    let late = Duration::from_secs(3600);
    let servers = Nameservers::start(&[(ANY_PORT, Duration::ZERO), (ANY_PORT, late)]).await;
    let [prompt, tardy] = servers.addresses()[..] else { panic!("two servers") };
    servers.delay(tardy, Duration::ZERO);
    servers.publish("example.test", vec![txt("a.example.test", &["old"])]);
    assert_eq!(values(&ask(tardy, "a.example.test.", RecordType::TXT).await), ["old"]);
    let before = Instant::now();
    servers.publish("example.test", vec![txt("a.example.test", &["new"])]);
    assert_eq!(values(&ask(prompt, "a.example.test.", RecordType::TXT).await), ["new"]);

    servers.delay(tardy, late);
    assert_eq!(ask(tardy, "a.example.test.", RecordType::TXT).await.metadata.response_code, ResponseCode::Refused, "nothing is so old");
    let since = servers.answers_since("a.example.test", "new").expect("it is published");
    assert!(since >= before + late && since <= Instant::now() + late);
    assert_eq!(servers.answers_since("a.example.test", "old"), None);

    servers.silence(prompt, true);
    let socket = UdpSocket::bind(ANY_PORT).await.expect("a socket");
    let query = question("a.example.test.", RecordType::TXT, Some(1232)).to_vec().expect("a query");
    socket.send_to(&query, prompt).await.expect("sent");
    while servers.asked().iter().filter(|asked| asked.server == prompt).count() < 2 {
        tokio::task::yield_now().await;
    }
    servers.silence(prompt, false);
    let again = question("a.example.test.", RecordType::TXT, Some(1232));
    socket.send_to(&again.to_vec().expect("a query"), prompt).await.expect("sent");
    let mut first = [0; 2];
    timeout(IDLE, socket.recv_from(&mut first)).await.expect("an answer").expect("received");
    assert_eq!(first, again.metadata.id.to_be_bytes(), "the query before was heard, and never answered");
    assert_eq!(values(&ask(prompt, "a.example.test.", RecordType::TXT).await), ["new"]);
    assert!(servers.shortest_interval().is_some_and(|interval| interval < late));
}

#[tokio::test]
async fn what_is_too_large_for_a_datagram_comes_over_tcp() {
    let servers = Nameservers::start(&[(ANY_PORT, Duration::ZERO)]).await;
    let server = servers.addresses()[0];
    let many: Vec<_> = (0..20).map(|number| txt("many.example.test", &[&format!("{number:060}")])).collect();
    let few: Vec<_> = (0..10).map(|number| txt("few.example.test", &[&format!("{number:060}")])).collect();
    servers.publish("example.test", [many, few].concat());
    for (name, payload, fits) in [("many", Some(4096), false), ("few", Some(1232), true), ("few", None, false)] {
        let answer = udp(server, &question(&format!("{name}.example.test."), RecordType::TXT, payload)).await;
        assert_eq!((answer.metadata.truncation, answer.answers.is_empty()), (!fits, !fits), "{name} {payload:?}");
        assert_eq!(answer.edns.is_some(), payload.is_some(), "EDNS is answered with EDNS");
    }
    assert_eq!(values(&tcp(server, &question("many.example.test.", RecordType::TXT, None)).await).len(), 20);
    let chunks = vec![txt("long.example.test", &["a\"\\b", &"x".repeat(255), ""])];
    servers.publish("example.test", chunks);
    assert_eq!(values(&ask(server, "long.example.test.", RecordType::TXT).await), [format!("a\"\\b{}", "x".repeat(255))]);
    let asked = servers.asked();
    assert_eq!(asked.iter().filter(|asked| asked.tcp).count(), 1);
    assert_eq!((asked[0].owner.as_str(), asked[0].kind.as_str()), ("many.example.test.", "TXT"));
}

fn txt(owner: &str, strings: &[&str]) -> Record {
    Record { owner: owner.into(), ttl: 60, kind: "TXT".into(), data: strings.iter().map(|s| s.as_bytes().to_vec()).collect() }
}

fn record(owner: &str, kind: &str, data: &str) -> Record {
    Record { owner: owner.into(), ttl: 60, kind: kind.into(), data: vec![data.into()] }
}

fn question(name: &str, kind: RecordType, payload: Option<u16>) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
    if let Some(payload) = payload {
        message.set_edns(Edns::new().set_max_payload(payload).clone());
    }
    message
}

async fn ask(server: SocketAddr, name: &str, kind: RecordType) -> Message {
    udp(server, &question(name, kind, Some(1232))).await
}

async fn udp(server: SocketAddr, query: &Message) -> Message {
    let socket = UdpSocket::bind(ANY_PORT).await.expect("a socket");
    socket.send_to(&query.to_vec().expect("a query"), server).await.expect("sent");
    let mut buffer = vec![0; 65_535];
    let received = timeout(IDLE, socket.recv_from(&mut buffer)).await.expect("an answer").expect("received");
    let answer = Message::from_vec(&buffer[..received.0]).expect("a message");
    assert_eq!(answer.metadata.id, query.metadata.id);
    answer
}

async fn tcp(server: SocketAddr, query: &Message) -> Message {
    let mut stream = TcpStream::connect(server).await.expect("connected");
    let bytes = query.to_vec().expect("a query");
    stream.write_u16(u16::try_from(bytes.len()).expect("short")).await.expect("sent");
    stream.write_all(&bytes).await.expect("sent");
    let length = stream.read_u16().await.expect("an answer");
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await.expect("all of it");
    Message::from_vec(&answer).expect("a message")
}

fn values(answer: &Message) -> Vec<String> {
    let mut values: Vec<_> = answer
        .answers
        .iter()
        .filter_map(|record| match &record.data {
            RData::TXT(txt) => Some(String::from_utf8_lossy(&txt.txt_data.concat()).into_owned()),
            _ => None,
        })
        .collect();
    values.sort();
    values
}
