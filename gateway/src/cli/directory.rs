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

impl DirectoryArgs {
    /// The directory that is meant.
    ///
    /// # Errors
    /// Wrong usage.
    pub(super) fn choose(&self, config: &Config) -> Result<Directory, Failure> {
        let mut directory = match &self.directory {
            Some(wanted) => named(wanted, "--directory", config)?,
            None => config
                .issuer
                .directories
                .first()
                .cloned()
                .ok_or_else(|| Failure::usage("no ACME directory: give --directory, or one under issuer.directories"))?,
        };
        if let Some(file) = &self.ca_file {
            directory.ca_file = Some(file.clone());
        }
        self.complete(directory)
    }

    /// Another directory that is meant, by its name or URL; `option` is where that was written.
    ///
    /// # Errors
    /// Wrong usage.
    pub(super) fn another(&self, wanted: &str, option: &str, config: &Config) -> Result<Directory, Failure> {
        self.complete(named(wanted, option, config)?)
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
    fn what_cannot_be_is_wrong_usage() {
        for line in ["--directory three", "--directory http://a.test/", "--contact nobody", "--ca-file ./no-such-file"] {
            let failure = chosen(line).expect_err(line);
            assert_eq!(failure.exit_code(), 2, "{failure}");
        }
    }
}
