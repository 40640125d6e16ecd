//! The tasks of a running program: none may end before it is asked to, and all are waited for at the end.

use std::{collections::HashMap, future::Future, time::Duration};

use tokio::{
    task::{Id, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Tasks that share one order to stop.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    stop: CancellationToken,
    set: JoinSet<Result<(), String>>,
    names: HashMap<Id, String>,
}

impl Tasks {
    /// The order to stop.
    pub(super) fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Starts a task that ends once it is asked to, and not before.
    pub(super) fn spawn(&mut self, name: impl Into<String>, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn_fallible(name, async {
            task.await;
            Ok(())
        });
    }

    /// Starts a task that may find a reason why the program has to end.
    pub(super) fn spawn_fallible(&mut self, name: impl Into<String>, task: impl Future<Output = Result<(), String>> + Send + 'static) {
        let id = self.set.spawn(task).id();
        self.names.insert(id, name.into());
    }

    /// Waits for a task that ends by itself, and says what it was. Never returns while all run.
    pub(super) async fn failure(&mut self) -> String {
        let Some(ended) = self.set.join_next_with_id().await else { return std::future::pending().await };
        let id = match &ended {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let name = self.names.remove(&id).unwrap_or_default();
        match ended {
            Ok((_, Err(reason))) => reason,
            Ok((_, Ok(()))) => format!("{name} ended by itself; this is a defect of acmegate, please report it"),
            Err(error) if error.is_panic() => {
                format!("{name} panicked (the log says where); this is a defect of acmegate, please report it")
            }
            Err(_) => format!("{name} was cut off"),
        }
    }

    /// Orders all to stop and waits; cuts off what is not done in time, and gives the names of that.
    pub(super) async fn drain(&mut self, patience: Duration) -> Vec<String> {
        self.stop.cancel();
        let all = async {
            while let Some(ended) = self.set.join_next_with_id().await {
                let id = ended.map_or_else(|error| error.id(), |(id, _)| id);
                self.names.remove(&id);
            }
        };
        if timeout(patience, all).await.is_ok() {
            return Vec::new();
        }
        self.set.shutdown().await;
        let mut cut: Vec<String> = self.names.drain().map(|(_, name)| name).collect();
        cut.sort();
        cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_or_panics_by_itself_is_named() {
        let mut tasks = Tasks::default();
        let stop = tasks.stop();
        tasks.spawn("patient", async move { stop.cancelled().await });
        tasks.spawn("hasty", async {});
        assert!(tasks.failure().await.starts_with("hasty ended by itself"));
        tasks.spawn("clumsy", async { panic!("on purpose") });
        assert!(tasks.failure().await.starts_with("clumsy panicked"));
        tasks.spawn_fallible("honest", async { Err("the disk is gone".to_owned()) });
        assert_eq!(tasks.failure().await, "the disk is gone");
        assert_eq!(tasks.drain(Duration::from_secs(60)).await, Vec::<String>::new());
    }

    #[tokio::test]
    async fn what_does_not_stop_in_time_is_cut_off_and_named() {
        let mut tasks = Tasks::default();
        tasks.spawn("stubborn", std::future::pending());
        assert_eq!(tasks.drain(Duration::ZERO).await, ["stubborn"]);
        assert_eq!(tasks.drain(Duration::ZERO).await, Vec::<String>::new());
    }
}
