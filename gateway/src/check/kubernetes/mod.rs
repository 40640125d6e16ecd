//! The ladder between cert-manager and us: everything in a Kubernetes cluster that has to be right for a challenge to get here, whatever its name.
//!
//! ```text
//!   cluster ─┬─ apiservice ── ca_bundle
//!            ├─ rights, caller
//!            └─ issuers ── challenges
//! ```
//!
//! Nothing is changed anywhere, and no lock is taken: it runs beside `serve`, in its pod or on an administrator's machine. Each call of the API server has a
//! deadline, each list an end, and each rung a bound on what it prints, so that the whole is told within about a minute, however large or broken the cluster is.
//!
//! Asking and judging are apart: [`ask`] (with [`list`]) and [`door`] ask; all the others judge what was answered, and ask nobody.

mod apiservice;
mod ask;
mod bundle;
mod caller;
mod challenges;
mod cluster;
mod door;
mod explain;
mod issuers;
mod list;
mod rights;
mod text;

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    str::FromStr,
    time::Duration,
};

use futures_util::future::{join, join3, join4};
use jiff::Timestamp;
use rustls_pki_types::UnixTime;
use serde::Serialize;

use super::report::{self, Outcome, Rung, RungId};
use crate::{
    config::{self, Config},
    doors::webhook::VERSION,
    kubernetes::Cluster,
};
use ask::Asker;
use issuers::Ours;

/// What a look at the cluster is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterRequest {
    /// cert-manager's ServiceAccount. Its namespace counts as that of every ClusterIssuer.
    pub cert_manager: ServiceAccount,
    /// A challenge that is under way for longer is stuck.
    pub stuck_after: Duration,
}

/// A ServiceAccount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccount {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What was found in the cluster: the ladder from the bottom up. This is the JSON of `--kubernetes --json`; fields and words are only ever added to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClusterReport {
    /// The APIService through which the API server finds us: `<version>.<group>`.
    pub api_service: String,
    /// The solver: the resource in that group.
    pub solver: String,
    /// cert-manager's ServiceAccount: `<namespace>/<name>`.
    pub cert_manager: String,
    /// Who we are to the API server; `None` if it does not say.
    pub user: Option<String>,
    /// The worst of the rungs: `ok`, `warning` or `failed`.
    pub outcome: Outcome,
    /// The rungs, always all of them and in this order.
    pub rungs: Vec<Rung>,
}

/// Looks at everything. What cannot be looked at is in the report.
pub async fn look(cluster: &Cluster, config: &Config, webhook: &config::Webhook, request: &ClusterRequest) -> ClusterReport {
    let asker = Asker::new(cluster);
    let (version, user) = join(asker.version(), asker.user()).await;
    let (user, server) = (user.as_ref().ok(), cluster::judge(&version, &user));
    let rungs = if server.holds() {
        Box::pin(climb(&asker, config, webhook, request, user.map_or("acmegate", |user| &user.name), server)).await
    } else {
        let others = [RungId::ApiService, RungId::CaBundle, RungId::Rights, RungId::Caller, RungId::Issuers, RungId::Challenges];
        let skipped = others.map(|id| Rung::skipped(id, "nothing can be asked: see the rung `cluster`"));
        std::iter::once(server).chain(skipped).collect()
    };
    ClusterReport {
        api_service: api_service_name(webhook),
        solver: webhook.solver.clone(),
        cert_manager: request.cert_manager.to_string(),
        user: user.map(|user| user.name.clone()),
        outcome: report::worst(&rungs),
        rungs,
    }
}

/// The rungs, over an API server that answers us.
async fn climb(asker: &Asker, config: &Config, webhook: &config::Webhook, request: &ClusterRequest, user: &str, server: Rung) -> Vec<Rung> {
    let account = &request.cert_manager;
    let lookups = async {
        let found = asker.api_service(&api_service_name(webhook)).await;
        let service = found.as_ref().ok().and_then(apiservice::service);
        let served = match &service {
            Some(service) => Some(door::served(&webhook.listen, service).await),
            None => None,
        };
        (found, served)
    };
    let needed = rights::needed(config, webhook, asker.namespace());
    let reviews = join3(asker.may(&needed), asker.may_call(account, webhook), asker.anybody_may_call(webhook));
    let labels = async {
        // Whoever has no such rule need not grant the right to list namespaces.
        let by_labels = webhook.policy.rules.iter().any(|rule| rule.selector.is_some());
        if by_labels { asker.labels().await.ok() } else { None }
    };
    let lists = join4(
        join(asker.issuers("Issuer", "issuers"), asker.issuers("ClusterIssuer", "clusterissuers")),
        asker.challenges(&webhook.group),
        asker.groups(),
        labels,
    );
    let ((found, served), (mine, theirs, everybodys), ((namespaced, cluster_wide), challenges, groups, labels)) =
        join3(Box::pin(lookups), Box::pin(reviews), Box::pin(lists)).await;
    let mut ours = Ours {
        group: &webhook.group,
        solver: &webhook.solver,
        backends: issuers::backends(config),
        policy: &webhook.policy,
        groups: groups.ok(),
        labels,
        cluster_namespace: &account.namespace,
        secrets: BTreeMap::new(),
    };
    ours.secrets = asker.secrets(issuers::secrets([&namespaced, &cluster_wide], &ours)).await;
    vec![
        server,
        apiservice::judge(&api_service_name(webhook), &found, webhook.service.as_ref(), user),
        bundle::judge(found.as_ref().ok(), served.as_ref(), webhook.service.is_some(), UnixTime::now()),
        rights::judge(&needed, &mine, user),
        caller::judge(account, webhook, &theirs, &everybodys),
        issuers::judge([&namespaced, &cluster_wide], &ours, user),
        challenges::judge(&challenges, [&namespaced, &cluster_wide], &ours, request.stuck_after, Timestamp::now(), user),
    ]
}

fn api_service_name(webhook: &config::Webhook) -> String {
    format!("{VERSION}.{}", webhook.group)
}

impl ClusterReport {
    /// How many rungs have this outcome.
    pub fn count(&self, outcome: Outcome) -> usize {
        report::count(&self.rungs, outcome)
    }

    /// For people, without a last line end; with colours if it goes to a terminal.
    pub fn text(&self, colours: bool) -> String {
        let mut text = String::new();
        // A write to a String does not fail.
        let _ = self.write(&mut text, colours);
        text
    }

    fn write(&self, out: &mut String, colours: bool) -> fmt::Result {
        writeln!(out, "{}: what cert-manager ({}) calls for the solver {}\n", self.api_service, self.cert_manager, self.solver)?;
        report::write_rungs(out, &self.rungs, colours)
    }
}

impl ServiceAccount {
    /// As Kubernetes' authenticator calls it.
    fn user(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }
}

impl fmt::Display for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for ServiceAccount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_name = |name: &str, dots: bool| {
            (1..=253).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || (dots && b == b'.'))
        };
        match text.split_once('/') {
            Some((namespace, name)) if is_name(namespace, false) && is_name(name, true) => {
                Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            _ => Err("write NAMESPACE/SERVICEACCOUNT, such as cert-manager/cert-manager".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_account_has_a_namespace_and_a_name() {
        let account: ServiceAccount = "cert-manager/my.cert-manager".parse().unwrap();
        assert_eq!(account.user(), "system:serviceaccount:cert-manager:my.cert-manager");
        for wrong in ["", "cert-manager", "/x", "x/", "a/b/c", "A/b", "a.b/c", "a b/c"] {
            assert!(wrong.parse::<ServiceAccount>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn people_get_the_same_look_as_from_the_other_ladder() {
        let report = ClusterReport {
            api_service: "v1alpha1.acme.corp.test".to_owned(),
            solver: "acmegate".to_owned(),
            cert_manager: "cert-manager/cert-manager".to_owned(),
            user: None,
            outcome: Outcome::Failed,
            rungs: vec![
                Rung::ok(RungId::Cluster, "Kubernetes v1.37.2 answers"),
                Rung::failed(RungId::ApiService, "it is away", "bring it back").because(vec!["Available: False".to_owned()]),
                Rung::unseen(RungId::Challenges, "we may not", "let us"),
            ],
        };
        insta::assert_snapshot!(report.text(false), @r"
        v1alpha1.acme.corp.test: what cert-manager (cert-manager/cert-manager) calls for the solver acmegate

        ok       cluster     Kubernetes v1.37.2 answers
        failed   apiservice  it is away
                               Available: False
                          -> bring it back
        skipped  challenges  we may not
                          -> let us

        1 ok, 0 warnings, 1 failed, 1 skipped
        ");
        assert_eq!(serde_json::to_value(&report).unwrap()["rungs"][1]["id"], "apiservice");
    }
}
