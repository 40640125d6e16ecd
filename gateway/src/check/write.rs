//! A test value: put into DNS through the ledger as every door does it, seen at every server, taken back, and seen to be gone.

use std::time::Duration;

use authdns::Name;
use data_encoding::BASE64URL_NOPAD;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Ladder, backend,
    report::{Rung, RungId},
};
use crate::{
    claim::{Backend, Lane},
    config::Check,
    ledger::{ClaimError, Holder, Ledger, Request, Value},
    propagation::{
        Delegation,
        diagnose::{self, Spoken},
    },
};

/// How long a test value outlives a crash.
const LIFETIME: Duration = Duration::from_secs(600);
/// Between two looks at the servers.
const APART: Duration = Duration::from_secs(1);
/// How long a released value may take to be removed and to leave every server.
const REMOVAL: Duration = Duration::from_secs(60);
/// How long its removal is waited for when a check is stopped.
const SOON: Duration = Duration::from_secs(5);

/// The three rungs.
pub(super) struct Written {
    pub(super) write: Rung,
    pub(super) seen: Rung,
    pub(super) removed: Rung,
}

impl Written {
    pub(super) fn skipped(why: &str) -> Self {
        Self {
            write: Rung::skipped(RungId::Write, why),
            seen: Rung::skipped(RungId::Seen, why),
            removed: Rung::skipped(RungId::Removed, why),
        }
    }
}

impl Ladder {
    /// Writes, sees and removes. What was claimed is let go on every way out; `cancel` goes there at once.
    pub(super) async fn written(&self, lane: &Lane, owner: &Name, zone: Option<&Delegation>, cancel: &CancellationToken) -> Written {
        let test = match TestValue::new(self.ledger.clone()) {
            Ok(test) => test,
            Err(error) => {
                return Written { write: Rung::failed(RungId::Write, error, "try again"), ..Written::skipped("no test value was made") };
            }
        };
        let sight = async {
            let write = self.put(&test, lane, owner).await;
            match &write {
                Put::Taken => (taken(lane, owner), self.see(&test, lane, owner, zone).await),
                Put::Unseen(text) => (taken(lane, owner), self.unseen(&test, owner, zone, text).await),
                Put::Refused(rung) => (rung.clone(), Rung::skipped(RungId::Seen, "no value was taken")),
            }
        };
        let stopped = || (Rung::skipped(RungId::Write, "stopped"), Rung::skipped(RungId::Seen, "stopped"));
        let (write, seen) = cancel.run_until_cancelled(sight).await.unwrap_or_else(stopped);
        let removed = match test.release().await {
            Err(error) => Rung::failed(
                RungId::Removed,
                format!("the test value could not be let go: {error}"),
                format!("none, if it is gone within {} minutes: it ends by itself; else `acmegate sweep --apply`", LIFETIME.as_secs() / 60),
            ),
            Ok(()) if !write.holds() => {
                // What was not taken may stand all the same: an answer can be lost, and a check be stopped at any instant.
                let _ = self.let_go(&test, lane, owner, SOON).await;
                Rung::skipped(RungId::Removed, "no value was taken; what may have been is let go")
            }
            Ok(()) => self.gone(&test, lane, owner, zone, cancel).await,
        };
        Written { write, seen, removed }
    }

    async fn put(&self, test: &TestValue, lane: &Lane, owner: &Name) -> Put {
        let request = Request {
            holder: test.holder.clone(),
            owner: owner.clone(),
            value: test.value.clone(),
            backend: None,
            lifetime: Some(LIFETIME),
            keep: None,
        };
        let Err(error) = self.ledger.claim_within(vec![request], self.propagation.timeout).await else { return Put::Taken };
        // The DNS may have taken it, and only its servers lag behind.
        let stands = match self.route(lane) {
            Some(route) => {
                backend::values(route, lane, owner).await.is_ok_and(|values| values.iter().any(|one| one == test.value.as_str()))
            }
            None => false,
        };
        if stands {
            return Put::Unseen(error.to_string());
        }
        let next = match &error {
            ClaimError::NoZone(_) => "see the rung `backend`",
            ClaimError::Store(_) => "see to the data folder and its disk",
            _ => "mend what the DNS says; a credential that may read and not write is the commonest reason",
        };
        Put::Refused(Rung::failed(RungId::Write, format!("the test value was not taken: {error}"), next))
    }

    /// Asks until every server that serves the zone answers the value.
    async fn see(&self, test: &TestValue, lane: &Lane, owner: &Name, zone: Option<&Delegation>) -> Rung {
        const ID: RungId = RungId::Seen;
        let Some(zone) = zone else {
            return match self.check(Some(lane)) {
                Check::Authoritative => Rung::skipped(ID, "the zone's servers are not known"),
                Check::Recursive => Rung::ok(ID, "the value was seen through the recursive resolvers, as the configuration says"),
                Check::None => Rung::skipped(ID, "the configuration says that nobody is asked"),
            };
        };
        let said = self.ask(zone, owner, self.propagation.timeout, |one| has(one, &test.value)).await;
        self.judge_seen(&said, &test.value)
    }

    /// The ledger gave up waiting: what each server says now is the evidence.
    async fn unseen(&self, test: &TestValue, owner: &Name, zone: Option<&Delegation>, text: &str) -> Rung {
        let evidence = match zone {
            Some(zone) => diagnose::servers(zone, owner).await.iter().map(|one| line(one, &test.value)).collect(),
            None => Vec::new(),
        };
        let next = "if the servers are only slow, set a longer propagation.timeout; else look why the change does not reach them";
        Rung::failed(RungId::Seen, format!("the value was taken and is not seen: {text}"), next).because(evidence)
    }

    fn judge_seen(&self, said: &[Spoken], value: &Value) -> Rung {
        const ID: RungId = RungId::Seen;
        let evidence = said.iter().map(|one| line(one, value)).collect();
        let serving = said.iter().filter(|one| one.serves()).count();
        let seeing = said.iter().filter(|one| one.serves() && has(one, value)).count();
        let rung = match (serving, seeing) {
            (0, _) => Rung::failed(ID, "no server serves the zone", "see the rung `servers`"),
            (_, _) if seeing == serving => Rung::ok(ID, "every address that serves the zone answers the value"),
            _ => Rung::failed(
                ID,
                format!("only {seeing} of {serving} addresses answered the value within {} s", self.propagation.timeout.as_secs()),
                "if the servers are only slow, set a longer propagation.timeout; else look why the change does not reach them",
            ),
        };
        rung.because(evidence)
    }

    /// Asks until neither the provider nor any server has the value any more.
    async fn gone(&self, test: &TestValue, lane: &Lane, owner: &Name, zone: Option<&Delegation>, cancel: &CancellationToken) -> Rung {
        const ID: RungId = RungId::Removed;
        if let Err(why) = self.let_go(test, lane, owner, if cancel.is_cancelled() { SOON } else { REMOVAL }).await {
            let next = match self.serving {
                true => "nothing: `acmegate serve` goes on removing it; `acmegate sweep` shows what stands",
                false => "start `acmegate serve`, or run `acmegate sweep --apply`: either removes it",
            };
            return Rung::failed(ID, format!("the test value is not removed yet: {why}"), next);
        }
        let Some(zone) = zone else { return Rung::ok(ID, "the test value is removed; the zone's servers were not asked") };
        let asked = cancel.run_until_cancelled(self.ask(zone, owner, REMOVAL, |one| !has(one, &test.value))).await;
        let Some(said) = asked else {
            return Rung::skipped(ID, "stopped; the test value is removed, and the servers were not asked to the end");
        };
        let left = said.iter().filter(|one| has(one, &test.value)).count();
        let evidence = said.iter().map(|one| line(one, &test.value)).collect();
        let rung = match left {
            0 => Rung::ok(ID, "the test value is gone from every server"),
            _ => Rung::warning(
                ID,
                format!("the test value is removed, and {left} addresses still answered it after {} s", REMOVAL.as_secs()),
                "if the servers are only slow, nothing; else look why the change does not reach them",
            ),
        };
        rung.because(evidence)
    }

    /// Waits until the ledger has forgotten the value, which it does once the DNS says that it is gone.
    async fn let_go(&self, test: &TestValue, lane: &Lane, owner: &Name, patience: Duration) -> Result<(), String> {
        let deadline = Instant::now() + patience;
        let mut rounds = self.dispatch.rounds();
        loop {
            let left = self.store.claimed(vec![(owner.clone(), test.value.clone())]).await.map_err(|error| error.to_string())?;
            if left.is_empty() {
                return Ok(());
            }
            if timeout_at(deadline, rounds.changed()).await.is_err() {
                break;
            }
        }
        let Some(route) = self.route(lane) else { return Err(format!("the ledger has it after {} s", patience.as_secs())) };
        match backend::values(route, lane, owner).await {
            Err(error) => Err(error.to_string()),
            Ok(_) => Err(format!("{} has it after {} s", route.name, patience.as_secs())),
        }
    }

    /// Asks every server once a second until `done` holds for all that serve the zone; what they said last.
    async fn ask(&self, zone: &Delegation, owner: &Name, patience: Duration, done: impl Fn(&Spoken) -> bool) -> Vec<Spoken> {
        let deadline = Instant::now() + patience;
        loop {
            let said = diagnose::servers(zone, owner).await;
            if said.iter().all(|one| !one.serves() || done(one)) || Instant::now() + APART >= deadline {
                return said;
            }
            sleep(APART).await;
        }
    }
}

/// What became of the claim.
enum Put {
    /// It is true, as far as the ledger knows.
    Taken,
    /// The DNS has it, and the ledger was not told that its servers do.
    Unseen(String),
    /// It is not there.
    Refused(Rung),
}

fn taken(lane: &Lane, owner: &Name) -> Rung {
    let who = match &lane.backend {
        Backend::Embedded => "acmegate's own zone".to_owned(),
        Backend::Provider(name) => name.to_string(),
    };
    Rung::ok(RungId::Write, format!("{who} took a test value at {}", owner.to_relative_string()))
}

fn has(one: &Spoken, value: &Value) -> bool {
    one.values.iter().any(|answered| answered == value.as_str())
}

fn line(one: &Spoken, value: &Value) -> String {
    let said = match (one.serves(), has(one, value)) {
        _ if one.unroutable => "left aside, this machine has no route to it".to_owned(),
        (false, _) => format!("left aside: {}", one.answer),
        (true, true) => "answers the value".to_owned(),
        (true, false) => "does not answer the value".to_owned(),
    };
    format!("{}: {said}", one.server)
}

/// A value of 43 characters, as every DNS-01 value has them, whose beginning says what it is. Dropped while it may stand, it is let go in the background.
struct TestValue {
    ledger: Ledger,
    holder: Holder,
    value: Value,
    standing: std::sync::atomic::AtomicBool,
}

impl TestValue {
    fn new(ledger: Ledger) -> Result<Self, String> {
        let mut random = [0; 21];
        getrandom::fill(&mut random).map_err(|error| format!("the system gives no random numbers: {error}"))?;
        let value = format!("acmegate-check-{}", BASE64URL_NOPAD.encode(&random));
        let value = value.parse().map_err(|error| format!("a test value that is none: {error}"))?;
        let holder = Holder::from(format!("check:{}", Uuid::new_v4()).as_str());
        Ok(Self { ledger, holder, value, standing: true.into() })
    }

    async fn release(&self) -> Result<(), ClaimError> {
        self.ledger.release_all(&self.holder).await?;
        self.standing.store(false, std::sync::atomic::Ordering::SeqCst);
        Ok(())
    }
}

impl Drop for TestValue {
    fn drop(&mut self) {
        if !self.standing.load(std::sync::atomic::Ordering::SeqCst) {
            return;
        }
        let (ledger, holder) = (self.ledger.clone(), self.holder.clone());
        // Without a runtime the process is ending; the claim's lifetime sees to the rest.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = ledger.release_all(&holder).await {
                    tracing::warn!(%holder, %error, "the test value of a check could not be let go; it ends by itself");
                }
            });
        }
    }
}
