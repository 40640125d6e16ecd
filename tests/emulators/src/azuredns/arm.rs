//! The resource manager: who may, what is asked, what goes wrong with it, and the answer.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header::AUTHORIZATION},
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Cloud, SUBSCRIPTION, State,
    doors::Cut,
    zones::{Precondition, RecordSet, Refusal, Zone, kind},
};
use crate::Fault;

/// Entries of a page, unless `$top` asks for others.
const PAGE: usize = 100;
/// Most that `$top` may ask for.
const MOST_TOP: usize = 1000;

/// A request, taken apart.
pub(super) struct Request<'a> {
    pub(super) method: &'a Method,
    pub(super) uri: &'a Uri,
    pub(super) query: HashMap<String, String>,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a [u8],
    /// The URL of the door that it came through.
    pub(super) base: String,
}

/// Buckets of the kinds of calls; empty ones refuse.
#[derive(Debug, Default)]
pub(super) struct Rates {
    pub(super) enforced: bool,
    /// By kind, or by zone and kind: what is in it, and when that was so.
    buckets: HashMap<String, (f64, Instant)>,
}

/// Answers a request.
pub(super) fn serve(cloud: &Cloud, request: &Request<'_>, cut: &Cut) -> Response<Body> {
    let kind = match *request.method {
        Method::GET => "reads",
        Method::DELETE => "deletes",
        _ => "writes",
    };
    let fault = if kind == "reads" { cloud.faults.read() } else { cloud.faults.write() };
    let mut state = cloud.state.lock();
    let mut left = if kind == "reads" { 249 } else { 199 };
    let result = before(&mut state, request, cloud, fault, cut).and_then(|()| {
        let conflict = kind != "reads" && state.conflicts > 0;
        if conflict {
            state.conflicts -= 1;
            let operation = Uuid::new_v4();
            let text = format!("Another operation is pending for requested object. Operation group already has 1 operations like '/operations/type/UpsertRecordSet/id/{operation}' queued.");
            return Err(Refused::Service(409, "Conflict", text));
        }
        left = state.rates.take(kind, request.uri.path())?;
        state.route(request)
    });
    if fault == Some(Fault::LostReply) {
        cut.now();
    }
    let result = if fault == Some(Fault::ErrorAfter) { Err(internal()) } else { result };
    if kind != "reads" {
        state.publish(&cloud.nameservers);
    }
    drop(state);
    answer(result, kind, left)
}

/// What an unlucky request meets before it is carried out.
fn before(state: &mut State, request: &Request<'_>, cloud: &Cloud, fault: Option<Fault>, cut: &Cut) -> Result<(), Refused> {
    match fault {
        Some(Fault::Throttle(pause)) => return Err(Refused::Throttled(pause, "SubscriptionRequestsThrottled")),
        Some(Fault::ErrorBefore) => return Err(internal()),
        Some(Fault::LostRequest) => {
            cut.now();
            return Err(internal());
        }
        Some(Fault::Unauthorized) => {
            // A client that asks for another token at once is refused there too.
            state.entra.forget();
            state.entra.refuse_next = true;
        }
        Some(Fault::Interfere) => state.interfere(request.uri.path()),
        Some(Fault::ErrorAfter | Fault::LostReply) | None => {}
    }
    let Some(token) = request.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()) else {
        return Err(Refused::Manager(
            401,
            "AuthenticationFailed",
            "Authentication failed. The 'Authorization' header is missing.".to_owned(),
        ));
    };
    let token = token.strip_prefix("Bearer ").unwrap_or_default();
    if !state.entra.accepts(token, &cloud.audiences) {
        return Err(Refused::Manager(401, "InvalidAuthenticationToken", "The access token is invalid.".to_owned()));
    }
    let within = |scope: &String| request.uri.path().to_ascii_lowercase().starts_with(&scope.to_ascii_lowercase());
    if state.scope.as_ref().is_some_and(|scope| !within(scope)) {
        let text = format!(
            "The client '{0}' with object id '{0}' does not have authorization to perform action 'Microsoft.Network/dnsZones/read' over scope '{1}' or the scope is invalid. If access was recently granted, please refresh your credentials.",
            super::CLIENT,
            request.uri.path()
        );
        return Err(Refused::Manager(403, "AuthorizationFailed", text));
    }
    Ok(())
}

/// Why a request is not carried out. The manager and the service behind it write their errors differently.
pub(super) enum Refused {
    Manager(u16, &'static str, String),
    Service(u16, &'static str, String),
    Throttled(Duration, &'static str),
}

impl From<Refusal> for Refused {
    fn from((status, code, text): Refusal) -> Self {
        Self::Service(status, code, text)
    }
}

fn internal() -> Refused {
    let text = format!(
        "The server was unable to complete your request. Please provide this request id '{}' when contacting support.",
        Uuid::new_v4()
    );
    Refused::Manager(500, "InternalServerError", text)
}

fn answer(result: Result<(u16, Value), Refused>, kind: &str, left: u32) -> Response<Body> {
    let mut pause = None;
    let (status, body) = match result {
        Ok(done) => done,
        Err(Refused::Manager(status, code, text)) => (status, json!({"error": {"code": code, "message": text}})),
        Err(Refused::Service(status, code, text)) => (status, json!({"code": code, "message": text})),
        Err(Refused::Throttled(wait, code)) => {
            pause = Some(wait);
            let text = format!(
                "Number of '{kind}' requests for subscription '{SUBSCRIPTION}' exceeded. Please try again after '{}' seconds after additional tokens are available.",
                wait.as_secs()
            );
            (429, json!({"error": {"code": code, "message": text}}))
        }
    };
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    let text = |text: String| HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""));
    headers.insert("content-type", HeaderValue::from_static("application/json; charset=utf-8"));
    headers.insert("x-ms-request-id", text(Uuid::new_v4().to_string()));
    headers.insert("x-ms-correlation-request-id", text(Uuid::new_v4().to_string()));
    if let Some(pause) = pause {
        headers.insert("retry-after", text(pause.as_secs().to_string()));
    } else if let Ok(name) = axum::http::HeaderName::try_from(format!("x-ms-ratelimit-remaining-subscription-{kind}")) {
        headers.insert(name, text(left.to_string()));
    }
    response
}

impl State {
    /// Carries a request out.
    fn route(&mut self, request: &Request<'_>) -> Result<(u16, Value), Refused> {
        match request.query.get("api-version").map(String::as_str) {
            Some("2018-05-01") => {}
            // Traffic Manager, which octodns looks at.
            Some("2022-04-01") if request.uri.path().to_ascii_lowercase().contains("trafficmanagerprofiles") => {
                return Ok((200, json!({"value": []})));
            }
            None => {
                return Err(Refused::Manager(
                    400,
                    "MissingApiVersionParameter",
                    "The api-version query parameter (?api-version=) is required for all requests.".to_owned(),
                ));
            }
            Some(other) => {
                return Err(Refused::Manager(
                    400,
                    "InvalidResourceType",
                    format!("The resource type could not be found in the namespace 'Microsoft.Network' for api version '{other}'."),
                ));
            }
        }
        let decoded: Vec<String> = request.uri.path().trim_matches('/').split('/').map(decode).collect();
        let path: Vec<&str> = decoded.iter().map(String::as_str).collect();
        let [_, subscription, rest @ ..] = path.as_slice() else { return Err(unknown(request)) };
        if !is(subscription, SUBSCRIPTION) {
            return Err(Refused::Manager(404, "SubscriptionNotFound", format!("The subscription '{subscription}' could not be found.")));
        }
        if let [providers, namespace, kind] = rest
            && is(providers, "providers")
            && is(namespace, "Microsoft.Network")
            && is(kind, "dnsZones")
        {
            return self.list_zones(request, None);
        }
        let [groups, group, providers, namespace, kind, rest @ ..] = rest else { return Err(unknown(request)) };
        if !(is(groups, "resourceGroups") && is(providers, "providers") && is(namespace, "Microsoft.Network") && is(kind, "dnsZones")) {
            return Err(unknown(request));
        }
        let creates = rest.len() == 1 && request.method == Method::PUT;
        if !creates && !self.zones.iter().any(|zone| is(&zone.group, group)) && !self.groups.iter().any(|known| is(known, group)) {
            return Err(Refused::Manager(404, "ResourceGroupNotFound", format!("Resource group '{group}' could not be found.")));
        }
        match rest {
            [] => self.list_zones(request, Some(group)),
            [name] => self.one_zone(request, group, name),
            [name, below @ ..] => {
                let place = self.zones.iter().position(|zone| is(&zone.group, group) && is(&zone.name, name));
                let Some(zone) = place.and_then(|at| self.zones.get_mut(at)) else {
                    let text = format!(
                        "Failed to perform 'read' on resource(s) of type 'dnszones/TXT', because the parent resource '{}' could not be found.",
                        request.uri.path()
                    );
                    return Err(Refused::Manager(404, "ParentResourceNotFound", text));
                };
                record_sets(zone, request, below, self.page)
            }
        }
    }

    fn list_zones(&self, request: &Request<'_>, group: Option<&str>) -> Result<(u16, Value), Refused> {
        let entries = self.zones.iter().filter(|zone| group.is_none_or(|group| is(&zone.group, group)));
        page(request, entries.map(|zone| zone.json(SUBSCRIPTION)).collect(), self.page)
    }

    fn one_zone(&mut self, request: &Request<'_>, group: &str, name: &str) -> Result<(u16, Value), Refused> {
        let at = self.zones.iter().position(|zone| is(&zone.group, group) && is(&zone.name, name));
        let missing = || {
            let text = format!(
                "The Resource 'Microsoft.Network/dnszones/{name}' under resource group '{group}' was not found. For more details please go to https://aka.ms/ARMResourceNotFoundFix"
            );
            Refused::Manager(404, "ResourceNotFound", text)
        };
        match *request.method {
            Method::GET => at.and_then(|at| self.zones.get(at)).map(|zone| (200, zone.json(SUBSCRIPTION))).ok_or_else(missing),
            Method::PUT => {
                if !name.contains('.') {
                    return Err(Refused::Service(
                        400,
                        "BadRequest",
                        format!("The domain name '{name}' is invalid. The provided number of labels '1' does not meet the minimum of '2'."),
                    ));
                }
                let body: Value = serde_json::from_slice(request.body).unwrap_or_default();
                if body["location"] != "global" {
                    return Err(Refused::Manager(
                        400,
                        "LocationRequired",
                        "The location property is required for this definition.".to_owned(),
                    ));
                }
                let new = at.is_none();
                let at = at.unwrap_or_else(|| self.create(group, name, None));
                let zone = self.zones.get_mut(at).ok_or_else(missing)?;
                if body["tags"].is_object() {
                    zone.tags = body["tags"].clone();
                }
                Ok((if new { 201 } else { 200 }, zone.json(SUBSCRIPTION)))
            }
            Method::DELETE => {
                let Some(at) = at else { return Ok((204, Value::Null)) };
                let zone = self.zones.remove(at);
                self.withdrawn.push(zone.name);
                Ok((200, Value::Null))
            }
            _ => Err(unknown(request)),
        }
    }

    /// Somebody else adds a record to the record set that a request is about.
    fn interfere(&mut self, path: &str) {
        let decoded: Vec<String> = path.trim_matches('/').split('/').map(decode).collect();
        let [_, _, _, group, _, _, _, name, of, relative] = decoded.as_slice() else { return };
        if kind(of).is_none_or(|(kind, _)| kind != "TXT") {
            return;
        }
        let Some(zone) = self.zones.iter_mut().find(|zone| is(&zone.group, group) && is(&zone.name, name)) else { return };
        self.interfered += 1;
        let value = json!({ "value": [format!("interference {}", self.interfered)] });
        zone.add(relative, 300, value);
    }
}

fn record_sets(zone: &mut Zone, request: &Request<'_>, below: &[&str], most: Option<usize>) -> Result<(u16, Value), Refused> {
    match below {
        [all] if is(all, "all") || is(all, "recordsets") => {
            page(request, zone.sets.values().map(|set| zone.set_json(SUBSCRIPTION, set)).collect(), most)
        }
        [of] => {
            let (kind, _) = kind(of).ok_or_else(|| unknown(request))?;
            let sets = zone.sets.values().filter(|set| set.kind == kind);
            page(request, sets.map(|set| zone.set_json(SUBSCRIPTION, set)).collect(), most)
        }
        [of, name] => {
            let (kind, property) = kind(of).ok_or_else(|| unknown(request))?;
            record_set(zone, request, kind, property, name)
        }
        _ => Err(unknown(request)),
    }
}

fn record_set(zone: &mut Zone, request: &Request<'_>, kind: &'static str, property: &str, name: &str) -> Result<(u16, Value), Refused> {
    let header = |name: &str| request.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let precondition = Precondition { if_match: header("if-match"), if_none_match: header("if-none-match") };
    let key = (kind.to_owned(), name.to_ascii_lowercase());
    let find = |zone: &Zone| -> Result<Value, Refused> {
        let set: Option<&RecordSet> = zone.sets.get(&key);
        set.map(|set| zone.set_json(SUBSCRIPTION, set)).ok_or_else(|| {
            let text =
                format!("The resource record '{name}' does not exist in resource group '{}' of subscription '{SUBSCRIPTION}'.", zone.group);
            Refused::Service(404, "NotFound", text)
        })
    };
    match *request.method {
        Method::GET => Ok((200, find(zone)?)),
        Method::PUT | Method::PATCH => {
            let mut body: Value = serde_json::from_slice(request.body).map_err(|_| {
                Refused::Manager(400, "InvalidRequestContent", "The request content was invalid and could not be deserialized.".to_owned())
            })?;
            if request.method == Method::PATCH {
                // What the body leaves out stays as it is.
                let standing = find(zone)?;
                for part in ["metadata", "TTL", property] {
                    if body["properties"].get(part).is_none() && standing["properties"].get(part).is_some() {
                        body["properties"][part] = standing["properties"][part].clone();
                    }
                }
            }
            let new = zone.put(kind, name, &precondition, &body)?;
            Ok((if new { 201 } else { 200 }, find(zone)?))
        }
        Method::DELETE => Ok((if zone.delete(kind, name, &precondition)? { 200 } else { 204 }, Value::Null)),
        _ => Err(unknown(request)),
    }
}

/// A page of a list, and where the next one is.
fn page(request: &Request<'_>, entries: Vec<Value>, most: Option<usize>) -> Result<(u16, Value), Refused> {
    let top = match request.query.get("$top").map(|text| text.parse::<usize>().map_err(|_| text)) {
        None => PAGE,
        Some(Ok(top)) if (1..=MOST_TOP).contains(&top) => top,
        Some(other) => {
            let text = other.map_or_else(Clone::clone, |number| number.to_string());
            return Err(Refused::Service(
                400,
                "BadRequest",
                format!("Invalid $top value: '{text}'. It must be a number between '1' and '{MOST_TOP}'."),
            ));
        }
    };
    let size = top.min(most.unwrap_or(top));
    let from = request.query.get("$skipToken").and_then(|text| text.parse::<usize>().ok()).unwrap_or(0);
    let value: Vec<Value> = entries.iter().skip(from).take(size).cloned().collect();
    let mut body = json!({ "value": value });
    if from + size < entries.len() {
        let path = request.uri.path();
        body["nextLink"] = json!(format!("{}{path}?api-version=2018-05-01&$top={top}&$skipToken={}", request.base, from + size));
    }
    Ok((200, body))
}

fn unknown(request: &Request<'_>) -> Refused {
    let text = format!("No route is known for {} {}.", request.method, request.uri.path());
    Refused::Manager(404, "InvalidResourceType", text)
}

fn is(part: &str, word: &str) -> bool {
    part.eq_ignore_ascii_case(word)
}

fn decode(segment: &str) -> String {
    super::form(&format!("x={}", segment.replace('+', "%2B"))).remove("x").unwrap_or_default()
}

impl Rates {
    /// Takes from the bucket of the manager and, for record sets, from that of the zone; gives what is left in the first.
    fn take(&mut self, kind: &str, path: &str) -> Result<u32, Refused> {
        let (size, rate) = if kind == "reads" { (250.0, 25.0) } else { (200.0, 10.0) };
        if !self.enforced {
            return Ok(if kind == "reads" { 249 } else { 199 });
        }
        let zone = path.split('/').nth(8).filter(|_| kind != "reads").map(|zone| format!("{zone} {kind}"));
        let left = self.drawn(kind, size, rate)?;
        if let Some(zone) = zone {
            self.drawn(&zone, 200.0, 200.0 / 60.0)?;
        }
        Ok(left)
    }

    fn drawn(&mut self, name: &str, size: f64, rate: f64) -> Result<u32, Refused> {
        let now = Instant::now();
        let (level, at) = self.buckets.entry(name.to_owned()).or_insert((size, now));
        *level = (*level + rate * now.duration_since(*at).as_secs_f64()).min(size);
        *at = now;
        if *level < 1.0 {
            return Err(Refused::Throttled(Duration::from_secs(1), "TooManyRequests"));
        }
        *level -= 1.0;
        Ok(*level as u32)
    }
}
