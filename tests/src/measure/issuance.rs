//! Where the time goes while cert-manager gets certificates: what its objects say of themselves, seen by a watch, for their own times are in whole seconds.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use parking_lot::Mutex;
use serde_json::Value;

use super::Latencies;
use crate::kubernetes::{Api, condition};

/// What happens to each certificate, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Its Order is there: cert-manager has made a key and a request.
    Ordered,
    /// Its Challenge is there: the authority has taken the order.
    Challenged,
    /// cert-manager's scheduler has let the Challenge go on.
    Scheduled,
    /// The webhook has said that the value stands, and cert-manager has written that down.
    Presented,
    /// The authority has seen the value, after cert-manager's own check of it, or its wait.
    Valid,
    /// The Certificate is ready: it is issued and stands in its Secret.
    Ready,
}

impl Stage {
    /// All of them, in order.
    pub const ALL: [Self; 6] = [Self::Ordered, Self::Challenged, Self::Scheduled, Self::Presented, Self::Valid, Self::Ready];
}

/// What was seen of the certificates of one namespace, each for one name.
#[derive(Debug)]
pub struct Timeline {
    begun: Instant,
    /// By DNS name and stage.
    seen: Mutex<BTreeMap<(String, Stage), Duration>>,
}

impl Timeline {
    /// Begins now.
    pub fn start() -> Self {
        Self { begun: Instant::now(), seen: Mutex::default() }
    }

    /// Follows a namespace until so many certificates are ready.
    ///
    /// # Errors
    /// When that takes longer than `limit`.
    pub async fn follow(&self, api: &Api, namespace: &str, certificates: usize, limit: Duration) -> anyhow::Result<()> {
        let path = |group: &str, resource: &str| format!("/apis/{group}/v1/namespaces/{namespace}/{resource}");
        let (certificate, order) = (path("cert-manager.io", "certificates"), path("acme.cert-manager.io", "orders"));
        let challenge = path("acme.cert-manager.io", "challenges");
        let certificate = api.watch(&certificate, limit, |_, object| {
            if condition(object, "Ready")["status"] == "True" {
                self.note(&object["spec"]["dnsNames"][0], Stage::Ready);
            }
            (self.count(Stage::Ready) == certificates).then_some(())
        });
        let order = api.watch(&order, limit, |_, object| {
            self.note(&object["spec"]["dnsNames"][0], Stage::Ordered);
            None::<()>
        });
        let challenge = api.watch(&challenge, limit, |_, object| {
            let (name, status) = (&object["spec"]["dnsName"], &object["status"]);
            self.note(name, Stage::Challenged);
            let stages = [
                (Stage::Scheduled, status["processing"] == true),
                (Stage::Presented, status["presented"] == true),
                (Stage::Valid, status["state"] == "valid"),
            ];
            for (stage, _) in stages.into_iter().filter(|(_, reached)| *reached) {
                self.note(name, stage);
            }
            None::<()>
        });
        let done = tokio::select! {
            done = certificate => done,
            none = order => none,
            none = challenge => none,
        };
        done.with_context(|| {
            format!("{} of {certificates} certificates of {namespace} are ready after {limit:?}", self.count(Stage::Ready))
        })
    }

    /// When the last certificate reached a stage, from the beginning.
    ///
    /// # Errors
    /// When none did.
    pub fn last(&self, stage: Stage) -> anyhow::Result<Duration> {
        self.times(stage).into_values().max().with_context(|| format!("no certificate was seen to be {stage:?}"))
    }

    /// How long the certificates took from the stage before (the beginning, for the first) to this one.
    ///
    /// # Errors
    /// When none was seen at both.
    pub fn took(&self, stage: Stage) -> anyhow::Result<Latencies> {
        let before = Stage::ALL.into_iter().rfind(|other| *other < stage).map(|before| self.times(before));
        let since = |name: &String| before.as_ref().map_or(Some(Duration::ZERO), |before| before.get(name).copied());
        let samples: Vec<_> = self.times(stage).iter().filter_map(|(name, at)| Some(at.saturating_sub(since(name)?))).collect();
        ensure!(!samples.is_empty(), "no certificate was seen to be {stage:?}");
        Ok(Latencies::new(samples))
    }

    /// Only the first time counts: a watch that begins anew tells everything again.
    fn note(&self, name: &Value, stage: Stage) {
        let name = name.as_str().unwrap_or_default().to_owned();
        self.seen.lock().entry((name, stage)).or_insert_with(|| self.begun.elapsed());
    }

    fn count(&self, stage: Stage) -> usize {
        self.seen.lock().keys().filter(|(_, seen)| *seen == stage).count()
    }

    fn times(&self, stage: Stage) -> BTreeMap<String, Duration> {
        self.seen.lock().iter().filter(|((_, seen), _)| *seen == stage).map(|((name, _), at)| (name.clone(), *at)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_measured_from_the_one_before() -> anyhow::Result<()> {
        let timeline = Timeline::start();
        let millis = Duration::from_millis;
        for (name, stage, at) in
            [("a", Stage::Ordered, 10), ("a", Stage::Challenged, 30), ("b", Stage::Ordered, 20), ("b", Stage::Challenged, 70)]
        {
            timeline.seen.lock().insert((name.to_owned(), stage), millis(at));
        }
        let took = |stage| timeline.took(stage).map(|times| (times.percentile(0.0), times.percentile(100.0)));
        assert_eq!(took(Stage::Ordered)?, (millis(10), millis(20)));
        assert_eq!(took(Stage::Challenged)?, (millis(20), millis(50)));
        assert!(took(Stage::Scheduled).is_err());
        assert_eq!(timeline.last(Stage::Challenged)?, millis(70));
        timeline.note(&Value::from("b"), Stage::Challenged);
        assert_eq!(timeline.last(Stage::Challenged)?, millis(70), "the first time counts");
        Ok(())
    }
}
