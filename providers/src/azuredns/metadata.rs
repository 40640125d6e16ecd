//! The token services on the machine itself: the metadata service of virtual machines, and what App Service and Container Apps have in its place.

use std::{net::IpAddr, time::Duration};

use reqwest::{
    Url,
    header::{HeaderName, HeaderValue},
};
use secrecy::{ExposeSecret, SecretString};

use crate::{
    Error,
    http::{Http, Reply},
};

/// Where virtual machines find it.
const METADATA: &str = "http://169.254.169.254";
/// It is on the same machine: whoever has to wait longer is not at Azure.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the metadata service of a virtual machine.
pub(super) async fn virtual_machine(http: &Http, endpoint: Option<&str>, audience: &str, client_id: Option<&str>) -> Result<Reply, Error> {
    let mut url = service(endpoint.unwrap_or(METADATA)).map_err(Error::Auth)?;
    url.set_path("/metadata/identity/oauth2/token");
    query(&mut url, "2018-02-01", audience, client_id);
    // The header keeps those out who can make a server fetch a URL, and no more.
    http.send(http.client().get(url).header("Metadata", "true").timeout(PATIENCE)).await
}

/// Asks the service of App Service or Container Apps, which the environment names.
pub(super) async fn app_service(
    http: &Http,
    endpoint: &str,
    header: &SecretString,
    audience: &str,
    client_id: Option<&str>,
) -> Result<Reply, Error> {
    let mut url = nearby(endpoint).map_err(Error::Auth)?;
    query(&mut url, "2019-08-01", audience, client_id);
    let mut header = HeaderValue::from_str(header.expose_secret())
        .map_err(|_| Error::Auth("the environment variable IDENTITY_HEADER is no value for a header".to_owned()))?;
    header.set_sensitive(true);
    http.send(http.client().get(url).header(HeaderName::from_static("x-identity-header"), header).timeout(PATIENCE)).await
}

fn query(url: &mut Url, version: &str, audience: &str, client_id: Option<&str>) {
    let mut pairs = url.query_pairs_mut();
    pairs.append_pair("api-version", version).append_pair("resource", audience);
    if let Some(id) = client_id {
        pairs.append_pair("client_id", id);
    }
}

/// The URL of a metadata service: its own address, or one of loopback.
pub(super) fn service(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("managed_identity: endpoint: {text} is no URL: {error}"))?;
    let near = address(&url).is_some_and(|ip| ip.is_loopback() || ip == IpAddr::from([169, 254, 169, 254]));
    if url.scheme() == "http" && near {
        return Ok(url);
    }
    Err(format!("managed_identity: endpoint: {text} is not the metadata service: only {METADATA} and loopback are taken"))
}

/// The URL in `IDENTITY_ENDPOINT`: plain HTTP to this machine (loopback, or a link-local address that the host answers).
fn nearby(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("the environment variable IDENTITY_ENDPOINT is no URL: {error}"))?;
    let near = url.host_str() == Some("localhost")
        || address(&url).is_some_and(|ip| ip.is_loopback() || matches!(ip, IpAddr::V4(ip) if ip.is_link_local()));
    match url.scheme() {
        "https" => Ok(url),
        "http" if near => Ok(url),
        _ => Err("the environment variable IDENTITY_ENDPOINT leads away from this machine without HTTPS".to_owned()),
    }
}

fn address(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_matches(['[', ']']).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_asked_for_on_this_machine_alone() {
        assert!(service(METADATA).is_ok() && service("http://127.0.0.1:8080").is_ok() && service("http://[::1]:1").is_ok());
        for bad in ["http://169.254.169.253", "http://metadata.example.com", "https://169.254.169.254", "http://10.0.0.1", "x"] {
            assert!(service(bad).is_err(), "{bad}");
        }
        for good in ["http://169.254.255.2:8081/msi/token", "http://localhost:42356/msi/token", "https://msi.example.com/"] {
            assert!(nearby(good).is_ok(), "{good}");
        }
        assert!(nearby("http://msi.example.com/").is_err());
    }
}
