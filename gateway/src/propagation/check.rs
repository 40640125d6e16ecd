//! The rule, for the servers of one zone. See the module above for its words, and [`super::schedule`] for when a server is asked.

use std::{collections::BTreeSet, future::Future, sync::Arc, time::Duration};

use authdns::Name;
use futures_util::{StreamExt, stream, stream::FuturesUnordered};
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::RData,
};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use super::{
    Progress, PropagationError, Values, Watcher,
    exchange::{ExchangeError, to_name},
    schedule::{Observation, Schedule, scouts},
};

/// Tries in a row without a usable answer after which a server is left aside.
const MUTE_TRIES: u32 = 3;
/// Questions in flight to one server.
const IN_FLIGHT: usize = 32;

/// Puts one question to one server.
pub(super) trait Ask: Sync {
    /// Asks the server at this place of the list for the values at `owner`.
    fn ask(&self, server: usize, owner: &Name, values: &BTreeSet<String>) -> impl Future<Output = Seen> + Send;
}

/// Servers that shall all answer the same values.
pub(super) struct Watch<'a, A> {
    /// What to call them together.
    pub(super) label: &'a str,
    /// Each of them.
    pub(super) servers: &'a [Watched],
    pub(super) values: &'a Values,
    pub(super) ask: &'a A,
    /// When the values were sent; delays are counted from here.
    pub(super) start: Instant,
    pub(super) deadline: Instant,
    /// Called for an owner name once every server that counts answers all its values.
    pub(super) seen: &'a (dyn for<'n> Fn(&'n Name) + Send + Sync),
    pub(super) watcher: Watcher<'a>,
}

/// A server, and how it is asked.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    /// What to call it.
    pub(super) name: Arc<str>,
    pub(super) schedule: Schedule,
    /// False if the last wait left it aside: it gets one try, and counts from its first usable answer on.
    pub(super) trusted: bool,
}

/// Why a zone's values are not visible.
#[derive(Debug)]
pub(super) enum Failure {
    /// No server serves it.
    Nobody(PropagationError),
    /// These servers lacked values when the time was up.
    Late(Vec<String>),
}

/// How it went with one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It answers every value.
    Ready,
    /// It does not serve the zone, and why.
    Aside(String),
    /// This machine cannot reach it.
    Unroutable,
    /// What it lacked when the time was up.
    Late(String),
}

/// What one answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    /// Every value is there.
    All,
    /// The server serves the zone, and this is missing.
    Lacks(String),
    /// No usable answer, and why.
    Mute(String),
    /// This machine has no way there.
    Unroutable,
}

/// How it went.
#[derive(Debug)]
pub(super) struct Report {
    /// For each server, in the order given.
    pub(super) verdicts: Vec<Verdict>,
    /// For each server, how long the values took; `None` where they never came.
    pub(super) delays: Vec<Option<Observation>>,
}

impl<A: Ask> Watch<'_, A> {
    /// Asks until every server that counts answers every value, or the time is up.
    pub(super) async fn run(&self) -> Report {
        let servers = self.servers.len();
        let progress = |ready| (self.watcher)(Progress::Ready { zone: self.label.to_owned(), ready, servers });
        progress(0);
        let tally = Mutex::new(Tally::new(self.values, self.servers.iter().filter(|server| server.trusted).count()));
        let tally = &tally;
        let mut report = Report { verdicts: vec![Verdict::Unroutable; servers], delays: vec![None; servers] };
        let probe = |(place, server)| async move { (place, self.probe(place, server, tally).await) };
        let mut probes: FuturesUnordered<_> = self.servers.iter().enumerate().map(probe).collect();
        let mut ready = 0;
        while let Some((place, (verdict, delay))) = probes.next().await {
            if verdict == Verdict::Ready {
                ready += 1;
                progress(ready);
            }
            if let (Some(at), Some(seen)) = (report.verdicts.get_mut(place), report.delays.get_mut(place)) {
                (*at, *seen) = (verdict, delay);
            }
        }
        report
    }

    /// Asks one server until it answers every value, is found not to serve, or the time is up.
    async fn probe(&self, place: usize, server: &Watched, tally: &Mutex<Tally<'_>>) -> (Verdict, Option<Observation>) {
        let end = self.deadline.saturating_duration_since(self.start);
        let mut missing: Vec<Missing<'_>> = self.values.iter().enumerate().map(Missing::new).collect();
        let (mut last, mut early, mut delay, mut mute) = (None, Duration::ZERO, None, 0);
        let mut counts = server.trusted;
        let verdict = loop {
            let next = match delay {
                // The batch is there: whatever lacks is asked for as soon as it may be.
                Some(_) => missing.iter().map(|one| one.due(&server.schedule)).min().unwrap_or_default(),
                None => server.schedule.after(last),
            };
            // A last look at the very end, if it may be.
            if next > end && last.is_some_and(|last| last >= end || server.schedule.again(last) > end) {
                break if mute > 0 { Verdict::Aside(lack(&missing)) } else { Verdict::Late(lack(&missing)) };
            }
            sleep_until(self.start + next.min(end)).await;
            let now = self.start.elapsed();
            let asked = take_due(&mut missing, delay.is_some(), now, &server.schedule, scouts(self.values.len()));
            let questions: Vec<_> = asked.into_iter().map(|one| self.question(place, one)).collect();
            let mut answers = stream::iter(questions).buffer_unordered(IN_FLIGHT);
            let (mut usable, mut unroutable) = (false, false);
            while let Some((mut one, seen)) = answers.next().await {
                (one.asked, usable) = (Some(now), usable || matches!(seen, Seen::All | Seen::Lacks(_)));
                if usable && !counts {
                    counts = true;
                    tally.lock().joined();
                }
                match seen {
                    Seen::All => {
                        delay.get_or_insert(Observation { after: early, by: now });
                        tally.lock().answered(one.place).into_iter().for_each(self.seen);
                        continue;
                    }
                    Seen::Lacks(what) if delay.is_none() => (one.lacks, early) = (what, now),
                    Seen::Lacks(what) | Seen::Mute(what) => one.lacks = what,
                    Seen::Unroutable => unroutable = true,
                }
                missing.push(one);
            }
            last = Some(now);
            missing.sort_by_key(|one| one.place);
            mute = if usable { 0 } else { mute + 1 };
            if missing.is_empty() {
                break Verdict::Ready;
            } else if unroutable {
                break Verdict::Unroutable;
            } else if mute >= MUTE_TRIES || !counts {
                break Verdict::Aside(lack(&missing));
            }
        };
        if counts && matches!(verdict, Verdict::Aside(_) | Verdict::Unroutable) {
            let left = missing.iter().map(|one| one.place);
            tally.lock().left_aside(left).into_iter().for_each(self.seen);
        }
        (verdict, delay)
    }

    async fn question<'m>(&self, place: usize, one: Missing<'m>) -> (Missing<'m>, Seen) {
        let seen = self.ask.ask(place, one.owner, one.values).await;
        (one, seen)
    }
}

impl Report {
    /// What it means for the group: what to say of the servers that were left aside, or why the values are not visible.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) fn outcome(&self, label: &str, servers: &[Watched]) -> Result<Vec<String>, Failure> {
        let (mut aside, mut late, mut ready) = (Vec::new(), Vec::new(), false);
        for (server, verdict) in servers.iter().map(|server| &server.name).zip(&self.verdicts) {
            match verdict {
                Verdict::Ready => ready = true,
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
        if !ready {
            let servers = aside.into_iter().map(|(text, _)| text).collect();
            return Err(Failure::Nobody(PropagationError::Nobody { zone: label.to_owned(), servers }));
        }
        Ok(aside.into_iter().filter(|(_, worth_saying)| *worth_saying).map(|(text, _)| text).collect())
    }
}

/// An owner name that a server does not answer yet.
struct Missing<'a> {
    place: usize,
    owner: &'a Name,
    values: &'a BTreeSet<String>,
    asked: Option<Duration>,
    lacks: String,
}

/// Which owner names are answered, in the order of the values.
struct Tally<'a>(Vec<Count<'a>>);

struct Count<'a> {
    owner: &'a Name,
    /// Servers that count and have not answered it.
    waiting: usize,
    /// Servers that have.
    have: usize,
    told: bool,
}

impl<'a> Missing<'a> {
    fn new((place, (owner, values)): (usize, (&'a Name, &'a BTreeSet<String>))) -> Self {
        Self { place, owner, values, asked: None, lacks: String::new() }
    }

    /// When it may be asked for again.
    fn due(&self, schedule: &Schedule) -> Duration {
        self.asked.map_or(Duration::ZERO, |asked| schedule.again(asked))
    }
}

/// Takes the names to ask for now: all whose time has come if the batch is known to be there, else the scout whose turn it is.
fn take_due<'a>(missing: &mut Vec<Missing<'a>>, there: bool, now: Duration, schedule: &Schedule, scouts: usize) -> Vec<Missing<'a>> {
    if there {
        return missing.extract_if(.., |one| one.due(schedule) <= now).collect();
    }
    let turn = missing.iter().take(scouts).enumerate().min_by_key(|(_, one)| one.asked).map(|(at, _)| at);
    turn.map(|at| missing.remove(at)).into_iter().collect()
}

/// What the first of them that was asked for lacks.
fn lack(missing: &[Missing<'_>]) -> String {
    missing.iter().map(|one| &one.lacks).find(|lacks| !lacks.is_empty()).cloned().unwrap_or_default()
}

impl<'a> Tally<'a> {
    fn new(values: &'a Values, servers: usize) -> Self {
        Self(values.keys().map(|owner| Count { owner, waiting: servers, have: 0, told: false }).collect())
    }

    /// A server more counts, for every owner.
    fn joined(&mut self) {
        self.0.iter_mut().for_each(|count| count.waiting += 1);
    }

    /// A server answers the owner at this place: the owner, if it is complete with that.
    fn answered(&mut self, place: usize) -> Option<&'a Name> {
        let count = self.0.get_mut(place)?;
        count.have += 1;
        count.settle()
    }

    /// A server does not count for the owners at these places: those that are complete without it.
    fn left_aside(&mut self, places: impl Iterator<Item = usize>) -> Vec<&'a Name> {
        places.filter_map(|place| self.0.get_mut(place)?.settle()).collect()
    }
}

impl<'a> Count<'a> {
    /// One server less to wait for: the owner, if it was the last, and at least one has the values.
    fn settle(&mut self) -> Option<&'a Name> {
        self.waiting = self.waiting.saturating_sub(1);
        let complete = self.waiting == 0 && self.have > 0 && !self.told;
        self.told |= complete;
        complete.then_some(self.owner)
    }
}

/// What an answer to `owner` TXT says about these values.
pub(super) fn judge(answer: Result<Message, ExchangeError>, wanted: &BTreeSet<String>, owner: &Name, authority: bool) -> Seen {
    let message = match answer {
        Ok(message) => message,
        Err(ExchangeError::Unroutable) => return Seen::Unroutable,
        Err(error) => return Seen::Mute(error.to_string()),
    };
    match message.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => {}
        code => return Seen::Mute(format!("answers {}: it does not serve the zone", rcode_name(code))),
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

/// The mnemonic of an rcode.
pub(super) fn rcode_name(code: ResponseCode) -> String {
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

    use tokio::net::UdpSocket;

    use super::{
        super::{
            fake::{Fake, reply},
            questions::{Network, Questions},
            upstream::Upstream,
        },
        *,
    };

    const LONG: Duration = Duration::from_secs(60);

    fn values(entries: &[(&str, &[&str])]) -> Values {
        entries
            .iter()
            .map(|(owner, set)| (owner.parse().unwrap(), set.iter().map(|&value| value.to_owned()).collect::<BTreeSet<_>>()))
            .collect()
    }

    fn group(servers: &[&Fake]) -> Vec<(Arc<str>, Upstream)> {
        let server = |(at, fake): (usize, &&Fake)| (format!("ns{at}.test ({})", fake.address).into(), Upstream::Udp(fake.address));
        servers.iter().enumerate().map(server).collect()
    }

    async fn run(servers: Vec<(Arc<str>, Upstream)>, values: Values, longest: Duration) -> (Result<Vec<String>, Failure>, Vec<Progress>) {
        watch(Network { questions: &Questions::default(), servers, authority: true, turns: false }, values, longest).await
    }

    async fn watch(network: Network<'_>, values: Values, longest: Duration) -> (Result<Vec<String>, Failure>, Vec<Progress>) {
        let watched = |(name, _): &(Arc<str>, Upstream)| Watched { name: name.clone(), schedule: Schedule::eager(), trusted: true };
        let servers: Vec<_> = network.servers.iter().map(watched).collect();
        let (progress, start) = (Mutex::new(Vec::new()), Instant::now());
        let watch = Watch {
            label: "zone.test",
            servers: &servers,
            values: &values,
            ask: &network,
            start,
            deadline: start + longest,
            seen: &|_| {},
            watcher: &|one| progress.lock().push(one),
        };
        let outcome = watch.run().await.outcome("zone.test", &servers);
        (outcome, progress.into_inner())
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
        let (outcome, seen) = run(group(&[&slow, &quick]), values(&[("a.zone.test", &["v"])]), LONG).await;
        assert!(outcome.is_ok());
        let ready: Vec<_> = seen.iter().map(ToString::to_string).collect();
        assert_eq!(ready, [0, 1, 2].map(|ready| format!("zone.test: {ready} of 2 servers answer every value")));
    }

    #[tokio::test]
    async fn a_dead_server_is_reported_and_does_not_block() {
        let quick = answering(&["v", "w"]).await;
        let mut servers = group(&[&quick]);
        let gone = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        servers.push(("dead.test".into(), Upstream::Udp(gone)));
        let (outcome, _) = run(servers, values(&[("a.zone.test", &["v", "w"])]), LONG).await;
        let [text] = outcome.as_deref().unwrap() else { panic!("{outcome:?}") };
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
        let (outcome, _) = run(group(&[&quick, &refusing, &lame]), values(&[("a.zone.test", &["v"])]), LONG).await;
        let aside = outcome.unwrap();
        assert_eq!(aside.len(), 2);
        assert!(aside[0].contains("REFUSED") && aside[1].contains("without authority"), "{aside:?}");
        let (outcome, _) = run(group(&[&refusing, &lame]), values(&[("a.zone.test", &["v"])]), LONG).await;
        let Err(Failure::Nobody(error)) = outcome else { panic!("{outcome:?}") };
        assert!(error.to_string().contains("ns0.test") && error.to_string().contains("ns1.test"), "{error}");
    }

    #[tokio::test]
    async fn when_the_time_is_up_every_server_that_lacks_a_value_is_named() {
        let quick = answering(&["v"]).await;
        let empty = answering(&[]).await;
        let half = answering(&["v"]).await;
        let (outcome, _) = run(group(&[&quick, &empty]), values(&[("a.zone.test", &["v"])]), Duration::from_millis(300)).await;
        let Err(Failure::Late(servers)) = outcome else { panic!("{outcome:?}") };
        assert_eq!(servers, [format!("ns1.test ({}) does not answer the value at a.zone.test", empty.address)]);
        let (outcome, _) = run(group(&[&half]), values(&[("a.zone.test", &["v", "w"])]), Duration::from_millis(300)).await;
        let Err(Failure::Late(servers)) = outcome else { panic!("{outcome:?}") };
        assert!(servers[0].contains("1 of 2 values"), "{servers:?}");
    }

    #[tokio::test]
    async fn many_names_are_asked_for_at_every_server() {
        let names: Vec<String> = (0..40).map(|n| format!("n{n}.zone.test")).collect();
        let wanted: Values = names.iter().map(|name| (name.parse().unwrap(), BTreeSet::from(["v".to_owned()]))).collect();
        let first = answering(&["v"]).await;
        let second = answering(&["x", "v"]).await;
        let (outcome, _) = run(group(&[&first, &second]), wanted, LONG).await;
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
        let network = Network { questions: &Questions::default(), servers: group(&[&resolver]), authority: false, turns: false };
        assert!(watch(network, values(&[("a.zone.test", &["v"])]), LONG).await.0.is_ok());
    }
}
