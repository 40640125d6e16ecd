//! The rule, for the servers of one zone. See the module above for its words.

use std::{collections::BTreeSet, time::Duration};

use authdns::Name;
use futures_util::{StreamExt, stream, stream::FuturesUnordered};
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{RData, RecordType},
};
use tokio::time::{Instant, sleep_until};

use super::{
    Progress, PropagationError, Server, Values, Watcher,
    exchange::{ExchangeError, Question, exchange, to_name},
};

/// Tries in a row without a usable answer after which a server is left aside.
const MUTE_TRIES: u32 = 3;
/// How long one server may take to answer one question.
const PATIENCE: Duration = Duration::from_millis(1000);
/// Pause after the first look; each one after it is half as long again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Questions in flight to one server.
const IN_FLIGHT: usize = 16;

/// Servers that shall all answer the same values.
#[derive(Debug, Clone)]
pub(super) struct Group {
    /// What to call them.
    pub(super) label: String,
    pub(super) servers: Vec<Server>,
    pub(super) values: Values,
    /// True for authoritative servers, which must answer with authority; false for resolvers.
    pub(super) authority: bool,
}

/// Why a group is not ready.
#[derive(Debug)]
pub(super) enum Failure {
    /// No server serves it.
    Nobody(PropagationError),
    /// These servers lacked values when the time was up.
    Late(Vec<String>),
}

/// How it went with one server.
enum Verdict {
    Ready,
    /// It does not serve the zone, and why.
    Aside(String),
    /// This machine cannot reach it.
    Unroutable,
    /// What it lacked when the time was up.
    Late(String),
}

/// What one answer says.
enum Seen {
    All,
    Lacks(String),
    Mute(String),
    Unroutable,
}

/// Waits until the servers of a group answer every value.
///
/// # Errors
/// [`Failure`].
pub(super) async fn wait(group: &Group, deadline: Instant, watcher: Watcher<'_>) -> Result<(), Failure> {
    let servers = group.servers.len();
    let progress = |ready| watcher(Progress::Ready { zone: group.label.clone(), ready, servers });
    progress(0);
    let (mut ready, mut aside, mut late) = (0, Vec::new(), Vec::new());
    let mut probes: FuturesUnordered<_> =
        group.servers.iter().map(|server| async move { (server, probe(server, group, deadline).await) }).collect();
    while let Some((server, verdict)) = probes.next().await {
        match verdict {
            Verdict::Ready => {
                ready += 1;
                progress(ready);
            }
            Verdict::Aside(why) => aside.push((format!("{server} {why}"), true)),
            Verdict::Unroutable => aside.push((format!("{server}: this machine has no route to it"), false)),
            Verdict::Late(lacks) => late.push(format!("{server} {lacks}")),
        }
    }
    // In the order of their names, not of their answers: texts are to repeat exactly.
    aside.sort();
    late.sort();
    if !late.is_empty() {
        late.extend(aside.into_iter().map(|(text, _)| text));
        return Err(Failure::Late(late));
    }
    if ready == 0 {
        let servers = aside.into_iter().map(|(text, _)| text).collect();
        return Err(Failure::Nobody(PropagationError::Nobody { zone: group.label.clone(), servers }));
    }
    for (text, _) in aside.into_iter().filter(|(_, worth_saying)| *worth_saying) {
        let text = format!(
            "a server of {} was left aside: {text}. CAs will ask the others; mend it, or remove it from the NS records",
            group.label
        );
        watcher(Progress::LeftAside { text });
    }
    Ok(())
}

/// Asks one server until it answers every value, is found not to serve, or the time is up.
async fn probe<'a>(server: &'a Server, group: &'a Group, deadline: Instant) -> Verdict {
    let mut missing: Vec<_> = group.values.iter().collect();
    let (mut pause, mut mute) = (FIRST_PAUSE, 0);
    loop {
        let ask = |(owner, values): (&'a Name, &'a BTreeSet<String>)| async move {
            let question = Question { name: owner.clone(), kind: RecordType::TXT, recursion: !group.authority };
            let seen = judge(exchange(server.address, &question, PATIENCE).await, values, owner, group.authority);
            ((owner, values), seen)
        };
        let asked: Vec<_> = missing.drain(..).map(ask).collect();
        let looked: Vec<_> = stream::iter(asked).buffered(IN_FLIGHT).collect().await;
        let (mut lacks, mut silence) = (None, None);
        for (entry, seen) in looked {
            match seen {
                Seen::All => continue,
                Seen::Unroutable => return Verdict::Unroutable,
                Seen::Lacks(what) => lacks = lacks.or(Some(what)),
                Seen::Mute(why) => silence = silence.or(Some(why)),
            }
            missing.push(entry);
        }
        if missing.is_empty() {
            return Verdict::Ready;
        }
        mute = if lacks.is_none() && missing.len() == group.values.len() { mute + 1 } else { 0 };
        let why = lacks.or(silence).unwrap_or_default();
        if mute >= MUTE_TRIES {
            return Verdict::Aside(why);
        }
        let next = Instant::now() + pause;
        if next >= deadline {
            return if mute > 0 { Verdict::Aside(why) } else { Verdict::Late(why) };
        }
        sleep_until(next).await;
        pause = (pause * 3 / 2).min(LONGEST_PAUSE);
    }
}

fn judge(answer: Result<Message, ExchangeError>, wanted: &BTreeSet<String>, owner: &Name, authority: bool) -> Seen {
    let message = match answer {
        Ok(message) => message,
        Err(ExchangeError::Unroutable) => return Seen::Unroutable,
        Err(error) => return Seen::Mute(error.to_string()),
    };
    match message.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => {}
        code => return Seen::Mute(format!("answers {}: it does not serve the zone", rcode(code))),
    }
    if authority && !message.metadata.authoritative {
        return Seen::Mute("answers without authority: it does not serve the zone".into());
    }
    let texts: Vec<Vec<u8>> = message
        .answers
        .iter()
        .filter(|record| !authority || to_name(&record.name).as_ref() == Some(owner))
        .filter_map(|record| match &record.data {
            RData::TXT(text) => Some(text.txt_data.concat()),
            _ => None,
        })
        .collect();
    let lacking = wanted.iter().filter(|value| !texts.iter().any(|text| text == value.as_bytes())).count();
    match (lacking, wanted.len()) {
        (0, _) => Seen::All,
        (1, 1) => Seen::Lacks(format!("does not answer the value at {}", owner.to_relative_string())),
        (lacking, wanted) => Seen::Lacks(format!("does not answer {lacking} of {wanted} values at {}", owner.to_relative_string())),
    }
}

fn rcode(code: ResponseCode) -> String {
    match code {
        ResponseCode::Refused => "REFUSED".into(),
        ResponseCode::ServFail => "SERVFAIL".into(),
        ResponseCode::NotAuth => "NOTAUTH".into(),
        ResponseCode::NotImp => "NOTIMP".into(),
        ResponseCode::FormErr => "FORMERR".into(),
        other => format!("rcode {}", u16::from(other)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use parking_lot::Mutex;
    use tokio::net::UdpSocket;

    use super::{
        super::fake::{Fake, reply},
        *,
    };

    const LONG: Duration = Duration::from_secs(60);

    fn values(entries: &[(&str, &[&str])]) -> Values {
        entries
            .iter()
            .map(|(owner, set)| (owner.parse().unwrap(), set.iter().map(|&value| value.to_owned()).collect::<BTreeSet<_>>()))
            .collect()
    }

    fn group(servers: &[&Fake], values: Values) -> Group {
        let server = |(at, fake): (usize, &&Fake)| Server { name: Some(format!("ns{at}.test").parse().unwrap()), address: fake.address };
        Group { label: "zone.test".into(), servers: servers.iter().enumerate().map(server).collect(), values, authority: true }
    }

    async fn run(group: &Group, longest: Duration) -> (Result<(), Failure>, Vec<Progress>) {
        let seen = Mutex::new(Vec::new());
        let outcome = wait(group, Instant::now() + longest, &|progress| seen.lock().push(progress)).await;
        (outcome, seen.into_inner())
    }

    async fn answering(texts: &'static [&'static str]) -> Fake {
        Fake::start(move |query, _| vec![reply(query, true, texts)]).await
    }

    #[tokio::test]
    async fn a_server_without_the_value_is_waited_for() {
        let asked = AtomicU32::new(0);
        let slow = Fake::start(move |query, _| {
            let early = asked.fetch_add(1, Ordering::Relaxed) < 2;
            vec![reply(query, true, if early { &["other"] } else { &["other", "v"] })]
        })
        .await;
        let quick = answering(&["v"]).await;
        let (outcome, seen) = run(&group(&[&slow, &quick], values(&[("a.zone.test", &["v"])])), LONG).await;
        assert!(outcome.is_ok());
        let ready: Vec<_> = seen.iter().map(ToString::to_string).collect();
        assert_eq!(ready, [0, 1, 2].map(|ready| format!("zone.test: {ready} of 2 servers answer every value")));
    }

    #[tokio::test]
    async fn a_dead_server_is_reported_and_does_not_block() {
        let quick = answering(&["v", "w"]).await;
        let mut group = group(&[&quick], values(&[("a.zone.test", &["v", "w"])]));
        let gone = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        group.servers.push(Server { name: Some("dead.test".parse().unwrap()), address: gone });
        let (outcome, seen) = run(&group, LONG).await;
        assert!(outcome.is_ok());
        let Some(Progress::LeftAside { text }) = seen.last() else { panic!("{seen:?}") };
        assert!(text.contains("dead.test") && text.contains("nothing listens"), "{text}");
    }

    #[tokio::test]
    async fn servers_that_do_not_serve_the_zone_are_left_aside() {
        let quick = answering(&["v"]).await;
        let refusing = Fake::start(|query, _| {
            let mut answer = reply(query, false, &[]);
            answer.metadata.response_code = ResponseCode::Refused;
            vec![answer]
        })
        .await;
        // A resolver in the NS records: it has the value, but no authority.
        let lame = Fake::start(|query, _| vec![reply(query, false, &["v"])]).await;
        let (outcome, seen) = run(&group(&[&quick, &refusing, &lame], values(&[("a.zone.test", &["v"])])), LONG).await;
        assert!(outcome.is_ok());
        let aside: Vec<_> =
            seen.iter().filter(|progress| matches!(progress, Progress::LeftAside { .. })).map(ToString::to_string).collect();
        assert_eq!(aside.len(), 2);
        assert!(aside[0].contains("REFUSED") && aside[1].contains("without authority"), "{aside:?}");
        let (outcome, _) = run(&group(&[&refusing, &lame], values(&[("a.zone.test", &["v"])])), LONG).await;
        let Err(Failure::Nobody(error)) = outcome else { panic!("{outcome:?}") };
        assert!(error.to_string().contains("ns0.test") && error.to_string().contains("ns1.test"), "{error}");
    }

    #[tokio::test]
    async fn when_the_time_is_up_every_server_that_lacks_a_value_is_named() {
        let quick = answering(&["v"]).await;
        let empty = answering(&[]).await;
        let half = answering(&["v"]).await;
        let (outcome, _) = run(&group(&[&quick, &empty], values(&[("a.zone.test", &["v"])])), Duration::from_millis(300)).await;
        let Err(Failure::Late(servers)) = outcome else { panic!("{outcome:?}") };
        assert_eq!(servers, [format!("ns1.test ({}) does not answer the value at a.zone.test", empty.address)]);
        let (outcome, _) = run(&group(&[&half], values(&[("a.zone.test", &["v", "w"])])), Duration::from_millis(300)).await;
        let Err(Failure::Late(servers)) = outcome else { panic!("{outcome:?}") };
        assert!(servers[0].contains("1 of 2 values"), "{servers:?}");
    }

    #[tokio::test]
    async fn many_names_are_asked_for_at_every_server() {
        let names: Vec<String> = (0..40).map(|n| format!("n{n}.zone.test")).collect();
        let wanted: Values = names.iter().map(|name| (name.parse().unwrap(), BTreeSet::from(["v".to_owned()]))).collect();
        let first = answering(&["v"]).await;
        let second = answering(&["x", "v"]).await;
        let (outcome, _) = run(&group(&[&first, &second], wanted), LONG).await;
        assert!(outcome.is_ok());
        assert!(first.asked() >= 40 && second.asked() >= 40);
    }

    #[tokio::test]
    async fn resolvers_need_no_authority() {
        let resolver = Fake::start(|query, _| {
            assert!(query.metadata.recursion_desired);
            vec![reply(query, false, &["v"])]
        })
        .await;
        let group = Group { authority: false, ..group(&[&resolver], values(&[("a.zone.test", &["v"])])) };
        assert!(run(&group, LONG).await.0.is_ok());
    }
}
