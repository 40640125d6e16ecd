//! `acmegate check --kubernetes`: what lies between cert-manager and us, asked of the API server alone. It opens no data folder, so that it runs beside `serve`.

use super::{
    super::{
        Failure,
        lifecycle::{Signals, block_on},
        say,
    },
    CheckArgs, colours, judge,
};
use crate::{
    check::{
        Outcome,
        kubernetes::{ClusterReport, ClusterRequest, look},
    },
    config::Config,
    kubernetes::Cluster,
};

pub(super) fn run(args: &CheckArgs, config: &Config) -> Result<(), Failure> {
    let request = ClusterRequest { cert_manager: args.cert_manager.clone(), stuck_after: args.stuck_after };
    let report = block_on(check(config, &request))?;
    if args.json {
        say(&serde_json::to_string(&report).map_err(Failure::failed)?);
    } else {
        say(&report.text(colours()));
    }
    judge(&report.api_service, report.count(Outcome::Failed))
}

async fn check(config: &Config, request: &ClusterRequest) -> Result<ClusterReport, Failure> {
    let webhook = config.webhook.as_ref();
    let webhook =
        webhook.ok_or_else(|| Failure::usage("the configuration has no section webhook: nobody in a cluster can call; add it"))?;
    let cluster = Cluster::connect(config.kubernetes.as_ref()).await.map_err(Failure::usage)?.ok_or_else(|| {
        Failure::usage(
            "there is no cluster: this is no pod, and kubernetes.kubeconfig is not set; set it, or run this in the pod by kubectl exec",
        )
    })?;
    let mut signals = Signals::new()?;
    tokio::select! {
        report = look(&cluster, config, webhook, request) => Ok(report),
        _ = signals.next() => Err(Failure::later("the check was stopped before its end; it had changed nothing")),
    }
}
