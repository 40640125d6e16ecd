//! Lists of a cluster. Tenants decide how long they are, and how large their objects; and in a pod, this command shares the memory limit of `serve`. So a list is read
//! by pages, a page has a bound in bytes, and what is of no interest is let go at once.

use std::time::Duration;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::{StatusCode, body::Bytes};
use kube::{
    Client,
    api::{ListParams, Request},
    client::Body,
    core::{ListMeta, Status},
};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::{Instant, timeout_at};

use super::{
    ask::{Asked, Listed, Unasked, unasked},
    text::short,
};
use crate::kubernetes::in_time;

/// How long a whole list may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How much is read. What a list has beyond that is told not to have been looked at.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Objects a page, at first. A page that is too long is asked for again with a tenth of them.
    page: u32,
    /// Bytes a page: more than the largest object that Kubernetes takes.
    page_bytes: usize,
    /// Objects in all.
    objects: usize,
    /// Bytes in all: so many objects, and larger ones than most.
    bytes: usize,
}

const BOUNDS: Bounds = Bounds { page: 500, page_bytes: 4 * 1024 * 1024, objects: 5000, bytes: 32 * 1024 * 1024 };

#[derive(Deserialize)]
struct Page<K> {
    #[serde(default)]
    metadata: ListMeta,
    items: Option<Vec<K>>,
}

/// Reads the list at a path, and keeps what is picked of each object.
pub(super) async fn list<K: DeserializeOwned, T>(client: &Client, path: &str, pick: impl FnMut(K) -> Option<T>) -> Asked<Listed<T>> {
    list_within(BOUNDS, client, path, pick).await
}

async fn list_within<K: DeserializeOwned, T>(
    bounds: Bounds,
    client: &Client,
    path: &str,
    mut pick: impl FnMut(K) -> Option<T>,
) -> Asked<Listed<T>> {
    let deadline = Instant::now() + PATIENCE;
    let (mut found, mut objects, mut bytes, mut limit, mut next) = (Vec::new(), 0, 0, bounds.page, None);
    while objects < bounds.objects && bytes < bounds.bytes {
        let params = ListParams { limit: Some(limit), continue_token: next.clone(), ..ListParams::default() };
        let page = match timeout_at(deadline, page::<K>(client, path, &params, bounds.page_bytes)).await {
            Ok(page) => page?,
            Err(_elapsed) if objects == 0 => return Err(Unasked::Failed(format!("no list within {} s", PATIENCE.as_secs()))),
            Err(_elapsed) => break,
        };
        match page {
            Some((page, size)) => {
                bytes += size;
                let items = page.items.unwrap_or_default();
                objects += items.len();
                found.extend(items.into_iter().filter_map(&mut pick));
                next = page.metadata.continue_.filter(|token| !token.is_empty());
                if next.is_none() {
                    return Ok(Listed { found, whole: true });
                }
            }
            None if limit > 1 => limit = (limit / 10).max(1),
            None => break,
        }
    }
    Ok(Listed { found, whole: false })
}

/// One page, and its bytes; `None` if it is too long.
async fn page<K: DeserializeOwned>(client: &Client, path: &str, params: &ListParams, most: usize) -> Asked<Option<(Page<K>, usize)>> {
    let request = Request::new(path).list(params).map_err(|error| unasked(&kube::Error::BuildRequest(error)))?;
    let call = async {
        let response = client.send(request.map(Body::from)).await?;
        let status = response.status();
        match Limited::new(response.into_body(), most).collect().await {
            Ok(body) => Ok(Some((status, body.to_bytes()))),
            Err(error) if error.is::<LengthLimitError>() => Ok(None),
            Err(error) => Err(kube::Error::Service(error)),
        }
    };
    match in_time(call).await.map_err(Unasked::Failed)?.map_err(|error| unasked(&error))? {
        None => Ok(None),
        Some((StatusCode::OK, body)) => {
            let page = serde_json::from_slice(&body);
            page.map(|page| Some((page, body.len())))
                .map_err(|error| Unasked::Failed(format!("the answer is no list: {}", short(&error.to_string()))))
        }
        Some((status, body)) => Err(refused(status, &body)),
    }
}

fn refused(code: StatusCode, body: &Bytes) -> Unasked {
    match code {
        StatusCode::NOT_FOUND => Unasked::Missing,
        StatusCode::FORBIDDEN => Unasked::Forbidden,
        StatusCode::UNAUTHORIZED => Unasked::Unauthorized,
        code => {
            let message = serde_json::from_slice::<Status>(body).map(|status| status.message).unwrap_or_default();
            Unasked::Failed(if message.is_empty() { format!("the API server answers {code}") } else { short(&message) })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use axum::{Json, Router, extract::Query, response::IntoResponse, routing::get};
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        kubernetes::Cluster,
        web::{Limits, testing::Site},
    };

    /// `count` objects of `bytes` each, in pages as long as they are asked for.
    async fn pages(Query(query): Query<HashMap<String, usize>>, count: usize, bytes: usize) -> Json<Value> {
        let (first, limit) = (query.get("continue").copied().unwrap_or(0), query["limit"]);
        let end = count.min(first + limit);
        let items: Vec<Value> = (first..end).map(|number| json!({"number": number, "text": "x".repeat(bytes)})).collect();
        let metadata = if end < count { json!({"continue": end.to_string()}) } else { json!({}) };
        Json(json!({"kind": "List", "metadata": metadata, "items": items}))
    }

    const SMALL: Bounds = Bounds { page: 50, page_bytes: 10_000, objects: 200, bytes: 60_000 };

    async fn listed(site: &Site, path: &str) -> Asked<Listed<u64>> {
        let client = Cluster::at(&format!("http://{}", site.address)).client();
        list_within(SMALL, &client, path, |object: Value| object["number"].as_u64().filter(|number| number % 2 == 1)).await
    }

    fn site() -> Site {
        let router = Router::new()
            .route("/many", get(|query| pages(query, 123, 10)))
            .route("/endless", get(|query| pages(query, usize::MAX, 10)))
            .route("/large", get(move |query| pages(query, 13, 1500)))
            .route("/long", get(move |query| pages(query, 100, 5000)))
            .route("/huge", get(move |query| pages(query, 2, 10_000)))
            .route("/empty", get(|| async { Json(json!({"metadata": {}, "items": null})) }))
            .route("/wrong", get(|| async { "<html>" }))
            .route("/forbidden", get(|| async { (StatusCode::FORBIDDEN, Json(json!({"message": "no"}))) }))
            .route("/conflict", get(|| async { (StatusCode::CONFLICT, Json(json!({"message": "what?", "code": 409}))).into_response() }));
        Site::start(router, Limits::default(), None)
    }

    #[tokio::test]
    async fn all_pages_are_read_and_what_is_picked_is_kept() {
        let site = site();
        assert_eq!(listed(&site, "/many").await, Ok(Listed { found: (1..123).step_by(2).collect(), whole: true }));
        assert_eq!(listed(&site, "/empty").await, Ok(Listed { found: Vec::new(), whole: true }));
        // In pages of five objects, as all of them would be too long.
        assert_eq!(listed(&site, "/large").await, Ok(Listed { found: vec![1, 3, 5, 7, 9, 11], whole: true }));
    }

    #[tokio::test]
    async fn nothing_is_read_without_end() {
        let site = site();
        let endless = listed(&site, "/endless").await.unwrap();
        assert_eq!((endless.found.len(), endless.whole), (SMALL.objects / 2, false));
        let long = listed(&site, "/long").await.unwrap();
        assert_eq!((long.found, long.whole), (vec![1, 3, 5, 7, 9, 11], false));
        assert_eq!(listed(&site, "/huge").await, Ok(Listed { found: Vec::new(), whole: false }));
    }

    #[tokio::test]
    async fn what_is_no_list_is_told() {
        let site = site();
        assert_eq!(listed(&site, "/forbidden").await, Err(Unasked::Forbidden));
        assert_eq!(listed(&site, "/nowhere").await, Err(Unasked::Missing));
        assert_eq!(listed(&site, "/conflict").await, Err(Unasked::Failed("what?".to_owned())));
        assert!(matches!(listed(&site, "/wrong").await, Err(Unasked::Failed(text)) if text.starts_with("the answer is no list")));
    }
}
