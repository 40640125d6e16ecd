//! Renewal information (ARI, RFC 9773): when the CA would like a certificate to be renewed.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::Deserialize;

use super::{AcmeError, client::Session, patience::Again};
use crate::issuer::{
    metrics::Action,
    renewal_info::{CertificateId, RenewalInfo},
};

/// How soon and how late the CA may want to be asked again, and when it is if it does not say (RFC 9773, 4.3).
const SOONEST: Duration = Duration::from_secs(60);
const LATEST: Duration = Duration::from_secs(86_400);
const USUAL: Duration = Duration::from_secs(6 * 3600);
/// Longest URL of an explanation that is kept, in bytes.
const LONGEST_URL: usize = 1024;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    suggested_window: SuggestedWindow,
    #[serde(default, rename = "explanationURL")]
    explanation_url: Option<String>,
}

#[derive(Deserialize)]
struct SuggestedWindow {
    start: Timestamp,
    end: Timestamp,
}

impl Session {
    /// The renewal information of a certificate (RFC 9773, 4.1), by an unsigned request; `None` if the CA has no such thing, or none for this certificate.
    ///
    /// # Errors
    /// [`AcmeError`]; [`AcmeError::Malformed`] if the window ends before it begins.
    pub(in crate::issuer) async fn renewal_info(&self, id: &CertificateId) -> Result<Option<RenewalInfo>, AcmeError> {
        let document = self.document().await?;
        let Some(base) = &document.renewal_info else { return Ok(None) };
        let url = format!("{}/{id}", base.trim_end_matches('/'));
        let ask = || async {
            let reply = self.plain(Action::RenewalInfo, &url).await?;
            if reply.status == 404 {
                return Ok(None);
            }
            let reply = reply.accepted()?;
            Ok(Some((reply.json::<Answer>()?, reply.retry_at)))
        };
        // What is wrong with the window does not get right by asking again at once.
        let answered = self.persist(Again::Harmless, ask).await?;
        answered.map(|(answer, retry_at)| answer.judged(retry_at, SystemTime::now())).transpose()
    }
}

impl Answer {
    fn judged(self, retry_at: Option<SystemTime>, now: SystemTime) -> Result<RenewalInfo, AcmeError> {
        let SuggestedWindow { start, end } = self.suggested_window;
        if end <= start {
            return Err(AcmeError::Malformed(format!("its window ends at {end}, which is not after its beginning at {start}")));
        }
        let asked = retry_at.map(|at| at.duration_since(now).unwrap_or_default());
        Ok(RenewalInfo {
            start: start.into(),
            end: end.into(),
            explanation: self.explanation_url.filter(|url| is_page(url)),
            poll_after: asked.map_or(USUAL, |wait| wait.clamp(SOONEST, LATEST)),
        })
    }
}

/// True for what a person can be shown as a link: nothing that a terminal would take for more.
fn is_page(url: &str) -> bool {
    let web = url.starts_with("https://") || url.starts_with("http://");
    web && url.len() <= LONGEST_URL && url.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::{
        super::{client::Clients, fake::FakeCa},
        *,
    };

    const ID: &str = "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE";
    /// The example of RFC 9773, 4.2.
    const EXAMPLE: &str = r#"{"suggestedWindow":{"start":"2025-01-02T04:00:00Z","end":"2025-01-03T04:00:00Z"},
        "explanationURL":"https://acme.example.com/docs/ari"}"#;

    async fn asked(status: u16, headers: &'static [&'static str], body: &'static str) -> (FakeCa, Result<Option<RenewalInfo>, AcmeError>) {
        let headers: Vec<_> = headers.iter().map(|&header| header.to_owned()).collect();
        let ca = FakeCa::start(move |_| (status, headers.clone(), body.as_bytes().to_vec())).await;
        let info = ca.signed_in().await.renewal_info(&ID.parse().unwrap()).await;
        (ca, info)
    }

    fn at(text: &str) -> SystemTime {
        text.parse::<Timestamp>().unwrap().into()
    }

    #[tokio::test]
    async fn the_example_of_the_rfc_is_read_by_one_unsigned_request() {
        let (ca, info) = asked(200, &["Retry-After: 21600"], EXAMPLE).await;
        let info = info.unwrap().unwrap();
        assert_eq!((info.start, info.end), (at("2025-01-02T04:00:00Z"), at("2025-01-03T04:00:00Z")));
        assert_eq!(info.explanation.as_deref(), Some("https://acme.example.com/docs/ari"));
        assert!(info.poll_after > USUAL - SOONEST && info.poll_after <= USUAL, "{:?}", info.poll_after);
        assert_eq!(ca.lines(), ["GET /dir".to_owned(), format!("GET /renewal-info/{ID}")]);
    }

    #[tokio::test]
    async fn every_further_certificate_costs_one_request() {
        let ca = FakeCa::start(|_| (200, Vec::new(), EXAMPLE.into())).await;
        let clients = Clients::default();
        for _ in 0..3 {
            clients.session(&ca.directory).await.unwrap().renewal_info(&ID.parse().unwrap()).await.unwrap().unwrap();
        }
        assert_eq!(ca.lines().len(), 4, "the directory, and one each");
        assert_eq!(ca.connections(), 1);
    }

    #[test]
    fn retry_after_is_held_within_reason() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let poll = |retry_at: Option<SystemTime>| {
            serde_json::from_str::<Answer>(EXAMPLE).unwrap().judged(retry_at, now).unwrap().poll_after.as_secs()
        };
        let after = |seconds| Some(now + Duration::from_secs(seconds));
        assert_eq!([poll(None), poll(after(7200)), poll(after(1)), poll(after(5_000_000))], [21_600, 7200, 60, 86_400]);
        assert_eq!(poll(Some(SystemTime::UNIX_EPOCH)), 60, "a date in the past");
    }

    #[tokio::test]
    async fn a_certificate_that_the_ca_does_not_know_has_none() {
        let (_, none) =
            asked(404, &[], r#"{"type":"urn:ietf:params:acme:error:malformed","detail":"Requested certificate was not found"}"#).await;
        assert_eq!(none.unwrap(), None);
    }

    #[tokio::test]
    async fn what_cannot_be_meant_is_told_and_not_asked_again() {
        let (ca, wrong) = asked(200, &[], r#"{"suggestedWindow":{"start":"2025-01-03T04:00:00Z","end":"2025-01-03T04:00:00Z"}}"#).await;
        assert_eq!(
            wrong.unwrap_err().to_string(),
            "its window ends at 2025-01-03T04:00:00Z, which is not after its beginning at 2025-01-03T04:00:00Z"
        );
        assert_eq!(ca.lines().len(), 2);
        let (_, refused) = asked(400, &[], r#"{"type":"urn:ietf:params:acme:error:malformed","detail":"no"}"#).await;
        assert!(refused.unwrap_err().is("malformed"));
    }

    #[test]
    fn explanations_are_links_or_nothing() {
        for bad in ["javascript:alert(1)", "https://a\u{1b}[2J", "https://a b", "", "ftp://a.test/"] {
            assert!(!is_page(bad), "{bad:?}");
        }
        assert!(is_page("https://a.test/why?x=1") && !is_page(&format!("https://{}", "a".repeat(LONGEST_URL))));
    }

    #[test]
    fn times_with_offsets_and_fractions_are_read() {
        let answer = r#"{"suggestedWindow":{"start":"2025-01-02T04:00:00.123456789+02:00","end":"2025-01-02T04:00:00Z"}}"#;
        let info = serde_json::from_str::<Answer>(answer).unwrap().judged(None, SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!((info.start, info.explanation), (at("2025-01-02T02:00:00.123456789Z"), None));
        assert!(serde_json::from_str::<Answer>(r#"{"suggestedWindow":{"start":"tomorrow","end":"2025-01-02T04:00:00Z"}}"#).is_err());
    }
}
