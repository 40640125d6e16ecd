//! Callers as the cluster knows them.

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwapOption;
use axum::http::{HeaderMap, HeaderName, Method, header, request::Parts};
use percent_encoding::percent_decode_str;

use super::{Refusal, User};
use crate::{
    kubernetes::{self, Attributes, AuthenticationConfig, Cluster, FrontProxy, FrontProxyHeaders, Review, Reviews},
    web::ClientChain,
};

/// Everybody who is known is in it…
const AUTHENTICATED: &str = "system:authenticated";
/// …and everybody else in this, by the name of…
const UNAUTHENTICATED: &str = "system:unauthenticated";
/// …this. The API server passes them on, too.
const ANONYMOUS: &str = "system:anonymous";
/// Who is in it may do anything, whatever the authorizer says; the API server's own checks of our availability come in its name.
const MASTERS: &str = "system:masters";

/// Judges callers by what the cluster says.
pub struct ClusterCallers {
    cluster: Cluster,
    config: ArcSwapOption<AuthenticationConfig>,
    reviews: Reviews,
    resource: Resource,
}

/// The one resource of the door.
struct Resource {
    path: String,
    group: String,
    version: String,
    name: String,
}

impl ClusterCallers {
    /// Knows nobody until [`run`](Self::run) has read who can be known.
    pub fn new(cluster: Cluster, group: &str, version: &str, resource: &str) -> Self {
        let resource = Resource {
            path: format!("/apis/{group}/{version}/{resource}"),
            group: group.to_owned(),
            version: version.to_owned(),
            name: resource.to_owned(),
        };
        Self { reviews: Reviews::new(&cluster), cluster, config: ArcSwapOption::empty(), resource }
    }

    /// Follows what the API server says of authentication, for as long as it is polled.
    pub async fn run(&self) {
        kubernetes::follow(self.cluster.clone(), |config| self.config.store(Some(Arc::new(config)))).await;
    }

    /// As if the API server had said it.
    #[cfg(test)]
    pub(super) fn learn(&self, config: AuthenticationConfig) {
        self.config.store(Some(Arc::new(config)));
    }

    pub(super) fn ready(&self) -> bool {
        self.config.load().is_some()
    }

    /// Who calls, if they may do what they ask. The headers in which the front proxy names its callers are gone afterwards.
    pub(super) async fn judge(&self, parts: &mut Parts) -> Result<User, Refusal> {
        let config = self.config.load_full().ok_or_else(|| {
            Refusal::Undecided(
                "it is not known yet whose certificates are good: the ConfigMap extension-apiserver-authentication was not read".to_owned(),
            )
        })?;
        let mut user = self.authenticate(&config, &parts.headers, parts.extensions.get()).await?;
        // Some of the API server's own users come without.
        if user.name != ANONYMOUS && !user.groups.iter().any(|group| [AUTHENTICATED, UNAUTHENTICATED].contains(&group.as_str())) {
            user.groups.push(AUTHENTICATED.to_owned());
        }
        if let Some(front_proxy) = &config.front_proxy {
            front_proxy.headers.strip(&mut parts.headers);
        }
        self.authorize(&user, &parts.method, parts.uri.path()).await?;
        Ok(user)
    }

    async fn authenticate(&self, config: &AuthenticationConfig, headers: &HeaderMap, chain: Option<&ClientChain>) -> Result<User, Refusal> {
        // Why each way did not lead to anybody, for the log.
        let mut reasons = Vec::new();
        if let Some(chain) = chain {
            match config.front_proxy.as_ref().map(|proxy| proxy.user(chain, headers)) {
                Some(Ok(user)) => return Ok(user),
                Some(Err(reason)) => reasons.push(format!("not the front proxy: {reason}")),
                None => reasons.push("the cluster has no front proxy".to_owned()),
            }
            match config.client_authority.as_ref().map(|authority| authority.verify(chain)) {
                Some(Ok(subject)) if !subject.common_name.is_empty() => {
                    return Ok(User { name: subject.common_name, groups: subject.organizations, ..User::default() });
                }
                Some(Ok(_)) => reasons.push("its client certificate has no common name".to_owned()),
                Some(Err(reason)) => reasons.push(format!("not a client certificate of the cluster: {reason}")),
                None => reasons.push("the cluster has no client certificates".to_owned()),
            }
        } else {
            reasons.push("it has no client certificate".to_owned());
        }
        match bearer(headers) {
            None => reasons.push("it has no bearer token".to_owned()),
            Some(token) => match self.reviews.user(token).await {
                Ok(Some(user)) => return Ok(user),
                Ok(None) => reasons.push("its bearer token is nobody's, or no longer".to_owned()),
                Err(error) => return Err(Refusal::Undecided(format!("its bearer token cannot be reviewed: {error}"))),
            },
        }
        Err(Refusal::Unauthenticated(reasons.join("; ")))
    }

    async fn authorize(&self, user: &User, method: &Method, path: &str) -> Result<(), Refusal> {
        if user.groups.iter().any(|group| group == MASTERS) {
            return Ok(());
        }
        let attributes = self.resource.attributes(method, path);
        match self.reviews.access(user, &attributes).await {
            Ok(Review::Allowed) => Ok(()),
            Ok(Review::Denied) => Err(Refusal::Forbidden { user: format!("User {:?}", user.name), what: attributes.describe() }),
            Err(error) => {
                Err(Refusal::Undecided(format!("whether {:?} may {} cannot be reviewed: {error}", user.name, attributes.describe())))
            }
        }
    }
}

impl Resource {
    /// What the authorizer is asked for a request.
    fn attributes(&self, method: &Method, path: &str) -> Attributes {
        if path == self.path || path.strip_prefix(&self.path).is_some_and(|rest| rest.starts_with('/')) {
            let verb = match *method {
                Method::POST => "create",
                Method::PUT => "update",
                Method::PATCH => "patch",
                Method::DELETE => "delete",
                _ => "get",
            };
            return Attributes::Resource {
                verb: verb.to_owned(),
                group: self.group.clone(),
                version: self.version.clone(),
                resource: self.name.clone(),
            };
        }
        Attributes::Path { verb: method.as_str().to_ascii_lowercase(), path: path.to_owned() }
    }
}

impl Attributes {
    /// As Kubernetes words it.
    fn describe(&self) -> String {
        match self {
            Self::Resource { verb, group, resource, .. } => {
                format!("{verb} resource {resource:?} in API group {group:?} at the cluster scope")
            }
            Self::Path { verb, path } => format!("{verb} path {path:?}"),
        }
    }
}

impl FrontProxy {
    /// For whom the front proxy calls, if it is the front proxy that calls.
    fn user(&self, chain: &ClientChain, headers: &HeaderMap) -> Result<User, String> {
        let subject = self.authority.verify(chain)?;
        if !self.allowed_names.is_empty() && !self.allowed_names.contains(&subject.common_name) {
            return Err(format!("the common name {:?} is not among the allowed names", subject.common_name));
        }
        let name = first(headers, &self.headers.user).ok_or("it does not say for whom it calls")?;
        Ok(User {
            name,
            uid: first(headers, &self.headers.uid).unwrap_or_default(),
            groups: self.headers.groups.iter().flat_map(|group| texts(headers, group)).collect(),
            extra: self.headers.extra(headers),
        })
    }
}

impl FrontProxyHeaders {
    /// By key, which is what follows the prefix, percent-decoded and in lower case.
    fn extra(&self, headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for name in headers.keys() {
            let Some(rest) = self.extra_prefixes.iter().find_map(|prefix| name.as_str().strip_prefix(prefix.as_str())) else { continue };
            let key = percent_decode_str(rest).decode_utf8_lossy().to_ascii_lowercase();
            extra.entry(key).or_default().extend(texts(headers, name.as_str()));
        }
        extra
    }

    fn strip(&self, headers: &mut HeaderMap) {
        let named = |name: &str| [&self.user, &self.uid, &self.groups].iter().any(|list| list.iter().any(|one| one == name));
        let prefixed = |name: &str| self.extra_prefixes.iter().any(|prefix| name.starts_with(prefix.as_str()));
        let names: Vec<HeaderName> = headers.keys().filter(|name| named(name.as_str()) || prefixed(name.as_str())).cloned().collect();
        for name in names {
            headers.remove(name);
        }
    }
}

/// The first of these headers that says something.
fn first(headers: &HeaderMap, names: &[String]) -> Option<String> {
    names.iter().find_map(|name| texts(headers, name).find(|text| !text.is_empty()))
}

/// What the lines of a header say. A line that is no text says nothing: half a name is not believed.
fn texts<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = String> + use<'h> {
    headers.get_all(name).iter().filter_map(|line| std::str::from_utf8(line.as_bytes()).ok().map(str::to_owned))
}

/// The bearer token (RFC 6750, 2.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    Some(token.trim()).filter(|token| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
}
