//! Kubernetes Events: what went wrong with a challenge, told where people look, in the namespace of the Issuer. An Event of the same text is one object with a
//! growing count, however often cert-manager tries.

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::ObjectReference,
        events::v1::{Event, EventSeries},
    },
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::{
    sync::mpsc::{self, Receiver, Sender},
    time::Instant,
};

use super::{Cluster, in_time, reasons};

/// Who reports.
const REPORTER: &str = "acmegate.io/webhook";
/// What was attempted; the field must not be empty.
const ACTION: &str = "SolveChallenge";
/// Notices that wait to be told; more are dropped, as the log and the metrics have them.
const WAITING: usize = 256;
/// An Event's count is written this often at most.
const COUNTED_EVERY: Duration = Duration::from_secs(60);
/// Events whose count is remembered.
const REMEMBERED: usize = 1000;
/// Kubernetes takes no longer text, in bytes.
const LONGEST_NOTE: usize = 1024;

/// Something to tell the people of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Whose.
    pub namespace: String,
    /// `ChallengeRefused`, `ChallengeFailed`: one word, by which Events are selected.
    pub reason: &'static str,
    /// What happened, and what to do.
    pub note: String,
}

/// Where notices are handed in; clones share the queue.
#[derive(Debug, Clone)]
pub struct Events(Sender<Notice>);

/// Tells notices to the API server, once it is run.
pub struct Teller {
    client: Client,
    notices: Receiver<Notice>,
    told: HashMap<String, Told>,
}

struct Told {
    count: i32,
    at: Instant,
}

impl Events {
    /// A queue, and what empties it.
    pub fn new(cluster: &Cluster) -> (Self, Teller) {
        let (sender, notices) = mpsc::channel(WAITING);
        (Self(sender), Teller { client: cluster.client(), notices, told: HashMap::new() })
    }

    /// Hands in a notice; never waits.
    pub fn tell(&self, notice: Notice) {
        let _ = self.0.try_send(notice);
    }
}

impl Teller {
    /// Tells what is handed in, for as long as it is polled.
    pub async fn run(mut self) {
        while let Some(notice) = self.notices.recv().await {
            if let Err(error) = self.tell(&notice).await {
                tracing::warn!(namespace = notice.namespace, reason = notice.reason, error, "an Event could not be written");
            }
        }
    }

    async fn tell(&mut self, notice: &Notice) -> Result<(), String> {
        // The same text has the same name, so that it is one object even over a restart.
        let name = format!("acmegate.{}", &blake3::hash(format!("{notice:?}").as_bytes()).to_hex()[..16]);
        if self.told.len() >= REMEMBERED {
            self.told.clear();
        }
        let api: Api<Event> = Api::namespaced(self.client.clone(), &notice.namespace);
        if let Some(told) = self.told.get_mut(&name) {
            told.count = told.count.saturating_add(1);
            if told.at.elapsed() < COUNTED_EVERY {
                return Ok(());
            }
            let counted = count(&api, &name, told.count).await;
            told.at = Instant::now();
            if counted? {
                return Ok(());
            }
        }
        let count = match in_time(api.create(&PostParams::default(), &event(&name, notice))).await? {
            Ok(_) => 1,
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                count(&api, &name, 2).await?;
                2
            }
            Err(error) => return Err(reasons(&error)),
        };
        self.told.insert(name, Told { count, at: Instant::now() });
        Ok(())
    }
}

/// Writes an Event's count; false if it is there no longer (they live for an hour).
async fn count(api: &Api<Event>, name: &str, count: i32) -> Result<bool, String> {
    let series = EventSeries { count, last_observed_time: MicroTime(Timestamp::now()) };
    match in_time(api.patch(name, &PatchParams::default(), &Patch::Merge(json!({ "series": series })))).await? {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(false),
        Err(error) => Err(reasons(&error)),
    }
}

fn event(name: &str, notice: &Notice) -> Event {
    let mut note = notice.note.clone();
    note.truncate(note.floor_char_boundary(LONGEST_NOTE));
    Event {
        metadata: ObjectMeta { name: Some(name.to_owned()), namespace: Some(notice.namespace.clone()), ..ObjectMeta::default() },
        action: Some(ACTION.to_owned()),
        event_time: Some(MicroTime(Timestamp::now())),
        reason: Some(notice.reason.to_owned()),
        note: Some(note),
        type_: Some("Warning".to_owned()),
        reporting_controller: Some(REPORTER.to_owned()),
        reporting_instance: Some("acmegate".to_owned()),
        // cert-manager does not say which Challenge it is; the namespace is all that is known to be there.
        regarding: Some(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Namespace".to_owned()),
            name: Some(notice.namespace.clone()),
            namespace: Some(notice.namespace.clone()),
            ..ObjectReference::default()
        }),
        ..Event::default()
    }
}
