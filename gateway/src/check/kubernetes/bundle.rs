//! The rung `ca_bundle`: will the API server believe the certificate that the webhook door shows?

use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{
    super::report::{Outcome, Rung, RungId},
    apiservice::{is_available, service},
    door::{Served, name_of},
    text::{MOST_SHOWN, first, short},
};

const ID: RungId = RungId::CaBundle;
/// From here on a person is told that it ends: enough for two weeks of holidays.
const ENDS_SOON: i64 = 14 * 24 * 3600;
/// By which cert-manager's CA injector knows what to write.
const INJECTED_FROM: &str = "cert-manager.io/inject-ca-from";
/// What a PEM text begins with in base64.
const ENCODED_PEM: &[u8] = b"LS0tLS1CRUdJTi";

/// `found` is `None` if the APIService is not known, `served` is if it leads nowhere; `self_made` if acmegate itself writes the bundle.
pub(super) fn judge(found: Option<&APIService>, served: Option<&Served>, self_made: bool, now: UnixTime) -> Rung {
    let (Some(api), Some(served)) = (found, served) else {
        return Rung::skipped(ID, "there is no APIService to look at: see the rung `apiservice`");
    };
    let spec = api.spec.as_ref();
    if spec.and_then(|spec| spec.insecure_skip_tls_verify) == Some(true) {
        return Rung::failed(
            ID,
            "the APIService says insecureSkipTLSVerify: the API server hands every challenge to whoever answers at the Service's address, and believes what it says",
            "remove it, and have caBundle written (the chart does)",
        );
    }
    let bundle = spec.and_then(|spec| spec.ca_bundle.as_ref()).map(|bundle| bundle.0.as_slice()).unwrap_or_default();
    if bundle.is_empty() {
        return Rung::failed(ID, "the APIService has no caBundle: the API server trusts public authorities alone", writer(api, self_made));
    }
    let given: Vec<CertificateDer<'_>> = CertificateDer::pem_slice_iter(bundle).collect::<Result<_, _>>().unwrap_or_default();
    // Go leaves out what it cannot read.
    let roots: Vec<(&CertificateDer<'_>, X509Certificate<'_>)> =
        given.iter().filter_map(|der| Some((der, X509Certificate::from_der(der).ok()?.1))).collect();
    if roots.is_empty() {
        let why = if bundle.starts_with(ENCODED_PEM) { "it is base64 of base64" } else { "it holds no readable PEM certificate" };
        return Rung::failed(ID, format!("the caBundle of the APIService cannot be used: {why}"), writer(api, self_made));
    }
    let mut evidence = first(roots.iter().map(|(_, root)| format!("in the bundle: {}", described(root))).collect());
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    // Go takes no root whose time is over, webpki would.
    let good: Vec<_> = roots.into_iter().filter(|(_, root)| is_valid(root, seconds)).collect();
    let Some(last) = good.iter().map(|(_, root)| root.validity().not_after.timestamp()).max() else {
        return Rung::failed(ID, "every certificate in the caBundle has expired, or is not valid yet", writer(api, self_made))
            .because(evidence);
    };
    let good: Vec<&CertificateDer<'_>> = good.into_iter().map(|(der, _)| der).collect();
    let rung = match served {
        Served::Nothing(lines) => {
            evidence.extend(lines.iter().take(MOST_SHOWN).cloned());
            let rung = Rung::unseen(
                ID,
                "the caBundle can be read; whether it verifies the certificate that the door shows was not seen, as the door cannot be reached from here",
                "run the check beside `serve`: kubectl exec into the pod",
            );
            // What works needs no proof.
            if is_available(api) == Some(true) {
                Rung::ok(ID, "the caBundle can be read, and the API server, which has just verified the certificate with it, is content")
            } else {
                rung
            }
        }
        Served::Chain { address, chain } => {
            evidence.push(format!("shown at {address}: {}", chain.first().map_or_else(String::new, |leaf| leaf_described(leaf))));
            verified(api, &good, chain, self_made, now)
        }
    };
    let rung = if last - seconds < ENDS_SOON && rung.outcome != Outcome::Failed {
        Rung::warning(ID, format!("the caBundle ends in less than {} days", ENDS_SOON / 86_400), writer(api, self_made))
    } else {
        rung
    };
    rung.because(evidence)
}

fn is_valid(certificate: &X509Certificate<'_>, seconds: i64) -> bool {
    let validity = certificate.validity();
    (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&seconds)
}

fn verified(api: &APIService, roots: &[&CertificateDer<'_>], chain: &[CertificateDer<'_>], self_made: bool, now: UnixTime) -> Rung {
    let Some(name) = service(api).map(|service| name_of(&service)) else {
        return Rung::skipped(ID, "the APIService leads to no Service: see the rung `apiservice`");
    };
    match verify(roots, chain, &name, now) {
        Ok(()) => Rung::ok(ID, format!("the caBundle verifies the certificate that the door shows for {name}")),
        // The API server itself verified it within the last half minute.
        Err(why) if is_available(api) == Some(true) => Rung::warning(
            ID,
            format!("the certificate that is shown here is not one for the API server ({why}), and yet that reaches the door"),
            "look again in a minute: either one of the two has just changed, or what listens here is not what the Service leads to",
        ),
        Err(why) => {
            Rung::failed(ID, format!("the API server cannot verify the certificate that the door shows: {why}"), writer(api, self_made))
        }
    }
}

/// As the API server does: by these roots, for this name, now (RFC 5280, 6; RFC 9525).
fn verify(roots: &[&CertificateDer<'_>], chain: &[CertificateDer<'_>], name: &str, now: UnixTime) -> Result<(), String> {
    let (leaf, intermediates) = chain.split_first().ok_or("there is none")?;
    let broken = |error: webpki::Error| match error {
        // The second: it bears the same name, but has another key, as an authority that was made anew.
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
            "no certificate of the bundle has signed it".to_owned()
        }
        webpki::Error::CertNotValidForName(_) => format!("it is not for {name}"),
        webpki::Error::CertExpired { .. } => "it has expired".to_owned(),
        webpki::Error::CertNotValidYet { .. } => "it is not valid yet: look at the clocks".to_owned(),
        other => other.to_string(),
    };
    let end_entity = EndEntityCert::try_from(leaf).map_err(broken)?;
    let anchors: Vec<_> = roots.iter().filter_map(|root| anchor_from_trusted_cert(root).ok()).collect();
    match end_entity.verify_for_usage(ALL_VERIFICATION_ALGS, &anchors, intermediates, now, KeyUsage::server_auth(), None, None) {
        Ok(_) => {}
        // An authority that shows its own certificate: Go takes whatever stands in the bundle itself.
        Err(webpki::Error::CaUsedAsEndEntity) if roots.contains(&leaf) => {}
        Err(error) => return Err(broken(error)),
    }
    let name = ServerName::try_from(name).map_err(|error| error.to_string())?;
    end_entity.verify_is_valid_for_subject_name(&name).map_err(broken)
}

/// Who has to write the bundle, and where to look if they do not.
fn writer(api: &APIService, self_made: bool) -> String {
    let annotation = api.metadata.annotations.as_ref().and_then(|annotations| annotations.get(INJECTED_FROM)).map(|from| short(from));
    match annotation {
        _ if self_made => "acmegate itself writes it while `serve` runs: see the rung `rights`, and the log of `serve` for \"APIService\"".to_owned(),
        Some(from) => {
            let (namespace, name) = from.split_once('/').unwrap_or(("default", &from));
            format!(
                "cert-manager's CA injector writes it: is the Certificate Ready (kubectl --namespace {namespace} describe certificate {name}), is its Secret the one \
                 that the pod mounts, and does the deployment cert-manager-cainjector run"
            )
        }
        None => "write the authority of webhook.tls into spec.caBundle of the APIService, or have cert-manager's CA injector do it by the annotation \
                 cert-manager.io/inject-ca-from: NAMESPACE/CERTIFICATE"
            .to_owned(),
    }
}

fn described(certificate: &X509Certificate<'_>) -> String {
    format!("{}, until {}", short(&certificate.subject().to_string()), day(certificate))
}

/// A server's certificate is what it is for.
fn leaf_described(leaf: &CertificateDer<'_>) -> String {
    let Ok((_, certificate)) = X509Certificate::from_der(leaf) else { return "no readable certificate".to_owned() };
    let names = certificate.subject_alternative_name().ok().flatten().map(|extension| &extension.value.general_names);
    let names = names.into_iter().flatten().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(*name),
        _ => None,
    });
    let names = names.take(MOST_SHOWN).collect::<Vec<_>>().join(", ");
    format!("for {}, until {}", if names.is_empty() { "no name".to_owned() } else { short(&names) }, day(&certificate))
}

fn day(certificate: &X509Certificate<'_>) -> String {
    let end = jiff::Timestamp::from_second(certificate.validity().not_after.timestamp());
    end.map_or_else(|_| "the end of time".to_owned(), |end| end.strftime("%F").to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use k8s_openapi::ByteString;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
    use serde_json::json;

    use super::{
        super::super::report::Outcome::{Failed, Ok as Fine, Skipped, Warning},
        *,
    };

    const NAME: &str = "gate.dns.svc";

    fn authority(last_year: i32) -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "the\u{202e} authority");
        params.not_after = date_time_ymd(last_year, 1, 1);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn shown(issuer: &CertifiedIssuer<'static, KeyPair>, name: &str, last_year: i32) -> Served {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_after = date_time_ymd(last_year, 1, 1);
        let leaf = params.signed_by(&KeyPair::generate().unwrap(), issuer).unwrap();
        Served::Chain { address: "127.0.0.1:8443".parse().unwrap(), chain: vec![leaf.der().clone()] }
    }

    fn api(bundle: &[u8], available: &str) -> APIService {
        let mut api: APIService = serde_json::from_value(json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"annotations": {INJECTED_FROM: "dns/gate-tls"}},
            "spec": {"groupPriorityMinimum": 1, "versionPriority": 1, "service": {"name": "gate", "namespace": "dns"}},
            "status": {"conditions": [{"type": "Available", "status": available}]},
        }))
        .unwrap();
        api.spec.as_mut().unwrap().ca_bundle = Some(ByteString(bundle.to_vec()));
        api
    }

    /// The first of a year, at noon.
    fn year(year: i16) -> UnixTime {
        let date = jiff::civil::date(year, 1, 1).at(12, 0, 0, 0).to_zoned(jiff::tz::TimeZone::UTC).unwrap();
        UnixTime::since_unix_epoch(Duration::from_secs(date.timestamp().as_second().unsigned_abs()))
    }

    #[test]
    fn the_bundle_has_to_verify_what_the_door_shows() {
        let (ours, theirs, old) = (authority(2040), authority(2040), authority(2025));
        let both = format!("{}{}", old.pem(), ours.pem());
        let nothing = || Served::Nothing(vec!["127.0.0.1:8443: Connection refused".to_owned()]);
        let twice = data_encoding::BASE64.encode(ours.pem().as_bytes());
        let now = year(2030);
        for (bundle, available, served, outcome, said) in [
            (ours.pem(), "False", shown(&ours, NAME, 2031), Fine, "verifies the certificate that the door shows for gate.dns.svc"),
            (both.clone(), "False", shown(&ours, NAME, 2031), Fine, "verifies"),
            (theirs.pem(), "False", shown(&ours, NAME, 2031), Failed, "no certificate of the bundle has signed it"),
            (theirs.pem(), "True", shown(&ours, NAME, 2031), Warning, "and yet that reaches the door"),
            (ours.pem(), "False", shown(&ours, "gate.other.svc", 2031), Failed, "it is not for gate.dns.svc"),
            (ours.pem(), "False", shown(&ours, NAME, 2029), Failed, "it has expired"),
            (old.pem(), "False", shown(&old, NAME, 2031), Failed, "every certificate in the caBundle has expired"),
            (both, "False", shown(&old, NAME, 2031), Failed, "no certificate of the bundle has signed it"),
            (ours.pem(), "False", nothing(), Skipped, "cannot be reached from here"),
            (ours.pem(), "True", nothing(), Fine, "is content"),
            (String::new(), "False", nothing(), Failed, "has no caBundle"),
            ("x".to_owned(), "False", nothing(), Failed, "holds no readable PEM certificate"),
            (twice, "False", nothing(), Failed, "it is base64 of base64"),
        ] {
            let rung = judge(Some(&api(bundle.as_bytes(), available)), Some(&served), false, now);
            assert_eq!(rung.outcome, outcome, "{rung:?}");
            assert!(rung.summary.contains(said), "{rung:?}");
            assert!(outcome != Failed || rung.next.as_deref().unwrap().contains("describe certificate gate-tls"), "{rung:?}");
            assert!(!rung.evidence.join("").contains('\u{202e}'), "{rung:?}");
        }
        let made = judge(Some(&api(theirs.pem().as_bytes(), "False")), Some(&shown(&ours, NAME, 2031)), true, now);
        assert!(made.next.unwrap().starts_with("acmegate itself writes it"));
    }

    #[test]
    fn an_end_is_told_before_it_comes() {
        let ours = authority(2031);
        let day = |days: i64| {
            let end = jiff::civil::date(2031, 1, 1).to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp().as_second();
            UnixTime::since_unix_epoch(Duration::from_secs((end - days * 86_400).unsigned_abs()))
        };
        let judge = |days| judge(Some(&api(ours.pem().as_bytes(), "True")), Some(&shown(&ours, NAME, 2031)), false, day(days)).outcome;
        assert_eq!([15, 13, -1].map(judge), [Fine, Warning, Failed]);
    }

    #[test]
    fn who_trusts_everybody_is_told_why_not_to() {
        let ours = authority(2040);
        let mut trusting = api(ours.pem().as_bytes(), "True");
        trusting.spec.as_mut().unwrap().insecure_skip_tls_verify = Some(true);
        let rung = judge(Some(&trusting), Some(&shown(&ours, NAME, 2031)), false, year(2030));
        assert!(rung.outcome == Failed && rung.summary.contains("whoever answers"), "{rung:?}");
        assert_eq!(judge(None, None, false, year(2030)).outcome, Skipped);
    }

    /// What Go's verifier takes, and webpki would not.
    #[test]
    fn an_authority_may_show_itself() {
        let mut params = CertificateParams::new([NAME.to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let own = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let served = Served::Chain { address: "127.0.0.1:8443".parse().unwrap(), chain: vec![own.der().clone()] };
        let judge = |bundle: &str| judge(Some(&api(bundle.as_bytes(), "False")), Some(&served), false, year(2030)).outcome;
        assert_eq!([judge(&own.pem()), judge(&authority(2040).pem())], [Fine, Failed]);
    }
}
