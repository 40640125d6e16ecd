//! Puts the questions of a wait to real servers: so many at a time, and none too soon after the same one.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use authdns::Name;
use hickory_proto::rr::RecordType;
use parking_lot::Mutex;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep_until},
};

use super::{
    check::{Ask, Seen, judge},
    exchange::Question,
    schedule::APART,
    upstream::Upstream,
};

/// How long one server may take to answer one question.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a resolver may: it asks others.
const RESOLVER_PATIENCE: Duration = Duration::from_secs(5);
/// Questions in flight from this process.
const IN_FLIGHT: usize = 256;
/// Turns remembered before those that are over are dropped.
const TURNS: usize = 4096;

/// What all waits of a process share.
#[derive(Debug)]
pub(super) struct Questions {
    in_flight: Semaphore,
    turns: Mutex<Turns>,
}

#[derive(Debug)]
struct Turns {
    last: HashMap<(Arc<str>, Name), Instant>,
    /// Entries at which to clear up.
    bound: usize,
}

/// The servers of one wait.
pub(super) struct Network<'a> {
    pub(super) questions: &'a Questions,
    pub(super) servers: Vec<(Arc<str>, Upstream)>,
    /// True for authoritative servers, which must answer with authority; false for resolvers.
    pub(super) authority: bool,
    /// True if two waits for one name shall not ask a server twice within a second.
    pub(super) turns: bool,
}

impl Default for Questions {
    fn default() -> Self {
        Self { in_flight: Semaphore::new(IN_FLIGHT), turns: Mutex::new(Turns { last: HashMap::new(), bound: TURNS }) }
    }
}

impl Questions {
    /// Waits until this server may be asked for this name: a second after the last time.
    async fn turn(&self, server: &Arc<str>, owner: &Name) {
        let now = Instant::now();
        let at = {
            let mut turns = self.turns.lock();
            if turns.last.len() >= turns.bound {
                turns.last.retain(|_, last| *last + APART > now);
                turns.bound = (2 * turns.last.len()).max(TURNS);
            }
            let last = turns.last.entry((server.clone(), owner.clone()));
            *last.and_modify(|last| *last = now.max(*last + APART)).or_insert(now)
        };
        sleep_until(at).await;
    }
}

impl Ask for Network<'_> {
    async fn ask(&self, server: usize, owner: &Name, values: &BTreeSet<String>) -> Seen {
        let Some((name, upstream)) = self.servers.get(server) else { return Seen::Unroutable };
        if self.turns {
            self.questions.turn(name, owner).await;
        }
        let Ok(_permit) = self.questions.in_flight.acquire().await else { return Seen::Unroutable };
        let question = Question { recursion: !self.authority, ..Question::direct(owner, RecordType::TXT) };
        let patience = if self.authority { PATIENCE } else { RESOLVER_PATIENCE };
        judge(upstream.exchange(&question, patience).await, values, owner, self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_name_gets_its_turn_once_a_second_at_each_server() {
        let questions = Questions::default();
        let (server, other): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let (one, two): (Name, Name) = ("one.test".parse().unwrap(), "two.test".parse().unwrap());
        let start = Instant::now();
        questions.turn(&server, &one).await;
        questions.turn(&server, &two).await;
        questions.turn(&other, &one).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        tokio::join!(questions.turn(&server, &one), questions.turn(&server, &one));
        assert_eq!(start.elapsed(), 2 * APART, "one after the other");
    }

    #[tokio::test(start_paused = true)]
    async fn turns_that_are_over_are_forgotten() {
        let questions = Questions::default();
        let server: Arc<str> = "a".into();
        for number in 0..3 * TURNS {
            questions.turn(&server, &format!("n{number}.test").parse().unwrap()).await;
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert!(questions.turns.lock().last.len() <= TURNS + 1001);
    }
}
