//! The questions to the API server; what they mean is judged elsewhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use futures_util::future::join_all;
use k8s_openapi::{
    api::{
        authentication::v1::SelfSubjectReview,
        authorization::v1::{
            ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SubjectAccessReview, SubjectAccessReviewSpec,
        },
        core::v1::{Namespace, Secret},
    },
    kube_aggregator::pkg::apis::apiregistration::v1::APIService,
};
use kube::{
    Api, Client,
    api::{DynamicObject, PostParams},
    core::PartialObjectMeta,
};
use serde::de::DeserializeOwned;

use super::{
    super::report::{Rung, RungId},
    ServiceAccount,
    challenges::Challenge,
    issuers::Issuer,
    list::list,
    rights::Right,
    text::short,
};
use crate::{
    config,
    doors::webhook::VERSION,
    kubernetes::{Cluster, in_time, reasons},
};

/// Nobody: what this one may, everybody may.
const STRANGER: (&str, &str) = ("default", "acmegate-check-stranger");

/// Asks the API server.
pub(super) struct Asker {
    client: Client,
}

/// Who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Whoami {
    /// The user's name.
    pub(super) name: String,
    /// The user's groups.
    pub(super) groups: Vec<String>,
}

/// Why something is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unasked {
    /// There is no such thing.
    Missing,
    /// The API server knows us, and does not let us look.
    Forbidden,
    /// The API server does not know us.
    Unauthorized,
    /// There was no answer, or no sensible one.
    Failed(String),
}

/// A namespace, and a name in it.
pub(super) type Place = (String, String);

/// An answer, or why there is none.
pub(super) type Asked<T> = Result<T, Unasked>;

/// What was found in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed<T> {
    /// What is of interest.
    pub(super) found: Vec<T>,
    /// Whether all of the list was read.
    pub(super) whole: bool,
}

impl Asker {
    pub(super) fn new(cluster: &Cluster) -> Self {
        Self { client: cluster.client() }
    }

    /// The namespace of our pod, or that of the kubeconfig's context.
    pub(super) fn namespace(&self) -> &str {
        self.client.default_namespace()
    }

    /// The API server's version.
    pub(super) async fn version(&self) -> Asked<String> {
        ask(self.client.apiserver_version()).await.map(|info| short(&info.git_version))
    }

    pub(super) async fn user(&self) -> Asked<Whoami> {
        let info = self.create(&SelfSubjectReview::default()).await?.status.and_then(|status| status.user_info).unwrap_or_default();
        let name = info.username.filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| Unasked::Failed("the API server gives no name".to_owned()))?;
        Ok(Whoami { name: short(&name), groups: info.groups.unwrap_or_default() })
    }

    pub(super) async fn api_service(&self, name: &str) -> Asked<APIService> {
        let api: Api<APIService> = Api::all(self.client.clone());
        ask(api.get(name)).await
    }

    /// The API groups that the API server has, aggregated ones included.
    pub(super) async fn groups(&self) -> Asked<BTreeSet<String>> {
        Ok(ask(self.client.list_api_groups()).await?.groups.into_iter().map(|group| group.name).collect())
    }

    /// Whether we have each verb of each right, in their order.
    pub(super) async fn may(&self, rights: &[Right]) -> Vec<Vec<Asked<bool>>> {
        let one = |right: &Right, verb: &str| {
            let review = SelfSubjectAccessReview {
                spec: SelfSubjectAccessReviewSpec { resource_attributes: Some(right.attributes(verb)), ..Default::default() },
                ..Default::default()
            };
            async move { Ok(self.create(&review).await?.status.is_some_and(|status| status.allowed)) }
        };
        join_all(rights.iter().map(|right| join_all(right.verbs.iter().map(|verb| one(right, verb))))).await
    }

    /// Whether a ServiceAccount may have challenges met by us.
    pub(super) async fn may_call(&self, account: &ServiceAccount, webhook: &config::Webhook) -> Asked<bool> {
        let groups = ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{}", account.namespace)];
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(account.user()),
                groups: Some(groups.into_iter().chain(["system:authenticated".to_owned()]).collect()),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some("create".to_owned()),
                    group: Some(webhook.group.clone()),
                    version: Some(VERSION.to_owned()),
                    resource: Some(webhook.solver.clone()),
                    ..Default::default()
                }),
                ..Default::default()
            },
            ..Default::default()
        };
        let status = self.create(&review).await?.status.unwrap_or_default();
        Ok(status.allowed && !status.denied.unwrap_or(false))
    }

    /// Whether a ServiceAccount may that nobody has given anything.
    pub(super) async fn anybody_may_call(&self, webhook: &config::Webhook) -> Asked<bool> {
        let (namespace, name) = (STRANGER.0.to_owned(), STRANGER.1.to_owned());
        self.may_call(&ServiceAccount { namespace, name }, webhook).await
    }

    /// Whether there are these Secrets, by namespace and name, and whether we may read them. Nothing of what is in them is asked for.
    pub(super) async fn secrets(&self, places: BTreeSet<Place>) -> BTreeMap<Place, Asked<()>> {
        let one = async |place: Place| {
            let api: Api<Secret> = Api::namespaced(self.client.clone(), &place.0);
            let found = ask(api.get_metadata(&place.1)).await.map(drop);
            (place, found)
        };
        join_all(places.into_iter().map(one)).await.into_iter().collect()
    }

    /// The issuers of a kind.
    pub(super) async fn issuers(&self, kind: &str, plural: &str) -> Asked<Listed<Issuer>> {
        let path = format!("/apis/cert-manager.io/v1/{plural}");
        list(&self.client, &path, |object: DynamicObject| Some(Issuer::read(kind, &object))).await
    }

    /// The challenges that the webhook of this group has to meet.
    pub(super) async fn challenges(&self, group: &str) -> Asked<Listed<Challenge>> {
        list(&self.client, "/apis/acme.cert-manager.io/v1/challenges", |object: DynamicObject| Challenge::read(&object, group)).await
    }

    /// The labels of every namespace.
    pub(super) async fn labels(&self) -> Asked<BTreeMap<String, BTreeMap<String, String>>> {
        let read =
            |namespace: PartialObjectMeta<Namespace>| Some((namespace.metadata.name?, namespace.metadata.labels.unwrap_or_default()));
        Ok(list(&self.client, "/api/v1/namespaces", read).await?.found.into_iter().collect())
    }

    async fn create<K>(&self, review: &K) -> Asked<K>
    where
        K: kube::Resource<DynamicType = ()> + Clone + fmt::Debug + serde::Serialize + DeserializeOwned,
    {
        let api: Api<K> = Api::all(self.client.clone());
        ask(api.create(&PostParams::default(), review)).await
    }
}

async fn ask<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Asked<T> {
    in_time(call).await.map_err(Unasked::Failed)?.map_err(|error| unasked(&error))
}

/// What an error of a call means.
pub(super) fn unasked(error: &kube::Error) -> Unasked {
    match error {
        kube::Error::Api(status) if status.is_not_found() => Unasked::Missing,
        kube::Error::Api(status) if status.is_forbidden() => Unasked::Forbidden,
        kube::Error::Api(status) if status.code == 401 => Unasked::Unauthorized,
        kube::Error::Api(status) if !status.message.is_empty() => Unasked::Failed(short(&status.message)),
        error => Unasked::Failed(short(&reasons(error))),
    }
}

impl Unasked {
    /// The rung of something that could not be looked at; `right` is the rule of a ClusterRole that would let us.
    pub(super) fn rung(&self, id: RungId, what: &str, user: &str, right: &str) -> Rung {
        match self {
            Self::Forbidden => Rung::unseen(id, format!("{user} may not look at {what}"), granted(user, right)),
            other => Rung::unseen(id, format!("{what} could not be looked at: {other}"), "run the check again when the API server is well"),
        }
    }
}

/// How a user comes to a right.
pub(super) fn granted(user: &str, right: &str) -> String {
    format!(
        "let {user} do it by a ClusterRole with the rule\n{right}\n(the chart has it under rbac.diagnostics: true), or run the check as somebody who may"
    )
}

impl fmt::Display for Unasked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("the API server knows nothing of it"),
            Self::Forbidden => f.write_str("we may not"),
            Self::Unauthorized => f.write_str("the API server does not know us (401)"),
            Self::Failed(reason) => f.write_str(reason),
        }
    }
}
