//! What every command that runs the engine has in common: its signals, its limits, and its start.

use std::{future::Future, sync::Arc};

use prometheus_client::registry::Registry;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::warn;

use super::Failure;
use crate::{
    config::Config,
    engine::{Engine, EngineError},
    telemetry,
};

/// Runs a command's future on a runtime of its own.
pub(super) fn block_on<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed(format!("the runtime cannot start: {error}")))?;
    let outcome = runtime.block_on(command);
    // A system call that hangs in a thread is not waited for.
    runtime.shutdown_background();
    outcome
}

/// Opens the engine, with a registry of metrics that holds the store's.
pub(super) async fn open_engine(config: Arc<Config>) -> Result<(Engine, Registry), EngineError> {
    let open = move || {
        let mut registry = telemetry::registry();
        Engine::open(config, registry.sub_registry_with_prefix("acmegate")).map(|engine| (engine, registry))
    };
    match tokio::task::spawn_blocking(open).await {
        Ok(opened) => opened,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// The signals that ask for an end.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::failed(format!("signals cannot be caught: {error}")));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// The name of the next one.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.hangup.recv() => "SIGHUP",
        }
    }
}

/// Every connection is a file: take as many as the system gives.
pub(super) fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        warn!(%error, "the limit of open files stays as it is");
    }
}
