//! `acmegate serve`: open, bind, announce, run, drain.

mod webhook;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::Router;
use prometheus_client::registry::Registry;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::webhook::{Duty, Prepared};
use super::{
    Failure,
    lifecycle::{Signals, block_on, open_engine, raise_file_limit},
    say,
    tasks::Tasks,
};
use crate::{
    certificates::{CertificateMetrics, Manager},
    check::Ladder,
    config::{Config, TlsFiles},
    doors::{
        self, acmedns,
        admin::{self, AdminSocket, Works},
    },
    engine::Engine,
    issuer::Issuer,
    store::Store,
    sweep::{Schedule, SweepMetrics},
    telemetry::{self, Health, Phase},
    web::{self, Bound, Clients, Limits, Listener, ReloadedTls},
};

/// From the order to stop until what is still open is cut off.
const DRAIN: Duration = Duration::from_secs(10);
/// What of it is kept for the DNS server and the store, which go on until every door is closed.
const LAST_PART: Duration = Duration::from_secs(2);
/// How long the store may take to write what it has taken.
const FLUSH: Duration = Duration::from_secs(10);
/// How often the store is asked whether it can still be written.
const STORE_WATCH: Duration = Duration::from_secs(1);

pub(super) fn run(config: Config) -> Result<(), Failure> {
    block_on(Box::pin(serve(config)))
}

async fn serve(config: Config) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    raise_file_limit();
    let opened = tokio::select! {
        opened = Serving::open(Arc::new(config)) => opened?,
        signal = signals.next() => {
            info!(signal, "stopped while starting");
            return Ok(());
        }
    };
    let Serving { engine, health, mut doors, mut base, admin } = opened;
    let failure = tokio::select! {
        signal = signals.next() => {
            info!(signal, "stopping; a second signal stops at once");
            None
        }
        failure = doors.failure() => Some(failure),
        failure = base.failure() => Some(failure),
    };
    if let Some(failure) = &failure {
        tracing::error!("stopping: {failure}");
    }
    tokio::spawn(exit_at(signals));
    health.enter(Phase::Draining);
    let begun = Instant::now();
    // DNS answers and the store takes writes until the last request is through, so that what was acknowledged was true.
    let mut cut = doors.drain(DRAIN - LAST_PART).await;
    drop(admin);
    cut.extend(base.drain(DRAIN.saturating_sub(begun.elapsed())).await);
    if !cut.is_empty() {
        warn!("cut off, not done in time: {}", cut.join(", "));
    }
    if timeout(FLUSH, engine.close()).await.is_err() {
        return Err(Failure::failed("the store did not finish writing in time; what was acknowledged is on disk"));
    }
    info!("stopped");
    failure.map_or(Ok(()), |failure| Err(Failure::failed(failure)))
}

/// Everything that runs, bound and announced.
struct Serving {
    engine: Engine,
    health: Health,
    /// Where requests come in; they stop first.
    doors: Tasks,
    /// What requests need: DNS, expiry, and the metrics that tell of the end.
    base: Tasks,
    admin: AdminSocket,
}

impl Serving {
    async fn open(config: Arc<Config>) -> Result<Self, Failure> {
        let (engine, registry) = open_engine(config.clone()).await.map_err(|error| Failure::opening(&config.data, error))?;
        let mut opening = Opening { registry, announced: Vec::new(), doors: Vec::new(), duties: Vec::new() };
        let dns = opening.dns(&engine)?;
        opening.acmedns(&engine).await?;
        opening.webhook(&engine).await?;
        let sweep_metrics = SweepMetrics::register(opening.registry.sub_registry_with_prefix("acmegate"));
        let metrics = opening.bind("metrics", config.metrics.as_ref().map_or(&[], |metrics| &metrics.listen), web::bind)?;
        let issuer = Issuer::new(engine.clone());
        let manager = Manager::open(engine.clone(), issuer.clone(), None).await.map_err(Failure::failed)?;
        issuer.register(&mut opening.registry);
        opening.registry.register_collector(Box::new(CertificateMetrics::new(manager.clone(), &config)));
        let (admin, admin_listener) = AdminSocket::bind(&engine.folder).map_err(Failure::failed)?;
        opening.announced.push(format!("listening admin {}", admin.path().display()));
        // Every socket is bound; from here on nothing can fail.
        let Opening { registry, announced, doors: opened, duties } = opening;
        let health = Health::default();
        let (mut doors, mut base) = (Tasks::default(), Tasks::default());
        base.spawn("the ledger", {
            let (engine, stop) = (engine.clone(), base.stop());
            async move { engine.run(stop).await }
        });
        base.spawn_fallible("the watch over the store", watch(engine.store.clone(), base.stop()));
        if !engine.routes.is_empty() {
            let (watch, stop) = (engine.watch.clone(), base.stop());
            base.spawn("the watch over credentials", async move { watch.run(stop).await });
            let (schedule, stop) = (Schedule::new(engine.sweeper(), sweep_metrics), base.stop());
            base.spawn("the sweep", async move { schedule.run(stop).await });
        }
        if let Some(dns) = dns {
            base.spawn("the DNS server", dns.run(base.stop()));
        }
        let limits = Limits { drain: DRAIN - LAST_PART, ..Limits::default() };
        let metrics_router = telemetry::router(registry, health.clone(), engine.store.clone(), engine.watch.clone());
        for listener in metrics {
            base.spawn(
                "the metrics door",
                web::serve(listener, None, metrics_router.clone(), Limits { drain: LAST_PART, ..limits }, base.stop()),
            );
        }
        doors.spawn("the list of certificates", {
            let (manager, stop) = (manager.clone(), doors.stop());
            async move { manager.run(stop).await }
        });
        let works = Works { issuer, sweeper: engine.sweeper(), ladder: Ladder::new(&engine, true), manager };
        doors.spawn("the admin door", admin::serve(admin_listener, works, limits, doors.stop()));
        for (name, duty) in duties {
            let stop = base.stop();
            base.spawn(name, async move {
                stop.run_until_cancelled(duty).await;
            });
        }
        for Door { name, listener, tls, router, streams } in opened {
            doors.spawn(format!("the {name} door"), web::serve(listener, tls, router, Limits { streams, ..limits }, doors.stop()));
        }
        health.enter(Phase::Ready);
        announced.iter().for_each(|line| say(line));
        say("ready");
        info!(version = env!("CARGO_PKG_VERSION"), data = %engine.folder.path().display(), "ready");
        Ok(Self { engine, health, doors, base, admin })
    }
}

/// Doors while they are being opened.
struct Opening {
    registry: Registry,
    announced: Vec<String>,
    doors: Vec<Door>,
    /// What the doors need done beside them.
    duties: Vec<Duty>,
}

/// A bound door.
struct Door {
    name: &'static str,
    listener: Listener,
    tls: Option<Arc<ReloadedTls>>,
    router: Router,
    /// Requests that one HTTP/2 connection may have open.
    streams: u32,
}

impl Opening {
    fn dns(&mut self, engine: &Engine) -> Result<Option<authdns::Server>, Failure> {
        let Some(config) = &engine.config.dns else { return Ok(None) };
        let server = authdns::Server::bind(engine.zones.clone(), &config.listen, authdns::Limits::default()).map_err(Failure::failed)?;
        self.announced.extend(server.udp_addresses().iter().map(|address| format!("listening dns-udp {address}")));
        self.announced.extend(server.tcp_addresses().iter().map(|address| format!("listening dns-tcp {address}")));
        telemetry::register_dns(&mut self.registry, server.counters());
        Ok(Some(server))
    }

    async fn acmedns(&mut self, engine: &Engine) -> Result<(), Failure> {
        let Some(config) = &engine.config.acmedns else { return Ok(()) };
        let tls = open_tls(config.tls.as_ref())?;
        let router = acmedns::open(engine, config, &mut self.registry).await.map_err(Failure::failed)?;
        for listener in self.bind("acmedns", &config.listen, web::bind)? {
            self.doors.push(Door {
                name: "acmedns",
                listener,
                tls: tls.clone(),
                router: router.clone(),
                streams: Limits::default().streams,
            });
        }
        Ok(())
    }

    async fn webhook(&mut self, engine: &Engine) -> Result<(), Failure> {
        let Some(config) = &engine.config.webhook else { return Ok(()) };
        let Prepared { around, tls, duties } = webhook::prepare(engine, config).await?;
        let callers = around.callers.clone();
        let router = doors::webhook::router(engine, config, around, &mut self.registry);
        for listener in self.bind("webhook", &config.listen, |address| doors::webhook::bind(address, &callers))? {
            self.doors.push(Door { name: "webhook", listener, tls: Some(tls.clone()), router: router.clone(), streams: webhook::STREAMS });
        }
        self.duties.extend(duties);
        Ok(())
    }

    fn bind(
        &mut self,
        door: &str,
        listen: &[SocketAddr],
        bind: impl Fn(SocketAddr) -> Result<Bound, web::BindError>,
    ) -> Result<Vec<Listener>, Failure> {
        let mut listeners = Vec::with_capacity(listen.len());
        for &address in listen {
            let bound = bind(address).map_err(|error| Failure::failed(format!("{door}: {error}")))?;
            self.announced.push(format!("listening {door} {}", bound.address));
            listeners.push(bound.listener);
        }
        Ok(listeners)
    }
}

fn open_tls(files: Option<&TlsFiles>) -> Result<Option<Arc<ReloadedTls>>, Failure> {
    files.map(|files| ReloadedTls::open(files, Clients::Anonymous)).transpose().map_err(Failure::failed)
}

/// Ends with an error once the store cannot be written any more: only a new start mends that.
async fn watch(store: Arc<dyn Store>, stop: CancellationToken) -> Result<(), String> {
    let mut tick = interval(STORE_WATCH);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        if let Some(error) = store.broken() {
            return Err(error.to_string());
        }
    }
    Ok(())
}

/// Waits for one more signal, and then for nothing. What was acknowledged is on disk already.
async fn exit_at(mut signals: Signals) {
    let signal = signals.next().await;
    warn!(signal, "stopping at once");
    std::process::exit(1);
}
