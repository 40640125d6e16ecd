//! Who may change the zones of a server by dynamic update (RFC 2136), told to each of the servers in its own words.

/// A TSIG key (RFC 8945).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TsigKey {
    /// Its name.
    pub name: String,
    /// Its algorithm, such as `hmac-sha256`.
    pub algorithm: String,
    /// Its secret, in base64.
    pub secret: String,
}

impl TsigKey {
    /// A key whose secret is made of its name.
    pub fn new(name: &str, algorithm: &str) -> Self {
        let secret: String = name.chars().cycle().take(32).collect();
        Self {
            name: name.into(),
            algorithm: algorithm.into(),
            secret: base64::Engine::encode(&base64::engine::general_purpose::STANDARD, secret),
        }
    }
}

/// The keys of a server, and what they may.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Updates {
    /// These may update every zone.
    pub keys: Vec<TsigKey>,
    /// These are known, and may update nothing.
    pub idle: Vec<TsigKey>,
    /// A name that nobody may change (BIND alone).
    pub denied: Option<String>,
}

impl Updates {
    /// Both sorts of keys.
    pub(crate) fn known(&self) -> impl Iterator<Item = &TsigKey> {
        self.keys.iter().chain(&self.idle)
    }
}
