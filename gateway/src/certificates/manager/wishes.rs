//! From the configuration to what the planner wants and the issuer is asked for.

use std::sync::Arc;

use super::super::planner::{Order, Wanted, Why};
use crate::{
    config::Certificate,
    issuer::{Fallback, IssueRequest, Paid, PrivateKeyPem, Replaces},
};

/// What the planner wants to know.
pub(super) fn wanted(certificate: &Certificate) -> Wanted {
    let deployment = &certificate.deployment;
    let goes = !deployment.files.is_empty() || !deployment.secrets.is_empty() || !deployment.notifications.is_empty();
    Wanted {
        name: certificate.name.to_string(),
        names: certificate.names.to_strings(),
        directories: certificate.directories.iter().map(|directory| directory.url.clone()).collect(),
        wish: wish(certificate),
        renew_before: certificate.renew_before,
        deployment: if goes { deployment.fingerprint() } else { String::new() },
        dry_run: certificate.dry_run,
    }
}

/// A fingerprint of all that makes it another certificate: names, whatever their order, kind of key, CA and profile. Another fallback is no reason to renew.
fn wish(certificate: &Certificate) -> String {
    let mut names = certificate.names.to_strings();
    names.sort();
    let first = certificate.directories.first();
    let url = first.map_or("", |directory| directory.url.as_str());
    let profile = first.and_then(|directory| directory.profile.as_deref()).unwrap_or_default();
    let text = [certificate.key_type.as_str(), url, profile, &names.join(" ")].join("\n");
    blake3::hash(text.as_bytes()).to_hex().get(..32).unwrap_or_default().to_owned()
}

/// What the issuer is asked for; `None` if no directory of the certificate is the one that the order begins with.
pub(super) fn request(certificate: &Certificate, order: &Order, key: Option<PrivateKeyPem>) -> Option<IssueRequest> {
    let mut directories = certificate
        .directories
        .iter()
        .skip_while(|directory| directory.url != order.directory)
        .map(|directory| Arc::unwrap_or_clone(directory.clone()));
    let first = directories.next()?;
    let taken = (order.why != Why::UnderWay).then(|| order.taken.clone());
    let certificate_id = order.replaces.as_deref().and_then(|id| id.parse().ok());
    Some(IssueRequest {
        fallbacks: directories.map(Fallback).collect(),
        key_type: certificate.key_type,
        key,
        replaces: certificate_id.map(|certificate| Replaces { directory: order.directory.clone(), certificate }),
        paid: Some(Paid { directory: order.directory.clone(), kind: order.kind, taken }),
        ..IssueRequest::of(certificate.names.to_strings(), first)
    })
}
