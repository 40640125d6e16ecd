//! The backends of the configuration, put together: providers with their zones and secrets.

mod lent;
mod secrets;
mod watch;

use std::{sync::Arc, time::Duration};

use providers::{
    Context,
    zones::{Delegations, Finder},
};

pub use secrets::BackendSecrets;
pub use watch::{Standing, Watch, WatchMetrics};

use crate::{
    config::{self, Config},
    dispatch::{Route, Routes},
};
use lent::LentBackends;

/// Digits of the mark: 48 bits tell installations apart, and fit into every comment.
const MARK_BYTES: usize = 6;

/// What marks the records of the installation whose store has this pepper; the pepper cannot be found from it.
pub fn mark(pepper: &[u8; 32]) -> Arc<str> {
    let key = blake3::derive_key("acmegate 2026 mark of an installation on its records", pepper);
    let (digits, _) = key.split_at(MARK_BYTES);
    format!("acmegate {}", data_encoding::HEXLOWER.encode(digits)).into()
}

/// A backend's settings, or a file that they name, cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("backends: {name}: {reason}")]
pub struct BackendError {
    /// The backend's name.
    pub name: Arc<str>,
    /// What is wrong, and what to do.
    pub reason: String,
}

/// Makes the providers and their finders, which tell zones of one name apart by their delegations. Asks nobody.
///
/// # Errors
/// [`BackendError`].
pub fn routes(config: &Config, mark: &str, delegations: Arc<dyn Delegations>) -> Result<Routes, BackendError> {
    let secrets = Arc::new(BackendSecrets::new(config.kubernetes.as_ref()));
    let (lent, own): (Vec<_>, Vec<_>) = config.backends.iter().cloned().partition(config::Backend::is_lent);
    let route = |backend: &config::Backend| {
        let context = Context { backend: backend.name.clone(), ttl: backend.ttl, mark: mark.to_owned(), secrets: secrets.clone() };
        let provider = backend.build(&context).map_err(|reason| BackendError { name: backend.name.clone(), reason })?;
        let finder = Finder::new(provider.clone(), backend.zones.clone(), delegations.clone());
        Ok(Route { name: backend.name.clone(), provider, finder })
    };
    let routes = own.iter().map(route).collect::<Result<_, _>>()?;
    Ok(Routes::new(routes, Arc::new(LentBackends { backends: lent, mark: mark.to_owned(), secrets, delegations })))
}

/// A tenth more or less, so that what runs on a schedule does not run in step, here or on other machines.
pub(crate) fn jitter(wait: Duration) -> Duration {
    let mut random = [0; 2];
    // Without random bytes there is no jitter, and no harm.
    let _ = getrandom::fill(&mut random);
    let share = f64::from(u16::from_le_bytes(random)) / f64::from(u16::MAX);
    wait.mul_f64(0.9 + 0.2 * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_is_the_installations_own_and_does_not_change() {
        assert_eq!(mark(&[1; 32]), mark(&[1; 32]));
        assert_ne!(mark(&[1; 32]), mark(&[2; 32]));
        let mark = mark(&[1; 32]);
        let digits = mark.strip_prefix("acmegate ").expect("the name in front");
        assert!(digits.len() == 12 && digits.bytes().all(|b| b.is_ascii_hexdigit()), "{mark}");
    }
}
