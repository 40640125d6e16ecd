//! This machine's clock against those of the ACME directories, and what those say of themselves.
//!
//! A clock that is wrong breaks what is signed: TSIG allows 300 seconds (RFC 8945, 5.2.3), AWS and the others about as much, and certificates seem not to
//! be valid yet.

use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use reqwest::{Certificate, Client, Response, Url, header::DATE, redirect};
use serde::Deserialize;

use super::report::{Rung, RungId};
use crate::{config::Directory, store::Store};

/// For a whole request.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A directory has some thousand bytes.
const MAX_BODY: usize = 64 * 1024;
/// Date headers have whole seconds, and the answer takes its time.
const AGREES: Duration = Duration::from_secs(5);
/// From here on signatures are refused.
const BREAKS: Duration = Duration::from_secs(300);
const USER_AGENT: &str = concat!("acmegate/", env!("CARGO_PKG_VERSION"));

/// What a directory said.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// Its name in the configuration.
    pub(super) name: String,
    /// The domains by which CAA records name the CA (RFC 8555, 9.7.6); empty if it does not say, or could not be asked.
    pub(super) identities: Vec<String>,
    /// Our account there, where there is one.
    pub(super) account: Option<String>,
    /// How far our clock is before its clock (behind, if negative), in seconds; else why that is not known.
    pub(super) ahead: Result<i64, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Document {
    meta: Meta,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Meta {
    caa_identities: Vec<String>,
}

/// Asks every directory for its document.
pub(super) async fn ask(directories: &[Directory], store: &dyn Store) -> Vec<Asked> {
    join_all(directories.iter().map(|directory| async move {
        let account = store.directory_account(&directory.url).await.ok().flatten().and_then(|account| account.url);
        let (ahead, identities) = match get(directory).await {
            Ok((response, ahead)) => (ahead, identities(response).await),
            Err(error) => (Err(error), Vec::new()),
        };
        Asked { name: directory.name.clone(), identities, account, ahead }
    }))
    .await
}

/// The rung.
pub(super) fn judge(asked: &[Asked]) -> Rung {
    const ID: RungId = RungId::Clock;
    if asked.is_empty() {
        return Rung::skipped(ID, "no ACME directory is configured under issuer.directories, so that there is no clock to compare with");
    }
    let line = |one: &Asked| match &one.ahead {
        Ok(ahead) => format!("{}: our clock {}", one.name, skew(*ahead)),
        Err(error) => format!("{}: {error}", one.name),
    };
    let evidence: Vec<String> = asked.iter().map(line).collect();
    // One CA with a wrong clock says nothing of ours: the closest counts.
    let closest = asked.iter().filter_map(|one| one.ahead.as_ref().ok()).min_by_key(|ahead| ahead.unsigned_abs()).copied();
    let rung = match closest.map(|ahead| (ahead, Duration::from_secs(ahead.unsigned_abs()))) {
        Some((_, distance)) if distance <= AGREES => Rung::ok(ID, "this machine's clock is right"),
        Some((ahead, distance)) if distance < BREAKS => {
            Rung::warning(ID, format!("this machine's clock {}", skew(ahead)), "synchronise it by NTP (chronyc tracking, timedatectl)")
        }
        Some((ahead, _)) => Rung::failed(
            ID,
            format!("this machine's clock {}: signatures of TSIG and of cloud providers are refused", skew(ahead)),
            "synchronise it by NTP (chronyc tracking, timedatectl)",
        ),
        None if evidence.iter().any(|line| line.contains("NotValidYet") || line.contains("Expired")) => Rung::warning(
            ID,
            "no ACME directory could be asked for its time: a certificate is not valid at the time of this clock",
            "look whether this machine's clock is right (date -u), and whether the CA's certificate is",
        ),
        None => Rung::warning(
            ID,
            "no ACME directory could be asked for its time",
            "let HTTPS out to the directories under issuer.directories, and look whether this machine's clock is right (date -u)",
        ),
    };
    rung.because(evidence)
}

fn skew(ahead: i64) -> String {
    let distance = ahead.unsigned_abs();
    match ahead {
        _ if distance <= AGREES.as_secs() => format!("agrees within {} s", AGREES.as_secs()),
        1.. => format!("is {distance} s fast"),
        _ => format!("is {distance} s slow"),
    }
}

/// The answer, and how far our clock is ahead.
async fn get(directory: &Directory) -> Result<(Response, Result<i64, String>), String> {
    let url = Url::parse(&directory.url).map_err(|error| format!("its URL cannot be used: {error}"))?;
    let mut builder = Client::builder()
        .https_only(true)
        .redirect(redirect::Policy::none())
        .user_agent(USER_AGENT)
        .connect_timeout(TIMEOUT)
        .timeout(TIMEOUT);
    if let Some(file) = &directory.ca_file {
        let unreadable = |error: &dyn std::fmt::Display| format!("its ca_file {} cannot be used: {error}", file.display());
        let pem = tokio::fs::read(file).await.map_err(|error| unreadable(&error))?;
        builder = builder.tls_certs_only(Certificate::from_pem_bundle(&pem).map_err(|error| unreadable(&error))?);
    }
    let client = builder.build().map_err(|error| innermost(&error))?;
    let before = SystemTime::now();
    let response = client.get(url).send().await.map_err(|error| match error.is_timeout() {
        true => "took too long".to_owned(),
        false => innermost(&error),
    })?;
    let date = response.headers().get(DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
    let ahead = date.map(|date| ahead(before, SystemTime::now(), date)).ok_or_else(|| "its answer bears no date".to_owned());
    Ok((response, ahead))
}

/// How far the clock that read `before` and `after` is ahead of the one that read `date` in between; 0 if `date` lies in between.
fn ahead(before: SystemTime, after: SystemTime, date: SystemTime) -> i64 {
    let seconds = |distance: Duration| i64::try_from(distance.as_secs()).unwrap_or(i64::MAX);
    match (before.duration_since(date), date.duration_since(after)) {
        (Ok(fast), _) => seconds(fast),
        (_, Ok(slow)) => -seconds(slow),
        _ => 0,
    }
}

async fn identities(mut response: Response) -> Vec<String> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        if body.len() + chunk.len() > MAX_BODY {
            return Vec::new();
        }
        body.extend_from_slice(&chunk);
    }
    serde_json::from_slice::<Document>(&body).map(|document| document.meta.caa_identities).unwrap_or_default()
}

/// The innermost cause says it best, and holds no URL, in which a password may stand.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::report::Outcome;

    fn asked(name: &str, ahead: Result<i64, &str>) -> Asked {
        Asked { name: name.to_owned(), identities: Vec::new(), account: None, ahead: ahead.map_err(str::to_owned) }
    }

    #[test]
    fn the_clock_is_compared_with_the_closest_ca() {
        for (all, outcome, said) in [
            (vec![], Outcome::Skipped, "no ACME directory is configured"),
            (vec![asked("a", Ok(-3))], Outcome::Ok, "is right"),
            (vec![asked("a", Ok(4000)), asked("b", Ok(0))], Outcome::Ok, "is right"),
            (vec![asked("a", Ok(-90))], Outcome::Warning, "is 90 s slow"),
            (vec![asked("a", Ok(301))], Outcome::Failed, "is 301 s fast"),
            (vec![asked("a", Err("took too long"))], Outcome::Warning, "could be asked"),
            (vec![asked("a", Err("invalid peer certificate: NotValidYet"))], Outcome::Warning, "not valid at the time of this clock"),
        ] {
            let rung = judge(&all);
            assert_eq!(rung.outcome, outcome, "{rung:?}");
            assert!(rung.summary.contains(said), "{rung:?}");
            assert_eq!(rung.evidence.len(), all.len());
        }
    }

    #[test]
    fn a_date_between_question_and_answer_is_right() {
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(ahead(at(100), at(103), at(101)), 0);
        assert_eq!(ahead(at(100), at(103), at(40)), 60);
        assert_eq!(ahead(at(100), at(103), at(163)), -60);
    }

    #[test]
    fn the_identities_of_a_ca_are_read_and_may_be_missing() {
        let read = |text: &str| serde_json::from_str::<Document>(text).map(|document| document.meta.caa_identities);
        assert_eq!(read(r#"{"newNonce":"x","meta":{"caaIdentities":["ca.test"],"website":"w"}}"#).unwrap(), ["ca.test"]);
        assert_eq!(read(r#"{"newNonce":"x"}"#).unwrap(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_directory_that_nobody_serves_is_said() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let root = rcgen::generate_simple_self_signed(vec!["ca.test".to_owned()]).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), root.cert.pem()).unwrap();
        // A port that was free a moment ago.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let url = format!("https://user:hidden@127.0.0.1:{port}/dir");
        let directory = Directory { name: "gone".into(), ca_file: Some(file.path().to_owned()), ..Directory::at(&url) };
        let error = get(&directory).await.unwrap_err();
        assert!(error.to_lowercase().contains("refused") && !error.contains("hidden"), "{error}");
    }
}
