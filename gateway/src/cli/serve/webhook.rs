//! What the webhook door needs before it opens: who may call, a certificate, and the duties towards the cluster that go with them.

use std::{future::Future, pin::Pin, sync::Arc};

use tokio::time::{MissedTickBehavior, interval};

use super::super::Failure;
use crate::{
    config,
    doors::webhook::{self, Callers, Certificates, ClusterCallers, Surroundings},
    engine::Engine,
    kubernetes::{self, Cluster, ClusterNamespaces, Events},
    web::{Authority, Clients, RENEWED_AFTER, ReloadedTls, SelfMade},
};

/// All calls of a cluster come over one connection of its API server, each for up to 34 s: cert-manager's own limit of 60 at once many times over.
pub(super) const STREAMS: u32 = 1024;

/// What runs beside the doors: its name, and its work, which goes on until it is dropped.
pub(super) type Duty = (&'static str, Pin<Box<dyn Future<Output = ()> + Send>>);

/// A door that can be opened.
pub(super) struct Prepared {
    pub(super) around: Surroundings,
    pub(super) tls: Arc<ReloadedTls>,
    pub(super) duties: Vec<Duty>,
}

/// Settles who may call, and with which certificate they are met. Nobody is called yet: a cluster whose API server is away does not keep us from starting.
pub(super) async fn prepare(engine: &Engine, config: &config::Webhook) -> Result<Prepared, Failure> {
    let cluster = Cluster::connect(engine.config.kubernetes.as_ref()).await.map_err(Failure::failed)?;
    let mut duties: Vec<Duty> = Vec::new();
    let mut around = Surroundings::none(callers(config, cluster.as_ref(), &mut duties)?);
    if let Some(cluster) = &cluster {
        let (events, teller) = Events::new(cluster);
        around.events = Some(events);
        duties.push(("the Kubernetes Events", Box::pin(teller.run())));
        // Whoever has no such rule need not grant the right to list namespaces.
        if config.policy.rules.iter().any(|rule| rule.selector.is_some()) {
            let (namespaces, cluster) = (ClusterNamespaces::default(), cluster.clone());
            around.namespaces = Arc::new(namespaces.clone());
            duties.push(("the watch over namespaces", Box::pin(async move { namespaces.run(cluster).await })));
        }
    }
    let tls = match (&config.tls, &config.service) {
        (Some(files), _) => ReloadedTls::open(files, Clients::MayShowCertificate).map_err(Failure::failed)?,
        (None, Some(service)) => self_made(engine, config, service, cluster, &mut duties)?,
        (None, None) => {
            let here = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
            ReloadedTls::self_signed(&here, Clients::MayShowCertificate).map_err(Failure::failed)?
        }
    };
    Ok(Prepared { around, tls, duties })
}

fn callers(config: &config::Webhook, cluster: Option<&Cluster>, duties: &mut Vec<Duty>) -> Result<Callers, Failure> {
    match (&config.callers, cluster) {
        (None, _) => Ok(Callers::Anyone),
        (Some(config::Callers::Certificates { ca_file, names }), _) => {
            let wrong = |reason: String| Failure::failed(format!("webhook.callers.ca_file: {}: {reason}", ca_file.display()));
            let pem = std::fs::read(ca_file).map_err(|error| wrong(error.to_string()))?;
            let authority = Authority::from_pem(&pem).map_err(|error| wrong(error.to_string()))?;
            Ok(Callers::Certificates(Arc::new(Certificates { authority, names: names.clone() })))
        }
        (Some(config::Callers::Cluster), Some(cluster)) => {
            let callers = Arc::new(ClusterCallers::new(cluster.clone(), &config.group, webhook::VERSION, &config.solver));
            let follower = callers.clone();
            duties.push(("the watch over who may call", Box::pin(async move { follower.run().await })));
            Ok(Callers::Cluster(callers))
        }
        (Some(config::Callers::Cluster), None) => {
            Err(Failure::failed("webhook.callers.cluster: there is no cluster: this is no pod, and kubernetes.kubeconfig is not set"))
        }
    }
}

/// A certificate for the Service that leads here, whose authority the APIService gets.
fn self_made(
    engine: &Engine,
    config: &config::Webhook,
    service: &config::Service,
    cluster: Option<Cluster>,
    duties: &mut Vec<Duty>,
) -> Result<Arc<ReloadedTls>, Failure> {
    let Some(cluster) = cluster else {
        return Err(Failure::failed("webhook.service: there is no cluster: this is no pod, and kubernetes.kubeconfig is not set"));
    };
    let made = SelfMade::open(engine.folder.path()).map_err(Failure::failed)?;
    let host = format!("{}.{}.svc", service.name, service.namespace);
    let names = [format!("{host}.cluster.local"), host];
    let tls = ReloadedTls::of(made.certificate(&names).map_err(Failure::failed)?, Clients::MayShowCertificate).map_err(Failure::failed)?;
    let (api_service, bundle) = (format!("{}.{}", webhook::VERSION, config.group), made.authority().to_owned());
    duties.push(("the watch over the APIService", Box::pin(kubernetes::keep_bundle(cluster, api_service, service.clone(), bundle))));
    let renewed = tls.clone();
    duties.push((
        "the webhook's certificate",
        Box::pin(async move {
            let mut due = interval(RENEWED_AFTER);
            due.set_missed_tick_behavior(MissedTickBehavior::Delay);
            due.tick().await;
            loop {
                due.tick().await;
                match made.certificate(&names) {
                    Ok(certificate) => renewed.replace(certificate),
                    Err(error) => tracing::error!(%error, "the webhook's certificate was not made anew; the old one is served"),
                }
            }
        }),
    ));
    Ok(tls)
}
