//! The ladder that a person climbs at 3 a.m.: everything that has to be right for one name to get its certificate, from this machine's clock up to DNSSEC,
//! each rung with its evidence and the next step.
//!
//! ```text
//!   clock ── chain ── backend ─┬─ delegation ── servers ──┬─ write ── seen ── removed      (with --write)
//!                              ├─ credential ── allowed ──┘
//!                              └─ caa, dnssec
//! ```
//!
//! A rung that stands on a failed one is skipped and says why; whatever can be looked at all the same is. Without `--write` nothing is changed anywhere, and no
//! provider is asked for anything but to be read.
//!
//! Files: [`subject`] the name, [`report`] what is told; one file a group of rungs: [`clock`], [`chain`], [`backend`] (with the credential), [`servers`],
//! [`write`], [`caa`], [`dnssec`]. What lies between cert-manager and us in a cluster is a ladder of its own: [`kubernetes`].

mod backend;
mod caa;
mod chain;
mod clock;
mod dnssec;
pub mod kubernetes;
mod report;
mod servers;
mod subject;
#[cfg(test)]
mod tests;
mod write;

use std::{collections::BTreeSet, sync::Arc};

use authdns::{Name, Zones};
use futures_util::future::{join3, join4};
use tokio_util::sync::CancellationToken;

pub use report::{CheckError, CheckRequest, Outcome, Report, Rung, RungId};

use crate::{
    claim::Lane,
    config::{Check, Directory, Propagation},
    dispatch::{Dispatcher, Route},
    engine::Engine,
    ledger::Ledger,
    propagation::{Checker, diagnose},
    store::Store,
};
use subject::Subject;
use write::Written;

/// What climbs the ladder; clones share its parts.
#[derive(Clone)]
pub struct Ladder {
    store: Arc<dyn Store>,
    zones: Zones,
    ledger: Ledger,
    dispatch: Dispatcher,
    routes: Vec<Route>,
    checker: Checker,
    propagation: Propagation,
    /// Whom to ask about the zones of a backend, where the configuration says so.
    checks: Vec<(Arc<str>, Check)>,
    directories: Vec<Directory>,
    /// True inside of `serve`, whose DNS server answers the embedded zones.
    serving: bool,
}

impl Ladder {
    /// A ladder over an engine; `serving` inside of `serve`, whose DNS server answers the embedded zones.
    pub fn new(engine: &Engine, serving: bool) -> Self {
        let config = &engine.config;
        let checks = config.backends.iter().filter_map(|backend| Some((backend.name.clone(), backend.check?)));
        Self {
            store: engine.store.clone(),
            zones: engine.zones.clone(),
            ledger: engine.ledger.clone(),
            dispatch: engine.dispatch.clone(),
            routes: engine.routes.clone(),
            checker: Checker::new(&config.propagation),
            propagation: config.propagation.clone(),
            checks: checks.collect(),
            directories: config.issuer.directories.clone(),
            serving,
        }
    }

    /// Climbs. What cannot be looked at is in the report. `cancel` ends it soon, with nothing left in DNS that is not let go.
    ///
    /// # Errors
    /// [`CheckError`].
    pub async fn climb(&self, request: &CheckRequest, cancel: &CancellationToken) -> Result<Report, CheckError> {
        let subject = Subject::parse(&request.name)?;
        let looked = cancel.run_until_cancelled(Box::pin(self.look(&subject))).await.ok_or(CheckError::Stopped)?;
        let written = match (&looked.lane, &looked.owner) {
            _ if !request.write => Written::skipped("--write was not given"),
            (Some(lane), _) if self.route(lane).is_some_and(|route| !route.provider.limits().removes) => {
                Written::skipped("this DNS cannot remove values: a test value would stay, and push another one out")
            }
            (Some(lane), Some(owner)) if looked.credential.outcome != Outcome::Failed && looked.allowed.outcome != Outcome::Failed => {
                Box::pin(self.written(lane, owner, looked.servers.zone.as_ref(), cancel)).await
            }
            (Some(_), Some(_)) => Written::skipped("the credential does not work, or may not read the name"),
            _ => Written::skipped("no backend is chosen"),
        };
        if cancel.is_cancelled() {
            return Err(CheckError::Stopped);
        }
        Ok(looked.report(&subject, written))
    }

    /// Everything that changes nothing.
    async fn look(&self, subject: &Subject) -> Looked {
        let above = Box::pin(diagnose::zone_of(&self.checker, &subject.challenge));
        let (asked, chain, above) =
            join3(Box::pin(clock::ask(&self.directories, &*self.store)), Box::pin(self.chain(subject)), above).await;
        let chain::Found { rung: chain, owner } = chain;
        let world = match &owner {
            Some(owner) if *owner != subject.challenge => diagnose::zone_of(&self.checker, owner).await,
            _ => above.clone(),
        };
        let backend::Chosen { rung: backend, lane, unasked } = match &owner {
            Some(owner) => self.backend(subject, owner, world.as_ref().ok()).await,
            None => backend::Chosen {
                rung: Rung::skipped(RungId::Backend, "where the value would stand is not known: see the rung `chain`"),
                lane: None,
                unasked: Vec::new(),
            },
        };
        let credential = async {
            let credential = self.credential(lane.as_ref(), &unasked).await;
            let allowed = self.allowed(lane.as_ref(), owner.as_ref(), &credential).await;
            (credential, allowed)
        };
        let zones: BTreeSet<Name> =
            [above.ok(), world.as_ref().ok().cloned(), lane.as_ref().map(|lane| lane.zone.clone())].into_iter().flatten().collect();
        let ((credential, allowed), servers, caa, dnssec) = join4(
            credential,
            self.servers(owner.as_ref(), lane.as_ref(), &world),
            Box::pin(caa::climb(self.checker.resolver(), subject, &asked)),
            dnssec::climb(self.checker.resolver(), &zones),
        )
        .await;
        Looked { clock: clock::judge(&asked), chain, owner, backend, lane, servers, credential, allowed, caa, dnssec }
    }
}

/// What was found without changing anything.
struct Looked {
    clock: Rung,
    chain: Rung,
    owner: Option<Name>,
    backend: Rung,
    lane: Option<Lane>,
    servers: servers::Found,
    credential: Rung,
    allowed: Rung,
    caa: Rung,
    dnssec: Rung,
}

impl Looked {
    fn report(self, subject: &Subject, Written { write, seen, removed }: Written) -> Report {
        let servers::Found { delegation, servers, .. } = self.servers;
        let rungs = vec![
            self.clock,
            self.chain,
            self.backend,
            delegation,
            servers,
            self.credential,
            self.allowed,
            write,
            seen,
            removed,
            self.caa,
            self.dnssec,
        ];
        Report {
            name: subject.name(),
            challenge: subject.challenge.to_relative_string(),
            owner: self.owner.as_ref().map(Name::to_relative_string),
            zone: self.lane.as_ref().map(|lane| lane.zone.to_relative_string()),
            backend: self.lane.as_ref().map(|lane| lane.backend.as_str().to_owned()),
            outcome: report::worst(&rungs),
            rungs,
        }
    }
}
