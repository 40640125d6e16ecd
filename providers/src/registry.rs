//! The one table of providers.

use crate::{Kind, acmedns, azuredns, clouddns, cloudflare, digitalocean, powerdns, rfc2136, route53};

/// Every provider, by identifier.
pub const KINDS: &[Kind] = &[
    Kind::of::<acmedns::Settings>(),
    Kind::of::<azuredns::Settings>(),
    Kind::of::<clouddns::Settings>(),
    Kind::of::<cloudflare::Settings>(),
    Kind::of::<digitalocean::Settings>(),
    Kind::of::<powerdns::Settings>(),
    Kind::of::<rfc2136::Settings>(),
    Kind::of::<route53::Settings>(),
];

/// The provider that `provider: ID` means.
pub fn kind(id: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.id == id)
}
