//! Which ACME directory a command line means.

use std::{fs, path::PathBuf};

use clap::Args;

use super::Failure;
use crate::config::{Config, Directory, is_mail_address};

/// The options that name a directory.
#[derive(Debug, Args)]
pub(super) struct DirectoryArgs {
    /// The ACME directory: a name of the configuration, or an https:// URL [default: the first of the configuration]
    #[arg(long, value_name = "NAME|URL")]
    directory: Option<String>,
    /// An e-mail address for the account at the CA
    #[arg(long, value_name = "MAIL")]
    contact: Option<String>,
    /// The roots that the directory's own HTTPS uses, for a private CA
    #[arg(long, value_name = "PEM")]
    ca_file: Option<PathBuf>,
}

/// Whether the CA's directory itself is meant, or the one at which it lets everybody rehearse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The directory itself.
    Production,
    /// Its staging directory: the same, and certificates that nobody trusts.
    Staging,
}

impl DirectoryArgs {
    /// The directory that is meant.
    ///
    /// # Errors
    /// Wrong usage.
    pub(super) fn choose(&self, config: &Config) -> Result<Directory, Failure> {
        self.choose_at(Stage::Production, config)
    }

    /// The directory that is meant, or its staging directory.
    ///
    /// # Errors
    /// Wrong usage.
    pub(super) fn choose_at(&self, stage: Stage, config: &Config) -> Result<Directory, Failure> {
        let mut directory = match &self.directory {
            Some(wanted) => named(wanted, "--directory", config)?,
            None => config
                .issuer
                .directories
                .first()
                .cloned()
                .ok_or_else(|| Failure::usage("no ACME directory: give --directory, or one under issuer.directories"))?,
        };
        directory = staged(directory, stage, config)?;
        if let Some(file) = &self.ca_file {
            directory.ca_file = Some(file.clone());
        }
        self.complete(directory)
    }

    /// Another directory that is meant, by its name or URL; `option` is where that was written.
    ///
    /// # Errors
    /// Wrong usage.
    pub(super) fn another(&self, wanted: &str, option: &str, stage: Stage, config: &Config) -> Result<Directory, Failure> {
        self.complete(staged(named(wanted, option, config)?, stage, config)?)
    }

    fn complete(&self, mut directory: Directory) -> Result<Directory, Failure> {
        if let Some(contact) = &self.contact {
            if !is_mail_address(contact) {
                return Err(Failure::usage(format!("--contact {contact}: not an e-mail address such as ops@example.org")));
            }
            directory.contact = Some(contact.clone());
        }
        // `serve` has a working directory of its own.
        if let Some(file) = &mut directory.ca_file {
            *file = fs::canonicalize(&*file)
                .map_err(|error| Failure::usage(format!("the CA file {} cannot be read: {error}", file.display())))?;
        }
        Ok(directory)
    }
}

fn staged(directory: Directory, stage: Stage, config: &Config) -> Result<Directory, Failure> {
    match stage {
        Stage::Production => Ok(directory),
        Stage::Staging => config.issuer.staging(&directory).ok_or_else(|| {
            Failure::usage(format!(
                "--staging: no staging directory of {} is known: give its URL as `staging` of the directory under issuer.directories, or with --directory instead of --staging",
                directory.name
            ))
        }),
    }
}

fn named(wanted: &str, option: &str, config: &Config) -> Result<Directory, Failure> {
    let known = &config.issuer.directories;
    match known.iter().find(|one| one.name == *wanted || one.url == *wanted) {
        Some(directory) => Ok(directory.clone()),
        None if reqwest::Url::parse(wanted).is_ok_and(|url| url.scheme() == "https" && url.has_host()) => Ok(Directory::at(wanted)),
        None => {
            let names = known.iter().map(|one| one.name.as_str()).collect::<Vec<_>>().join(", ");
            Err(Failure::usage(format!("{option} {wanted}: neither an https:// URL nor a name under issuer.directories (known: {names})")))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: DirectoryArgs,
    }

    fn chosen(line: &str) -> Result<Directory, Failure> {
        let text = "version: v1\nissuer:\n  directories:\n    - {name: one, url: \"https://one.test/dir\", contact: a@one.test}\n    - {name: two, url: \"https://two.test/dir\"}\n";
        let config = Config::from_yaml(text, Path::new("test.yaml")).expect("valid");
        Line::try_parse_from(std::iter::once("command").chain(line.split_whitespace())).expect(line).args.choose(&config)
    }

    #[test]
    fn a_directory_is_the_first_or_a_name_or_a_url() {
        let chosen = |line: &str| chosen(line).map(|directory| (directory.url, directory.contact));
        let contact = |mail: &str| Some(mail.to_owned());
        assert_eq!(chosen(""), Ok(("https://one.test/dir".into(), contact("a@one.test"))));
        assert_eq!(chosen("--directory two --contact b@two.test"), Ok(("https://two.test/dir".into(), contact("b@two.test"))));
        assert_eq!(chosen("--directory https://one.test/dir"), Ok(("https://one.test/dir".into(), contact("a@one.test"))));
        assert_eq!(chosen("--directory https://three.test/dir"), Ok(("https://three.test/dir".into(), None)));
    }

    #[test]
    fn a_rehearsal_is_at_the_staging_directory() {
        let text = "version: v1\nissuer:\n  directories:\n    - {name: one, url: \"https://one.test/dir\", staging: \"https://try.one.test/dir\", contact: a@one.test}\n    - {name: two, url: \"https://two.test/dir\"}\n";
        let config = Config::from_yaml(text, Path::new("test.yaml")).expect("valid");
        let args = |line: &str| Line::try_parse_from(std::iter::once("command").chain(line.split_whitespace())).expect(line).args;
        let staged = |line: &str| args(line).choose_at(Stage::Staging, &config).map(|directory| (directory.url, directory.contact));
        assert_eq!(staged(""), Ok(("https://try.one.test/dir".into(), Some("a@one.test".into()))));
        let letsencrypt = "https://acme-v02.api.letsencrypt.org/directory";
        let known = staged(&format!("--contact b@one.test --directory {letsencrypt}"));
        assert_eq!(known, Ok(("https://acme-staging-v02.api.letsencrypt.org/directory".into(), Some("b@one.test".into()))));
        let failure = staged("--directory two").expect_err("none is known");
        assert_eq!(failure.exit_code(), 2);
        assert!(failure.to_string().contains("no staging directory of two is known: give its URL"), "{failure}");
        let failure = args("").another("two", "--fallback", Stage::Staging, &config).expect_err("none is known");
        assert_eq!(failure.exit_code(), 2, "{failure}");
    }

    #[test]
    fn what_cannot_be_is_wrong_usage() {
        for line in ["--directory three", "--directory http://a.test/", "--contact nobody", "--ca-file ./no-such-file"] {
            let failure = chosen(line).expect_err(line);
            assert_eq!(failure.exit_code(), 2, "{failure}");
        }
    }
}
