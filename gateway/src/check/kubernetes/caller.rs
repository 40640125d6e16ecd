//! The rung `caller`: may cert-manager have challenges met by us, and nobody else?

use super::{
    super::report::{Rung, RungId},
    ServiceAccount,
    ask::{Asked, Unasked},
};
use crate::config::Webhook;

/// `theirs` is whether cert-manager may, `everybodys` whether an account may that has no rights of its own.
pub(super) fn judge(account: &ServiceAccount, webhook: &Webhook, theirs: &Asked<bool>, everybodys: &Asked<bool>) -> Rung {
    const ID: RungId = RungId::Caller;
    let Webhook { group, solver, .. } = webhook;
    match (theirs, everybodys) {
        (Ok(true), Ok(true)) => Rung::warning(
            ID,
            format!("cert-manager's ServiceAccount {account} may create {solver}.{group}, and so may every ServiceAccount of the cluster"),
            format!(
                "find the binding for system:serviceaccounts or system:authenticated that gives it (kubectl get clusterrolebindings -o wide), and bind {account} alone"
            ),
        ),
        (Ok(true), _) => Rung::ok(ID, format!("cert-manager's ServiceAccount {account} may create {solver}.{group}")),
        (Ok(false), _) => Rung::failed(
            ID,
            format!("cert-manager's ServiceAccount {account} may not create {solver}.{group}: the API server refuses every challenge"),
            format!(
                "if that is its account (say another by --cert-manager; the chart's values are certManagerNamespace and certManager.serviceAccount):\n\
                 kubectl create clusterrole {solver}:domain-solver --verb=create --resource={solver}.{group}\n\
                 kubectl create clusterrolebinding {solver}:domain-solver --clusterrole={solver}:domain-solver --serviceaccount={}:{}",
                account.namespace, account.name
            ),
        ),
        (Err(unasked), _) => {
            let why = match unasked {
                Unasked::Forbidden => "we may not create subjectaccessreviews.authorization.k8s.io".to_owned(),
                other => other.to_string(),
            };
            Rung::unseen(
                ID,
                format!("whether cert-manager's ServiceAccount {account} may create {solver}.{group} could not be asked: {why}"),
                format!("ask as an administrator: kubectl auth can-i create {solver}.{group} --as={}", account.user()),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{
        super::super::report::Outcome::{Failed, Ok as Fine, Skipped, Warning},
        *,
    };
    use crate::config::Config;

    #[test]
    fn cert_manager_alone_should_be_let_in() {
        let yaml = "version: v1\ndata: /tmp/x\nwebhook: {listen: \"127.0.0.1:8443\"}\n";
        let webhook = Config::from_yaml(yaml, Path::new("config.yaml")).unwrap().webhook.unwrap();
        let account: ServiceAccount = "pki/manager".parse().unwrap();
        for (theirs, everybodys, outcome, next) in [
            (Ok(true), Ok(false), Fine, ""),
            (Ok(true), Err(Unasked::Forbidden), Fine, ""),
            (Ok(true), Ok(true), Warning, "bind pki/manager alone"),
            (Ok(false), Ok(false), Failed, "--resource=acmegate.acme.acmegate.io"),
            (Ok(false), Ok(false), Failed, "--serviceaccount=pki:manager"),
            (Err(Unasked::Forbidden), Err(Unasked::Forbidden), Skipped, "--as=system:serviceaccount:pki:manager"),
        ] {
            let rung = judge(&account, &webhook, &theirs, &everybodys);
            assert_eq!(rung.outcome, outcome, "{rung:?}");
            assert!(rung.next.as_deref().unwrap_or_default().contains(next), "{rung:?}");
        }
    }
}
