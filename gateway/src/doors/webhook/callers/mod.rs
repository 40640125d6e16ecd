//! Who may call: nothing behind this layer runs for a caller who is not known, and may not do what they ask.
//!
//! In a cluster it is what every extension API server does (and what Go's library does for those in Go), in this order: the API server, known by its
//! front-proxy certificate, says for whom it calls; a client certificate of the cluster; a bearer token, by TokenReview. Then a SubjectAccessReview decides. Outside of
//! a cluster it is a certificate of a given authority with a given name. Whatever cannot be decided is refused, and the log says why.

mod cluster;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    http::{StatusCode, header, request::Parts},
    middleware::Next,
    response::Response,
};
use tokio::time::timeout;

pub use cluster::ClusterCallers;

use super::status::Status;
use crate::{
    doors::throttle::Throttle,
    kubernetes::User,
    web::{Authority, ClientChain, read_body},
};

/// The health checks: kubelets have no certificate, and learn nothing.
pub(super) const HEALTH: [&str; 3] = ["/healthz", "/livez", READY];
/// The one that says whether calls can be judged.
pub(super) const READY: &str = "/readyz";

/// What of a refused call's body is taken, and for how long.
const MOST_DRAINED: usize = 64 * 1024;
const DRAIN: Duration = Duration::from_secs(1);

/// Who may call.
#[derive(Clone)]
pub enum Callers {
    /// Anybody who reaches the door, which therefore opens on loopback alone.
    Anyone,
    /// Who has a certificate of this authority.
    Certificates(Arc<Certificates>),
    /// Who may, as the cluster says.
    Cluster(Arc<ClusterCallers>),
}

/// Certificates that are let in without a cluster.
#[derive(Debug, Clone)]
pub struct Certificates {
    /// Who signed them.
    pub authority: Authority,
    /// Their common names.
    pub names: Vec<String>,
}

/// Request extension: who calls, for the audit line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller(pub String);

/// Why a caller is not let through.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    /// It is not known who calls; for the log, why.
    #[error("nobody is known by what the request shows: {0}")]
    Unauthenticated(String),
    /// They may not.
    #[error("{user} may not {what}")]
    Forbidden { user: String, what: String },
    /// That could not be found out.
    #[error("{0}")]
    Undecided(String),
}

impl Callers {
    /// Whether calls can be judged by now.
    pub fn ready(&self) -> bool {
        match self {
            Self::Anyone | Self::Certificates(_) => true,
            Self::Cluster(cluster) => cluster.ready(),
        }
    }

    async fn judge(&self, parts: &mut Parts) -> Result<Caller, Refusal> {
        match self {
            Self::Anyone => Ok(Caller("anonymous".to_owned())),
            Self::Certificates(certificates) => certificates.judge(parts.extensions.get()),
            Self::Cluster(cluster) => cluster.judge(parts).await.map(|user| Caller(user.name)),
        }
    }
}

impl Certificates {
    fn judge(&self, chain: Option<&ClientChain>) -> Result<Caller, Refusal> {
        let chain = chain.ok_or_else(|| Refusal::Unauthenticated("it has no client certificate".to_owned()))?;
        let subject = self
            .authority
            .verify(chain)
            .map_err(|error| Refusal::Unauthenticated(format!("its client certificate is not one of webhook.callers.ca_file: {error}")))?;
        if !self.names.contains(&subject.common_name) {
            let what = "call: webhook.callers.names does not list that common name".to_owned();
            return Err(Refusal::Forbidden { user: format!("{:?}", subject.common_name), what });
        }
        Ok(Caller(subject.common_name))
    }
}

/// What the layer goes by.
#[derive(Clone)]
pub(super) struct Gate {
    callers: Callers,
    /// Whoever reaches the port can cause lines of the log.
    strangers: Arc<Throttle>,
}

impl Gate {
    pub(super) fn new(callers: Callers) -> Self {
        Self { callers, strangers: Arc::default() }
    }
}

/// The layer: see the module.
pub(super) async fn check(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    if HEALTH.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    let judged = gate.callers.judge(&mut parts).await;
    // Nobody behind this needs them, and nobody shall believe or log them.
    parts.headers.remove(header::AUTHORIZATION);
    match judged {
        Ok(caller) => {
            parts.extensions.insert(caller);
            next.run(Request::from_parts(parts, body)).await
        }
        Err(refusal) => {
            if let Some(left_out) = gate.strangers.admit() {
                let (method, path) = (&parts.method, parts.uri.path());
                tracing::warn!(%method, path, reason = %refusal, left_out, "a call of the webhook was refused");
            }
            // Over HTTP/2 a stream that is answered before its body was read is reset, and some clients then lose the answer.
            let _ = timeout(DRAIN, read_body(body, MOST_DRAINED)).await;
            refusal.status().reply()
        }
    }
}

impl Refusal {
    /// What the caller is told: not how close they came.
    fn status(&self) -> Status {
        match self {
            Self::Unauthenticated(_) => Status::new(StatusCode::UNAUTHORIZED, "Unauthorized"),
            Self::Forbidden { .. } => Status::new(StatusCode::FORBIDDEN, self.to_string()),
            Self::Undecided(_) => {
                Status::new(StatusCode::SERVICE_UNAVAILABLE, "acmegate cannot find out who calls, or what they may do; its log says why")
            }
        }
    }
}
