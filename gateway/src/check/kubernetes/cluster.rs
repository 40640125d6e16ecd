//! The rung `cluster`: does the API server answer, and whom does it take us for?

use super::{
    super::report::{Rung, RungId},
    ask::{Asked, Unasked, Whoami},
};

/// Everybody has this group, once they are known.
const KNOWN: &str = "system:authenticated";

pub(super) fn judge(version: &Asked<String>, user: &Asked<Whoami>) -> Rung {
    const ID: RungId = RungId::Cluster;
    let answers = match version {
        Ok(version) => format!("Kubernetes {version} answers"),
        Err(Unasked::Failed(reason)) => {
            return Rung::failed(
                ID,
                format!("the API server does not answer: {reason}"),
                "outside of a pod, look at kubernetes.kubeconfig (its server, and the way there); in a pod, at the NetworkPolicies of its namespace",
            );
        }
        Err(_) => "Kubernetes answers".to_owned(),
    };
    match user {
        Ok(user) if user.groups.iter().any(|group| group == KNOWN) => Rung::ok(ID, format!("{answers}; we are {} there", user.name)),
        Ok(Whoami { name, .. }) => Rung::failed(
            ID,
            format!("{answers}, and takes us for nobody in particular ({name})"),
            "give the kubeconfig a user with a certificate or a token, or the pod a service account (automountServiceAccountToken)",
        ),
        Err(Unasked::Unauthorized) => Rung::failed(
            ID,
            format!("{answers}, and does not know us (401)"),
            "the token or certificate has expired, or is of another cluster: outside of a pod, renew the user of kubernetes.kubeconfig",
        ),
        Err(reason) => Rung::warning(
            ID,
            format!("{answers}; whom it takes us for is not known: {reason}"),
            "nothing, if all that follows is well: an old cluster cannot say it",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::super::report::Outcome::{Failed, Ok as Fine, Warning},
        *,
    };

    #[test]
    fn an_api_server_that_answers_somebody_is_enough() {
        let version = || Ok("v1.37.2".to_owned());
        let user = |groups: &[&str]| Ok(Whoami { name: "robot".into(), groups: groups.iter().map(ToString::to_string).collect() });
        let refused = || Unasked::Failed("Connection refused".to_owned());
        for (version, user, outcome, said) in [
            (version(), user(&[KNOWN]), Fine, "Kubernetes v1.37.2 answers; we are robot there"),
            (Err(Unasked::Forbidden), user(&[KNOWN]), Fine, "Kubernetes answers; we are robot there"),
            (version(), user(&["system:unauthenticated"]), Failed, "takes us for nobody in particular (robot)"),
            (Err(Unasked::Unauthorized), Err(Unasked::Unauthorized), Failed, "does not know us (401)"),
            (version(), Err(Unasked::Missing), Warning, "whom it takes us for is not known"),
            (Err(refused()), Err(refused()), Failed, "the API server does not answer: Connection refused"),
        ] {
            let rung = judge(&version, &user);
            assert_eq!(rung.outcome, outcome, "{rung:?}");
            assert!(rung.summary.contains(said), "{rung:?}");
        }
    }
}
