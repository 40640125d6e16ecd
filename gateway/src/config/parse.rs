//! From what is written (`Spec`) to what is valid ([`Config`]): every value is looked at, and every complaint is kept, not just the first.

use std::{
    collections::HashSet,
    fs,
    net::SocketAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use authdns::{Name, StaticRecord, ZoneConfig, Zones};
use ipnet::IpNet;
use providers::Kind;
use secrecy::SecretString;

use super::{
    AcmeDns, BadAccountKeyType, Config, Directory, Dns, Eab, Issuer, Metrics, Propagation, Registration, ResolverAddress, TlsFiles,
    duration,
    problem::Problems,
    spec::{
        AcmeDnsSpec, CertificateSpec, DirectorySpec, DnsSpec, EabSpec, MetricsSpec, OneOrMany, PropagationSpec, RegistrationSpec, Spec,
        TlsSpec, ZoneSpec,
    },
};

/// Largest file that a key of the configuration may name: keys and tokens are small, and a wrong path must not fill the memory.
const MAX_SECRET_FILE: u64 = 1 << 20;

/// The valid configuration; `None` if anything was wrong, which then stands in `problems`.
pub(super) fn parse(mut spec: Spec, kinds: &[Kind], problems: &mut Problems) -> Option<Config> {
    let certificates = std::mem::take(&mut spec.certificates);
    let mut parser = Parser { kinds, problems };
    let config = parser.config(&spec, certificates);
    if parser.problems.is_empty() { config } else { None }
}

pub(super) struct Parser<'a> {
    /// The providers that a backend can be.
    pub(super) kinds: &'a [Kind],
    problems: &'a mut Problems,
}

impl Parser<'_> {
    /// Notes a complaint about the value at `path`.
    pub(super) fn wrong(&mut self, path: &str, message: impl Into<String>) {
        self.problems.add_at(path, message.into());
    }

    /// The certificates come apart, so that each can be dropped when it is read: there may be very many.
    fn config(&mut self, spec: &Spec, certificates: Vec<CertificateSpec>) -> Option<Config> {
        if spec.data.as_os_str().is_empty() {
            self.wrong("data", "is empty: name a folder, such as ./acmegate-data");
        }
        let dns = spec.dns.as_ref().map(|dns| self.dns(dns));
        let zones: Vec<Name> = dns.iter().flatten().flat_map(|dns| dns.zones.iter().map(|zone| zone.name.clone())).collect();
        let propagation = self.propagation(&spec.propagation);
        let acmedns = spec.acmedns.as_ref().map(|door| self.acmedns(door, &zones));
        let webhook = spec.webhook.as_ref().map(|door| self.webhook(door, &spec.backends));
        let kubernetes = spec.kubernetes.as_ref().map(|kubernetes| self.kubernetes(kubernetes));
        let metrics = spec.metrics.as_ref().map(|door| self.metrics(door));
        let backends = self.backends(&spec.backends);
        let directories = spec.issuer.directories.iter().enumerate();
        let directories: Vec<_> = directories.map(|(index, one)| self.directory(one, &format!("issuer.directories[{index}]"))).collect();
        self.no_directory_twice(&spec.issuer.directories);
        let issuer = directories.into_iter().collect::<Option<_>>().map(|directories| Issuer { directories });
        let certificates = self.certificates(certificates, &spec.issuer.directories, issuer.as_ref());
        Some(Config {
            data: spec.data.clone(),
            dns: flat(dns)?,
            propagation: propagation?,
            acmedns: flat(acmedns)?,
            webhook: flat(webhook)?,
            kubernetes,
            metrics: flat(metrics)?,
            backends: backends?,
            issuer: issuer?,
            certificates: certificates?,
        })
    }

    fn dns(&mut self, spec: &DnsSpec) -> Option<Dns> {
        let listen = self.listen(&spec.listen, "dns.listen");
        if spec.zones.is_empty() {
            self.wrong("dns.zones", "is empty: name a zone to serve, or leave the section dns out");
        }
        let zones: Vec<_> = spec.zones.iter().enumerate().map(|(index, zone)| self.zone(zone, &format!("dns.zones[{index}]"))).collect();
        let zones = zones.into_iter().collect::<Option<Vec<_>>>()?;
        let mut seen = HashSet::new();
        for (index, zone) in zones.iter().enumerate() {
            if !seen.insert(&zone.name) {
                self.wrong(&format!("dns.zones[{index}].name"), format!("the zone {} stands here twice", zone.name));
            }
        }
        for (index, zone) in zones.iter().enumerate() {
            // The server judges what records make a zone. What it warns of is logged when it starts.
            let judge = || Zones::new(vec![zone.clone()]);
            if let Err(error) = tracing::dispatcher::with_default(&tracing::Dispatch::none(), judge) {
                self.wrong(&format!("dns.zones[{index}]"), error.to_string());
            }
        }
        Some(Dns { listen: listen?, zones })
    }

    fn zone(&mut self, spec: &ZoneSpec, path: &str) -> Option<ZoneConfig> {
        let name = self.name(&spec.name, &format!("{path}.name"));
        if name.as_ref().is_some_and(|name| *name == Name::root()) {
            self.wrong(&format!("{path}.name"), "the root cannot be served here");
        }
        let nameservers = self.names(&spec.nameservers, &format!("{path}.nameservers"));
        if spec.nameservers.is_empty() {
            self.wrong(&format!("{path}.nameservers"), "is empty: a zone needs at least one name server");
        }
        let contact = match (&spec.contact, &name) {
            (Some(contact), _) => self.contact(contact, &format!("{path}.contact")),
            (None, Some(name)) => {
                name.prepend(b"hostmaster").map_err(|error| self.wrong(path, format!("hostmaster at the zone: {error}"))).ok()
            }
            (None, None) => None,
        };
        let records = self.records(&spec.records, &format!("{path}.records"));
        let (name, nameservers, records) = (name?, nameservers?, records?);
        for (index, record) in records.iter().enumerate() {
            if !record.owner().is_within(&name) {
                let owner = record.owner();
                self.wrong(&format!("{path}.records[{index}]"), format!("the owner {owner} does not lie in the zone {name}"));
            }
        }
        Some(ZoneConfig { records, ..ZoneConfig::new(name, nameservers, contact?) })
    }

    fn records(&mut self, texts: &[String], path: &str) -> Option<Vec<StaticRecord>> {
        let records = texts.iter().enumerate().map(|(index, text)| match text.parse() {
            Ok(record) => Some(record),
            Err(error) => {
                let message = format!("{text:?} is not a record such as \"www.example.org. 3600 A 198.51.100.1\": {error}");
                self.wrong(&format!("{path}[{index}]"), message);
                None
            }
        });
        records.collect::<Vec<_>>().into_iter().collect()
    }

    /// A mailbox as the SOA record has it (RFC 1035, 3.3.13), from there or from an e-mail address.
    fn contact(&mut self, text: &str, path: &str) -> Option<Name> {
        let Some((local, domain)) = text.rsplit_once('@') else {
            return self.name(text, path);
        };
        let name = domain.parse::<Name>().and_then(|domain| domain.prepend(local.as_bytes())).ok().filter(|_| is_mail_address(text));
        if name.is_none() {
            self.wrong(path, format!("{text:?} is not an e-mail address such as hostmaster@example.org"));
        }
        name
    }

    fn propagation(&mut self, spec: &PropagationSpec) -> Option<Propagation> {
        let resolvers =
            spec.resolvers.iter().enumerate().map(|(index, text)| self.resolver(text, &format!("propagation.resolvers[{index}]")));
        let resolvers = resolvers.collect::<Vec<_>>().into_iter().collect::<Option<Vec<_>>>();
        if let Some(file) = &spec.ca_file {
            self.readable(file, "propagation.ca_file");
            if !resolvers.iter().flatten().any(|resolver| matches!(resolver, ResolverAddress::Https(_))) {
                self.wrong("propagation.ca_file", "has no effect without a resolver over HTTPS among propagation.resolvers");
            }
        }
        let timeout = self.duration(&spec.timeout, "propagation.timeout");
        Some(Propagation { resolvers: resolvers?, ca_file: spec.ca_file.clone(), check: spec.check.into(), timeout: timeout? })
    }

    fn resolver(&mut self, text: &str, path: &str) -> Option<ResolverAddress> {
        const EXAMPLE: &str = "127.0.0.53:53";
        match text.split_once("://") {
            Some(("udp", address)) => self.address(address, path, EXAMPLE).map(ResolverAddress::Udp),
            Some(("tcp", address)) => self.address(address, path, EXAMPLE).map(ResolverAddress::Tcp),
            Some(("https", _)) => {
                let url =
                    reqwest::Url::parse(text).ok().filter(|url| url.has_host() && url.username().is_empty() && url.password().is_none());
                if url.is_none() {
                    self.wrong(path, format!("{text:?} is not a URL such as https://dns.example.org/dns-query"));
                }
                url.map(ResolverAddress::Https)
            }
            Some((scheme, _)) => {
                self.wrong(path, format!("{text:?}: {scheme} is not among udp, tcp and https"));
                None
            }
            None => self.address(text, path, EXAMPLE).map(ResolverAddress::Udp),
        }
    }

    fn acmedns(&mut self, spec: &AcmeDnsSpec, zones: &[Name]) -> Option<AcmeDns> {
        let listen = self.listen(&spec.listen, "acmedns.listen");
        let tls = spec.tls.as_ref().map(|tls| self.tls(tls, "acmedns.tls"));
        let zone = match &spec.zone {
            Some(zone) => self.name(zone, "acmedns.zone"),
            None => zones.first().cloned(),
        };
        match &zone {
            Some(zone) if !zones.contains(zone) => self.wrong("acmedns.zone", format!("{zone} is not among dns.zones: add it there first")),
            None if spec.zone.is_none() => self.wrong("acmedns", "needs a zone for its accounts: add one to dns.zones"),
            _ => {}
        }
        let registration = self.registration(spec);
        let values = NonZeroU32::new(spec.values);
        if values.is_none() {
            self.wrong("acmedns.values", "must be at least 1");
        }
        let lifetime = match spec.lifetime.as_str() {
            "never" => Some(None),
            text => self.duration(text, "acmedns.lifetime").map(Some),
        };
        let prefixes = self.prefixes(&spec.prefixes);
        let trusted_proxies = self.networks(&spec.trusted_proxies, "acmedns.trusted_proxies");
        if spec.client_ip_header.parse::<axum::http::HeaderName>().is_err() {
            self.wrong("acmedns.client_ip_header", format!("{:?} is not the name of an HTTP header", spec.client_ip_header));
        }
        self.origins(&spec.cors_origins);
        Some(AcmeDns {
            listen: listen?,
            tls: flat(tls)?,
            zone: zone?,
            registration: registration?,
            values: values?,
            lifetime: lifetime?,
            prefixes: prefixes?,
            trusted_proxies: trusted_proxies?,
            client_ip_header: spec.client_ip_header.clone(),
            cors_origins: spec.cors_origins.clone(),
        })
    }

    fn registration(&mut self, spec: &AcmeDnsSpec) -> Option<Registration> {
        let has_tokens = spec.tokens_file.is_some() || spec.tokens_env.is_some();
        match spec.registration {
            RegistrationSpec::Token => {}
            other => {
                if has_tokens {
                    let key = if spec.tokens_file.is_some() { "acmedns.tokens_file" } else { "acmedns.tokens_env" };
                    self.wrong(key, "has no effect without \"registration: token\"");
                }
                return Some(if other == RegistrationSpec::Open { Registration::Open } else { Registration::Closed });
            }
        }
        if !has_tokens {
            self.wrong("acmedns.registration", "token needs tokens_file or tokens_env beside it");
            return None;
        }
        let (key, text) = self.secret("acmedns", "tokens", spec.tokens_file.as_deref(), spec.tokens_env.as_deref())?;
        let tokens: Vec<&str> = text.split(|c: char| c.is_whitespace() || c == ',').filter(|token| !token.is_empty()).collect();
        let path_safe = |token: &&str| token.len() >= 16 && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b));
        if tokens.is_empty() {
            self.wrong(&key, "holds no token");
            return None;
        }
        if let Some(number) = tokens.iter().position(|token| !path_safe(token)) {
            let message = format!("token {} must be at least 16 letters, digits, or -._~ (it may be sent as part of a path)", number + 1);
            self.wrong(&key, message);
            return None;
        }
        Some(Registration::Token(tokens.into_iter().map(SecretString::from).collect()))
    }

    /// The paths without their last slash, so that `/update` can be put after them.
    fn prefixes(&mut self, texts: &[String]) -> Option<Vec<String>> {
        if texts.is_empty() {
            self.wrong("acmedns.prefixes", "is empty: \"/\" serves the API without a path before it");
        }
        let mut prefixes = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            let prefix = text.trim_end_matches('/');
            let segment = |segment: &str| !segment.is_empty() && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b));
            if !text.starts_with('/') || !prefix.split('/').skip(1).all(segment) {
                let message = format!("{text:?} is neither / nor a path such as /acme-dns (letters, digits, -._~ and /)");
                self.wrong(&format!("acmedns.prefixes[{index}]"), message);
            } else if !prefixes.iter().any(|known| known == prefix) {
                prefixes.push(prefix.to_owned());
            }
        }
        Some(prefixes)
    }

    fn networks(&mut self, texts: &[String], path: &str) -> Option<Vec<IpNet>> {
        let networks = texts.iter().enumerate().map(|(index, text)| {
            let single = || text.parse::<std::net::IpAddr>().map(IpNet::from);
            let network = text.parse::<IpNet>().or_else(|_| single()).ok();
            if network.is_none() {
                self.wrong(
                    &format!("{path}[{index}]"),
                    format!("{text:?} is not a network such as 10.0.0.0/8 or fd00::/8, nor an address"),
                );
            }
            network
        });
        networks.collect::<Vec<_>>().into_iter().collect()
    }

    fn origins(&mut self, texts: &[String]) {
        for (index, text) in texts.iter().enumerate() {
            let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
            let is_origin =
                host.is_some_and(|host| !host.is_empty() && !host.contains('/')) && axum::http::HeaderValue::from_str(text).is_ok();
            if text != "*" && !is_origin {
                let message = format!("{text:?} is neither * nor an origin such as https://example.org (no path, no last slash)");
                self.wrong(&format!("acmedns.cors_origins[{index}]"), message);
            }
        }
    }

    fn metrics(&mut self, spec: &MetricsSpec) -> Option<Metrics> {
        Some(Metrics { listen: self.listen(&spec.listen, "metrics.listen")? })
    }

    fn directory(&mut self, spec: &DirectorySpec, path: &str) -> Option<Directory> {
        if spec.name.is_empty() || spec.name.contains("://") || spec.name.contains(char::is_whitespace) {
            self.wrong(&format!("{path}.name"), format!("{:?} is not a name such as letsencrypt", spec.name));
        }
        match reqwest::Url::parse(&spec.url) {
            Ok(url) if url.scheme() == "https" && url.has_host() => {}
            _ => self.wrong(&format!("{path}.url"), format!("{:?} is not an https:// URL", spec.url)),
        }
        if let Some(staging) = &spec.staging {
            match reqwest::Url::parse(staging) {
                Ok(url) if url.scheme() == "https" && url.has_host() && *staging != spec.url => {}
                Ok(_) if *staging == spec.url => self.wrong(&format!("{path}.staging"), "is the URL of the directory itself"),
                _ => self.wrong(&format!("{path}.staging"), format!("{staging:?} is not an https:// URL")),
            }
        }
        if let Some(contact) = &spec.contact
            && !is_mail_address(contact)
        {
            self.wrong(&format!("{path}.contact"), format!("{contact:?} is not an e-mail address such as ops@example.org"));
        }
        if let Some(file) = &spec.ca_file {
            self.readable(file, &format!("{path}.ca_file"));
        }
        let eab = spec.eab.as_ref().map(|eab| self.eab(eab, &format!("{path}.eab")));
        let account_key =
            spec.account_key.parse().map_err(|error: BadAccountKeyType| self.wrong(&format!("{path}.account_key"), error.to_string()));
        for (key, text) in [("profile", &spec.profile), ("preferred_chain", &spec.preferred_chain)] {
            if text.as_ref().is_some_and(|text| text.trim().is_empty()) {
                self.wrong(&format!("{path}.{key}"), "is empty: leave it out to take what the CA gives");
            }
        }
        Some(Directory {
            name: spec.name.clone(),
            url: spec.url.clone(),
            contact: spec.contact.clone(),
            ca_file: spec.ca_file.clone(),
            eab: flat(eab)?,
            account_key: account_key.ok()?,
            profile: spec.profile.clone(),
            preferred_chain: spec.preferred_chain.clone(),
            staging: spec.staging.clone().or_else(|| Directory::known_staging(&spec.url).map(str::to_owned)),
        })
    }

    fn no_directory_twice(&mut self, directories: &[DirectorySpec]) {
        let mut seen = HashSet::new();
        for (index, directory) in directories.iter().enumerate() {
            if !seen.insert(&directory.name) {
                self.wrong(&format!("issuer.directories[{index}].name"), format!("{:?} stands here twice", directory.name));
            }
        }
    }

    fn eab(&mut self, spec: &EabSpec, path: &str) -> Option<Eab> {
        if spec.kid.is_empty() {
            self.wrong(&format!("{path}.kid"), "is empty");
        }
        let (key, text) = self.secret(path, "hmac", spec.hmac_file.as_deref(), spec.hmac_env.as_deref())?;
        let hmac = text.trim().trim_end_matches('=');
        if data_encoding::BASE64URL_NOPAD.decode(hmac.as_bytes()).is_ok_and(|key| !key.is_empty()) {
            Some(Eab { kid: spec.kid.clone(), hmac: SecretString::from(hmac) })
        } else {
            self.wrong(&key, "does not hold a base64url text, as the CA gave it");
            None
        }
    }

    /// The text of a secret that stands in a file or in an environment variable, and the key path that named the place. Never part of a message.
    pub(super) fn secret(&mut self, path: &str, name: &str, file: Option<&Path>, variable: Option<&str>) -> Option<(String, String)> {
        let (file_key, env_key) = (format!("{path}.{name}_file"), format!("{path}.{name}_env"));
        match (file, variable) {
            (Some(_), Some(_)) => self.wrong(&env_key, format!("stands beside {name}_file: give one of the two")),
            (None, None) => self.wrong(path, format!("needs {name}_file or {name}_env")),
            (Some(file), None) => return self.secret_file(file, &file_key).map(|text| (file_key, text)),
            (None, Some(variable)) => match std::env::var(variable) {
                Ok(text) => return Some((env_key, text)),
                Err(_) => self.wrong(&env_key, format!("the environment variable {variable} is not set, or not text")),
            },
        }
        None
    }

    fn secret_file(&mut self, file: &Path, path: &str) -> Option<String> {
        let read = fs::metadata(file).and_then(|metadata| {
            if metadata.len() > MAX_SECRET_FILE {
                return Err(std::io::Error::other("it is larger than 1 MiB"));
            }
            fs::read_to_string(file)
        });
        read.map_err(|error| self.wrong(path, format!("{} cannot be read: {error}", file.display()))).ok()
    }

    pub(super) fn tls(&mut self, spec: &TlsSpec, path: &str) -> Option<TlsFiles> {
        self.readable(&spec.certificate, &format!("{path}.certificate"));
        self.readable(&spec.key, &format!("{path}.key"));
        Some(TlsFiles { certificate: spec.certificate.clone(), key: spec.key.clone() })
    }

    pub(super) fn readable(&mut self, file: &PathBuf, path: &str) {
        if let Err(error) = fs::File::open(file)
            .and_then(|file| file.metadata())
            .and_then(|metadata| if metadata.is_dir() { Err(std::io::Error::other("it is a folder")) } else { Ok(()) })
        {
            self.wrong(path, format!("{} cannot be read: {error}", file.display()));
        }
    }

    pub(super) fn listen(&mut self, listen: &OneOrMany, path: &str) -> Option<Vec<SocketAddr>> {
        let entries = listen.entries();
        if entries.is_empty() {
            self.wrong(path, "is empty: name an address, or leave the section out to close the door");
        }
        let mut seen = HashSet::new();
        let addresses = entries.iter().map(|(suffix, text)| {
            let address = self.address(text, &format!("{path}{suffix}"), "127.0.0.1:8080")?;
            if address.port() != 0 && !seen.insert(address) {
                self.wrong(&format!("{path}{suffix}"), format!("{address} stands here twice"));
            }
            Some(address)
        });
        addresses.collect::<Vec<_>>().into_iter().collect()
    }

    fn address(&mut self, text: &str, path: &str, example: &str) -> Option<SocketAddr> {
        let address = text.parse().ok();
        if address.is_none() {
            let why = match text.parse::<std::net::IpAddr>() {
                Ok(ip) => {
                    format!("has no port: write {}", SocketAddr::new(ip, example.parse().map_or(0, |example: SocketAddr| example.port())))
                }
                Err(_) if text.starts_with(':') => {
                    format!("has no address: write 0.0.0.0{text} for every IPv4 address, [::]{text} for every address")
                }
                Err(_) => format!("is not an address with a port, such as {example} or [::1]:8080 (names are not looked up)"),
            };
            self.wrong(path, format!("{text:?} {why}"));
        }
        address
    }

    pub(super) fn duration(&mut self, text: &str, path: &str) -> Option<Duration> {
        let duration = duration::parse(text);
        if duration.is_none() {
            self.wrong(path, format!("{text:?} is not {}", duration::FORM));
        }
        duration
    }

    fn names(&mut self, texts: &[String], path: &str) -> Option<Vec<Name>> {
        let names = texts.iter().enumerate().map(|(index, text)| self.name(text, &format!("{path}[{index}]")));
        names.collect::<Vec<_>>().into_iter().collect()
    }

    pub(super) fn name(&mut self, text: &str, path: &str) -> Option<Name> {
        text.parse().map_err(|error| self.wrong(path, format!("{text:?} is not a domain name: {error}"))).ok()
    }
}

/// `None` if there is a section and it is wrong.
#[expect(clippy::option_option, reason = "outer: was it right; inner: is it there")]
pub(super) fn flat<T>(section: Option<Option<T>>) -> Option<Option<T>> {
    match section {
        Some(None) => None,
        Some(there) => Some(there),
        None => Some(None),
    }
}

/// As far as a CA will look at it (RFC 8555, 7.3): one mailbox, no header fields.
pub fn is_mail_address(text: &str) -> bool {
    let parts = text.split_once('@').filter(|(local, domain)| !local.is_empty() && !domain.is_empty());
    parts.is_some_and(|(_, domain)| !domain.contains('@'))
        && !text.contains(|c: char| c.is_whitespace() || c.is_control() || ",?<>".contains(c))
}
