//! Cloudflare against its emulator.
#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use authdns::Name;
use emulators::{
    Fault, Nameservers,
    cloudflare::{ACCOUNT, Cloudflare, NewZone, Right, StoredRecord},
};
use providers::{Change, Context, Error, Marked, Provider, TxtSet, Zone, kind, secret::LocalSecrets};
use serde_json::{Value, json};
use tempfile::TempDir;

const TOKEN: &str = "the-token-that-nobody-may-see";
const MARK: &str = "acmegate Test-1";

struct World {
    cloud: Cloudflare,
    folder: TempDir,
    provider: Arc<dyn Provider>,
    zone: Zone,
}

impl World {
    /// A cloud with the zone `example.com`, and a provider with a good token.
    async fn new() -> Self {
        Self::with(json!({})).await
    }

    /// The same with other settings.
    async fn with(settings: Value) -> Self {
        let cloud = Cloudflare::start(TOKEN, Nameservers::none()).await;
        let id = cloud.add_zone("example.com");
        let folder = tempfile::tempdir().expect("a folder");
        let provider = provider(&cloud, &folder, settings).expect("a provider");
        let zone = Zone { id, name: name("example.com"), nameservers: BTreeSet::new() };
        Self { cloud, folder, provider, zone }
    }

    async fn read(&self, owner: &str) -> TxtSet {
        self.provider.read(&self.zone, &[name(owner)]).await.remove(0).expect("a set")
    }

    async fn values(&self, owner: &str) -> Vec<String> {
        self.read(owner).await.values.into_iter().collect()
    }

    /// Reads, then applies.
    async fn change(&self, owner: &str, add: &[&str], remove: &[&str]) -> Result<(), Error> {
        let version = self.read(owner).await.version;
        self.apply(&[change(owner, add, remove, &version)]).await.remove(0)
    }

    async fn apply(&self, changes: &[Change]) -> Vec<Result<(), Error>> {
        let results = self.provider.apply(&self.zone, changes).await;
        assert_eq!(results.len(), changes.len());
        results.into_iter().map(|result| result.map(|_| ())).collect()
    }

    /// Changes that add one value at each of so many names, read in one call.
    async fn additions(&self, count: usize) -> Vec<Change> {
        let owners: Vec<Name> = (0..count).map(|n| name(&format!("_acme-challenge.n{n}.example.com"))).collect();
        let sets = self.provider.read(&self.zone, &owners).await;
        let changes =
            owners.iter().zip(sets).map(|(owner, set)| change(&owner.to_relative_string(), &["value"], &[], &set.expect("a set").version));
        changes.collect()
    }

    fn record(&self, id: &str) -> Option<StoredRecord> {
        self.cloud.records("example.com").into_iter().find(|record| record.id == id)
    }
}

fn name(text: &str) -> Name {
    text.parse().expect(text)
}

fn change(owner: &str, add: &[&str], remove: &[&str], version: &str) -> Change {
    let set = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
    Change { owner: name(owner), add: set(add), remove: set(remove), version: version.to_owned() }
}

fn secret(folder: &TempDir, file: &str, text: &str) -> Value {
    let path: PathBuf = folder.path().join(file);
    std::fs::write(&path, text).expect("written");
    json!({"file": path})
}

/// A provider with a token, and these settings over it; `null` takes one away.
fn provider(cloud: &Cloudflare, folder: &TempDir, settings: Value) -> Result<Arc<dyn Provider>, String> {
    let mut all = json!({"token": secret(folder, "token", TOKEN), "endpoint": cloud.url()});
    for (key, value) in settings.as_object().expect("a map") {
        all[key] = value.clone();
    }
    all.as_object_mut().expect("a map").retain(|_, value| !value.is_null());
    let context = Context { backend: "test".into(), ttl: 60, mark: MARK.to_owned(), secrets: Arc::new(LocalSecrets) };
    (kind("cloudflare").expect("in the table").build)(all, &context)
}

#[tokio::test]
async fn foreign_values_stay_byte_for_byte() {
    let world = World::new().await;
    let owner = "_acme-challenge.example.com";
    let long = format!("\"{}\" \"{}\"", "x".repeat(255), "y".repeat(40));
    let contents = ["unquoted and old", r#""quoted \"twice\" \\ \195\188""#, &long];
    let ids: Vec<String> = contents.iter().map(|content| world.cloud.stranger_adds("example.com", owner, "TXT", content, 3600)).collect();
    let before: Vec<StoredRecord> = ids.iter().filter_map(|id| world.record(id)).collect();

    assert_eq!(world.change(owner, &["ours-1", "ours-2"], &[]).await, Ok(()));
    let mut expected =
        vec!["unquoted and old".to_owned(), "quoted \"twice\" \\ ü".to_owned(), format!("{}{}", "x".repeat(255), "y".repeat(40))];
    expected.extend(["ours-1".to_owned(), "ours-2".to_owned()]);
    expected.sort();
    assert_eq!(world.values(owner).await, expected);
    let ours: Vec<StoredRecord> = world.cloud.records("example.com").into_iter().filter(|record| record.comment.is_some()).collect();
    for record in &ours {
        assert_eq!((record.ttl, record.comment.as_deref()), (3600, Some(MARK)), "the RRset keeps its TTL");
    }
    assert_eq!(ours.iter().map(|record| record.content.as_str()).collect::<Vec<_>>(), ["\"ours-1\"", "\"ours-2\""]);

    assert_eq!(world.change(owner, &[], &["ours-1"]).await, Ok(()));
    assert_eq!(world.change(owner, &["ours-2"], &["ours-1", "never there"]).await, Ok(()), "nothing to do");
    assert_eq!(world.cloud.batches(), [2, 1], "what stands and what is gone takes no call");
    assert_eq!(world.change(owner, &[], &["ours-2"]).await, Ok(()));
    let after: Vec<StoredRecord> = world.cloud.records("example.com");
    assert_eq!(after, before);
}

#[tokio::test]
async fn letter_case_tells_values_and_marks_apart() {
    let world = World::new().await;
    let owner = "_acme-challenge.example.com";
    let theirs = world.cloud.stranger_adds("example.com", owner, "TXT", "\"ABC\"", 60);
    assert_eq!(world.change(owner, &["abc"], &[]).await, Ok(()));
    assert_eq!(world.values(owner).await, ["ABC", "abc"]);
    let marked = world.provider.marked(&world.zone).await;
    assert_eq!(marked, Ok(Some(vec![Marked { owner: name(owner), value: "abc".to_owned() }])));
    assert_eq!(world.change(owner, &[], &["abc"]).await, Ok(()));
    assert!(world.record(&theirs).is_some());
    assert_eq!(world.values(owner).await, ["ABC"]);
    assert_eq!(world.provider.marked(&world.zone).await, Ok(Some(vec![])));
}

#[tokio::test]
async fn every_kind_of_name() {
    let world = World::new().await;
    for owner in ["example.com", "*.example.com", "_acme-challenge.xn--bcher-kva.example.com", "_Acme-Challenge.UPPER.example.com"] {
        assert_eq!(world.change(owner, &["value"], &[]).await, Ok(()), "{owner}");
        assert_eq!(world.values(owner).await, ["value"], "{owner}");
        assert_eq!(world.cloud.contents(&name(owner).to_relative_string()), ["\"value\""], "{owner}");
        assert_eq!(world.change(owner, &[], &["value"]).await, Ok(()), "{owner}");
        assert_eq!(world.values(owner).await, Vec::<String>::new(), "{owner}");
    }
}

#[tokio::test]
async fn many_names_take_few_calls() {
    let world = World::new().await;
    let changes = world.additions(500).await;
    assert!(world.apply(&changes).await.iter().all(Result::is_ok));
    assert_eq!(world.cloud.batches(), [200, 200, 100]);
    assert_eq!(world.cloud.faults().calls(), (1, 3), "one list, and a call for each 200 changes");
    let paid = World::with(json!({"plan_batch": 3500})).await;
    paid.cloud.set_batch_limit(3500);
    let changes = paid.additions(500).await;
    assert!(paid.apply(&changes).await.iter().all(Result::is_ok));
    assert_eq!(paid.cloud.batches(), [500]);
}

#[tokio::test]
async fn long_lists_are_read_to_the_end() {
    let world = World::new().await;
    for n in 0..2300 {
        world.cloud.stranger_adds("example.com", &format!("h{n}.example.com"), "TXT", "\"theirs\"", 300);
    }
    world.cloud.stranger_adds("example.com", "last.example.com", "TXT", "\"last\"", 300);
    let many: Vec<Name> = ["h0", "h1500", "last", "none"].iter().map(|host| name(&format!("{host}.example.com"))).collect();
    let sets = world.provider.read(&world.zone, &many).await;
    let counts: Vec<usize> = sets.iter().map(|set| set.as_ref().map_or(9, |set| set.values.len())).collect();
    assert_eq!(counts, [1, 1, 1, 0]);
    assert_eq!(world.cloud.faults().calls().0, 3, "three pages are fewer than four names");
    let sets = world.provider.read(&world.zone, &many[..2]).await;
    assert!(sets.iter().all(|set| set.as_ref().is_ok_and(|set| set.values.len() == 1)));
    assert_eq!(world.cloud.faults().calls().0, 6, "two names are fewer than three pages, which the first one tells of");
}

#[tokio::test]
async fn faults_become_the_errors_that_say_what_to_do() {
    let world = World::new().await;
    let owner = "_acme-challenge.example.com";
    let version = world.read(owner).await.version;
    let attempt = async |fault: Fault, value: &str| {
        world.cloud.faults().on_writes([fault]);
        world.apply(&[change(owner, &[value], &[], &version)]).await.remove(0).expect_err(value)
    };
    assert!(matches!(attempt(Fault::ErrorBefore, "a").await, Error::Transport(_)));
    assert!(matches!(attempt(Fault::ErrorAfter, "b").await, Error::Transport(_)));
    assert!(matches!(attempt(Fault::LostReply, "c").await, Error::Transport(_)));
    assert!(matches!(attempt(Fault::LostRequest, "d").await, Error::Transport(_)));
    assert!(matches!(attempt(Fault::Unauthorized, "e").await, Error::Auth(_)));
    assert_eq!(world.values(owner).await, ["b", "c"], "what was lost after the effect stands");
    world.cloud.faults().on_writes([Fault::Interfere]);
    assert_eq!(world.change(owner, &["f"], &["b", "c"]).await, Ok(()));
    assert_eq!(world.values(owner).await, ["f", "interference 1"]);
    let throttled = attempt(Fault::Throttle(Duration::from_secs(300)), "g").await;
    assert!(matches!(throttled, Error::RateLimited { retry_after: Some(pause), .. } if pause.as_secs() == 300), "{throttled:?}");
    let calls = world.cloud.faults().calls();
    let refused = world.provider.read(&world.zone, &[name(owner)]).await.remove(0);
    assert!(matches!(refused, Err(Error::RateLimited { .. })), "{refused:?}");
    assert_eq!(world.cloud.faults().calls(), calls, "nothing is sent while the door is closed");
    assert_eq!(world.provider.calls().throttled, 1);
}

#[tokio::test]
async fn the_rate_headers_are_heeded_before_the_door_closes() {
    let world = World::new().await;
    world.cloud.limit_rate(Some((2, Duration::from_secs(300))));
    for _ in 0..2 {
        assert_eq!(world.values("example.com").await, Vec::<String>::new());
    }
    let next = world.provider.read(&world.zone, &[name("example.com")]).await.remove(0);
    assert!(matches!(next, Err(Error::RateLimited { .. })), "{next:?}");
    assert_eq!(world.provider.calls().throttled, 0);
}

#[tokio::test]
async fn what_changed_meanwhile_is_a_conflict_and_holds_back_nobody() {
    for named in [false, true] {
        let world = World::new().await;
        world.cloud.name_offenders(named);
        let gone = world.cloud.stranger_adds("example.com", "gone.example.com", "TXT", "\"old\"", 300);
        let gone_version = world.read("gone.example.com").await.version;
        let mut changes = world.additions(20).await;
        changes.push(change("gone.example.com", &["new"], &["old"], &gone_version));
        world.cloud.stranger_removes(&gone);
        world.cloud.stranger_adds("example.com", "_acme-challenge.n7.example.com", "TXT", "value", 300);
        let results = world.apply(&changes).await;
        let conflicts: Vec<usize> =
            results.iter().enumerate().filter(|(_, result)| matches!(result, Err(Error::Conflict(_)))).map(|(place, _)| place).collect();
        assert_eq!(conflicts, [7, 20], "named: {named}");
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 19);
        assert_eq!(world.cloud.batches(), [19]);
        assert!(world.cloud.contents("gone.example.com").is_empty(), "a change is made whole or not at all");
        let calls = if named { (2, 3) } else { (3, 2) };
        assert_eq!(world.cloud.faults().calls(), calls, "by their names one at a time, else by one more list; named: {named}");
    }
}

#[tokio::test]
async fn a_change_that_cannot_be_made_is_found_and_left_out() {
    let world = World::new().await;
    world.cloud.stranger_adds("example.com", "_acme-challenge.n5.example.com", "CNAME", "elsewhere.example.net", 300);
    let changes = world.additions(16).await;
    let results = world.apply(&changes).await;
    let refused: Vec<_> = results.iter().enumerate().filter_map(|(place, result)| Some((place, result.as_ref().err()?.clone()))).collect();
    assert_eq!(refused, [(5, Error::Rejected("HTTP 400: A CNAME record with that host already exists [81054]".to_owned()))]);
    assert_eq!(world.cloud.batches().iter().sum::<usize>(), 15);
}

#[tokio::test]
async fn a_zone_that_vanishes_takes_one_call_to_notice() {
    let world = World::new().await;
    let changes = world.additions(50).await;
    world.cloud.remove_zone("example.com");
    let results = world.apply(&changes).await;
    assert!(results.iter().all(|result| matches!(result, Err(Error::NotFound(_)))), "{results:?}");
    assert_eq!(world.cloud.faults().calls(), (1, 1));
    let read = world.provider.read(&world.zone, &[name("example.com"), name("a.example.com")]).await;
    assert!(read.iter().all(|set| matches!(set, Err(Error::NotFound(_)))), "{read:?}");
    assert_eq!(world.provider.zones(Some(&name("example.com"))).await.map(|listing| listing.zones), Ok(vec![]));
}

#[tokio::test]
async fn a_full_zone_still_lets_values_go() {
    let world = World::new().await;
    assert_eq!(world.change("old.example.com", &["value"], &[]).await, Ok(()));
    world.cloud.set_quota("example.com", 1);
    let mut changes = world.additions(2).await;
    changes.push(change("old.example.com", &[], &["value"], &world.read("old.example.com").await.version));
    let results = world.apply(&changes).await;
    assert!(results[2].is_ok(), "{results:?}");
    assert!(results.iter().any(|result| matches!(result, Err(Error::Rejected(_)))), "{results:?}");
    assert!(world.cloud.contents("old.example.com").is_empty());
}

#[tokio::test]
async fn zones_by_name_and_all_of_them() {
    let world = World::new().await;
    let other = NewZone {
        name: "example.com".to_owned(),
        status: "pending".to_owned(),
        kind: "full".to_owned(),
        account: "another-account".to_owned(),
        name_servers: vec!["eve.ns.cloudflare.com".to_owned()],
    };
    let pending = world.cloud.make_zone(other.clone());
    for kind in ["secondary", "partial", "internal"] {
        world.cloud.make_zone(NewZone {
            name: "unserved.example".to_owned(),
            kind: kind.to_owned(),
            status: "active".to_owned(),
            ..other.clone()
        });
    }
    for n in 0..120 {
        world.cloud.add_zone(&format!("z{n}.example"));
    }
    let found = world.provider.zones(Some(&name("example.com"))).await.expect("a listing");
    let servers = ["ada.ns.cloudflare.com", "bob.ns.cloudflare.com"].map(name);
    assert_eq!(found.zones, [Zone { nameservers: servers.into(), ..world.zone.clone() }], "of two, the active one");
    let all = world.provider.zones(None).await.expect("a listing");
    assert!(
        all.complete && all.zones.len() == 121 && all.zones.iter().all(|zone| zone.name != name("unserved.example")),
        "{}",
        all.zones.len()
    );
    assert_eq!(world.provider.zones(Some(&name("other.example"))).await.map(|listing| listing.zones), Ok(vec![]));

    let theirs = provider(&world.cloud, &world.folder, json!({"account_id": "another-account"})).expect("a provider");
    let found = theirs.zones(None).await.expect("a listing");
    assert_eq!(found.zones.iter().map(|zone| zone.id.clone()).collect::<Vec<_>>(), [pending], "nothing active beside it");

    for n in 120..1100 {
        world.cloud.add_zone(&format!("z{n}.example"));
    }
    let (before, _) = world.cloud.faults().calls();
    let all = world.provider.zones(None).await.expect("a listing");
    assert!(!all.complete && all.zones.is_empty(), "too many to list");
    assert_eq!(world.cloud.faults().calls().0, before + 1, "which the first page says");
}

#[tokio::test]
async fn every_form_of_credential() {
    let world = World::new().await;
    let (cloud, folder) = (&world.cloud, &world.folder);
    assert_eq!(world.provider.verify().await, Ok("the API token is active; 1 zones can be seen".to_owned()));

    cloud.grant("zone-reader", &[Right::ZoneRead]);
    cloud.grant("dns-editor", &[Right::DnsEdit]);
    let (zones, records) = (secret(folder, "zones", "zone-reader\n"), secret(folder, "records", "dns-editor\n"));
    let split = provider(cloud, folder, json!({"token": records, "zone_token": zones})).expect("a provider");
    let zone = split.zones(None).await.expect("a listing").zones.remove(0);
    let version = split.read(&zone, &[name("example.com")]).await.remove(0).expect("a set").version;
    assert!(split.apply(&zone, &[change("example.com", &["split"], &[], &version)]).await.remove(0).is_ok());
    assert!(split.verify().await.is_ok());
    let alone = provider(cloud, folder, json!({"token": records})).expect("a provider");
    assert!(matches!(alone.zones(None).await.map(|listing| listing.zones.len()), Ok(0)), "no rights, no zones");
    let swapped = provider(cloud, folder, json!({"token": zones})).expect("a provider");
    let refused = swapped.read(&zone, &[name("example.com")]).await.remove(0).expect_err("no right").to_string();
    assert!(refused.contains("DNS / Edit"), "{refused}");

    cloud.grant_key("admin@example.com", "the-global-key");
    let key = secret(folder, "key", "the-global-key");
    let legacy = provider(cloud, folder, json!({"token": null, "email": "admin@example.com", "key": key})).expect("a provider");
    assert_eq!(legacy.zones(None).await.map(|listing| listing.zones.len()), Ok(1));
    assert_eq!(legacy.verify().await, Ok("1 zones can be seen".to_owned()));
    secret(folder, "key", "another-key");
    assert!(matches!(legacy.verify().await, Err(Error::Auth(_))));

    cloud.give_to_account(TOKEN);
    let of_account = provider(cloud, folder, json!({"account_id": ACCOUNT})).expect("a provider");
    assert_eq!(of_account.verify().await, Ok("the API token is active; 1 zones can be seen".to_owned()));
    assert_eq!(world.provider.verify().await, Ok("1 zones can be seen".to_owned()), "an account's token, and no account is set");
}

#[tokio::test]
async fn a_token_that_ends_midway_is_replaced_in_its_file() {
    let world = World::new().await;
    assert_eq!(world.change("example.com", &["one"], &[]).await, Ok(()));
    world.cloud.expire(TOKEN);
    let refused = world.provider.read(&world.zone, &[name("example.com")]).await.remove(0).expect_err("expired");
    assert!(matches!(refused, Error::Auth(_)), "{refused:?}");
    assert_eq!(world.provider.verify().await, Err(Error::Auth("the API token is expired: make a new one".to_owned())));
    world.cloud.grant("the-second-token", &[Right::ZoneRead, Right::DnsEdit]);
    secret(&world.folder, "token", "the-second-token");
    assert_eq!(world.change("example.com", &[], &["one"]).await, Ok(()));
}

#[tokio::test]
async fn no_secret_shows_up_anywhere() {
    let world = World::new().await;
    let mut said = vec![format!("{:?}", world.provider)];
    for bad in [format!("{TOKEN}\nInjected: header"), format!("{TOKEN} "), format!("{TOKEN}-unknown"), format!("{TOKEN}%")] {
        secret(&world.folder, "token", &bad);
        let read = world.provider.read(&world.zone, &[name("example.com")]).await.remove(0);
        said.extend([format!("{read:?}"), format!("{:?}", world.provider.verify().await)]);
    }
    world.cloud.faults().outage(Some(Fault::LostRequest));
    said.push(format!("{:?}", world.provider.verify().await));
    for text in said {
        assert!(!text.contains(TOKEN) && !text.contains("Injected"), "{text}");
    }
}

#[tokio::test]
async fn wrong_settings_say_what_to_write_instead() {
    let world = World::new().await;
    let key = json!({"env": "CF_KEY"});
    for (settings, said) in [
        (json!({"token": null}), "token: an API token is missing"),
        (json!({"email": "a@example.com", "key": key}), "not both"),
        (json!({"token": null, "zone_token": key}), "goes with a token"),
        (json!({"token": null, "email": "a b", "key": key}), "email: "),
        (json!({"plan_batch": 0}), "from 1 to 3500"),
        (json!({"plan_batch": 3501}), "from 1 to 3500"),
        (json!({"endpoint": "http://api.cloudflare.com/client/v4"}), "in the clear"),
        (json!({"tokn": key}), "unknown field"),
    ] {
        let error = provider(&world.cloud, &world.folder, settings).expect_err(said);
        assert!(error.contains(said), "{error}");
    }
}
