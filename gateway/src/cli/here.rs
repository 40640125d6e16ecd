//! The engine in this process, for commands that find no `serve`: with the ledger, and with the embedded DNS server, which a CA has to reach.

use std::{sync::Arc, time::Duration};

use super::{
    Failure,
    lifecycle::{Signals, open_engine},
    progress::line,
    tasks::Tasks,
};
use crate::{
    config::Config,
    engine::{Engine, EngineError},
    store::StoreError,
};

/// How long the DNS server and the ledger may take to stop.
const DRAIN: Duration = Duration::from_secs(3);
/// How long backends may take to remove the values at the end.
const REMOVAL: Duration = Duration::from_secs(60);

/// The engine and what runs beside it.
pub(super) struct Here {
    pub(super) engine: Engine,
    base: Tasks,
}

impl Here {
    /// Locks the data folder and starts everything.
    pub(super) async fn open(config: Config) -> Result<Self, Failure> {
        let engine = open_alone(config).await?;
        let mut base = Tasks::default();
        if let Some(dns) = &engine.config.dns {
            let server = authdns::Server::bind(engine.zones.clone(), &dns.listen, authdns::Limits::default())
                .map_err(|error| Failure::failed(format!("{error} (the CA asks this DNS server while a certificate is issued)")))?;
            base.spawn("the DNS server", server.run(base.stop()));
        }
        base.spawn("the ledger", {
            let (engine, stop) = (engine.clone(), base.stop());
            async move { engine.run(stop).await }
        });
        Ok(Self { engine, base })
    }

    /// Waits for something that ends by itself though it should not, and says what it was.
    pub(super) async fn failure(&mut self) -> String {
        self.base.failure().await
    }

    /// Waits for values to be removed, as long as may be expected and nobody says stop, and ends everything.
    pub(super) async fn close(mut self, signals: &mut Signals) {
        let left = tokio::select! {
            left = self.engine.removed(REMOVAL) => left.map_err(|error| error.to_string()),
            _ = signals.next() => Err("stopped before that was known".to_owned()),
        };
        let later = "the next acmegate on this data folder goes on with it, and `acmegate sweep` shows them";
        match left {
            Ok(0) => {}
            Ok(left) => line(&format!("{left} values are still to be removed from DNS: {later}")),
            Err(why) => line(&format!("values may still have to be removed from DNS ({why}): {later}")),
        }
        self.base.drain(DRAIN).await;
        close(&self.engine).await;
    }
}

/// The engine alone, for what needs neither DNS nor the ledger's work.
pub(super) async fn open_alone(config: Config) -> Result<Engine, Failure> {
    let config = Arc::new(config);
    let opened = open_engine(config.clone()).await;
    let (engine, _registry) = opened.map_err(|error| match error {
        EngineError::Store(StoreError::Locked(text)) => Failure::later(format!(
            "{text}\nIt does not answer on its admin socket: it is starting, stopping, or another command; try again when it is done"
        )),
        error => Failure::opening(&config.data, error),
    })?;
    Ok(engine)
}

/// Writes what is waiting.
pub(super) async fn close(engine: &Engine) {
    if tokio::time::timeout(DRAIN, engine.close()).await.is_err() {
        line("the store did not finish writing in time; what was acknowledged is on disk");
    }
}
