//! What an issuer asks for, for those who look at issuers before cert-manager does: the reading that Present does, and no other.

use serde_json::{Value, json};

use super::payload::Challenge;

/// What an issuer's `config` asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The backend that shall write; `None` is the one with the longest zone.
    pub(crate) backend: Option<String>,
    /// The Secret that it shall work with, in the issuer's namespace.
    pub(crate) secret: Option<String>,
}

/// Reads `webhook.config` of an issuer.
///
/// # Errors
/// What Present would answer.
pub(crate) fn wanted(config: &Value) -> Result<Wanted, String> {
    let request = json!({"request": {"config": config}}).to_string();
    let challenge = Challenge::parse(request.as_bytes(), "").map_err(|status| status.message().to_owned())?;
    let selection = challenge.selection().map_err(|invalid| invalid.to_string())?;
    Ok(Wanted { backend: selection.backend, secret: selection.secret })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_is_read_as_present_reads_it() {
        assert_eq!(wanted(&Value::Null), Ok(Wanted::default()));
        let (corp, dns) = (Some("corp".to_owned()), Some("dns".to_owned()));
        assert_eq!(wanted(&json!({"backend": "corp"})), Ok(Wanted { backend: corp.clone(), secret: None }));
        assert_eq!(wanted(&json!({"backend": "corp", "secret": {"name": "dns"}})), Ok(Wanted { backend: corp, secret: dns }));
        let error = wanted(&json!({"url": "https://example.com/"})).unwrap_err();
        assert!(error.starts_with("config: the key \"url\" is not known"), "{error}");
    }
}
