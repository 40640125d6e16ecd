//! Answers: good ones, pages of lists, and refusals with Cloudflare's codes.

use std::time::Duration;

use axum::{
    Json,
    http::{HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

/// A good answer.
pub(super) struct Answer {
    result: Value,
    info: Option<Value>,
}

/// An answer that refuses.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    status: StatusCode,
    code: u32,
    message: String,
    chain: Option<(u32, &'static str)>,
    /// A JSON pointer to what is wrong in the request.
    pointer: Option<String>,
    retry_after: Option<u64>,
}

/// One page of a list.
pub(super) fn page(all: Vec<Value>, query: &[(String, String)], default: usize, most: usize) -> Result<Answer, Refused> {
    let number = |key: &str, default: usize| match query.iter().find(|(name, _)| name == key) {
        // The Python client sends whole numbers as `2` or as `2.0`.
        Some((_, text)) => text.parse::<f64>().ok().filter(|number| *number >= 1.0).map(|number| number as usize),
        None => Some(default),
    };
    let (Some(page), Some(per_page)) = (number("page", 1), number("per_page", default).filter(|size| *size <= most)) else {
        return Err(Refused::new(400, 1004, "DNS Validation Error").because(9107, "page or per_page is out of range"));
    };
    let total = all.len();
    let shown: Vec<Value> = all.into_iter().skip((page - 1).saturating_mul(per_page)).take(per_page).collect();
    let info = json!({
        "page": page, "per_page": per_page, "count": shown.len(), "total_count": total, "total_pages": total.div_ceil(per_page),
    });
    Ok(Answer { result: Value::Array(shown), info: Some(info) })
}

impl Answer {
    pub(super) fn of(result: Value) -> Self {
        Self { result, info: None }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut body = json!({"success": true, "errors": [], "messages": [], "result": self.result});
        if let Some(info) = self.info {
            body["result_info"] = info;
        }
        Json(body).into_response()
    }
}

impl Refused {
    pub(super) fn new(status: u16, code: u32, message: &str) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, code, message: message.to_owned(), chain: None, pointer: None, retry_after: None }
    }

    pub(super) fn because(self, code: u32, message: &'static str) -> Self {
        Self { chain: Some((code, message)), ..self }
    }

    /// Says which element of the request was bad, where that is wanted.
    pub(super) fn at(self, pointer: Option<String>) -> Self {
        Self { pointer, ..self }
    }

    pub(super) fn throttled(pause: Duration) -> Self {
        let text = "More than 1200 requests per 300 seconds reached. Please wait and consider throttling your request speed";
        Self { retry_after: Some(pause.as_millis().div_ceil(1000) as u64), ..Self::new(429, 971, text) }
    }

    pub(super) fn no_zone(id: &str) -> Self {
        let text = format!("Could not route to /client/v4/zones/{id}/dns_records, perhaps your object identifier is invalid?");
        Self::new(404, 7003, &text)
    }

    pub(super) fn no_record() -> Self {
        Self::new(404, 81044, "Record does not exist.")
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut error = json!({"code": self.code, "message": self.message});
        if let Some((code, message)) = self.chain {
            error["error_chain"] = json!([{"code": code, "message": message}]);
        }
        if let Some(pointer) = self.pointer {
            error["source"] = json!({"pointer": pointer});
        }
        let body = json!({"success": false, "errors": [error], "messages": [], "result": null});
        let mut response = (self.status, Json(body)).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert("retry-after", HeaderValue::from(seconds));
        }
        response
    }
}
