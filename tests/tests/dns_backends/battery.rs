//! The battery: the same cases on every backend, through the webhook door, judged by the backend's own data and by its servers' answers.
//!
//! One test a backend, which runs every case even if one fails, and ends with a table.

use std::{any::Any, collections::BTreeSet, fmt::Write as _, panic::AssertUnwindSafe, sync::Arc, time::Instant};

use acmegate_tests::{
    acmedns::value,
    backends::{
        Ability, AcmeDns, AzureDns, Backend, CloudDns, Cloudflare, DigitalOcean, Embedded, Foreign, PowerDns, Rfc2136, Route53, Site,
        Stored, ZONE, values,
    },
    dns,
};
use futures_util::{
    FutureExt,
    future::{BoxFuture, join_all},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded() {
    battery(Arc::new(Embedded::new())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cloudflare() {
    battery(Arc::new(Cloudflare::start().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn route53() {
    battery(Arc::new(Route53::start().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clouddns() {
    battery(Arc::new(CloudDns::start().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn azuredns() {
    battery(Arc::new(AzureDns::start().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn digitalocean() {
    battery(Arc::new(DigitalOcean::start().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rfc2136_bind() {
    battery(Arc::new(Rfc2136::bind().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rfc2136_knot() {
    battery(Arc::new(Rfc2136::knot().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rfc2136_pdns() {
    battery(Arc::new(Rfc2136::pdns().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn powerdns() {
    battery(Arc::new(PowerDns::start().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn powerdns_newer() {
    battery(Arc::new(PowerDns::start_newer().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acmedns() {
    battery(Arc::new(AcmeDns::start().await)).await;
}

/// A case: its name, what it needs of a backend, and what it does.
struct Case {
    name: &'static str,
    needs: &'static [Ability],
    run: for<'a> fn(&'a Site) -> BoxFuture<'a, ()>,
}

/// The cases, in this order; the last ones break the backend and mend it.
const CASES: &[Case] = &[
    Case { name: "add", needs: &[], run: |site| add(site).boxed() },
    Case { name: "add again", needs: &[], run: |site| add_again(site).boxed() },
    Case { name: "two values at one name", needs: &[], run: |site| two_values(site).boxed() },
    Case { name: "remove one", needs: &[Ability::Remove], run: |site| remove_one(site).boxed() },
    Case { name: "remove what is gone", needs: &[Ability::Remove], run: |site| remove_what_is_gone(site).boxed() },
    Case { name: "foreign values and TTL", needs: &[Ability::Strangers], run: |site| foreign_values(site).boxed() },
    Case { name: "foreign value like ours", needs: &[Ability::Strangers], run: |site| foreign_value_like_ours(site).boxed() },
    Case { name: "foreign quotes, chunks", needs: &[Ability::Strangers], run: |site| foreign_forms(site).boxed() },
    Case { name: "300 names at once", needs: &[], run: |site| many_names(site).boxed() },
    Case { name: "apex", needs: &[Ability::Apex], run: |site| apex(site).boxed() },
    Case { name: "wildcard owner", needs: &[Ability::Wildcard], run: |site| wildcard(site).boxed() },
    Case { name: "IDN", needs: &[Ability::AnyName], run: |site| idn(site).boxed() },
    Case { name: "zone vanishes", needs: &[Ability::Vanish], run: |site| vanishing_zone(site).boxed() },
    Case { name: "credential expires", needs: &[Ability::Expire], run: |site| expiring_credential(site).boxed() },
];

async fn battery(backend: Arc<dyn Backend>) {
    let site = Site::start(backend).await;
    let (mut table, mut failed) = (String::new(), 0);
    // For whoever works at one case.
    let only = std::env::var("ACMEGATE_BATTERY_CASE").unwrap_or_default();
    for case in CASES.iter().filter(|case| case.name.contains(&only)) {
        let start = Instant::now();
        let why_not = case.needs.iter().find_map(|ability| site.backend.cannot(*ability));
        let outcome = match why_not {
            Some(reason) => format!("cannot: {reason}"),
            None => match AssertUnwindSafe((case.run)(&site)).catch_unwind().await {
                Ok(()) => format!("passed  {:>6} ms", start.elapsed().as_millis()),
                Err(panic) => {
                    failed += 1;
                    format!("FAILED  {}", message(&*panic))
                }
            },
        };
        let _ = writeln!(table, "  {:<24} {outcome}", case.name);
    }
    eprintln!("{}:\n{table}", site.backend.id());
    assert_eq!(failed, 0, "{failed} cases failed on {}:\n{table}", site.backend.id());
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words")
}

// --- Adding and removing.

async fn add(site: &Site) {
    let (owner, one) = (site.backend.name("add"), value(1));
    site.present(&owner, &one).await;
    let records = site.backend.records(&owner).await;
    assert_eq!(values(&records), set(&[&one]));
    assert_eq!(ttls(&records), BTreeSet::from([site.backend.ttl()]), "the TTL of our values");
    answered(site, &owner, &[&one]).await;
    released(site, &owner, &[&one]).await;
}

async fn add_again(site: &Site) {
    let (owner, one) = (site.backend.name("again"), value(2));
    site.present(&owner, &one).await;
    let before = site.backend.records(&owner).await;
    site.present(&owner, &one).await;
    assert_eq!(site.backend.records(&owner).await, before);
    released(site, &owner, &[&one]).await;
}

async fn two_values(site: &Site) {
    let (owner, one, other) = (site.backend.name("two"), value(3), value(4));
    futures_util::join!(site.present(&owner, &one), site.present(&owner, &other));
    assert_eq!(values(&site.backend.records(&owner).await), set(&[&one, &other]));
    answered(site, &owner, &[&one, &other]).await;
    released(site, &owner, &[&one, &other]).await;
}

async fn remove_one(site: &Site) {
    let (owner, one, other) = (site.backend.name("one"), value(5), value(6));
    site.present(&owner, &one).await;
    site.present(&owner, &other).await;
    site.clean_up(&owner, &one).await;
    site.becomes(&owner, &[&other]).await;
    released(site, &owner, &[&other]).await;
}

/// Somebody has taken our value away already; and what was never there can be cleaned up, too.
async fn remove_what_is_gone(site: &Site) {
    let (owner, one) = (site.backend.name("gone"), value(7));
    site.present(&owner, &one).await;
    if site.backend.cannot(Ability::Strangers).is_none() {
        site.backend.remove(&Foreign::new(&owner, 60, &one)).await;
        assert_eq!(site.backend.records(&owner).await, BTreeSet::new());
    }
    released(site, &owner, &[&one]).await;
    site.clean_up(&owner, &one).await;
    site.clean_up(&site.backend.name("never"), &one).await;
    site.present(&owner, &one).await;
    assert_eq!(values(&site.backend.records(&owner).await), set(&[&one]), "it can come again");
    released(site, &owner, &[&one]).await;
}

// --- What is somebody else's.

async fn foreign_values(site: &Site) {
    let (owner, one, other) = (site.backend.name("foreign"), value(8), value(9));
    let foreign = ["site-verification=abc", "somebody else's"].map(|text| Foreign::new(&owner, 300, text));
    keeps(site, &owner, &foreign, &[&one, &other]).await;
}

/// A value that stood there before us stays when we let go.
async fn foreign_value_like_ours(site: &Site) {
    let (owner, one) = (site.backend.name("like"), value(10));
    keeps(site, &owner, &[Foreign::new(&owner, 300, &one)], &[&one]).await;
}

async fn foreign_forms(site: &Site) {
    let owner = site.backend.name("forms");
    let chunks = ["a \"quoted\" word", "back\\slash \\", "semi;colon, comma", " blanks ", "v=DKIM1; k=rsa; p=MIGf/+="]
        .map(|text| Foreign::new(&owner, 300, text));
    let long = Foreign { owner: owner.clone(), ttl: 300, strings: vec!["x".repeat(255), "y\"\\".repeat(80), "z".repeat(10)] };
    let split = Foreign { owner: owner.clone(), ttl: 300, strings: vec!["in ".into(), "two".into()] };
    let foreign: Vec<_> = chunks.into_iter().chain([long, split]).collect();
    keeps(site, &owner, &foreign, &[&value(11), &value(12)]).await;
}

/// Ours come and go, and the strangers' records stay as they are, each byte and their TTL.
async fn keeps(site: &Site, owner: &str, foreign: &[Foreign], ours: &[&str]) {
    for record in foreign {
        site.backend.insert(record).await;
    }
    let before = site.backend.records(owner).await;
    assert_eq!(values(&before), foreign.iter().map(Foreign::value).collect(), "the strangers' own");
    for one in ours {
        site.present(owner, one).await;
        let now = site.backend.records(owner).await;
        assert!(now.is_superset(&before), "after {one} was added: {now:?} lacks some of {before:?}");
        assert!(values(&now).contains(*one), "{one} is not in {now:?}");
    }
    let mut all: Vec<String> = foreign.iter().map(Foreign::value).collect();
    all.extend(ours.iter().map(|one| (*one).to_owned()));
    answered(site, owner, &all.iter().map(String::as_str).collect::<Vec<_>>()).await;
    for one in ours {
        site.clean_up(owner, one).await;
    }
    let left: Vec<_> = foreign.iter().map(Foreign::value).collect();
    site.becomes(owner, &left.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(site.backend.records(owner).await, before, "ours are gone, theirs are as they were");
    for record in foreign {
        site.backend.remove(record).await;
    }
}

// --- Names.

async fn many_names(site: &Site) {
    let (owners, ours): (Vec<_>, Vec<_>) =
        (0..300).map(|number| (site.backend.name(&format!("many{number}")), value(1000 + number))).unzip();
    let pairs = || owners.iter().zip(&ours);
    join_all(pairs().map(|(owner, one)| site.present(owner, one))).await;
    for (found, (owner, one)) in site.backend.records_at(&owners).await.iter().zip(pairs()) {
        assert_eq!(values(found), set(&[one]), "{owner}");
    }
    join_all(pairs().map(|(owner, one)| site.clean_up(owner, one))).await;
    if site.backend.cannot(Ability::Remove).is_none() {
        site.all_become(&owners, &vec![None; owners.len()]).await;
    }
}

async fn apex(site: &Site) {
    let ours = [value(13), value(14)];
    let ours = ours.each_ref().map(String::as_str);
    if site.backend.cannot(Ability::Strangers).is_none() {
        return keeps(site, ZONE, &[Foreign::new(ZONE, 300, "v=spf1 -all")], &ours).await;
    }
    for one in ours {
        site.present(ZONE, one).await;
    }
    answered(site, ZONE, &ours).await;
    released(site, ZONE, &ours).await;
}

async fn wildcard(site: &Site) {
    let (owner, one) = (format!("*.wild.{ZONE}"), value(15));
    site.present(&owner, &one).await;
    assert_eq!(values(&site.backend.records(&owner).await), set(&[&one]));
    answered(site, &format!("anything.wild.{ZONE}"), &[&one]).await;
    released(site, &owner, &[&one]).await;
}

async fn idn(site: &Site) {
    let (owner, one) = (site.backend.name("xn--bcher-kva"), value(16));
    site.present(&owner, &one).await;
    assert_eq!(values(&site.backend.records(&owner).await), set(&[&one]));
    answered(site, &owner, &[&one]).await;
    released(site, &owner, &[&one]).await;
}

// --- What breaks.

/// What was presented while the zone was there is let go without it; what is presented meanwhile says why it cannot stand, and stands when the zone is back.
async fn vanishing_zone(site: &Site) {
    let (before, during, after) = (site.backend.name("before"), site.backend.name("during"), site.backend.name("after"));
    site.present(&before, &value(17)).await;
    site.backend.drop_zone().await;
    let said = site.refused_steadily(&during, &value(18)).await;
    site.backend.restore_zone().await;
    assert!(said.contains(ZONE), "{said:?} does not name the zone");
    for (owner, number) in [(&during, 18), (&after, 19)] {
        site.present_at_last(owner, &value(number)).await;
        answered(site, owner, &[&value(number)]).await;
    }
    for (owner, number) in [(&before, 17), (&during, 18), (&after, 19)] {
        released(site, owner, &[&value(number)]).await;
    }
}

/// A credential is over, and another one stands where it stood: what waited for it stands, and nothing else has to be done.
async fn expiring_credential(site: &Site) {
    let (before, during, after) = (site.backend.name("valid"), site.backend.name("expired"), site.backend.name("renewed"));
    site.present(&before, &value(20)).await;
    site.backend.expire_credential().await;
    let said = site.refused_steadily(&during, &value(21)).await;
    site.backend.renew_credential().await;
    assert!(said.contains("the credential was refused"), "{said:?} does not say that it is the credential");
    for (owner, number) in [(&during, 21), (&after, 22)] {
        site.present_at_last(owner, &value(number)).await;
        answered(site, owner, &[&value(number)]).await;
    }
    for (owner, number) in [(&before, 20), (&during, 21), (&after, 22)] {
        released(site, owner, &[&value(number)]).await;
    }
}

// --- What they share.

fn set(values: &[&str]) -> BTreeSet<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

fn ttls(records: &BTreeSet<Stored>) -> BTreeSet<u32> {
    records.iter().map(|record| record.ttl).collect()
}

/// Every server of the backend answers these values, and so does a resolver that walks down to them.
async fn answered(site: &Site, name: &str, expected: &[&str]) {
    for (server, ip) in site.backend.nameservers() {
        assert_eq!(dns::txt((ip, 53).into(), name).await, set(expected), "{server} about {name}");
    }
    dns::txt_becomes(site.resolver.dns(), name, expected).await;
}

/// Lets values go that are all that stands at a name, and waits until it is empty.
async fn released(site: &Site, owner: &str, ours: &[&str]) {
    for one in ours {
        site.clean_up(owner, one).await;
    }
    if site.backend.cannot(Ability::Remove).is_none() {
        site.becomes(owner, &[]).await;
    }
}
