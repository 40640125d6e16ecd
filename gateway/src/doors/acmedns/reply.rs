//! Replies, byte for byte as the original's.

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    response::Response,
};

use crate::web::BodyError;

/// Something went wrong; clients see a code, people read the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Not this user, not this key, not from here, not this subdomain, or not JSON: the original does not say which.
    Forbidden,
    /// The registration's body is not JSON or has wrong types.
    Malformed,
    /// `allowfrom` holds something that is not a network.
    BadAllowFrom,
    /// The value is not a DNS-01 value.
    BadTxt,
    /// The store or the ledger did not take it.
    Failed,
    /// The body is too large.
    TooLarge,
    /// The body did not come in time.
    TooSlow,
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge => Self::TooLarge,
            BodyError::TooSlow => Self::TooSlow,
            BodyError::Broken => Self::Malformed,
        }
    }
}

impl Refusal {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Forbidden => StatusCode::UNAUTHORIZED,
            Self::Malformed | Self::BadAllowFrom | Self::BadTxt => StatusCode::BAD_REQUEST,
            Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
        }
    }

    pub(super) fn body(self) -> &'static str {
        match self {
            Self::Forbidden => r#"{"error": "forbidden"}"#,
            Self::Malformed => r#"{"error": "malformed_json_payload"}"#,
            Self::BadAllowFrom => r#"{"error": "invalid_allowfrom_cidr"}"#,
            Self::BadTxt => r#"{"error": "bad_txt"}"#,
            Self::Failed => r#"{"error": "db_error"}"#,
            Self::TooLarge => r#"{"error": "request_too_large"}"#,
            Self::TooSlow => r#"{"error": "request_timeout"}"#,
        }
    }

    pub(super) fn reply(self) -> Response {
        let mut response = json(self.status(), self.body());
        if matches!(self, Self::TooLarge | Self::TooSlow) {
            // The rest of the body is still to come; nobody will read it.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

pub(super) fn json(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = with_body(status, body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// 200 without a body.
pub(super) fn empty() -> Response {
    with_body(StatusCode::OK, Body::empty())
}

/// What Go's router says to a path that it does not know.
pub(super) fn not_found() -> Response {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// What Go's router says to a method that a path does not take: an empty 200 to OPTIONS, else 405.
pub(super) fn other_method(method: &Method, allow: &'static str) -> Response {
    let mut response = if method == Method::OPTIONS { empty() } else { text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n") };
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    response
}

fn text(status: StatusCode, body: &'static str) -> Response {
    const NO_SNIFF: (HeaderName, HeaderValue) = (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let mut response = with_body(status, body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(NO_SNIFF.0, NO_SNIFF.1);
    response
}

fn with_body(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response
}
