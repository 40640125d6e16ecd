//! From the moment at which the last authoritative server shows a value to the moment at which acmegate calls it visible.
//!
//! The servers of an emulated Cloudflare show each change after a delay of its own kind; how far they are is known exactly. No server is asked for one name more than once a
//! second, whatever comes of it, so a delay that nobody can foresee costs half a second in the mean; one that is about what it was is foreseen.

use std::{sync::Arc, time::Duration};

use acmegate_tests::{
    acmedns,
    backends::{Cloudflare, Site, ZONE},
    measure::{
        Latencies,
        report::{Figure, Goal, Report, say},
        usage,
    },
};

/// Values that teach, and values that count.
const LESSONS: u64 = 10;
const ROUNDS: u64 = 30;
const GOAL: Duration = Duration::from_millis(300);

/// How long the servers of a zone take, by the number of the round and of the server, from 0 to 1 at random.
struct Weather {
    name: &'static str,
    delay: fn(f64) -> Duration,
    goal: Goal,
}

const WEATHERS: [Weather; 3] = [
    Weather {
        name: "about 2 s, a tenth more or less",
        delay: |chance| Duration::from_secs_f64(1.8 + 0.4 * chance),
        goal: Goal::AtMost(1.0),
    },
    Weather { name: "at once", delay: |chance| Duration::from_secs_f64(0.05 * chance), goal: Goal::AtMost(1.0) },
    Weather { name: "anything from 1 s to 5 s", delay: |chance| Duration::from_secs_f64(1.0 + 4.0 * chance), goal: Goal::Shown },
];

#[tokio::main]
async fn main() {
    say(&format!("load average {}", usage::load_average()));
    let mut report = Report::new("From the last server that shows a value to visible, medians (yardstick: the goal)");
    for weather in &WEATHERS {
        let cloudflare = Arc::new(Cloudflare::start().await);
        let site = Site::start(cloudflare.clone()).await;
        let servers = cloudflare.servers().nameservers().clone();
        let mut times = Vec::new();
        for round in 0..LESSONS + ROUNDS {
            for (place, address) in (0u64..).zip(servers.addresses()) {
                servers.delay(address, (weather.delay)(chance(round * 16 + place)));
            }
            let (owner, value) = (format!("_acme-challenge.r{round}.{ZONE}"), acmedns::value(round));
            site.present(&owner, &value).await;
            let now = std::time::Instant::now();
            let shown = servers.answers_since(&owner, &value).unwrap_or(now);
            if round >= LESSONS {
                times.push(now.saturating_duration_since(shown));
            }
        }
        let times = Latencies::new(times);
        let closest = servers.shortest_interval();
        say(&format!(
            "{}: {} rounds, p10 {:.0?}, p50 {:.0?}, p90 {:.0?}; one server asked for one name again after {closest:.1?} at the soonest",
            weather.name,
            times.len(),
            times.percentile(10.0),
            times.median(),
            times.percentile(90.0),
        ));
        report.row(weather.name, Figure::time(times.median()), Figure::time(GOAL), weather.goal);
    }
    report.print();
}

/// From 0 to 1, the same in each run: splitmix64 of the number.
fn chance(number: u64) -> f64 {
    let mut bits = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((bits ^ (bits >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}
