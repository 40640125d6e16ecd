//! The command line: what may be asked, and the exit code of each answer.

mod accounts;
mod certificates;
mod check;
mod config_check;
mod deploy;
mod directory;
mod failure;
mod here;
mod issue;
mod lifecycle;
mod policy;
mod progress;
mod serve;
mod sweep;
mod tasks;

use std::{
    io::{self, Write},
    path::PathBuf,
};

use clap::{Args, Parser, Subcommand};

pub use failure::Failure;

use crate::{
    config::{self, Config},
    telemetry::{Level, LogFormat, start_logs},
};

/// DNS-01 without handing out the keys of your DNS: acme-dns server, cert-manager webhook, authoritative DNS and ACME issuer in one program.
#[derive(Debug, Parser)]
#[command(
    name = "acmegate",
    version,
    propagate_version = true,
    after_help = "Exit codes: 0 done; 1 failed; 2 wrong usage or configuration; 75 try again later."
)]
pub struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
struct Options {
    /// Configuration file; without one, embedded defaults open every door on loopback
    #[arg(long, global = true, value_name = "FILE", env = "ACMEGATE_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// What is logged to standard error: error, warn, info, debug, trace, off, or a filter such as info,authdns=debug; by default info for serve, error
    /// for the others
    #[arg(long, global = true, value_name = "LEVEL", env = "ACMEGATE_LOG", hide_env_values = true)]
    log_level: Option<Level>,
    /// How log lines look; auto is text on a terminal and JSON elsewhere
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        env = "ACMEGATE_LOG_FORMAT",
        hide_env_values = true,
        default_value = "auto",
        value_enum
    )]
    log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway: DNS server, acme-dns and webhook doors, metrics
    Serve,
    /// Get a certificate: through the running gateway, or on its own
    Issue(Box<issue::IssueArgs>),
    /// Check everything that a certificate for one name needs, or cert-manager in a cluster, and say what to do where something is in the way
    Check(check::CheckArgs),
    /// Look after the certificates of the list that keeps itself valid
    #[command(subcommand)]
    Certificates(certificates::CertificatesCommand),
    /// Look after the accounts at CAs
    #[command(subcommand)]
    Accounts(accounts::AccountsCommand),
    /// Find values that acmegate left behind in DNS, and remove them
    Sweep(sweep::SweepArgs),
    /// Ask the rules by which the webhook door decides who may have what written
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check the configuration file and show every error in it
    Check,
    /// Print a configuration file with every key, its meaning and its default
    Example,
    /// Print the JSON Schema of the configuration file, for editors and other tools
    Schema,
}

/// Runs a command to its end.
///
/// # Errors
/// [`Failure`] with its text and exit code.
pub fn run(cli: Cli) -> Result<(), Failure> {
    let Options { config, log_level, log_format } = cli.options;
    let default_level = if matches!(cli.command, Command::Serve) { "info" } else { "error" };
    let level = log_level.map_or_else(|| default_level.parse().map_err(Failure::usage), Ok)?;
    start_logs(&level, log_format);
    let load = || Config::load(config.as_deref()).map_err(Failure::usage);
    match cli.command {
        Command::Serve => serve::run(load()?),
        Command::Issue(args) => issue::run(&args, load()?),
        Command::Check(args) => check::run(&args, load()?),
        Command::Certificates(command) => certificates::run(&command, load()?),
        Command::Accounts(command) => accounts::run(&command, load()?),
        Command::Sweep(args) => sweep::run(&args, load()?),
        Command::Policy(policy::PolicyCommand::Test(args)) => policy::run(&args, &load()?),
        Command::Config(ConfigCommand::Check) => {
            config_check::run(config.as_deref(), &load()?);
            Ok(())
        }
        Command::Config(ConfigCommand::Example) => {
            say(config::example().trim_end());
            Ok(())
        }
        Command::Config(ConfigCommand::Schema) => {
            say(&format!("{:#}", config::schema()));
            Ok(())
        }
    }
}

/// Prints a line to standard output. That nobody reads it is no reason to stop: a server whose standard output was closed goes on.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_stand_before_and_after_the_command() {
        for line in ["acmegate --config a.yaml --log-level debug serve", "acmegate serve --config a.yaml --log-level debug"] {
            let cli = Cli::try_parse_from(line.split(' ')).expect(line);
            assert_eq!(cli.options.config, Some("a.yaml".into()));
            assert!(cli.options.log_level.is_some());
        }
        assert!(Cli::try_parse_from(["acmegate", "serve", "--log-level", "loud"]).is_err());
    }
}
