//! The same answers through hickory-server, for the transports that its listeners bring: DNS over TLS, HTTPS and QUIC.
//!
//! The bytes of the request go through the same reading and the same decision as in [`respond`](crate::respond); only the records are handed
//! over as hickory's types, whose encoder writes them. Their RDATA is opaque to it, so that nothing is changed on the way.

use std::{iter, sync::Arc};

use async_trait::async_trait;
use hickory_proto::{
    ProtoError,
    op::{Edns, Header, MessageType, Metadata, OpCode, ResponseCode},
    rr::{self, RData, Record, rdata::NULL},
    serialize::binary::BinDecodable,
};
use hickory_server::{
    net::runtime::Time,
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo},
    zone_handler::MessageResponseBuilder,
};

use crate::{
    answer::{Outcome, Transport, decide, is_recursion_desired},
    counters::Counters,
    edns::UDP_PAYLOAD,
    message::{Query, Question},
    types::Rcode,
    zone::{Answer, Set, Zones},
};

/// Answers hickory-server's requests from the zones, as [`respond`](crate::respond) answers bytes.
///
/// What hickory cannot parse it answers by itself, with FORMERR.
pub struct Handler {
    zones: Zones,
    transport: Transport,
    counters: Arc<Counters>,
}

impl Handler {
    /// A handler for the requests of one transport, which it counts in `counters`.
    pub fn new(zones: Zones, transport: Transport, counters: Arc<Counters>) -> Self {
        Self { zones, transport, counters }
    }

    /// The response to a message, as far as it does not depend on the transport. `None`: it deserves none.
    fn reply(&self, message: &[u8]) -> Option<Reply> {
        let query = Query::parse(message)?;
        let decided = decide(&self.zones, &query);
        let mut reply = Reply::new(&query, decided.as_ref().map_or_else(|&rcode| rcode, |answer| answer.rcode));
        if let (Ok(answer), Some(question)) = (&decided, &query.question)
            && let Err(error) = reply.fill(answer, question)
        {
            tracing::error!(%error, "a record could not be handed to hickory");
            reply = Reply::new(&query, Rcode::ServFail);
        }
        Some(reply)
    }
}

#[async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut response: R) -> ResponseInfo {
        let Some(reply) = self.reply(request.as_slice()) else {
            self.counters.record(self.transport, Outcome::Dropped);
            return nothing_sent(request, ResponseCode::FormErr);
        };
        self.counters.record(self.transport, Outcome::Answered { rcode: reply.rcode, truncated: false });
        let message = MessageResponseBuilder::new(&request.queries, reply.edns.as_ref()).build(
            reply.metadata,
            &reply.answers,
            &reply.authorities,
            iter::empty(),
            &reply.additionals,
        );
        response.send_response(message).await.unwrap_or_else(|error| {
            tracing::debug!(%error, client = %request.src(), "sending a response");
            nothing_sent(request, ResponseCode::ServFail)
        })
    }
}

/// What hickory-server is told when no response went out.
fn nothing_sent(request: &Request, code: ResponseCode) -> ResponseInfo {
    let mut metadata = Metadata::response_from_request(&request.metadata);
    metadata.response_code = code;
    Header { metadata, counts: Default::default() }.into()
}

/// A response in hickory's types.
struct Reply {
    rcode: Rcode,
    metadata: Metadata,
    edns: Option<Edns>,
    answers: Vec<Record>,
    authorities: Vec<Record>,
    additionals: Vec<Record>,
}

impl Reply {
    fn new(query: &Query<'_>, rcode: Rcode) -> Self {
        let mut metadata = Metadata::new(query.id, MessageType::Response, OpCode::from_u8(query.opcode()));
        metadata.recursion_desired = is_recursion_desired(query);
        metadata.response_code = u16::from(rcode as u8).into();
        let edns = query.edns.map(|edns| {
            let mut response = Edns::new();
            response.set_max_payload(UDP_PAYLOAD).set_version(0).set_dnssec_ok(edns.dnssec_ok);
            response
        });
        Self { rcode, metadata, edns, answers: Vec::new(), authorities: Vec::new(), additionals: Vec::new() }
    }

    fn fill(&mut self, answer: &Answer<'_>, question: &Question<'_>) -> Result<(), ProtoError> {
        self.metadata.authoritative = answer.authoritative;
        for set in answer.aliases.iter().chain(&answer.data) {
            push(&mut self.answers, set, question)?;
        }
        if let Some(set) = &answer.authority {
            push(&mut self.authorities, set, question)?;
        }
        for set in &answer.addresses {
            push(&mut self.additionals, set, question)?;
        }
        Ok(())
    }
}

fn push(records: &mut Vec<Record>, set: &Set<'_>, question: &Question<'_>) -> Result<(), ProtoError> {
    let owner = rr::Name::from_bytes(set.owner.as_ref().map_or(question.name(), |owner| owner.as_wire()))?;
    for rdata in set.to_rdata() {
        let data = RData::Unknown { code: set.rtype.0.into(), rdata: NULL::with(rdata) };
        records.push(Record::from_rdata(owner.clone(), set.ttl, data));
    }
    Ok(())
}
