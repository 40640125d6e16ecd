//! One certificate for 46 names in a Route 53 zone: `acmegate issue` against lego 5, in time and in API calls.
//!
//! Users of lego have reported 75 minutes for that. Both write to the same emulated account with its five requests a second, and get their certificates from the same
//! authority. lego runs with its own waits; it is told where the API is, and which resolver to ask, and does not ask the authoritative servers itself, as it would look
//! up their names with the system's resolver.

use std::{
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use acmegate_tests::{
    backends::{Route53, Site, ZONE},
    measure::{
        report::{Figure, Goal, Report, say},
        usage,
    },
    peers::peer,
    process::run,
    temporary_folder,
    testca::Options,
};

const NAMES: usize = 46;
/// How long a change at Route 53 is pending. Real ones take up to a minute, and lego waits for each by itself: this is kind to it.
const PENDING: Duration = Duration::from_secs(3);
/// When it is given up.
const PATIENCE: Duration = Duration::from_secs(3600);

#[tokio::main]
async fn main() {
    say(&format!("load average {}", usage::load_average()));
    let route53 = Arc::new(Route53::start().await);
    route53.gate().pend(PENDING);
    let site = Site::start(route53.clone()).await;
    let ca = Options::resolver(site.resolver.dns()).start().await;

    let before = total(&route53);
    let ours = names("ours");
    let order = site.acmegate.issue(&ours.iter().map(String::as_str).collect::<Vec<_>>()).directory(ca.directory());
    let order = order.argument("--ca-file").argument(&ca.ca_file().display().to_string());
    let begun = Instant::now();
    order.run().await.succeeded();
    let took = begun.elapsed();
    let calls = total(&route53) - before;
    say(&format!("acmegate: {:.1} s, {calls} calls", took.as_secs_f64()));

    let before = total(&route53);
    let folder = temporary_folder("lego");
    let mut command = Command::new(peer("lego5"));
    command.args(["run", "--server", ca.directory(), "--accept-tos", "--email", "lego@example.test", "--dns", "route53"]);
    command.args(["--dns.resolvers", &site.resolver.dns().to_string(), "--dns.propagation.disable-ans"]);
    command.arg("--path").arg(folder.path());
    for name in names("lego") {
        command.args(["--domains", &name]);
    }
    command.env("LEGO_CA_CERTIFICATES", ca.ca_file()).env("AWS_ENDPOINT_URL_ROUTE_53", route53.gate().url()).env("AWS_REGION", "us-east-1");
    let (id, secret) = route53.key();
    command.env("AWS_ACCESS_KEY_ID", id).env("AWS_SECRET_ACCESS_KEY", secret);
    let begun = Instant::now();
    run("lego", command, PATIENCE).await.succeeded();
    let lego_took = begun.elapsed();
    let lego_calls = total(&route53) - before;
    say(&format!("lego: {:.1} s, {lego_calls} calls", lego_took.as_secs_f64()));

    let mut report = Report::new("One certificate for 46 names in a Route 53 zone (yardstick: lego 5)");
    report.row("time", Figure::time(took), Figure::time(lego_took), Goal::Shown);
    report.row("API calls", Figure::new(calls as f64, "calls"), Figure::new(lego_calls as f64, "calls"), Goal::Shown);
    report.print();
}

fn names(set: &str) -> Vec<String> {
    (0..NAMES).map(|number| format!("{set}-{number}.{ZONE}")).collect()
}

fn total(route53: &Route53) -> u64 {
    route53.gate().calls().values().sum()
}
