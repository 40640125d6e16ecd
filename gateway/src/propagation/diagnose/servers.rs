//! What each server of a zone says: one question over UDP and the same over TCP, and which state of the zone it has.

use std::time::Duration;

use authdns::Name;
use futures_util::future::{join_all, join3};
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{RData, RecordType},
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::super::{
    Delegation, Server,
    check::rcode_name,
    exchange::{ExchangeError, Question, exchange, exchange_tcp, to_name},
};

/// How long one server may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Up to here an answer is quick.
const QUICK: Duration = Duration::from_millis(300);

/// What one address of one server says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spoken {
    /// Its name in the NS records and its address.
    pub server: String,
    /// The rcode by its name, such as `NOERROR`, or why there is no answer.
    pub answer: String,
    /// True if it answers with authority: it serves the zone.
    pub authority: bool,
    /// True if it answers over TCP too, as CAs need for long answers.
    pub tcp: bool,
    /// True if this machine has no route to it, so that the rest says nothing about it.
    pub unroutable: bool,
    /// The serial in the SOA record of the zone; `None` if it does not give one with authority.
    pub serial: Option<u32>,
    /// The TXT values at the name.
    pub values: Vec<String>,
    /// How long it took.
    pub speed: Speed,
}

/// How long a server takes to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Speed {
    /// Up to 300 ms.
    Quick,
    /// Longer.
    Slow,
    /// It does not answer.
    Silent,
}

impl Spoken {
    /// True if CAs get answers of the zone from it.
    pub fn serves(&self) -> bool {
        self.authority && matches!(self.answer.as_str(), "NOERROR" | "NXDOMAIN")
    }
}

/// Asks every address of every server for the TXT values at `owner`, side by side. In the order of the delegation.
pub async fn servers(delegation: &Delegation, owner: &Name) -> Vec<Spoken> {
    join_all(delegation.servers.iter().map(|server| spoken(server, &delegation.zone, owner))).await
}

async fn spoken(server: &Server, zone: &Name, owner: &Name) -> Spoken {
    let question = Question::direct(owner, RecordType::TXT);
    let start = Instant::now();
    let over_udp = async {
        let answer = exchange(server.address, &question, PATIENCE).await;
        (answer, if start.elapsed() <= QUICK { Speed::Quick } else { Speed::Slow })
    };
    let soa = Question::direct(zone, RecordType::SOA);
    let ((answer, speed), over_tcp, soa) =
        join3(over_udp, exchange_tcp(server.address, &question, PATIENCE), exchange(server.address, &soa, PATIENCE)).await;
    let serial = soa.ok().filter(|answer| answer.metadata.authoritative).and_then(|answer| serial(&answer, zone));
    let unroutable = matches!(answer, Err(ExchangeError::Unroutable));
    let (server, tcp) = (server.to_string(), over_tcp.is_ok());
    match answer {
        Err(error) => Spoken {
            server,
            answer: error.to_string(),
            authority: false,
            tcp,
            unroutable,
            serial,
            values: Vec::new(),
            speed: Speed::Silent,
        },
        Ok(message) => {
            let answer = match message.metadata.response_code {
                ResponseCode::NoError => "NOERROR".into(),
                ResponseCode::NXDomain => "NXDOMAIN".into(),
                code => rcode_name(code),
            };
            let values = values(&message, owner);
            Spoken { server, answer, authority: message.metadata.authoritative, tcp, unroutable, serial, values, speed }
        }
    }
}

fn serial(message: &Message, zone: &Name) -> Option<u32> {
    let own = message.answers.iter().filter(|record| to_name(&record.name).as_ref() == Some(zone));
    own.filter_map(|record| match &record.data {
        RData::SOA(soa) => Some(soa.serial),
        _ => None,
    })
    .next()
}

fn values(message: &Message, owner: &Name) -> Vec<String> {
    let own = message.answers.iter().filter(|record| to_name(&record.name).as_ref() == Some(owner));
    let mut values: Vec<String> = own
        .filter_map(|record| match &record.data {
            RData::TXT(text) => Some(String::from_utf8_lossy(&text.txt_data.concat()).into_owned()),
            _ => None,
        })
        .collect();
    values.sort();
    values
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use hickory_proto::rr::{Record, rdata};

    use super::{
        super::super::{
            Source,
            fake::{Fake, reply},
        },
        *,
    };

    #[tokio::test]
    async fn each_server_says_what_it_has() {
        let name: Name = "_acme-challenge.zone.test".parse().unwrap();
        let good = Fake::start(|query, _| {
            let asked = &query.queries[0];
            if asked.query_type != RecordType::SOA {
                return vec![reply(query, true, &["b", "a"])];
            }
            let mut answer = reply(query, true, &[]);
            let server = || "ns0.zone.test.".parse().unwrap();
            let soa = rdata::SOA::new(server(), server(), 7, 60, 60, 60, 60);
            answer.answers.push(Record::from_rdata(asked.name.clone(), 60, RData::SOA(soa)));
            vec![answer]
        })
        .await;
        let refusing = Fake::start(|query, _| {
            let mut answer = reply(query, false, &[]);
            answer.metadata.response_code = ResponseCode::Refused;
            vec![answer]
        })
        .await;
        let gone = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let server = |(at, address): (usize, &std::net::SocketAddr)| Server {
            name: format!("ns{at}.zone.test").parse().unwrap(),
            address: *address,
        };
        let delegation = Delegation {
            zone: "zone.test".parse().unwrap(),
            servers: [good.address, refusing.address, gone].iter().enumerate().map(server).collect(),
            source: Source::Parent("test".parse().unwrap()),
            delegated: BTreeSet::new(),
            own: None,
        };
        let said = servers(&delegation, &name).await;
        assert_eq!(said.iter().map(Spoken::serves).collect::<Vec<_>>(), [true, false, false]);
        assert_eq!((said[0].values.join(" "), said[0].tcp, said[0].serial), ("a b".to_owned(), true, Some(7)));
        assert_eq!((said[1].answer.as_str(), said[1].authority), ("REFUSED", false));
        assert!(said[2].answer.contains("nothing listens there") && !said[2].tcp && said[2].speed == Speed::Silent, "{:?}", said[2]);
        let json = serde_json::to_string(&said).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Spoken>>(&json).unwrap(), said);
    }
}
