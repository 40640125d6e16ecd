//! Google Cloud DNS against its emulator, through the trait.

#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::{collections::BTreeSet, path::Path, process::Command, sync::Arc, time::Duration};

use acmegate_tests::{addresses::Address, dns};
use authdns::Name;
use emulators::{
    Fault, Nameservers,
    clouddns::{CloudDns, NewZone, Quota, Rrset, Throttling, TokenCalls, Wording},
};
use providers::{Change, Context, Error, Progress, Provider, Receipt, TxtSet, Zone, kind, secret::LocalSecrets};
use serde_json::{Value, json};
use tempfile::TempDir;

const PROJECT: &str = "infra-1";

/// The emulator with a zone, and the provider with the key of a service account.
struct Site {
    cloud: CloudDns,
    provider: Arc<dyn Provider>,
    zone: Zone,
    folder: TempDir,
}

impl Site {
    async fn start() -> Self {
        let cloud = CloudDns::start(PROJECT, Nameservers::none()).await;
        let id = cloud.add_zone("example.com");
        let folder = tempfile::tempdir().expect("a folder");
        write(&folder.path().join("key.json"), &cloud.service_account("acmegate"));
        let provider = provider(&cloud, json!({"service_account": {"file": folder.path().join("key.json")}}));
        let zone = Zone { id, name: name("example.com"), nameservers: BTreeSet::new() };
        Self { cloud, provider, zone, folder }
    }

    async fn read(&self, owner: &str) -> TxtSet {
        self.provider.read(&self.zone, &[name(owner)]).await.remove(0).expect("it can be read")
    }

    async fn apply(&self, changes: &[Change]) -> Vec<Result<Receipt, Error>> {
        self.provider.apply(&self.zone, changes).await
    }

    /// Reads, and then changes.
    async fn change(&self, owner: &str, add: &[&str], remove: &[&str]) -> Result<Receipt, Error> {
        let version = self.read(owner).await.version;
        self.apply(&[change(owner, add, remove, &version)]).await.remove(0)
    }

    fn rrdatas(&self, owner: &str) -> Vec<String> {
        self.cloud.txt(&self.zone.id, owner).map(|rrset| rrset.rrdatas).unwrap_or_default()
    }

    fn stranger(&self, owner: &str, ttl: u32, rrdata: &str) {
        self.cloud.stranger_adds(&self.zone.id, owner, "TXT", ttl, rrdata);
    }
}

fn provider(cloud: &CloudDns, settings: Value) -> Arc<dyn Provider> {
    built(cloud, settings).expect("good settings")
}

fn built(cloud: &CloudDns, mut settings: Value) -> Result<Arc<dyn Provider>, String> {
    settings["endpoint"] = json!(cloud.url());
    settings["iam_endpoint"] = json!(cloud.url());
    let context = Context { backend: "test".into(), ttl: 60, mark: "acmegate".to_owned(), secrets: Arc::new(LocalSecrets) };
    (kind("clouddns").expect("it is in the table").build)(settings, &context)
}

fn name(text: &str) -> Name {
    text.parse().expect(text)
}

fn set(values: &[&str]) -> BTreeSet<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

fn change(owner: &str, add: &[&str], remove: &[&str], version: &str) -> Change {
    Change { owner: name(owner), add: set(add), remove: set(remove), version: version.to_owned() }
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("written");
}

fn plain(ttl: u32, rrdatas: &[&str]) -> Rrset {
    Rrset { ttl, rrdatas: rrdatas.iter().map(|text| (*text).to_owned()).collect(), routing_policy: None }
}

#[tokio::test]
async fn values_come_and_go_and_strangers_stay() {
    let site = Site::start().await;
    for owner in [
        "_acme-challenge.www.example.com",
        "example.com",
        "_acme-challenge.*.example.com",
        "*.example.com",
        "_acme-challenge.xn--bcher-kva.example.com",
    ] {
        site.change(owner, &["one"], &[]).await.expect("added");
        assert_eq!(site.cloud.txt(&site.zone.id, owner), Some(plain(60, &["\"one\""])), "{owner}");
        let strange = r#""v=spf1 \"a\" \\ \255" "second""#;
        site.stranger(owner, 1, strange);
        site.change(owner, &["two", "one"], &[]).await.expect("added beside it");
        assert_eq!(site.rrdatas(owner), ["\"one\"", strange, "\"two\""], "{owner}");
        site.change(owner, &[], &["one", "two", "never there"]).await.expect("removed");
        assert_eq!(site.cloud.txt(&site.zone.id, owner), Some(plain(60, &[strange])), "{owner}");
        assert_eq!(site.read(owner).await.values, BTreeSet::from(["v=spf1 \"a\" \\ \u{fffd}second".to_owned()]), "{owner}");
    }
}

#[tokio::test]
async fn a_strangers_ttl_is_kept() {
    let site = Site::start().await;
    site.stranger("a.example.com", 4711, "\"theirs\"");
    site.change("a.example.com", &["ours"], &[]).await.expect("added");
    assert_eq!(site.cloud.txt(&site.zone.id, "a.example.com"), Some(plain(4711, &["\"theirs\"", "\"ours\""])));
    site.change("a.example.com", &[], &["ours"]).await.expect("removed");
    assert_eq!(site.cloud.txt(&site.zone.id, "a.example.com"), Some(plain(4711, &["\"theirs\""])));
}

#[tokio::test]
async fn what_is_so_already_costs_no_call() {
    let site = Site::start().await;
    site.change("a.example.com", &["one"], &[]).await.expect("added");
    let version = site.read("a.example.com").await.version;
    let calls = site.provider.calls().sent;
    let results = site.apply(&[change("a.example.com", &["one"], &["gone"], &version)]).await;
    assert_eq!(results, [Ok(Receipt::default())]);
    assert_eq!(site.provider.calls().sent, calls);
}

#[tokio::test]
async fn stale_versions_conflict_and_the_others_go_through() {
    for wording in [Wording::Index, Wording::Name] {
        let site = Site::start().await;
        site.cloud.name_entries_by(wording);
        let owners: Vec<String> = (0..30).map(|n| format!("n{n}.example.com")).collect();
        let names: Vec<Name> = owners.iter().map(|owner| name(owner)).collect();
        for owner in &owners[10..20] {
            site.stranger(owner, 5, "\"there before\"");
        }
        let read = site.provider.read(&site.zone, &names).await;
        let changes: Vec<Change> =
            owners.iter().zip(read).map(|(owner, set)| change(owner, &["ours"], &[], &set.expect("it can be read").version)).collect();
        // One that was empty is not, one has another value, and one is gone.
        site.stranger(&owners[3], 5, "\"new\"");
        site.stranger(&owners[13], 5, "\"new\"");
        site.cloud.stranger_removes(&site.zone.id, &owners[17], "TXT", "\"there before\"");
        let results = site.apply(&changes).await;
        for (place, result) in results.iter().enumerate() {
            match place {
                3 | 13 | 17 => assert!(matches!(result, Err(Error::Conflict(_))), "{wording:?} {place}: {result:?}"),
                _ => assert!(result.is_ok(), "{wording:?} {place}: {result:?}"),
            }
        }
        assert_eq!(site.rrdatas(&owners[3]), ["\"new\""]);
        assert_eq!(site.rrdatas(&owners[13]), ["\"there before\"", "\"new\""]);
        assert_eq!(site.rrdatas(&owners[17]), Vec::<String>::new());
        assert_eq!(site.cloud.changes(), [(27, 8)], "what was good went out in one change");
        let (_, writes) = site.cloud.faults().calls();
        assert_eq!(writes, 4, "each refusal named its culprit");
    }
}

#[tokio::test]
async fn a_bad_change_is_found_by_its_place() {
    let site = Site::start().await;
    // Outside the zone: Google names the entry.
    let mut changes: Vec<Change> = Vec::new();
    for owner in ["a.example.com", "b.example.net", "c.example.com"] {
        changes.push(change(owner, &["x"], &[], &site.read(owner).await.version));
    }
    let results = site.apply(&changes).await;
    assert!(results[0].is_ok() && results[2].is_ok(), "{results:?}");
    let Err(Error::Rejected(text)) = &results[1] else { panic!("it has to be refused: {results:?}") };
    assert_eq!(text, "HTTP 400: Invalid value for 'entity.change.additions[1].name': 'b.example.net.' (invalid)");
}

#[tokio::test]
async fn cnames_and_routing_policies_are_refused() {
    let site = Site::start().await;
    site.cloud.stranger_sets(&site.zone.id, "c.example.com", "CNAME", plain(60, &["elsewhere.example."]));
    let policy =
        Rrset { ttl: 60, rrdatas: Vec::new(), routing_policy: Some(json!({"wrr": {"items": [{"weight": 1.0, "rrdatas": ["\"x\""]}]}})) };
    site.cloud.stranger_sets(&site.zone.id, "p.example.com", "TXT", policy.clone());
    let refused = site.change("c.example.com", &["x"], &[]).await;
    assert!(matches!(&refused, Err(Error::Rejected(text)) if text.contains("is a CNAME")), "{refused:?}");
    let refused = site.change("p.example.com", &["x"], &[]).await;
    assert!(matches!(&refused, Err(Error::Rejected(text)) if text.contains("routing policy")), "{refused:?}");
    assert_eq!(site.cloud.txt(&site.zone.id, "p.example.com"), Some(policy));
    // One that came between reading and writing is refused by Google.
    let version = site.read("late.example.com").await.version;
    site.cloud.stranger_sets(&site.zone.id, "late.example.com", "CNAME", plain(60, &["elsewhere.example."]));
    let results = site.apply(&[change("late.example.com", &["x"], &[], &version)]).await;
    assert!(matches!(&results[0], Err(Error::Rejected(text)) if text.contains("cnameResourceRecordSetConflict")), "{results:?}");
}

#[tokio::test]
async fn many_owners_are_read_by_listing_and_few_by_name() {
    let site = Site::start().await;
    site.cloud.set_page(100);
    let owners: Vec<Name> = (0..500).map(|n| name(&format!("n{n}.example.com"))).collect();
    for n in (0..500).step_by(2) {
        site.stranger(&format!("n{n}.example.com"), 60, &format!("\"v{n}\""));
    }
    let before = site.provider.calls().sent;
    let read = site.provider.read(&site.zone, &owners).await;
    assert_eq!(site.provider.calls().sent - before, 3, "252 RRsets on pages of 100");
    for (n, set) in read.iter().enumerate() {
        let expected = if n % 2 == 0 { BTreeSet::from([format!("v{n}")]) } else { BTreeSet::new() };
        assert_eq!(set.as_ref().map(|set| &set.values), Ok(&expected));
    }
    let before = site.provider.calls().sent;
    assert!(site.provider.read(&site.zone, &owners[..5]).await.iter().all(Result::is_ok));
    assert_eq!(site.provider.calls().sent - before, 5);
    // A zone of very many RRsets is not listed for a few owners more.
    site.cloud.set_page(2);
    let before = site.provider.calls().sent;
    let read = site.provider.read(&site.zone, &owners[..24]).await;
    assert_eq!(read[2].as_ref().map(|set| set.values.clone()), Ok(BTreeSet::from(["v2".to_owned()])));
    assert_eq!(site.provider.calls().sent - before, 6 + 24, "six pages, and then one by one");
}

#[tokio::test]
async fn zones_are_paged_and_only_public_ones_count() {
    let site = Site::start().await;
    site.cloud.set_page(2);
    for apex in ["a.test", "b.test", "c.test"] {
        site.cloud.add_zone(apex);
    }
    let hidden = |name: &str, extra: Option<(&str, Value)>| NewZone {
        name: name.to_owned(),
        dns_name: "example.com.".to_owned(),
        visibility: "private".to_owned(),
        nameservers: vec!["ns-gcp-private.googledomains.com.".to_owned()],
        extra: extra.map(|(key, value)| (key.to_owned(), value)),
    };
    site.cloud.make_zone(hidden("inside", None));
    site.cloud.make_zone(hidden("forwarding", Some(("forwardingConfig", json!({"targetNameServers": []})))));
    site.cloud.make_zone(hidden("peering", Some(("peeringConfig", json!({})))));
    let twin = NewZone {
        name: "twin".to_owned(),
        visibility: "public".to_owned(),
        nameservers: vec!["ns-cloud-b1.googledomains.com.".to_owned()],
        ..hidden("", None)
    };
    let twin_number = site.cloud.make_zone(twin);
    let all = site.provider.zones(None).await.expect("listed");
    let mut ids: Vec<&str> = all.zones.iter().map(|zone| zone.id.as_str()).collect();
    ids.sort_unstable();
    assert_eq!((ids, all.complete), (vec!["a-test", "b-test", "c-test", "example-com", "twin"], true));
    let named = site.provider.zones(Some(&name("example.com"))).await.expect("listed").zones;
    assert_eq!(named.len(), 2);
    let twin = named.iter().find(|zone| zone.id == "twin").expect("the twin");
    assert_eq!(twin.nameservers, BTreeSet::from([name("ns-cloud-b1.googledomains.com")]));
    assert!(site.provider.zones(Some(&name("nowhere.test"))).await.expect("asked").zones.is_empty());
    // A zone is pinned by its name or its number, and nobody has to list for that.
    site.cloud.deny("dns.managedZones.list");
    let pinned = Zone { id: twin_number.to_string(), ..twin.clone() };
    let version = site.provider.read(&pinned, &[name("x.example.com")]).await.remove(0).expect("read").version;
    let results = site.provider.apply(&pinned, &[change("x.example.com", &["v"], &[], &version)]).await;
    assert!(results[0].is_ok(), "{results:?}");
    assert_eq!(site.cloud.txt("twin", "x.example.com"), Some(plain(60, &["\"v\""])));
    let refused = site.provider.zones(None).await;
    assert!(matches!(&refused, Err(Error::Auth(text)) if text.contains("dns.managedZones.list")), "{refused:?}");
}

#[tokio::test]
async fn changes_are_cut_to_the_projects_quota() {
    let site = Site::start().await;
    let owners: Vec<Name> = (0..25).map(|n| name(&format!("n{n}.example.com"))).collect();
    let changes = |read: Vec<Result<TxtSet, Error>>, add: &[&str], remove: &[&str]| -> Vec<Change> {
        let owners = owners.iter().map(Name::to_string);
        owners.zip(read).map(|(owner, set)| change(&owner, add, remove, &set.expect("read").version)).collect()
    };
    let of = |additions, deletions, size, records| Quota { additions, deletions, size, records };
    site.cloud.set_quota(of(10, 7, 100_000, 3));
    let read = site.provider.read(&site.zone, &owners).await;
    assert!(site.apply(&changes(read, &["a", "b", "c"], &[])).await.iter().all(Result::is_ok));
    assert_eq!(site.cloud.changes(), [(10, 0), (10, 0), (5, 0)]);
    assert_eq!((site.provider.limits().owners, site.provider.limits().values), (10, 3));
    let read = site.provider.read(&site.zone, &owners).await;
    assert!(site.apply(&changes(read, &["d"], &["a"])).await.iter().all(Result::is_ok));
    assert_eq!(site.cloud.changes()[3..], [(7, 7), (7, 7), (7, 7), (4, 4)]);
    // More records than one RRset may hold are not even sent.
    let (_, writes) = site.cloud.faults().calls();
    let refused = site.change("n0.example.com", &["e"], &[]).await;
    assert!(matches!(&refused, Err(Error::Rejected(text)) if text.contains("4 values") && text.contains("the 3 that")), "{refused:?}");
    assert_eq!(site.cloud.faults().calls().1, writes);
    // A quota that became smaller, and one that is counted in bytes.
    site.cloud.set_quota(of(2, 2, 100_000, 3));
    let read = site.provider.read(&site.zone, &owners).await;
    let results = site.apply(&changes(read, &[], &["b"])).await;
    assert!(results.iter().all(Result::is_ok), "what Google finds too large is sent in halves: {results:?}");
    let small = provider(&site.cloud, json!({"service_account": {"file": site.folder.path().join("key.json")}}));
    site.cloud.set_quota(of(1000, 1000, 40, 100));
    let read = small.read(&site.zone, &owners).await;
    let before = site.cloud.changes().len();
    assert!(small.apply(&site.zone, &changes(read, &[], &["d"])).await.iter().all(Result::is_ok));
    // Each change is "c" and "d" away, "c" back: nine bytes.
    assert_eq!(site.cloud.changes()[before..], [(4, 4), (4, 4), (4, 4), (4, 4), (4, 4), (4, 4), (1, 1)]);
}

#[tokio::test]
async fn without_permission_for_the_quota_the_defaults_hold() {
    let site = Site::start().await;
    site.cloud.deny("dns.projects.get");
    site.change("a.example.com", &["one"], &[]).await.expect("added");
    assert_eq!((site.provider.limits().owners, site.provider.limits().values), (1000, 100));
    let (reads, _) = site.cloud.faults().calls();
    site.change("a.example.com", &["two"], &[]).await.expect("added");
    assert_eq!(site.cloud.faults().calls().0, reads + 1, "the quota was not asked for again");
}

#[tokio::test]
async fn faults_say_what_to_do_next() {
    let site = Site::start().await;
    let owner = "a.example.com";
    site.change("warm.example.com", &["up"], &[]).await.expect("added");
    let pause = Duration::from_secs(1);
    for throttling in [Throttling::TooManyRequests, Throttling::Forbidden] {
        let site = Site::start().await;
        site.cloud.throttle_with(throttling);
        site.cloud.faults().on_reads([Fault::Throttle(pause)]);
        let read = site.provider.read(&site.zone, &[name(owner)]).await.remove(0);
        let asked = (throttling == Throttling::TooManyRequests).then_some(pause);
        assert!(matches!(&read, Err(Error::RateLimited { retry_after, .. }) if *retry_after == asked), "{throttling:?}: {read:?}");
        assert_eq!(site.provider.calls().throttled, 1);
    }
    let version = site.read(owner).await.version;
    for (n, (fault, made)) in
        [(Fault::ErrorBefore, false), (Fault::ErrorAfter, true), (Fault::LostRequest, false), (Fault::LostReply, true)]
            .into_iter()
            .enumerate()
    {
        let owner = format!("f{n}.example.com");
        site.cloud.faults().on_writes([fault]);
        let result = site.apply(&[change(&owner, &["x"], &[], &version)]).await.remove(0);
        assert!(matches!(result, Err(Error::Transport(_))), "{fault:?}: {result:?}");
        assert_eq!(site.cloud.txt(&site.zone.id, &owner).is_some(), made, "{fault:?}");
    }
    site.cloud.faults().on_writes([Fault::Interfere]);
    let result = site.apply(&[change(owner, &["x"], &[], &version)]).await.remove(0);
    assert!(matches!(result, Err(Error::Conflict(_))), "{result:?}");
    site.change(owner, &["x"], &[]).await.expect("read again, it goes through");
    assert_eq!(site.rrdatas(owner), ["\"interference 1\"", "\"x\""]);
    site.cloud.faults().on_writes([Fault::Unauthorized]);
    let result = site.change(owner, &["y"], &[]).await;
    assert!(matches!(&result, Err(Error::Auth(text)) if text.contains("clock")), "{result:?}");
    site.change(owner, &["y"], &[]).await.expect("a token made anew is taken");
}

#[tokio::test]
async fn a_zone_that_is_gone_is_not_found_at_once() {
    let site = Site::start().await;
    let version = site.read("a.example.com").await.version;
    site.change("warm.example.com", &["up"], &[]).await.expect("added");
    site.cloud.remove_zone(&site.zone.id);
    let (_, writes) = site.cloud.faults().calls();
    let changes: Vec<Change> = (0..50).map(|n| change(&format!("n{n}.example.com"), &["x"], &[], &version)).collect();
    let results = site.apply(&changes).await;
    assert!(results.iter().all(|result| matches!(result, Err(Error::NotFound(_)))), "{results:?}");
    assert_eq!(site.cloud.faults().calls().1, writes + 1, "nothing is searched for where there is no zone");
    let read = site.provider.read(&site.zone, &[name("a.example.com")]).await.remove(0);
    assert!(matches!(&read, Err(Error::NotFound(text)) if text.contains("example-com")), "{read:?}");
}

#[tokio::test]
async fn what_is_changed_is_served_by_dns() {
    let address = Address::reserve();
    let cloud = CloudDns::start(PROJECT, Nameservers::start(&[(address.dns(), Duration::ZERO)]).await).await;
    let id = cloud.add_zone("example.com");
    let folder = tempfile::tempdir().expect("a folder");
    write(&folder.path().join("key.json"), &cloud.service_account("acmegate"));
    let provider = provider(&cloud, json!({"service_account": {"file": folder.path().join("key.json")}}));
    let zone = Zone { id: id.clone(), name: name("example.com"), nameservers: BTreeSet::new() };
    cloud.stranger_adds(&id, "a.example.com", "TXT", 60, r#""v=spf1 \"a\"" " b""#);
    let version = provider.read(&zone, &[name("a.example.com")]).await.remove(0).expect("read").version;
    let results = provider.apply(&zone, &[change("a.example.com", &["ours"], &[], &version)]).await;
    assert!(results[0].is_ok(), "{results:?}");
    dns::txt_becomes(address.dns(), "a.example.com.", &["ours", "v=spf1 \"a\" b"]).await;
}

#[tokio::test]
async fn receipts_are_pending_until_google_has_sent_the_change() {
    let site = Site::start().await;
    site.cloud.set_polls(2);
    let receipt = site.change("a.example.com", &["one"], &[]).await.expect("added");
    for expected in [Progress::Pending, Progress::Pending, Progress::Done, Progress::Done] {
        assert_eq!(site.provider.progress(&receipt).await, Ok(expected));
    }
    assert!(matches!(site.provider.progress(&Receipt("nonsense".to_owned())).await, Err(Error::NotFound(_))));
}

#[tokio::test]
async fn a_rotated_key_is_used_at_once() {
    let site = Site::start().await;
    site.change("a.example.com", &["one"], &[]).await.expect("added");
    site.cloud.revoke_all();
    let refused = site.change_error("a.example.com").await;
    assert!(matches!(refused, Error::Auth(_)), "{refused:?}");
    write(&site.folder.path().join("key.json"), &site.cloud.service_account("acmegate"));
    site.change("a.example.com", &["two"], &[]).await.expect("the new key is good");
    assert_eq!(site.cloud.token_calls(), TokenCalls::default(), "a service account signs its tokens itself");
}

impl Site {
    async fn change_error(&self, owner: &str) -> Error {
        self.provider.read(&self.zone, &[name(owner)]).await.remove(0).expect_err("it has to be refused")
    }
}

#[tokio::test]
async fn unusable_keys_are_explained_and_never_shown() {
    let site = Site::start().await;
    let path = site.folder.path().join("key.json");
    let mut key: Value = serde_json::from_str(&std::fs::read_to_string(&path).expect("the key")).expect("JSON");
    let secret = key["private_key"].as_str().expect("PEM").lines().nth(1).expect("a line").to_owned();
    let mut said = vec![format!("{:?}", site.provider)];
    key["private_key"] = json!(format!("-----BEGIN RSA PRIVATE KEY-----\n{secret}\n-----END RSA PRIVATE KEY-----\n"));
    for (text, expected) in [
        (key.to_string(), "its private key cannot be read"),
        (secret.clone(), "is not the JSON key of a service account"),
        (json!({"type": "external_account"}).to_string(), "is not the JSON key of a service account"),
        (json!({"type": "service_account", "private_key": secret}).to_string(), "lacks a part"),
    ] {
        write(&path, &text);
        let error = site.change_error("a.example.com").await;
        assert!(matches!(&error, Error::Auth(text) if text.contains(expected) && text.contains("key.json")), "{error:?}");
        said.push(error.to_string());
    }
    std::fs::remove_file(&path).expect("removed");
    said.push(site.change_error("a.example.com").await.to_string());
    assert!(said.iter().all(|text| !text.contains(&secret)), "{said:?}");
}

#[tokio::test]
async fn verify_tells_who_it_is_and_what_is_missing() {
    let site = Site::start().await;
    let text = site.provider.verify().await.expect("a good credential");
    assert_eq!(text, "the service account acmegate@infra-1.iam.gserviceaccount.com (key), which may list the zones of the project infra-1");
    site.cloud.deny("dns.managedZones.list");
    let text = site.provider.verify().await.expect("a credential for pinned zones");
    assert!(text.contains("grant it dns.managedZones.list") && text.contains("pin each zone"), "{text}");
    site.cloud.revoke_all();
    let refused = site.provider.verify().await;
    assert!(matches!(&refused, Err(Error::Auth(text)) if text.starts_with("HTTP 401")), "{refused:?}");
    let other = provider(&site.cloud, json!({"project": "other", "service_account": {"file": site.folder.path().join("key.json")}}));
    assert!(matches!(other.verify().await, Err(Error::Auth(_))));
}

/// The project need not be the credential's.
#[tokio::test]
async fn settings_are_checked_before_anything_is_asked() {
    let cloud = CloudDns::start(PROJECT, Nameservers::none()).await;
    let key = json!({"file": "key.json"});
    for (settings, said) in [
        (json!({"service_account": key, "workload_identity": "wif.json"}), "two credentials"),
        (json!({"delegates": ["a@b.iam.gserviceaccount.com"]}), "which `impersonate` has to name"),
        (json!({"impersonate": "somebody"}), "no e-mail address"),
        (json!({"project": "my project"}), "no project id"),
        (json!({"token": "x"}), "unknown field"),
        (json!({"service_account": "/etc/key.json"}), "unknown variant"),
    ] {
        let error = built(&cloud, settings).expect_err(said);
        assert!(error.contains(said), "{error}");
    }
    let context = Context { backend: "test".into(), ttl: 60, mark: String::new(), secrets: Arc::new(LocalSecrets) };
    let build = kind("clouddns").expect("it is in the table").build;
    for key in ["endpoint", "iam_endpoint"] {
        let error = build(json!({key: "http://dns.example.com"}), &context).expect_err("in the clear");
        assert!(error.starts_with(&format!("{key}: ")), "{error}");
    }
}

/// google-cloud-auth takes the security token service's address, and that of the account to act as, from the file; so both are tried here.
#[tokio::test]
async fn workload_identity_federation() {
    let site = Site::start().await;
    let (file, token) = (site.folder.path().join("wif.json"), site.folder.path().join("token"));
    write(&token, "header.claims.s3cret");
    let text = |account: Option<&str>| site.cloud.federation("header.claims.s3cret", &token.display().to_string(), account);
    site.cloud.allow(&site.cloud.workload(), true);
    write(&file, &text(None));
    let settings = json!({"workload_identity": file, "project": PROJECT});
    let direct = provider(&site.cloud, settings.clone());
    assert_eq!(direct.verify().await.as_deref(), Ok("a workload identity (federation), which may list the zones of the project infra-1"));
    assert_eq!((site.cloud.token_calls().exchange, site.cloud.token_calls().impersonation), (1, 0));
    assert!(direct.verify().await.is_ok());
    assert_eq!(site.cloud.token_calls().exchange, 1, "a token is used until it ends");

    // The file has the workload act as an account, whose address names the project.
    site.cloud.allow(&site.cloud.workload(), false);
    let account = site.cloud.email("dns");
    site.cloud.allow(&account, true);
    write(&file, &text(Some(&account)));
    let acting = provider(&site.cloud, json!({"workload_identity": file}));
    let refused = acting.verify().await.expect_err("it may not act as the account");
    assert!(matches!(&refused, Error::Auth(text) if text.contains("a workload identity as dns@")), "{refused:?}");
    site.cloud.allow_acting(&site.cloud.workload(), &account);
    let text = acting.verify().await.expect("now it may, and is not held to what was refused before");
    assert!(text.contains("a workload identity as dns@infra-1.iam.gserviceaccount.com"), "{text}");

    // The identity provider's token is another, which the pool does not take.
    write(&token, "header.claims.other");
    let error = provider(&site.cloud, settings).verify().await.expect_err("a strange subject");
    assert!(
        matches!(&error, Error::Auth(text) if text.contains("invalid_grant: The given credential is rejected by the attribute condition.")),
        "{error:?}"
    );
    assert!(!error.to_string().contains("header.claims"), "{error}");
    std::fs::remove_file(&token).expect("removed");
    let error = provider(&site.cloud, json!({"workload_identity": file})).verify().await.expect_err("no subject token");
    assert!(matches!(&error, Error::Auth(_)), "{error:?}");
}

#[tokio::test]
async fn impersonation_with_and_without_delegates() {
    let site = Site::start().await;
    let (from, between, to) = (site.cloud.email("acmegate"), site.cloud.email("between"), site.cloud.email("dns"));
    site.cloud.allow(&from, false);
    site.cloud.allow(&to, true);
    let settings = |extra: Value| {
        let mut settings = json!({"service_account": {"file": site.folder.path().join("key.json")}, "impersonate": to});
        for (key, value) in extra.as_object().into_iter().flatten() {
            settings[key] = value.clone();
        }
        provider(&site.cloud, settings)
    };
    let error = settings(json!({})).verify().await.expect_err("not allowed to act");
    assert!(
        matches!(&error, Error::Auth(text) if text.contains("may not act as dns@") && text.contains("Service Account Token Creator")),
        "{error:?}"
    );
    site.cloud.allow_acting(&from, &between);
    site.cloud.allow_acting(&between, &to);
    let through = settings(json!({"delegates": [between]}));
    let text = through.verify().await.expect("through the delegate");
    assert!(text.starts_with("the service account acmegate@infra-1.iam.gserviceaccount.com (key), acting as dns@"), "{text}");
    assert!(settings(json!({})).verify().await.is_err(), "not without it");
    site.cloud.allow_acting(&from, &to);
    let direct = settings(json!({}));
    assert!(direct.verify().await.is_ok());
    let asked = site.cloud.token_calls().impersonation;
    assert!(direct.zones(None).await.is_ok());
    assert_eq!(site.cloud.token_calls().impersonation, asked, "a token is used until it ends");
}

/// Where the default credentials are is said by environment variables alone, so this test runs itself as a child that has them.
#[tokio::test]
async fn the_default_credentials_are_a_file_or_the_metadata_server() {
    const ENDPOINT: &str = "CLOUDDNS_TEST_ENDPOINT";
    if let Ok(endpoint) = std::env::var(ENDPOINT) {
        let context = Context { backend: "test".into(), ttl: 60, mark: String::new(), secrets: Arc::new(LocalSecrets) };
        let build = kind("clouddns").expect("it is in the table").build;
        let mut settings = json!({"endpoint": endpoint, "iam_endpoint": endpoint});
        if let Ok(account) = std::env::var("CLOUDDNS_TEST_IMPERSONATE") {
            settings["impersonate"] = json!(account);
        }
        let provider = build(settings, &context).expect("good settings");
        let text = provider.verify().await.unwrap_or_else(|error| error.to_string());
        // The parent reads it from the test's output.
        assert_eq!(std::env::var("CLOUDDNS_TEST_EXPECTED").as_deref(), Ok(text.as_str()));
        return;
    }
    let site = Site::start().await;
    let child = |expected: &str, variables: &[(&str, &str)]| {
        let mut command = Command::new(std::env::current_exe().expect("this test"));
        command.args(["--exact", "the_default_credentials_are_a_file_or_the_metadata_server"]).env_clear();
        command.env("HOME", site.folder.path()).env(ENDPOINT, site.cloud.url()).env("CLOUDDNS_TEST_EXPECTED", expected);
        command.envs(variables.iter().copied());
        tokio::task::spawn_blocking(move || {
            let output = command.output().expect("it runs");
            assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        })
    };
    let list = "which may list the zones of the project infra-1";
    let machine = "the service account of this machine (metadata server)";
    let host = site.cloud.metadata_host();
    let metadata = [("GCE_METADATA_HOST", host.as_str())];
    // A machine without a service account, with one, and with one that acts as another.
    child("the credential was refused: the metadata server gives the service account of this machine (metadata server) no token: has this machine a service account?", &metadata)
        .await
        .expect("refused");
    let (node, dns) = (site.cloud.email("node"), site.cloud.email("dns"));
    site.cloud.set_machine(&node);
    site.cloud.allow(&node, true);
    child(&format!("{machine}, {list}"), &metadata).await.expect("by the metadata server");
    assert!(site.cloud.token_calls().metadata >= 2, "the token and the project");
    site.cloud.allow(&node, false);
    site.cloud.allow(&dns, true);
    site.cloud.allow_acting(&node, &dns);
    let acting = [metadata[0], ("CLOUDDNS_TEST_IMPERSONATE", dns.as_str())];
    child(&format!("{machine}, acting as {dns}, {list}"), &acting).await.expect("acting");

    // The file that the variable names, and gcloud's.
    let key = site.folder.path().join("key.json").display().to_string();
    let email = site.cloud.email("acmegate");
    child(&format!("the service account {email} (key), {list}"), &[("GOOGLE_APPLICATION_CREDENTIALS", &key)])
        .await
        .expect("by the variable");
    let gcloud = site.folder.path().join(".config/gcloud");
    std::fs::create_dir_all(&gcloud).expect("a folder");
    let text = json!({
        "type": "impersonated_service_account",
        "service_account_impersonation_url": format!("{}/v1/projects/-/serviceAccounts/{dns}:generateAccessToken", site.cloud.url()),
        "source_credentials": serde_json::from_str::<Value>(&std::fs::read_to_string(&key).expect("the key")).expect("JSON"),
    });
    write(&gcloud.join("application_default_credentials.json"), &text.to_string());
    site.cloud.allow_acting(&email, &dns);
    child(&format!("the service account {dns} (gcloud), {list}"), &[]).await.expect("by gcloud's file");
    // A file that is named has to be there.
    let missing = site.folder.path().join("missing.json").display().to_string();
    let expected = format!("the credential was refused: the file {missing} cannot be read: No such file or directory (os error 2)");
    child(&expected, &[("GOOGLE_APPLICATION_CREDENTIALS", &missing)]).await.expect("refused");
}
