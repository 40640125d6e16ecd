//! The rung `apiservice`: does the API server find the webhook door?

use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{APIService, APIServiceCondition, ServiceReference};

use super::{
    super::report::{Rung, RungId},
    ask::{Asked, Unasked},
    text::short,
};
use crate::config::Service;

const ID: RungId = RungId::ApiService;
/// What the API server calls if none is named.
const DEFAULT_PORT: i32 = 443;

/// The Service that it leads to; `None` if it leads nowhere.
pub(super) fn service(api: &APIService) -> Option<Service> {
    let ServiceReference { name, namespace, .. } = api.spec.as_ref()?.service.as_ref()?;
    Some(Service { name: name.clone()?, namespace: namespace.clone()? })
}

/// Whether the API server reached us lately; `None` if it has not looked yet.
pub(super) fn is_available(api: &APIService) -> Option<bool> {
    match available(api)?.status.as_str() {
        "True" => Some(true),
        "False" => Some(false),
        _ => None,
    }
}

fn available(api: &APIService) -> Option<&APIServiceCondition> {
    api.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == "Available")
}

/// `configured` is the Service of the configuration, where it names one.
pub(super) fn judge(name: &str, found: &Asked<APIService>, configured: Option<&Service>, user: &str) -> Rung {
    let api = match found {
        Ok(api) => api,
        Err(Unasked::Missing) => {
            return Rung::failed(
                ID,
                format!("there is no APIService {name}: the API server answers cert-manager that it knows no such resource"),
                "install the chart, whose groupName is webhook.group; or correct webhook.group, if the chart has another (kubectl get apiservices)",
            );
        }
        Err(unasked) => {
            let right = format!("{{apiGroups: [apiregistration.k8s.io], resources: [apiservices], resourceNames: [{name}], verbs: [get]}}");
            return unasked.rung(ID, &format!("the APIService {name}"), user, &right);
        }
    };
    let Some(leads_to) = service(api) else {
        return Rung::failed(
            ID,
            format!("the APIService {name} leads to no Service: the API server looks for the resource in itself"),
            "set spec.service of it, as the chart does",
        );
    };
    let port = api.spec.as_ref().and_then(|spec| spec.service.as_ref()?.port).unwrap_or(DEFAULT_PORT);
    let place = format!("the Service {}/{}, port {port}", short(&leads_to.namespace), short(&leads_to.name));
    if let Some(configured) = configured.filter(|configured| **configured != leads_to) {
        return Rung::failed(
            ID,
            format!("the APIService {name} leads to {place}, and webhook.service says {}/{}", configured.namespace, configured.name),
            "correct one of the two: acmegate's certificate is for that of webhook.service, and the caBundle of another's APIService is left alone",
        );
    }
    let condition = available(api);
    let said = condition.map(|condition| {
        let (reason, message) = (condition.reason.as_deref().unwrap_or_default(), condition.message.as_deref().unwrap_or_default());
        format!("Available is {}: {}: {}", short(&condition.status), short(reason), short(message))
    });
    let rung = match (is_available(api), condition.and_then(|condition| condition.reason.as_deref())) {
        (Some(true), _) => return Rung::ok(ID, format!("the API server reaches {place}")),
        (Some(false), reason) => {
            let summary = format!("the API server does not reach {place}");
            let message = condition.and_then(|condition| condition.message.as_deref()).unwrap_or_default();
            Rung::failed(ID, summary, advice(reason.unwrap_or_default(), message, &leads_to))
        }
        (None, _) => Rung::warning(
            ID,
            format!("whether the API server reaches {place} is not known yet"),
            "look again in a minute: it looks every 30 s",
        ),
    };
    rung.because(said.into_iter().collect())
}

/// What to do about each reason that Kubernetes' aggregator gives.
fn advice(reason: &str, message: &str, service: &Service) -> String {
    let Service { name, namespace } = service;
    let pods = format!("kubectl --namespace {namespace} get pods, and their logs");
    match reason {
        "ServiceNotFound" => format!(
            "there is no such Service: kubectl --namespace {namespace} get services; install the chart there, or correct spec.service of the APIService"
        ),
        "ServicePortError" => {
            format!("the Service has no such port: kubectl --namespace {namespace} get service {name}; correct the port in the APIService")
        }
        "EndpointsNotFound" | "MissingEndpoints" | "EndpointsAccessError" => {
            format!("no pod behind the Service is ready: {pods}; one that does not get ready says why there")
        }
        "FailedDiscoveryCheck" if message.contains("x509:") => "see the rung `ca_bundle`".to_owned(),
        "FailedDiscoveryCheck" if message.contains("bad status from") => {
            format!("acmegate answers, and does not know the API server, or is not ready: see the rung `rights`; {pods}")
        }
        "FailedDiscoveryCheck" => format!(
            "{pods}; if they are well, something stands between the API server and the port of the pods: a NetworkPolicy, a firewall, or on a managed cluster, \
             whose control plane comes from outside, the tunnel (konnectivity) or the range of its addresses"
        ),
        _ => format!("kubectl --namespace {namespace} get service,endpointslices,pods"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{
        super::super::report::Outcome::{Failed, Ok as Fine, Skipped, Warning},
        *,
    };

    const NAME: &str = "v1alpha1.acme.corp.test";

    fn api(spec: Value, conditions: Value) -> Asked<APIService> {
        Ok(serde_json::from_value(json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": NAME}, "status": {"conditions": conditions},
            "spec": {"group": "acme.corp.test", "version": "v1alpha1", "groupPriorityMinimum": 1000, "versionPriority": 15, "service": spec},
        }))
        .unwrap())
    }

    fn condition(status: &str, reason: &str) -> Value {
        json!([{"type": "Available", "status": status, "reason": reason, "message": "said\u{1b}[2J"}])
    }

    #[test]
    fn the_condition_is_told_with_what_to_do() {
        let to = || json!({"name": "gate", "namespace": "dns", "port": 443});
        let gate = Service { name: "gate".into(), namespace: "dns".into() };
        let other = Service { name: "gate".into(), namespace: "other".into() };
        for (found, configured, outcome, summary, next) in [
            (api(to(), condition("True", "Passed")), Some(&gate), Fine, "the API server reaches the Service dns/gate, port 443", ""),
            (api(json!({"name": "gate", "namespace": "dns"}), condition("True", "Passed")), None, Fine, "port 443", ""),
            (api(to(), condition("True", "Passed")), Some(&other), Failed, "and webhook.service says other/gate", "correct one of the two"),
            (api(to(), condition("False", "EndpointsNotFound")), None, Failed, "does not reach", "no pod behind the Service is ready"),
            (api(to(), condition("False", "ServiceNotFound")), None, Failed, "does not reach", "there is no such Service"),
            (api(to(), condition("False", "ServicePortError")), None, Failed, "does not reach", "no such port"),
            (api(to(), condition("False", "FailedDiscoveryCheck")), None, Failed, "does not reach", "konnectivity"),
            (api(to(), condition("Unknown", "")), None, Warning, "is not known yet", "every 30 s"),
            (api(to(), json!([])), None, Warning, "is not known yet", "every 30 s"),
            (api(Value::Null, condition("True", "Local")), None, Failed, "leads to no Service", "spec.service"),
            (Err(Unasked::Missing), None, Failed, "there is no APIService v1alpha1.acme.corp.test", "webhook.group"),
            (Err(Unasked::Forbidden), None, Skipped, "robot may not look at", "resourceNames: [v1alpha1.acme.corp.test], verbs: [get]"),
            (Err(Unasked::Failed("gone".into())), None, Skipped, "could not be looked at: gone", "again"),
        ] {
            let rung = judge(NAME, &found, configured, "robot");
            assert_eq!(rung.outcome, outcome, "{rung:?}");
            assert!(rung.summary.contains(summary) && rung.next.as_deref().unwrap_or_default().contains(next), "{rung:?}");
            assert!(!format!("{}{:?}", rung.summary, rung.evidence).contains('\u{1b}'));
        }
        for (message, next) in
            [("Get \"https://…\": tls: x509: unknown authority", "`ca_bundle`"), ("bad status from https://…: 403", "`rights`")]
        {
            let condition = json!([{"type": "Available", "status": "False", "reason": "FailedDiscoveryCheck", "message": message}]);
            assert!(judge(NAME, &api(to(), condition), None, "robot").next.unwrap().contains(next), "{message}");
        }
        let rung = judge(NAME, &api(to(), condition("False", "FailedDiscoveryCheck")), None, "robot");
        assert_eq!(rung.evidence, ["Available is False: FailedDiscoveryCheck: said\\u{1b}[2J"]);
    }
}
