//! `acmegate config check`: what a valid configuration opens.

use std::{net::SocketAddr, path::Path};

use providers::zones::Allowed;

use super::say;
use crate::config::Config;

pub(super) fn run(file: Option<&Path>, config: &Config) {
    match file {
        Some(file) => say(&format!("{}: valid", file.display())),
        None => say("no configuration file: the embedded defaults"),
    }
    let mut closed = Vec::new();
    let mut door = |name: &'static str, listen: Option<&[SocketAddr]>, more: String| match listen {
        Some(listen) => say(&format!("  {name}: {}{more}", listen.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))),
        None => closed.push(name),
    };
    let zones = config.dns.as_ref().map(|dns| dns.zones.iter().map(|zone| zone.name.to_relative_string()).collect::<Vec<_>>().join(", "));
    door("dns", config.dns.as_ref().map(|dns| dns.listen.as_slice()), zones.map_or_else(String::new, |zones| format!(" serving {zones}")));
    door("acmedns", config.acmedns.as_ref().map(|door| door.listen.as_slice()), String::new());
    door("webhook", config.webhook.as_ref().map(|door| door.listen.as_slice()), String::new());
    door("metrics", config.metrics.as_ref().map(|door| door.listen.as_slice()), String::new());
    if !closed.is_empty() {
        say(&format!("  closed: {}", closed.join(", ")));
    }
    for backend in &config.backends {
        say(&format!("  backend {}: {} ({})", backend.name, backend.kind.id, backend.kind.title));
        let zones: Vec<String> = backend.zones.iter().map(zone).collect();
        say(&format!(
            "    zones: {}",
            if zones.is_empty() { "every one that the credential can see".to_owned() } else { zones.join(", ") }
        ));
        for (key, place) in backend.settings.secrets() {
            say(&format!("    {key}: from {place}"));
        }
    }
    let directories: Vec<_> = config.issuer.directories.iter().map(|directory| directory.name.as_str()).collect();
    say(&format!("  directories: {}", if directories.is_empty() { "none".to_owned() } else { directories.join(", ") }));
    say(&format!("  data: {}", config.data.display()));
    for warning in config.warnings() {
        say(&format!("  warning: {warning}"));
    }
}

fn zone(zone: &Allowed) -> String {
    let name = zone.name.to_relative_string();
    match &zone.id {
        Some(id) => format!("{name} (id {id})"),
        None => name,
    }
}
