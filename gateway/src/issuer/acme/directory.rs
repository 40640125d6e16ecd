//! A CA's directory (RFC 8555, 7.1.1).

use std::collections::BTreeMap;

use serde::Deserialize;

/// The URLs of a CA, and what it says of itself. What the issuer does not use is not read.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DirectoryDocument {
    pub(super) new_nonce: String,
    pub(super) new_account: String,
    pub(super) new_order: String,
    /// Where keys of accounts are changed, if the CA does that.
    #[serde(default)]
    pub(super) key_change: Option<String>,
    /// Where certificates are revoked.
    #[serde(default)]
    pub(super) revoke_cert: Option<String>,
    /// Where the CA says when it would like a certificate to be renewed (RFC 9773).
    #[serde(default)]
    pub(super) renewal_info: Option<String>,
    #[serde(default)]
    pub(super) meta: Meta,
}

/// What a CA says of itself.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Meta {
    pub(super) external_account_required: bool,
    /// The domains by which CAA records mean this CA (RFC 8555, 9.7.6).
    pub(super) caa_identities: Vec<String>,
    /// What sorts of certificates there are, each with a text for people (draft-ietf-acme-profiles).
    pub(super) profiles: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc_is_read() {
        // RFC 8555, 7.1.1.
        let document: DirectoryDocument = serde_json::from_str(
            r#"{"newNonce":"https://example.com/acme/new-nonce","newAccount":"https://example.com/acme/new-account",
                "newOrder":"https://example.com/acme/new-order","newAuthz":"https://example.com/acme/new-authz",
                "revokeCert":"https://example.com/acme/revoke-cert","keyChange":"https://example.com/acme/key-change",
                "meta":{"termsOfService":"https://example.com/acme/terms/2017-5-30","website":"https://www.example.com/",
                "caaIdentities":["example.com"],"externalAccountRequired":false}}"#,
        )
        .unwrap();
        assert_eq!(document.new_order, "https://example.com/acme/new-order");
        assert_eq!(document.revoke_cert.as_deref(), Some("https://example.com/acme/revoke-cert"));
        assert!(!document.meta.external_account_required && document.renewal_info.is_none());
        assert!(serde_json::from_str::<DirectoryDocument>(r#"{"newNonce":"x"}"#).is_err());
    }
}
