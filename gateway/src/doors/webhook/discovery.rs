//! What the Kubernetes API server and kubectl ask before they send anybody here.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use serde_json::{Value, json};

use super::{PAYLOAD_GROUP, PAYLOAD_KIND, VERSION, openapi};

/// A document that never changes, with its entity tag (RFC 9110, 8.8.3).
#[derive(Clone)]
pub(super) struct Document {
    body: Bytes,
    content_type: HeaderValue,
    tag: Option<HeaderValue>,
}

impl Document {
    fn new(value: &Value, content_type: &'static str) -> Self {
        let body = Bytes::from(value.to_string());
        let tag = HeaderValue::from_str(&format!("\"{}\"", digest(&body))).ok();
        Self { body, content_type: HeaderValue::from_static(content_type), tag }
    }

    fn json(value: &Value) -> Self {
        Self::new(value, "application/json")
    }

    /// The document, or 304 to who has it already.
    pub(super) fn answer(&self, headers: &HeaderMap) -> Response {
        let known = self.tag.as_ref().is_some_and(|tag| lists_tag(headers, tag));
        let mut response = if known {
            with_status(StatusCode::NOT_MODIFIED, Body::empty())
        } else {
            with_status(StatusCode::OK, Body::from(self.body.clone()))
        };
        let fields = response.headers_mut();
        if !known {
            fields.insert(header::CONTENT_TYPE, self.content_type.clone());
        }
        if let Some(tag) = &self.tag {
            fields.insert(header::ETAG, tag.clone());
        }
        fields.insert(header::VARY, HeaderValue::from_static("Accept"));
        response
    }
}

fn with_status(status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

/// True if `If-None-Match` names the tag (weak comparison, RFC 9110, 13.1.2).
fn lists_tag(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(',')).any(|listed| {
        let listed = listed.trim();
        listed == "*" || listed.strip_prefix("W/").unwrap_or(listed).as_bytes() == tag.as_bytes()
    })
}

fn digest(body: &[u8]) -> String {
    blake3::hash(body).to_hex().chars().take(32).collect()
}

/// All discovery documents of one group with one resource.
pub(super) struct Documents {
    groups: Arc<Groups>,
    others: Vec<(String, Document)>,
}

impl Documents {
    pub(super) fn new(group: &str, solver: &str) -> Self {
        let group_version = format!("{group}/{VERSION}");
        let version = json!({"groupVersion": group_version, "version": VERSION});
        let versions = json!([version]);
        let resources = json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": [{
            "name": solver, "singularName": PAYLOAD_KIND, "namespaced": false,
            "group": PAYLOAD_GROUP, "version": VERSION, "kind": PAYLOAD_KIND,
            // Nothing else: what can be listed or watched is listed and watched, by the garbage collector and by namespace deletion.
            "verbs": ["create"],
        }]});
        let program = format!("v{}", env!("CARGO_PKG_VERSION"));
        let info = json!({"title": "acmegate", "version": program});
        let schema = Document::json(&openapi::v3(&info, group, solver));
        let schema_path = format!("apis/{group_version}");
        let schema_url = format!("/openapi/v3/{schema_path}?hash={}", digest(&schema.body));
        let others = vec![
            (
                format!("/apis/{group}"),
                Document::json(
                    &json!({"kind": "APIGroup", "apiVersion": "v1", "name": group, "versions": versions, "preferredVersion": version}),
                ),
            ),
            (format!("/apis/{group_version}"), Document::json(&resources)),
            (
                "/version".to_owned(),
                Document::json(&json!({
                    "major": env!("CARGO_PKG_VERSION_MAJOR"), "minor": env!("CARGO_PKG_VERSION_MINOR"), "gitVersion": program,
                    "gitCommit": "", "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "rustc",
                    "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
                })),
            ),
            ("/openapi/v2".to_owned(), Document::json(&openapi::v2(&info))),
            ("/openapi/v3".to_owned(), Document::json(&json!({"paths": {schema_path.clone(): {"serverRelativeURL": schema_url}}}))),
            (format!("/openapi/v3/{schema_path}"), schema),
        ];
        let legacy = json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [{"name": group, "versions": versions, "preferredVersion": version}]});
        let aggregated = |version: &str| {
            json!({"kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {}, "items": [{
                "metadata": {"name": group},
                "versions": [{"version": VERSION, "freshness": "Current", "resources": [{
                    "resource": solver, "singularResource": PAYLOAD_KIND, "scope": "Cluster", "verbs": ["create"],
                    "responseKind": {"group": PAYLOAD_GROUP, "version": VERSION, "kind": PAYLOAD_KIND},
                }]}],
            }]})
        };
        let groups = Groups {
            legacy: Document::json(&legacy),
            v2: Document::new(&aggregated("v2"), "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"),
            v2beta1: Document::new(&aggregated("v2beta1"), "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"),
        };
        Self { groups: Arc::new(groups), others }
    }

    /// The handler of `/apis`.
    pub(super) fn groups(&self) -> impl Fn(HeaderMap) -> std::future::Ready<Response> + Clone + Send + 'static + use<> {
        let groups = self.groups.clone();
        move |headers| std::future::ready(groups.negotiate(&headers).answer(&headers))
    }

    /// All others, by path.
    pub(super) fn into_documents(self) -> Vec<(String, Document)> {
        self.others
    }
}

/// `/apis` in the forms that clients of different ages ask for.
struct Groups {
    legacy: Document,
    v2: Document,
    v2beta1: Document,
}

impl Groups {
    /// The first form of the `Accept` header that is known, as Kubernetes' own servers choose.
    fn negotiate(&self, headers: &HeaderMap) -> &Document {
        let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
        accepted.into_iter().find_map(|range| self.of(range)).unwrap_or(&self.legacy)
    }

    fn of(&self, media_range: &str) -> Option<&Document> {
        let mut parts = media_range.split(';').map(str::trim);
        let media_type = parts.next()?;
        if !["application/json", "application/*", "*/*"].contains(&media_type) {
            return None;
        }
        let (mut group, mut version, mut kind) = ("", "", "");
        for parameter in parts {
            match parameter.split_once('=') {
                Some(("g", value)) => group = value,
                Some(("v", value)) => version = value,
                Some(("as", value)) => kind = value,
                _ => {}
            }
        }
        match (group, version, kind) {
            ("", "", "") => Some(&self.legacy),
            ("apidiscovery.k8s.io", "v2", "APIGroupDiscoveryList") => Some(&self.v2),
            ("apidiscovery.k8s.io", "v2beta1", "APIGroupDiscoveryList") => Some(&self.v2beta1),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups() -> Arc<Groups> {
        Documents::new("acme.corp.test", "mysolver").groups
    }

    fn negotiated(accept: &[&str]) -> HeaderValue {
        let mut headers = HeaderMap::new();
        for line in accept {
            headers.append(header::ACCEPT, line.parse().unwrap());
        }
        groups().negotiate(&headers).content_type.clone()
    }

    #[test]
    fn the_first_known_form_is_given() {
        const V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        const V2BETA1: &str = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
        assert_eq!(negotiated(&[]), "application/json");
        assert_eq!(negotiated(&["*/*"]), "application/json");
        assert_eq!(negotiated(&[V2]), V2);
        assert_eq!(negotiated(&[V2BETA1]), V2BETA1);
        assert_eq!(negotiated(&[&format!("{V2}, {V2BETA1},application/json")]), V2);
        assert_eq!(negotiated(&["application/json; as=APIGroupDiscoveryList; v=v2; g=apidiscovery.k8s.io"]), V2);
        assert_eq!(
            negotiated(&["application/json;g=apidiscovery.k8s.io;v=v9;as=APIGroupDiscoveryList,application/json"]),
            "application/json"
        );
        assert_eq!(negotiated(&["application/vnd.kubernetes.protobuf", V2]), V2);
    }

    #[test]
    fn who_has_a_document_is_not_sent_it_again() {
        let document = groups().v2.clone();
        let first = document.answer(&HeaderMap::new());
        let tag = first.headers()[header::ETAG].clone();
        let again = |tag: &str| {
            let headers = HeaderMap::from_iter([(header::IF_NONE_MATCH, tag.parse().unwrap())]);
            document.answer(&headers).status()
        };
        assert_eq!(first.status(), StatusCode::OK);
        assert_eq!(again(tag.to_str().unwrap()), StatusCode::NOT_MODIFIED);
        assert_eq!(again(&format!("\"other\", W/{}", tag.to_str().unwrap())), StatusCode::NOT_MODIFIED);
        assert_eq!(again("\"other\""), StatusCode::OK);
        assert_ne!(groups().v2.tag, groups().legacy.tag);
    }
}
