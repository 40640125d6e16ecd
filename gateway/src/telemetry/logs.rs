//! Logs: structured, to standard error, as text where a person reads along and as JSON lines elsewhere.

use std::{backtrace::Backtrace, io::IsTerminal, panic::PanicHookInfo, str::FromStr};

use clap::ValueEnum;
use tracing_subscriber::{EnvFilter, fmt::SubscriberBuilder, util::SubscriberInitExt};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// Text.
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged: `error`, `warn`, `info`, `debug`, `trace`, `off`, or a filter such as `info,authdns=debug`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level(String);

/// A text that is no log level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a log level: use error, warn, info, debug, trace, off, or a filter such as info,authdns=debug")]
pub struct BadLevel(String);

/// Our own crates; the level that a person gives is about these.
const OWN: [&str; 4] = ["acmegate", "gateway", "authdns", "providers"];

/// Logs each failed request of its own as an error; whoever made the request says what it means.
const SAID_BY_US: &str = "kube_client";

impl FromStr for Level {
    type Err = BadLevel;

    fn from_str(text: &str) -> Result<Self, BadLevel> {
        let plain = text.trim().to_ascii_lowercase();
        // What our dependencies say one level down is the noise of every request.
        let others = match plain.as_str() {
            "off" | "error" => plain.as_str(),
            "warn" | "info" | "debug" => "warn",
            "trace" => "debug",
            "" => return Err(BadLevel(text.to_owned())),
            // A filter, as tracing-subscriber reads it; a word that is no level would be taken for a module's name.
            _ => {
                let is_level = |word: &str| word.contains('=') || word.parse::<tracing::level_filters::LevelFilter>().is_ok();
                let valid = plain.split(',').all(|word| is_level(word.trim())) && EnvFilter::try_new(&plain).is_ok();
                return if valid { Ok(Self(plain)) } else { Err(BadLevel(text.to_owned())) };
            }
        };
        let mut own: Vec<String> = OWN.iter().map(|own| format!("{own}={plain}")).collect();
        if others != "debug" {
            own.push(format!("{SAID_BY_US}=off"));
        }
        Ok(Self(format!("{others},{}", own.join(","))))
    }
}

/// Starts logging, of panics too. Later calls change nothing.
pub fn start_logs(level: &Level, format: LogFormat) {
    let json = match format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let colours = !json && std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = SubscriberBuilder::default()
        .with_env_filter(EnvFilter::new(&level.0))
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        // A closed standard error must not take the server down, as the message about it would.
        .log_internal_errors(false);
    // Fails only if a subscriber is there already, in tests.
    let started = if json { lines.json().flatten_event(true).with_span_list(false).finish().try_init() } else { lines.finish().try_init() };
    if started.is_ok() {
        std::panic::set_hook(Box::new(log_panic));
    }
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("no message");
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
    let backtrace = Backtrace::capture();
    tracing::error!(message, location, thread, %backtrace, "panic: this is a defect of acmegate, please report it");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_about_our_own_crates() {
        let level: Level = "Debug".parse().expect("a level");
        assert_eq!(level.0, "warn,acmegate=debug,gateway=debug,authdns=debug,providers=debug,kube_client=off");
        assert_eq!("info,hickory_proto=trace".parse(), Ok(Level("info,hickory_proto=trace".to_owned())));
    }

    #[test]
    fn what_is_no_level_is_refused() {
        for text in ["", "loud", "info,loud", "authdns=loud", "verbose"] {
            assert_eq!(text.parse::<Level>(), Err(BadLevel(text.to_owned())));
        }
    }
}
