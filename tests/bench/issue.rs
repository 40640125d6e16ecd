//! `acmegate issue`, the whole command, against lego 5 as it comes and against a bare client that makes only the needed requests.
//!
//! All three get their certificates from the same authority, which asks the same resolver; each certificate is for names of its own.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use acmegate_tests::{
    acmedns,
    acmegate::Acmegate,
    measure::{
        Latencies,
        report::{Figure, Goal, Report, say},
        usage,
    },
    peers::peer,
    process::run,
    temporary_folder,
    testca::{TestCa, http_client},
    wait::LIMIT,
    world::{CUSTOMER, World},
};
use anyhow::{Context, anyhow, bail, ensure};
use aws_lc_rs::{
    digest,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use reqwest::{Client, StatusCode, header};
use serde_json::{Value, json};
use tokio::time::sleep;

/// Certificates of each kind that acmegate and the bare client get.
const RUNS: usize = 20;
/// And lego, which takes seconds for one name and more than a minute for two.
const LEGO_RUNS: usize = 3;
const LEGO_RUNS_OF_TWO: usize = 1;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    say(&format!("load average {}", usage::load_average()));
    let mut world = World::start().await;
    let kinds = ["one", "two"];
    let ours: Vec<String> = ["serve", "alone"].iter().flat_map(|mode| kinds.map(|kind| format!("{mode}-{kind}"))).collect();
    let domains: Vec<String> = ours.iter().flat_map(|set| (0..=RUNS).map(move |n| domain(set, n))).collect();
    world.delegate_all(&domains.iter().map(String::as_str).collect::<Vec<_>>()).await;

    let bare_one = bare(&world, "bare-one", false).await?;
    let bare_two = bare(&world, "bare-two", true).await?;
    let served_one = issue(&world.acmegate, "serve-one", false).await?;
    let served_two = issue(&world.acmegate, "serve-two", true).await?;
    world.acmegate.stop().await.succeeded();
    let alone_one = issue(&world.acmegate, "alone-one", false).await?;
    let alone_two = issue(&world.acmegate, "alone-two", true).await?;
    let lego_one = lego(&world, "lego-one", false, LEGO_RUNS).await?;
    let lego_two = lego(&world, "lego-two", true, LEGO_RUNS_OF_TWO).await?;

    let mut report = Report::new("The whole command, medians (yardsticks: lego 5 over RFC 2136 to BIND; a bare client)");
    let figure = |times: &Latencies| Figure::time(times.median());
    for (mode, one, two) in [("through serve", &served_one, &served_two), ("standalone", &alone_one, &alone_two)] {
        report.row(&format!("{mode}, one name, lego"), figure(one), figure(&lego_one), Goal::TimesLess(20.0));
        report.row(&format!("{mode}, apex and wildcard, lego"), figure(two), figure(&lego_two), Goal::TimesLess(200.0));
        report.row(&format!("{mode}, one name, bare"), figure(one), figure(&bare_one), Goal::AtMost(10.0));
        report.row(&format!("{mode}, apex and wildcard, bare"), figure(two), figure(&bare_two), Goal::AtMost(10.0));
    }
    report.print();
    Ok(())
}

fn domain(set: &str, number: usize) -> String {
    format!("{set}-{number}.{CUSTOMER}")
}

fn names(domain: &str, wildcard: bool) -> Vec<String> {
    let mut names = vec![domain.to_owned()];
    if wildcard {
        names.push(format!("*.{domain}"));
    }
    names
}

fn tell(what: &str, times: &Latencies) {
    let millis = |percent| times.percentile(percent).as_secs_f64() * 1e3;
    say(&format!("{what}: {} runs, min {:.1} ms, p50 {:.1} ms, max {:.1} ms", times.len(), millis(0.0), millis(50.0), millis(100.0)));
}

/// The command from its start to its end. The first run makes the account and does not count.
async fn issue(acmegate: &Acmegate, set: &str, wildcard: bool) -> anyhow::Result<Latencies> {
    let mut runs: Vec<(Duration, String)> = Vec::new();
    for number in 0..=RUNS {
        let names = names(&domain(set, number), wildcard);
        let order = acmegate.issue(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let begun = Instant::now();
        let issued = order.run().await;
        let took = begun.elapsed();
        let said = issued.succeeded().output.stdout.clone() + &issued.output.stderr;
        let timings = said.lines().rfind(|line| line.contains("took ")).unwrap_or_default().trim().to_owned();
        if number > 0 {
            runs.push((took, timings));
        }
    }
    runs.sort();
    let (_, timings) = runs.get(runs.len() / 2).context("a run")?;
    let times = Latencies::new(runs.iter().map(|(took, _)| *took).collect());
    tell(&format!("acmegate issue, {set}"), &times);
    say(&format!("  its run of median length: {timings}"));
    Ok(times)
}

/// lego with its own waits, writing to BIND: the settings are those without which it cannot work on loopback.
async fn lego(world: &World, set: &str, wildcard: bool, runs: usize) -> anyhow::Result<Latencies> {
    let folder = temporary_folder("lego");
    let mut times = Vec::new();
    for number in 0..runs {
        let mut command = Command::new(peer("lego5"));
        command.args(["run", "--server", world.ca.directory(), "--accept-tos", "--email", "lego@example.test", "--dns", "rfc2136"]);
        command.args(["--dns.resolvers", &world.resolver.dns().to_string(), "--dns.propagation.disable-ans"]);
        command.arg("--path").arg(folder.path());
        for name in names(&domain(set, number), wildcard) {
            command.args(["--domains", &name]);
        }
        command.env("LEGO_CA_CERTIFICATES", world.ca.ca_file()).env("RFC2136_NAMESERVER", world.bind.dns().to_string());
        let begun = Instant::now();
        run("lego", command, LIMIT * 4).await.succeeded();
        times.push(begun.elapsed());
    }
    let times = Latencies::new(times);
    tell(set, &times);
    Ok(times)
}

/// The bare client: TXT by our own `/update`, no disk, no checks, one connection that is open already.
async fn bare(world: &World, set: &str, wildcard: bool) -> anyhow::Result<Latencies> {
    let (http, base) = (Client::new(), world.acmegate.url("acmedns", ""));
    let mut delegations = Vec::new();
    let mut accounts = Vec::new();
    for number in 0..=RUNS {
        let account = acmedns::register(&http, &base).await?;
        delegations.push(format!("add _acme-challenge.{}. 60 CNAME {}.", domain(set, number), account.fulldomain));
        accounts.push(account);
    }
    world.bind.update(&delegations).await;
    let mut client = Bare::new(&world.ca).await?;
    let mut times = Vec::new();
    for (number, account) in accounts.iter().enumerate() {
        let place = async |value: &str| acmedns::update(&http, &base, account, value).await;
        let begun = Instant::now();
        let chain = client.issue(&names(&domain(set, number), wildcard), place).await?;
        let took = begun.elapsed();
        ensure!(chain.contains("BEGIN CERTIFICATE"), "no certificate: {chain}");
        if number > 0 {
            times.push(took);
        }
    }
    let times = Latencies::new(times);
    tell(set, &times);
    Ok(times)
}

/// An ACME client (RFC 8555) with nothing that could be left out.
struct Bare {
    http: Client,
    directory: Value,
    key: EcdsaKeyPair,
    jwk: Value,
    account: Option<String>,
    nonce: Option<String>,
}

/// Between two questions whether the authority is done.
const POLL: Duration = Duration::from_millis(1);
/// Questions before it is given up.
const POLLS: usize = 5_000;

impl Bare {
    async fn new(ca: &TestCa) -> anyhow::Result<Self> {
        let http = http_client(&ca.ca_file())?;
        let agent = |request: reqwest::RequestBuilder| request.header(header::USER_AGENT, AGENT);
        let directory: Value = agent(http.get(ca.directory())).send().await?.json().await?;
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
        let point = key.public_key().as_ref();
        let (x, y) = point.get(1..).context("no point")?.split_at(32);
        let jwk = json!({ "crv": "P-256", "kty": "EC", "x": encode(x), "y": encode(y) });
        let mut client = Self { http, directory, key, jwk, account: None, nonce: None };
        let url = client.url("newAccount")?;
        let (location, _) = client.post(&url, Some(json!({ "termsOfServiceAgreed": true }))).await?;
        client.account = Some(location.context("an account without a URL")?);
        Ok(client)
    }

    async fn issue(&mut self, names: &[String], place: impl AsyncFn(&str) -> anyhow::Result<()>) -> anyhow::Result<String> {
        let identifiers: Vec<_> = names.iter().map(|name| json!({ "type": "dns", "value": name })).collect();
        let url = self.url("newOrder")?;
        let (order_url, order) = self.post(&url, Some(json!({ "identifiers": identifiers }))).await?;
        let (order_url, order) = (order_url.context("an order without a URL")?, parse(&order)?);
        let authorizations: Vec<String> = serde_json::from_value(field(&order, "authorizations")?.clone())?;
        let thumbprint = encode(digest::digest(&digest::SHA256, self.jwk.to_string().as_bytes()).as_ref());
        let mut challenges = Vec::new();
        for url in &authorizations {
            let authorization = self.get(url).await?;
            let offered = field(&authorization, "challenges")?.as_array().context("challenges are no list")?;
            let challenge = offered.iter().find(|one| one["type"] == "dns-01").context("no dns-01 challenge")?;
            let key_authorization = format!("{}.{thumbprint}", text(challenge, "token")?);
            place(&encode(digest::digest(&digest::SHA256, key_authorization.as_bytes()).as_ref())).await?;
            challenges.push(text(challenge, "url")?.to_owned());
        }
        for url in &challenges {
            self.post(url, Some(json!({}))).await?;
        }
        for url in &authorizations {
            self.wait(url, "valid").await?;
        }
        let key = rcgen::KeyPair::generate()?;
        let csr = rcgen::CertificateParams::new(names.to_vec())?.serialize_request(&key)?;
        self.post(text(&order, "finalize")?, Some(json!({ "csr": encode(csr.der()) }))).await?;
        let order = self.wait(&order_url, "valid").await?;
        Ok(self.post(text(&order, "certificate")?, None).await?.1)
    }

    async fn wait(&mut self, url: &str, wanted: &str) -> anyhow::Result<Value> {
        for _ in 0..POLLS {
            let resource = self.get(url).await?;
            match text(&resource, "status")? {
                status if status == wanted => return Ok(resource),
                "invalid" => bail!("{url} is invalid: {resource}"),
                _ => sleep(POLL).await,
            }
        }
        bail!("{url} does not become {wanted}")
    }

    async fn get(&mut self, url: &str) -> anyhow::Result<Value> {
        parse(&self.post(url, None).await?.1)
    }

    /// A signed request; without a payload it only reads (RFC 8555, 6.3). Gives `Location` and the body.
    async fn post(&mut self, url: &str, payload: Option<Value>) -> anyhow::Result<(Option<String>, String)> {
        let payload = payload.map(|payload| encode(payload.to_string().as_bytes())).unwrap_or_default();
        loop {
            let nonce = match self.nonce.take() {
                Some(nonce) => nonce,
                None => self.new_nonce().await?,
            };
            let mut protected = json!({ "alg": "ES256", "nonce": nonce, "url": url });
            match &self.account {
                Some(account) => protected["kid"] = json!(account),
                None => protected["jwk"] = self.jwk.clone(),
            }
            let protected = encode(protected.to_string().as_bytes());
            let signed = format!("{protected}.{payload}");
            let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes())?;
            let body = json!({ "protected": protected, "payload": payload, "signature": encode(signature.as_ref()) });
            let request = self.http.post(url).header(header::USER_AGENT, AGENT).header(header::CONTENT_TYPE, "application/jose+json");
            let response = request.body(body.to_string()).send().await?;
            let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
            self.nonce = header("replay-nonce");
            let (status, location) = (response.status(), header("location"));
            let body = response.text().await?;
            match status {
                status if status.is_success() => return Ok((location, body)),
                StatusCode::BAD_REQUEST if body.contains("badNonce") => {}
                _ => bail!("{url} answered {status}: {body}"),
            }
        }
    }

    async fn new_nonce(&self) -> anyhow::Result<String> {
        let response = self.http.head(self.url("newNonce")?).header(header::USER_AGENT, AGENT).send().await?;
        let nonce = response.headers().get("replay-nonce").context("no nonce")?;
        Ok(nonce.to_str()?.to_owned())
    }

    fn url(&self, name: &str) -> anyhow::Result<String> {
        Ok(text(&self.directory, name)?.to_owned())
    }
}

/// Pebble wants one.
const AGENT: &str = "bare";

fn encode(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn parse(body: &str) -> anyhow::Result<Value> {
    serde_json::from_str(body).with_context(|| body.to_owned())
}

fn field<'a>(value: &'a Value, name: &str) -> anyhow::Result<&'a Value> {
    value.get(name).ok_or_else(|| anyhow!("no {name} in {value}"))
}

fn text<'a>(value: &'a Value, name: &str) -> anyhow::Result<&'a str> {
    field(value, name)?.as_str().with_context(|| format!("{name} is no text in {value}"))
}
