//! Both encoders give the same messages: [`respond`] over its own wire form, [`Handler`] through hickory-server's types.

use std::sync::Arc;

use async_trait::async_trait;
use authdns::{Counters, Handler, Rcode, RecordType, Transport, Zones, respond};
use hickory_proto::{op::Message, rr::Record, serialize::binary::BinEncoder};
use hickory_server::{
    net::{NetError, runtime::TokioTime, xfer::Protocol},
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo},
    zone_handler::MessageResponse,
};
use parking_lot::Mutex;
use proptest::prelude::*;

use crate::common::*;

/// Takes the bytes that a listener would send.
#[derive(Clone, Default)]
struct Sent(Arc<Mutex<Vec<u8>>>);

#[async_trait]
impl ResponseHandler for Sent {
    async fn send_response<'a>(
        &mut self,
        response: MessageResponse<
            '_,
            'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
        >,
    ) -> Result<ResponseInfo, NetError> {
        let mut bytes = Vec::new();
        let mut encoder = BinEncoder::new(&mut bytes);
        let info = response.destructive_emit(&mut encoder)?;
        *self.0.lock() = bytes;
        Ok(info)
    }
}

/// The response through hickory-server.
fn through_hickory(zones: &Zones, query: &[u8]) -> Vec<u8> {
    let client = "127.0.0.1:5353".parse().expect("an address");
    let request = Request::from_bytes(query.to_vec(), client, Protocol::Tcp).expect("a query that hickory can read");
    let sent = Sent::default();
    let counters = Arc::new(Counters::default());
    let handler = Handler::new(zones.clone(), Transport::Tls, Arc::clone(&counters));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(handler.handle_request::<_, TokioTime>(&request, sent.clone()));
    assert_eq!(counters.queries(Transport::Tls), 1);
    Arc::into_inner(sent.0).expect("the handler is done").into_inner()
}

/// A message as a comparison wants it: the header, the question's bytes, and each section as a set.
fn essence(bytes: &[u8]) -> (Vec<u8>, String, Vec<Vec<String>>) {
    let message = Message::from_vec(bytes).expect("a response that parses");
    let set = |records: &[Record]| {
        let mut set: Vec<String> = records.iter().map(|record| format!("{record}").to_lowercase()).collect();
        set.sort();
        set
    };
    let question = message.queries.iter().map(|question| question.to_string()).collect::<String>();
    let sections = vec![
        set(&message.answers),
        set(&message.authorities),
        set(&message.additionals),
        message.edns.iter().map(|edns| format!("{edns:?}")).collect(),
    ];
    (bytes[..4].to_vec(), question, sections)
}

fn owners() -> impl Strategy<Value = String> {
    let fixed =
        ["mixed", "www", "a.sub", "sub", "plain", "ns.sub", "a.wild", "b.a.wild", "wild", "q.alias", "x.y", "loop1", "down", "nowhere"];
    let fixed = prop::sample::select(fixed.to_vec()).prop_map(str::to_owned);
    let label = "[a-cA-C*]";
    let free = prop::collection::vec(label, 1..4).prop_map(|labels| labels.join("."));
    let relative = prop_oneof![fixed, free];
    prop_oneof![8 => relative.prop_map(|owner| format!("{owner}.auth.example.org")), 1 => Just(APEX.to_owned()), 1 => Just("Example.COM".to_owned())]
}

fn rtypes() -> impl Strategy<Value = RecordType> {
    let common = [1u16, 2, 5, 6, 15, 16, 16, 16, 28, 33, 43, 46, 47, 48, 65, 251, 252, 255, 257, 65_280];
    prop::sample::select(common.to_vec()).prop_map(RecordType)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn respond_and_handler_are_equal(
        records in prop::sample::subsequence(RECORDS.to_vec(), 0..RECORDS.len()),
        claims in prop::collection::vec((owners(), prop::collection::vec("[ -~]{0,60}", 0..4)), 0..12),
        asked in prop::collection::vec((owners(), rtypes(), any::<u16>(), prop::option::of((any::<u16>(), any::<bool>(), 0..2u32))), 1..40),
    ) {
        let zones = Zones::new(vec![config(APEX, &records)]).expect("sound");
        for (owner, values) in &claims {
            zones.set_txt(&name(APEX), 7, [(name(owner), values.iter().map(|value| value.as_str().into()).collect())]);
        }
        for (owner, rtype, flags, opt) in asked {
            let mut query = query(&owner, rtype);
            // Any flags and opcode of a query; hickory has no names for some opcodes, and RD and CD are what matters.
            query[2..4].copy_from_slice(&(flags & 0x2770).to_be_bytes());
            if let Some((size, dnssec_ok, version)) = opt {
                query = with_record(query, ADDITIONAL, &[0], 41, size, version << 16 | u32::from(dnssec_ok) << 15, &[]);
            }
            let theirs = through_hickory(&zones, &query);
            let mut ours = Vec::new();
            respond(&zones, &query, Transport::Tls, &mut ours);
            prop_assert_eq!(essence(&ours), essence(&theirs), "{} {}", owner, rtype);
        }
    }
}

#[test]
fn counters_see_the_response_codes() {
    let zones = zones();
    let client = "127.0.0.1:5353".parse().expect("an address");
    let request = Request::from_bytes(query("missing.auth.example.org", RecordType::A), client, Protocol::Tcp).expect("a request");
    let counters = Arc::new(Counters::default());
    let handler = Handler::new(zones, Transport::Tls, Arc::clone(&counters));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let info = runtime.block_on(handler.handle_request::<_, TokioTime>(&request, Sent::default()));
    assert_eq!((u16::from(info.response_code), counters.responses(Rcode::NxDomain)), (3, 1));
}
