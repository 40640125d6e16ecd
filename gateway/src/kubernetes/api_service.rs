//! The APIService through which the API server finds the webhook: the roots in it (`caBundle`) are kept those of the certificate that the webhook made for itself.

use futures_util::StreamExt;
use k8s_openapi::{ByteString, kube_aggregator::pkg::apis::apiregistration::v1::APIService};
use kube::{
    Api,
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt, watcher::watch_object},
};
use serde_json::json;
use tokio::time::{Duration, sleep};

use super::{Cluster, in_time, reasons};
use crate::config::Service;

/// Who changed the field, for `kubectl get --show-managed-fields`.
const MANAGER: &str = "acmegate";
/// Between two patches: somebody else who keeps the field, too, must not make a hot loop of it.
const PAUSE: Duration = Duration::from_secs(5);

/// Keeps `caBundle` of the APIService `name` at `bundle` (PEM) for as long as it is polled. One that leads to another Service than ours is left alone.
pub async fn keep_bundle(cluster: Cluster, name: String, service: Service, bundle: String) {
    let keeper = Keeper { api: Api::all(cluster.client()), name, service, bundle };
    let mut versions = Box::pin(watch_object(keeper.api.clone(), &keeper.name).default_backoff());
    let mut current: Result<Option<APIService>, String> = Ok(None);
    let (mut patched, mut complained) = (true, String::new());
    loop {
        tokio::select! {
            version = versions.next() => match version {
                Some(version) => current = version.map_err(|error| reasons(&error)),
                None => return,
            },
            // What could not be patched is tried again: nothing may come to wake us.
            () = sleep(PAUSE), if !patched => {}
        }
        let kept = match &current {
            Ok(Some(object)) => keeper.keep(object).await,
            Ok(None) => Err("it does not exist".to_owned()),
            Err(error) => Err(error.clone()),
        };
        patched = kept.is_ok() || !matches!(current, Ok(Some(_)));
        let complaint = kept.err().unwrap_or_default();
        if complaint != complained && !complaint.is_empty() {
            tracing::error!(
                api_service = keeper.name,
                reason = complaint,
                "the roots of the webhook's certificate are not in the APIService: the API server will not reach the webhook. \
                 acmegate's service account needs get, list, watch and patch on it"
            );
        }
        complained = complaint;
    }
}

struct Keeper {
    api: Api<APIService>,
    name: String,
    service: Service,
    bundle: String,
}

impl Keeper {
    async fn keep(&self, object: &APIService) -> Result<(), String> {
        if !leads_to(object, &self.service) {
            return Err(format!("it leads to another Service than {}/{} (webhook.service)", self.service.namespace, self.service.name));
        }
        if has(object, &self.bundle) {
            return Ok(());
        }
        let patch = json!({"spec": {"caBundle": ByteString(self.bundle.clone().into_bytes()), "insecureSkipTLSVerify": false}});
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        in_time(self.api.patch(&self.name, &params, &Patch::Merge(patch))).await?.map_err(|error| reasons(&error))?;
        tracing::info!(api_service = self.name, "wrote the roots of our certificate into the APIService");
        sleep(PAUSE).await;
        Ok(())
    }
}

fn leads_to(object: &APIService, service: &Service) -> bool {
    object
        .spec
        .as_ref()
        .and_then(|spec| spec.service.as_ref())
        .is_some_and(|given| given.name.as_deref() == Some(&service.name) && given.namespace.as_deref() == Some(&service.namespace))
}

fn has(object: &APIService, bundle: &str) -> bool {
    object.spec.as_ref().is_some_and(|spec| {
        spec.ca_bundle.as_ref().is_some_and(|given| given.0 == bundle.as_bytes()) && !spec.insecure_skip_tls_verify.unwrap_or(false)
    })
}
