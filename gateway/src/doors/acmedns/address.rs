//! Whose address a request comes from, and whether an account lets it in.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderName};
use ipnet::{IpNet, Ipv4Net};

/// Believes a header from the proxies that it was told to trust, and from nobody else.
#[derive(Debug)]
pub(super) struct ClientAddress {
    header: Option<HeaderName>,
    trusted: Vec<IpNet>,
}

impl ClientAddress {
    pub(super) fn new(header: &str, trusted: &[IpNet]) -> Self {
        Self { header: HeaderName::from_bytes(header.as_bytes()).ok(), trusted: trusted.iter().copied().map(canonical_net).collect() }
    }

    /// The client's address. Behind trusted proxies it is the rightmost address in the header that is not itself a trusted proxy: what stands left of
    /// it was written by the client. `None` if that cannot be told.
    pub(super) fn of(&self, peer: Option<SocketAddr>, headers: &HeaderMap) -> Option<IpAddr> {
        let peer = peer?.ip().to_canonical();
        let Some(header) = self.header.as_ref().filter(|_| self.is_trusted(peer)) else { return Some(peer) };
        let mut client = peer;
        // Several header lines are one list, in order (RFC 9110, 5.3).
        for line in headers.get_all(header).into_iter().rev() {
            for entry in line.to_str().ok()?.rsplit(',').map(str::trim).filter(|entry| !entry.is_empty()) {
                client = parse_address(entry)?;
                if !self.is_trusted(client) {
                    return Some(client);
                }
            }
        }
        Some(client)
    }

    fn is_trusted(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|net| net.contains(&address))
    }
}

/// True if an account with this list of networks lets this client in.
pub(super) fn is_allowed(allowfrom: Option<&[IpNet]>, client: Option<IpAddr>) -> bool {
    match (allowfrom, client) {
        (None, _) => true,
        (Some(nets), Some(client)) => nets.iter().any(|net| net.contains(&client)),
        (Some(_), None) => false,
    }
}

/// Reads a network as the original does: brackets around IPv6 are dropped, a prefix length is needed, host bits may be set.
pub(super) fn parse_net(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    IpNet::new(address.parse().ok()?, length.parse().ok()?).ok()
}

/// IPv4 networks written as IPv6 become IPv4, as the addresses do that they are compared with.
pub(super) fn canonical_net(net: IpNet) -> IpNet {
    match (net.addr().to_canonical(), net.prefix_len().checked_sub(96)) {
        (IpAddr::V4(address), Some(length)) if matches!(net, IpNet::V6(_)) => Ipv4Net::new(address, length).map_or(net, IpNet::V4),
        _ => net,
    }
}

/// An address as proxies write it: bare, with a port, IPv6 in brackets or not.
fn parse_address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip())).ok()?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, lines: &[&str]) -> Option<String> {
        let trusted = ["192.0.2.0/24", "2001:db8::/32"].map(|net| net.parse().unwrap());
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-forwarded-for", line.parse().unwrap());
        }
        ClientAddress::new("X-Forwarded-For", &trusted).of(Some(peer.parse().unwrap()), &headers).map(|address| address.to_string())
    }

    #[test]
    fn the_header_of_a_stranger_is_not_believed() {
        assert_eq!(client("198.51.100.1:5", &["10.0.0.1"]).as_deref(), Some("198.51.100.1"));
        assert_eq!(client("[::ffff:198.51.100.1]:5", &["10.0.0.1"]).as_deref(), Some("198.51.100.1"));
    }

    #[test]
    fn the_rightmost_untrusted_address_is_the_client() {
        assert_eq!(client("192.0.2.1:5", &["203.0.113.9"]).as_deref(), Some("203.0.113.9"));
        assert_eq!(client("192.0.2.1:5", &["10.0.0.1, 203.0.113.9"]).as_deref(), Some("203.0.113.9"));
        assert_eq!(client("192.0.2.1:5", &["10.0.0.1, 203.0.113.9 , 192.0.2.7"]).as_deref(), Some("203.0.113.9"));
        assert_eq!(client("192.0.2.1:5", &["10.0.0.1, 203.0.113.9", "192.0.2.7, [2001:db8::1]:443"]).as_deref(), Some("203.0.113.9"));
        assert_eq!(client("[2001:db8::1]:5", &["::ffff:203.0.113.9"]).as_deref(), Some("203.0.113.9"));
        assert_eq!(client("192.0.2.1:5", &["203.0.113.9:1234,"]).as_deref(), Some("203.0.113.9"));
    }

    #[test]
    fn with_no_header_the_proxy_is_the_client() {
        assert_eq!(client("192.0.2.1:5", &[]).as_deref(), Some("192.0.2.1"));
        assert_eq!(client("192.0.2.1:5", &["192.0.2.9"]).as_deref(), Some("192.0.2.9"));
    }

    #[test]
    fn what_cannot_be_read_is_nobody() {
        assert_eq!(client("192.0.2.1:5", &["203.0.113.9, unknown"]), None);
        assert_eq!(client("192.0.2.1:5", &["unknown, 203.0.113.9"]).as_deref(), Some("203.0.113.9"));
    }

    #[test]
    fn lists_let_in_whom_they_name() {
        let nets: Vec<_> = ["10.0.0.0/8", "::ffff:192.0.2.0/120"].iter().map(|net| canonical_net(net.parse().unwrap())).collect();
        let allowed = |client: &str| is_allowed(Some(&nets), Some(client.parse().unwrap()));
        assert!(allowed("10.1.2.3"));
        assert!(allowed("192.0.2.200"));
        assert!(!allowed("192.0.3.1"));
        assert!(!allowed("::1"));
        assert!(is_allowed(None, None));
        assert!(!is_allowed(Some(&nets), None));
    }

    #[test]
    fn networks_as_the_original_reads_them() {
        for good in ["10.1.2.3/24", "0.0.0.0/0", "2001:db8::/32", "::ffff:10.0.0.0/104", "10.0.0.0/08"] {
            assert!(parse_net(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "10.0.0.1",
            "10.0.0.0/33",
            "010.0.0.0/8",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "fe80::1%eth0/64",
            "::/129",
            "example.com/8",
        ] {
            assert_eq!(parse_net(bad), None, "{bad}");
        }
    }
}
