//! Calls of the Azure Resource Manager: a token on each, the limits it documents, and lists followed page by page.

use std::{fmt, sync::Arc, time::Duration};

use reqwest::{Client, RequestBuilder, StatusCode, Url, header::HeaderMap};
use secrecy::ExposeSecret;
use serde::{Deserialize, de::DeserializeOwned};

use super::{auth::Tokens, words};
use crate::{
    Calls, Error,
    http::{Http, Reply},
    limiter::Limiter,
};

/// What all calls say they speak.
const API_VERSION: &str = "2018-05-01";
/// Most entries of a page (the service refuses more).
pub(super) const PAGE: usize = 1000;
/// Most pages of one list: a server that always names another one would never end.
const MOST_PAGES: usize = 100;

/// The kinds of calls, which are limited apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
    Delete,
}

/// The resource manager of one cloud, with one credential.
pub(super) struct Arm {
    pub(super) endpoint: Url,
    pub(super) tokens: Tokens,
    reads: Http,
    writes: Http,
    deletes: Http,
}

/// What "Understand how Azure Resource Manager throttles requests" documents, for each subscription and service principal: a bucket of 250 tokens
/// for reads, refilled with 25 a second, and one of 200 with 10 a second for writes, and another such for deletions.
pub(super) fn limiters() -> [Arc<Limiter>; 3] {
    let limiter = |kind: Kind| {
        let (burst, rate) = bucket(kind);
        Arc::new(Limiter::new(Duration::from_secs(1) / rate, burst))
    };
    [limiter(Kind::Read), limiter(Kind::Write), limiter(Kind::Delete)]
}

/// Tokens in a full bucket, and how many it gains in a second.
fn bucket(kind: Kind) -> (u32, u32) {
    match kind {
        Kind::Read => (250, 25),
        Kind::Write | Kind::Delete => (200, 10),
    }
}

/// A page of a list.
#[derive(Deserialize)]
struct Page<T> {
    #[serde(default = "Vec::new")]
    value: Vec<T>,
    #[serde(default, rename = "nextLink")]
    next_link: Option<String>,
}

/// A list as far as it was followed.
pub(super) struct List<T> {
    pub(super) entries: Vec<T>,
    /// False if there were more pages than were to be read.
    pub(super) complete: bool,
}

impl Arm {
    pub(super) fn new(endpoint: Url, tokens: Tokens, [reads, writes, deletes]: [Http; 3]) -> Self {
        Self { endpoint, tokens, reads, writes, deletes }
    }

    /// A URL below the endpoint, of path segments as they are (they get escaped), with the version of the API.
    pub(super) fn url<'a>(&self, segments: impl IntoIterator<Item = &'a str>) -> Result<Url, Error> {
        let mut url = self.endpoint.clone();
        url.path_segments_mut()
            .map_err(|()| Error::Rejected("endpoint: it is no base of a URL".to_owned()))?
            .pop_if_empty()
            .extend(segments);
        url.query_pairs_mut().append_pair("api-version", API_VERSION);
        Ok(url)
    }

    /// Sends a request with a token. A token that is refused is forgotten, and the request sent once more with another: nothing was done for the first.
    pub(super) async fn call<Build>(&self, kind: Kind, build: Build) -> Result<Reply, Error>
    where
        Build: Fn(&Client) -> RequestBuilder + Send + Sync,
    {
        let http = self.http(kind);
        let first = self.tokens.get().await?;
        let reply = self.exchange(kind, http, build(http.client()).bearer_auth(first.expose_secret())).await?;
        if reply.status != StatusCode::UNAUTHORIZED {
            return Ok(reply);
        }
        self.tokens.refused(&first).await;
        let second = self.tokens.get().await?;
        self.exchange(kind, http, build(http.client()).bearer_auth(second.expose_secret())).await
    }

    async fn exchange(&self, kind: Kind, http: &Http, request: RequestBuilder) -> Result<Reply, Error> {
        let reply = http.send(request).await?;
        observe(kind, http, &reply.headers);
        Ok(reply)
    }

    /// Reads an object.
    pub(super) async fn get(&self, url: Url) -> Result<Reply, Error> {
        self.call(Kind::Read, |client| client.get(url.clone())).await
    }

    /// Follows a list for `pages` pages at most, until `enough` entries are there.
    pub(super) async fn list<T: DeserializeOwned + Send>(
        &self,
        first: Url,
        pages: usize,
        enough: usize,
    ) -> Result<Result<List<T>, Reply>, Error> {
        let mut entries = Vec::new();
        let mut next = first;
        for _ in 0..pages.clamp(1, MOST_PAGES) {
            let reply = self.get(next.clone()).await?;
            if !reply.status.is_success() {
                return Ok(Err(reply));
            }
            let page: Page<T> = reply.json()?;
            entries.extend(page.value);
            let Some(link) = page.next_link.filter(|link| !link.is_empty()) else {
                return Ok(Ok(List { entries, complete: true }));
            };
            if entries.len() >= enough {
                break;
            }
            next = self.following(&link)?;
        }
        Ok(Ok(List { entries, complete: false }))
    }

    /// The next page, which has to be on the host that the token is for.
    fn following(&self, link: &str) -> Result<Url, Error> {
        let url = Url::parse(link).map_err(|error| Error::Rejected(format!("the list goes on at something that is no URL: {error}")))?;
        if url.origin() == self.endpoint.origin() {
            return Ok(url);
        }
        Err(Error::Rejected(format!(
            "the list goes on at {}, which is not the endpoint {}: the token is not sent there",
            url.origin().ascii_serialization(),
            self.endpoint.origin().ascii_serialization(),
        )))
    }

    fn http(&self, kind: Kind) -> &Http {
        match kind {
            Kind::Read => &self.reads,
            Kind::Write => &self.writes,
            Kind::Delete => &self.deletes,
        }
    }

    /// What was asked, of the resource manager and for tokens.
    pub(super) fn calls(&self) -> Calls {
        let all = [&self.reads, &self.writes, &self.deletes, &self.tokens.http, &self.tokens.local];
        all.iter().map(|http| http.limiter().calls()).fold(Calls::default(), |sum, calls| Calls {
            sent: sum.sent + calls.sent,
            throttled: sum.throttled + calls.throttled,
            failed: sum.failed + calls.failed,
        })
    }
}

/// What is left in the bucket. Where little is, somebody else draws from it too (another installation with this principal): half of what flows in
/// is left to them for a while.
fn observe(kind: Kind, http: &Http, headers: &HeaderMap) {
    let name = match kind {
        Kind::Read => "x-ms-ratelimit-remaining-subscription-reads",
        Kind::Write => "x-ms-ratelimit-remaining-subscription-writes",
        Kind::Delete => "x-ms-ratelimit-remaining-subscription-deletes",
    };
    let Some(remaining) = headers.get(name).and_then(|value| value.to_str().ok()?.parse::<u32>().ok()) else { return };
    let (burst, rate) = bucket(kind);
    const WHILE: u32 = 4;
    match remaining {
        0 => http.limiter().observe(0, Duration::from_secs(1)),
        few if few < burst / 10 => http.limiter().observe(rate * WHILE / 2, Duration::from_secs(WHILE.into())),
        _ => {}
    }
}

/// A good answer, or the error that it stands for.
pub(super) fn good(reply: Reply) -> Result<Reply, Error> {
    if reply.status.is_success() { Ok(reply) } else { Err(words::error(&reply)) }
}

impl fmt::Debug for Arm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arm").field("endpoint", &self.endpoint.as_str()).field("tokens", &self.tokens).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    /// How long three writes take after an answer with these headers.
    async fn after(name: &'static str, remaining: &'static str) -> u128 {
        let http = Http::direct(limiters().into_iter().nth(1).expect("that of writes")).expect("a client");
        http.limiter().acquire().await.expect("a token");
        let headers = HeaderMap::from_iter([(name.parse().expect("a name"), HeaderValue::from_static(remaining))]);
        observe(Kind::Write, &http, &headers);
        let start = tokio::time::Instant::now();
        for _ in 0..3 {
            http.limiter().acquire().await.expect("a token");
        }
        start.elapsed().as_millis()
    }

    #[tokio::test(start_paused = true)]
    async fn a_bucket_that_others_draw_from_is_spared() {
        const WRITES: &str = "x-ms-ratelimit-remaining-subscription-writes";
        assert_eq!(after(WRITES, "199").await, 0);
        assert_eq!(after(WRITES, "20").await, 0);
        // 5 a second instead of 10; and an empty one is left alone for a second.
        assert!((400..410).contains(&after(WRITES, "19").await));
        assert!((1000..1010).contains(&after(WRITES, "0").await));
        for (name, nothing) in [(WRITES, "many"), ("x-ms-ratelimit-remaining-subscription-reads", "0")] {
            assert_eq!(after(name, nothing).await, 0, "{name}: {nothing}");
        }
    }
}
