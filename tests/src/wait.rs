//! Bounded waits.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep, timeout};

/// The longest that any single thing may take: far more than it needs on a busy machine, since it is only ever reached by a failure.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Awaits `future`, or panics with `what` when it is not done within [`LIMIT`].
pub async fn bounded<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {} s in vain for {what}", LIMIT.as_secs()),
    }
}

/// Asks again and again until `attempt` gives a value, for what announces itself by no event; panics with `what` and the last refusal after
/// [`LIMIT`].
pub async fn until<T, E, A>(what: &str, attempt: impl FnMut() -> A) -> T
where
    E: std::fmt::Display,
    A: Future<Output = Result<T, E>>,
{
    until_within(LIMIT, what, attempt).await
}

/// The same with a limit of one's own.
pub async fn until_within<T, E, A>(limit: Duration, what: &str, mut attempt: impl FnMut() -> A) -> T
where
    E: std::fmt::Display,
    A: Future<Output = Result<T, E>>,
{
    let end = Instant::now() + limit;
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) if Instant::now() > end => panic!("waited {} s in vain for {what}: {error}", limit.as_secs()),
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// Between two attempts of [`until`].
const PAUSE: Duration = Duration::from_millis(20);
