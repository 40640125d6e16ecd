//! Request bodies that end: in size and in time.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::{Body, Bytes, HttpBody};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::time::{Sleep, sleep};

/// Why a request body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// More bytes than allowed. Answer 413.
    #[error("the request body is too large")]
    TooLarge,
    /// Not whole in time. Answer 408.
    #[error("the request body did not arrive in time")]
    TooSlow,
    /// The client went away or broke the framing. Nobody reads the answer; 400.
    #[error("the request body was cut short")]
    Broken,
}

/// Reads a whole body of at most `limit` bytes.
///
/// # Errors
/// [`BodyError`]; a length that the header announces is refused before a byte is read.
pub async fn read_body(mut body: Body, limit: usize) -> Result<Bytes, BodyError> {
    if body.size_hint().lower() > limit as u64 {
        return Err(BodyError::TooLarge);
    }
    let mut whole = Bytes::new();
    let mut joined = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| error.into_inner().downcast::<BodyError>().map_or(BodyError::Broken, |error| *error))?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + joined.len() + data.len() > limit {
            return Err(BodyError::TooLarge);
        }
        // Nearly every body is one frame, and needs no copy.
        if whole.is_empty() && joined.is_empty() {
            whole = data;
        } else {
            joined.extend_from_slice(&std::mem::take(&mut whole));
            joined.extend_from_slice(&data);
        }
    }
    Ok(if joined.is_empty() { whole } else { joined.into() })
}

/// A body from the wire under the listener's limits, whoever reads it.
pub(super) struct Guarded {
    inner: Incoming,
    left: u64,
    timeout: Duration,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Guarded {
    pub(super) fn new(inner: Incoming, bytes: u64, timeout: Duration) -> Self {
        Self { inner, left: bytes, timeout, deadline: None }
    }
}

impl HttpBody for Guarded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(context) else {
            // The clock starts with the first wait: a body that came with its header needs no timer.
            let timeout = this.timeout;
            let deadline = this.deadline.get_or_insert_with(|| Box::pin(sleep(timeout)));
            ready!(deadline.as_mut().poll(context));
            return Poll::Ready(Some(Err(BodyError::TooSlow)));
        };
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, Bytes::len) as u64;
                match this.left.checked_sub(length) {
                    Some(left) => {
                        this.left = left;
                        Some(Ok(frame))
                    }
                    None => Some(Err(BodyError::TooLarge)),
                }
            }
            Some(Err(_)) => Some(Err(BodyError::Broken)),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
