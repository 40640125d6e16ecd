//! `acmegate policy test`: what the rules of the configuration say to one attempt. It asks no network and no running gateway.

use std::{collections::BTreeMap, fmt::Display};

use authdns::Name;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Failure, say};
use crate::{
    config::Config,
    policy::{Attempt, CHALLENGE_LABEL, Miss, Policy, Rule},
};

/// The label that Kubernetes puts on every namespace.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// What `acmegate policy` is told.
#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// Tell whether webhook.policy lets a namespace have a name written, and which rule does or why none does
    Test(TestArgs),
}

/// What `acmegate policy test` is told.
#[derive(Debug, Args)]
#[command(after_help = "\
--json prints {allowed, rule, refusal, backend, rules: [{number, rule, allows, why}]}: the number of the rule that allows it, or what cert-manager would be told.

Exit codes: 0 allowed; 1 refused; 2 wrong usage or configuration.")]
pub(super) struct TestArgs {
    /// The namespace of the issuer; of a ClusterIssuer: cert-manager's own
    #[arg(long, value_name = "NAMESPACE")]
    namespace: String,
    /// The name that the certificate is for, such as example.com or '*.example.com'
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Where the CNAME of the challenge name leads; without it: the challenge name itself
    #[arg(long, value_name = "FQDN")]
    target: Option<String>,
    /// The backend that the issuer's config names, or that has the longest zone; without it: embedded where the target lies in an embedded zone, else any
    #[arg(long, value_name = "BACKEND")]
    backend: Option<String>,
    /// A label of the namespace; may be given more than once. Without any, labels are not known, and rules that go by labels match nothing
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// The issuer's config names a Secret
    #[arg(long)]
    secret: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &TestArgs, config: &Config) -> Result<(), Failure> {
    let Some(webhook) = &config.webhook else {
        return Err(Failure::usage("the configuration has no section webhook, and so no policy: add webhook.policy"));
    };
    let zones: Vec<Name> = config.dns.iter().flat_map(|dns| dns.zones.iter().map(|zone| zone.name.clone())).collect();
    let question = Question::read(args, config, &zones)?;
    let result = question.ask(&webhook.policy, &zones);
    if args.json {
        say(&serde_json::to_string(&result).map_err(Failure::failed)?);
    } else {
        result.lines(&question).iter().for_each(|line| say(line));
    }
    if result.allowed { Ok(()) } else { Err(Failure::failed(format!("{} is refused", question.name.to_relative_string()))) }
}

/// The attempt, as it was described on the command line.
struct Question {
    namespace: String,
    labels: Option<BTreeMap<String, String>>,
    name: Name,
    owner: Name,
    backend: Option<String>,
    secret: bool,
}

impl Question {
    fn read(args: &TestArgs, config: &Config, zones: &[Name]) -> Result<Self, Failure> {
        // The wildcard is proved at the name itself (RFC 8555, 7.1.3).
        let name = read_name("--name", args.name.strip_prefix("*.").unwrap_or(&args.name))?;
        let owner = match &args.target {
            Some(target) => read_name("--target", target)?,
            None => name.prepend(CHALLENGE_LABEL).map_err(|error| usage("--name", &args.name, error))?,
        };
        if let Some(backend) = &args.backend
            && backend != "embedded"
            && !config.backends.iter().any(|known| *known.name == **backend)
        {
            let known: Vec<&str> = std::iter::once("embedded").chain(config.backends.iter().map(|known| &*known.name)).collect();
            return Err(Failure::usage(format!("--backend: there is no backend {backend:?}; known: {}", known.join(", "))));
        }
        let embedded = || zones.iter().any(|zone| owner.is_within(zone)).then(|| "embedded".to_owned());
        Ok(Self {
            backend: args.backend.clone().or_else(embedded),
            labels: read_labels(&args.namespace, &args.labels)?,
            namespace: args.namespace.clone(),
            secret: args.secret,
            name,
            owner,
        })
    }

    fn ask<'p>(&self, policy: &'p Policy, zones: &[Name]) -> TestResult<'p> {
        let attempt = Attempt {
            namespace: &self.namespace,
            labels: self.labels.as_ref(),
            dns_name: Some(&self.name),
            owner: &self.owner,
            backend: self.backend.as_deref(),
            secret: self.secret,
            zones,
        };
        let judged = (1..).zip(&policy.rules).map(|(number, rule)| Judged::new(number, rule, rule.judge(&attempt)));
        let rules: Vec<Judged<'_>> = judged.collect();
        let refusal = policy.allows(&attempt).err().map(|refusal| refusal.to_string());
        let rule = rules.iter().find(|judged| judged.allows).map(|judged| judged.number);
        TestResult { allowed: refusal.is_none(), rule, refusal, backend: self.backend.clone(), rules }
    }
}

/// What came out.
#[derive(Debug, Serialize)]
struct TestResult<'p> {
    allowed: bool,
    /// The number of the first rule that allows it; the first of the configuration is 1.
    rule: Option<usize>,
    refusal: Option<String>,
    /// The backend that the rules were asked about; `None` is any.
    backend: Option<String>,
    rules: Vec<Judged<'p>>,
}

#[derive(Debug, Serialize)]
struct Judged<'p> {
    number: usize,
    rule: &'p Rule,
    allows: bool,
    why: Option<String>,
}

impl<'p> Judged<'p> {
    fn new(number: usize, rule: &'p Rule, judged: Result<(), Miss>) -> Self {
        Self { number, rule, allows: judged.is_ok(), why: judged.err().map(|miss| miss.to_string()) }
    }
}

impl TestResult<'_> {
    fn lines(&self, question: &Question) -> Vec<String> {
        let (namespace, name, owner) = (&question.namespace, question.name.to_relative_string(), question.owner.to_relative_string());
        let through = question.backend.as_ref().map_or_else(String::new, |backend| format!(" through {backend}"));
        let asked = format!("{namespace} may have values for {name} at {owner}{through}");
        if let Some(judged) = self.rules.iter().find(|judged| judged.allows) {
            let mut lines = vec![format!("allowed: {asked}"), format!("  by rule {}: {}", judged.number, judged.rule)];
            if let (None, Some(backends)) = (&self.backend, &judged.rule.backends) {
                lines.push(format!("  if the backend that serves the name is {}; --backend asks about one of them", backends.join(" or ")));
            }
            return lines;
        }
        let mut lines = vec![format!("refused: {}", self.refusal.as_deref().unwrap_or_default())];
        lines.extend(self.rules.iter().flat_map(|judged| {
            [format!("  rule {}: {}", judged.number, judged.rule), format!("    {}", judged.why.as_deref().unwrap_or_default())]
        }));
        if question.labels.is_none() && self.rules.iter().any(|judged| judged.rule.selector.is_some()) {
            lines.push("  the labels of the namespace were not given: say them with --label KEY=VALUE".to_owned());
        }
        lines
    }
}

fn read_name(option: &str, text: &str) -> Result<Name, Failure> {
    text.parse().map_err(|error| usage(option, text, error))
}

fn usage(option: &str, text: &str, error: impl Display) -> Failure {
    Failure::usage(format!("{option}: {text:?} is not a domain name: {error}"))
}

/// `None` if none were given.
fn read_labels(namespace: &str, texts: &[String]) -> Result<Option<BTreeMap<String, String>>, Failure> {
    if texts.is_empty() {
        return Ok(None);
    }
    let mut labels = BTreeMap::from([(NAME_LABEL.to_owned(), namespace.to_owned())]);
    for text in texts {
        let Some((key, value)) = text.split_once('=') else {
            return Err(Failure::usage(format!("--label: {text:?} is not a label such as team=a")));
        };
        labels.insert(key.to_owned(), value.to_owned());
    }
    Ok(Some(labels))
}
