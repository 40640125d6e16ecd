//! `acmegate accounts`: through the `serve` that holds the data folder, or with the same engine in this process.

use clap::{Args, Subcommand};

use super::{
    Failure,
    directory::DirectoryArgs,
    here::{close, open_alone},
    lifecycle::{Signals, block_on},
    say,
};
use crate::{
    config::{AccountKeyType, Config},
    doors::admin::Client,
    issuer::{AccountAction, AccountReport, AccountRequest, IssueError, Issuer},
};

/// What `acmegate accounts` is told.
#[derive(Debug, Subcommand)]
pub(super) enum AccountsCommand {
    /// List the accounts in the data folder; no CA is asked
    List {
        /// Print them as JSON
        #[arg(long)]
        json: bool,
    },
    /// Ask the CA about the account
    Show(AccountArgs),
    /// Register an account, if there is none; `acmegate issue` does so by itself
    Register(AccountArgs),
    /// Tell the CA the e-mail address of the configuration or of --contact, or that there is none
    Contact(AccountArgs),
    /// Give the account a new key; a crash in the middle loses nothing
    Rollover {
        #[command(flatten)]
        args: AccountArgs,
        /// The kind of the new key: p256, p384, rsa2048, rsa3072, rsa4096 or ed25519 [default: the directory's account_key]
        #[arg(long, value_name = "TYPE")]
        key_type: Option<AccountKeyType>,
    },
    /// Close the account for ever; certificates stay valid, and CAA records that name the account have to be changed
    Deactivate {
        #[command(flatten)]
        args: AccountArgs,
        /// Yes: it cannot be undone
        #[arg(long, required = true)]
        yes: bool,
    },
}

/// Whose account, and how it is printed.
#[derive(Debug, Args)]
pub(super) struct AccountArgs {
    #[command(flatten)]
    directory: DirectoryArgs,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &AccountsCommand, config: Config) -> Result<(), Failure> {
    let (args, action) = match command {
        AccountsCommand::List { json } => return list(*json, config),
        AccountsCommand::Show(args) => (args, AccountAction::Show),
        AccountsCommand::Register(args) => (args, AccountAction::Register),
        AccountsCommand::Contact(args) => (args, AccountAction::Contact),
        AccountsCommand::Rollover { args, key_type } => {
            let key = key_type.map_or_else(|| args.directory.choose(&config).map(|directory| directory.account_key), Ok)?;
            (args, AccountAction::Rollover { key })
        }
        AccountsCommand::Deactivate { args, yes: _ } => (args, AccountAction::Deactivate),
    };
    let request = AccountRequest { action, directory: args.directory.choose(&config)? };
    let url = request.directory.url.clone();
    let report = block_on(with_issuer(
        config,
        async |client| Ok(client.account(&request).await?),
        async |issuer| Ok(issuer.account(&request).await?),
    ))?;
    match report {
        Some(report) if args.json => say(&serde_json::to_string(&report).map_err(Failure::failed)?),
        Some(report) => say(&report.to_string()),
        None if args.json => say("null"),
        None => say(&format!("{url}: the account is closed")),
    }
    Ok(())
}

fn list(json: bool, config: Config) -> Result<(), Failure> {
    let reports: Vec<AccountReport> =
        block_on(with_issuer(config, async |client| Ok(client.accounts().await?), async |issuer| Ok(issuer.accounts().await?)))?;
    if json {
        say(&serde_json::to_string(&reports).map_err(Failure::failed)?);
    } else if reports.is_empty() {
        say("no account: `acmegate accounts register` makes one, and so does the first certificate");
    } else {
        reports.iter().for_each(|report| say(&report.to_string()));
    }
    Ok(())
}

/// Asks the `serve` that holds the data folder, or the engine in this process.
async fn with_issuer<T>(
    config: Config,
    there: impl AsyncFnOnce(Client) -> Result<T, Failure>,
    here: impl AsyncFnOnce(&Issuer) -> Result<T, IssueError>,
) -> Result<T, Failure> {
    let mut signals = Signals::new()?;
    let run = async {
        if let Some(client) = Client::connect(&config.data).await? {
            return there(client).await;
        }
        let engine = open_alone(config).await?;
        let done = here(&Issuer::new(engine.clone())).await;
        close(&engine).await;
        Ok(done?)
    };
    tokio::select! {
        done = run => done,
        _ = signals.next() => Err(Failure::failed("stopped before the end; `acmegate accounts show` tells how it stands")),
    }
}
