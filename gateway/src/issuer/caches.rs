//! What resolvers may still remember of names whose values have just changed.
//!
//! A CA's resolver that looked at a name keeps its TXT RRset for the TTL. If the values change meanwhile, the CA sees the old ones, and the run fails
//! although every authoritative server is right. So a run waits out the TTL where other values stand, or stood a moment ago; names that nobody
//! has just used cost nothing.

use std::{collections::HashMap, sync::Arc, time::Duration};

use authdns::Name;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// Resolvers count in whole seconds, and some keep an RRset to the end of its last one.
const ROUNDING: Duration = Duration::from_secs(1);

/// Names and until when their old values may be remembered; clones share it.
#[derive(Clone, Default)]
pub(super) struct Caches(Arc<Mutex<HashMap<Name, Instant>>>);

impl Caches {
    /// Values that stood at these names, with this TTL in seconds, are replaced, joined by others, or gone, as of now.
    pub(super) fn outdated(&self, names: impl IntoIterator<Item = (Name, u32)>) {
        let now = Instant::now();
        let mut until = self.0.lock();
        until.retain(|_, end| *end > now);
        until.extend(names.into_iter().map(|(name, ttl)| (name, now + Duration::from_secs(ttl.into()) + ROUNDING)));
    }

    /// Waits until nobody remembers older values at these names.
    pub(super) async fn forgotten<'n>(&self, names: impl IntoIterator<Item = &'n Name>) {
        if let Some(end) = self.remembered_until(names) {
            sleep_until(end).await;
        }
    }

    fn remembered_until<'n>(&self, names: impl IntoIterator<Item = &'n Name>) -> Option<Instant> {
        let until = self.0.lock();
        names.into_iter().filter_map(|name| until.get(name)).max().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_names_that_changed_are_waited_for() {
        let caches = Caches::default();
        let (used, fresh): (Name, Name) = ("a.auth.test".parse().unwrap(), "b.auth.test".parse().unwrap());
        let before = Instant::now();
        caches.outdated([(used.clone(), 1)]);
        assert_eq!(caches.remembered_until([&fresh]), None);
        let end = caches.remembered_until([&fresh, &used]).unwrap();
        assert!(end >= before + Duration::from_secs(2) && end <= Instant::now() + Duration::from_secs(2));
        caches.forgotten([&used]).await;
        assert!(Instant::now() >= end);
        caches.outdated([]);
        assert!(caches.0.lock().is_empty(), "what is over is not kept");
    }
}
