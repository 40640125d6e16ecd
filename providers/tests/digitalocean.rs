//! DigitalOcean against its emulator.
#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use authdns::Name;
use emulators::{
    Fault, Nameservers,
    digitalocean::{DigitalOcean, Right, StoredRecord},
};
use providers::{Change, Context, Error, Provider, TxtSet, Zone, kind, secret::LocalSecrets};
use serde_json::{Value, json};
use tempfile::TempDir;

const TOKEN: &str = "dop_v1_the-token-that-nobody-may-see";

struct World {
    cloud: DigitalOcean,
    folder: TempDir,
    provider: Arc<dyn Provider>,
    zone: Zone,
}

impl World {
    /// A cloud with the domain `example.com`, and a provider with a good token.
    async fn new() -> Self {
        let cloud = DigitalOcean::start(TOKEN, Nameservers::none()).await;
        cloud.add_domain("example.com");
        let folder = tempfile::tempdir().expect("a folder");
        let provider = provider(&cloud, &folder, json!({})).expect("a provider");
        let zone = Zone { id: "example.com".to_owned(), name: name("example.com"), nameservers: BTreeSet::new() };
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

    /// Changes that add one value at each of so many names, read together.
    async fn additions(&self, count: usize) -> Vec<Change> {
        let owners: Vec<Name> = (0..count).map(|n| name(&format!("_acme-challenge.n{n}.example.com"))).collect();
        let sets = self.provider.read(&self.zone, &owners).await;
        let addition = |(owner, set): (&Name, Result<TxtSet, Error>)| {
            change(&owner.to_relative_string(), &["value"], &[], &set.expect("a set").version)
        };
        owners.iter().zip(sets).map(addition).collect()
    }

    fn txt_records(&self) -> Vec<StoredRecord> {
        self.cloud.records("example.com").into_iter().filter(|record| record.kind == "TXT").collect()
    }
}

fn name(text: &str) -> Name {
    text.parse().expect(text)
}

fn change(owner: &str, add: &[&str], remove: &[&str], version: &str) -> Change {
    let set = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
    Change { owner: name(owner), add: set(add), remove: set(remove), version: version.to_owned() }
}

fn secret(folder: &TempDir, text: &str) -> Value {
    let path = folder.path().join("token");
    std::fs::write(&path, text).expect("written");
    json!({"file": path})
}

fn provider(cloud: &DigitalOcean, folder: &TempDir, settings: Value) -> Result<Arc<dyn Provider>, String> {
    let mut all = json!({"token": secret(folder, TOKEN), "endpoint": cloud.url()});
    for (key, value) in settings.as_object().expect("a map") {
        all[key] = value.clone();
    }
    let context = Context { backend: "test".into(), ttl: 60, mark: "acmegate test".to_owned(), secrets: Arc::new(LocalSecrets) };
    (kind("digitalocean").expect("in the table").build)(all, &context)
}

#[tokio::test]
async fn foreign_values_stay_byte_for_byte() {
    let world = World::new().await;
    let owner = "_acme-challenge.example.com";
    let long = "x".repeat(400);
    for data in ["with spaces ", "in\"side", "\"in quotes\"", "back\\slash", "semi;colon", long.as_str()] {
        world.cloud.stranger_adds("example.com", owner, "TXT", data, 3600);
    }
    let before = world.txt_records();
    assert_eq!(world.change(owner, &["ours-1", "ours-2"], &[]).await, Ok(()));
    let mut expected: Vec<String> =
        before.iter().map(|record| record.data.clone()).chain(["ours-1".to_owned(), "ours-2".to_owned()]).collect();
    expected.sort();
    assert_eq!(world.values(owner).await, expected);
    assert!(world.txt_records().iter().all(|record| record.ttl == 3600), "the RRset keeps its TTL");
    assert_eq!(world.change(owner, &[], &["ours-1"]).await, Ok(()));
    let (_, writes) = world.cloud.faults().calls();
    assert_eq!(world.change(owner, &["ours-2"], &["ours-1", "never there"]).await, Ok(()));
    assert_eq!(world.cloud.faults().calls().1, writes, "what stands and what is gone takes no call");
    assert_eq!(world.change(owner, &[], &["ours-2"]).await, Ok(()));
    assert_eq!(world.txt_records(), before);
}

#[tokio::test]
async fn every_kind_of_name() {
    let world = World::new().await;
    let doubled = "www.example.com.example.com";
    for owner in ["example.com", "*.example.com", "_acme-challenge.xn--bcher-kva.example.com", "_Acme-Challenge.UPPER.example.com", doubled]
    {
        assert_eq!(world.change(owner, &["value", "Value"], &[]).await, Ok(()), "{owner}");
        assert_eq!(world.values(owner).await, ["Value", "value"], "{owner}");
        assert_eq!(world.cloud.values(&name(owner).to_relative_string()), ["Value", "value"], "{owner}");
        assert_eq!(world.change(owner, &[], &["Value"]).await, Ok(()), "{owner}");
        assert_eq!(world.change(owner, &[], &["value"]).await, Ok(()), "{owner}");
        assert_eq!(world.values(owner).await, Vec::<String>::new(), "{owner}");
    }
}

#[tokio::test]
async fn lists_are_read_to_the_end() {
    let world = World::new().await;
    for n in 0..450 {
        world.cloud.stranger_adds("example.com", &format!("h{n}.example.com"), "TXT", "theirs", 300);
    }
    for _ in 0..25 {
        world.cloud.stranger_adds("example.com", "twice.example.com", "TXT", "same", 300);
    }
    assert_eq!(world.change("twice.example.com", &[], &["same"]).await, Ok(()), "more than the default page of 20");
    assert!(world.cloud.values("twice.example.com").is_empty());
    let (before, _) = world.cloud.faults().calls();
    let many: Vec<Name> = ["h0", "h300", "h449", "none"].iter().map(|host| name(&format!("{host}.example.com"))).collect();
    let sets = world.provider.read(&world.zone, &many).await;
    let counts: Vec<usize> = sets.iter().map(|set| set.as_ref().map_or(9, |set| set.values.len())).collect();
    assert_eq!(counts, [1, 1, 1, 0]);
    assert_eq!(world.cloud.faults().calls().0, before + 3, "three pages are fewer than four names");
    let sets = world.provider.read(&world.zone, &many[..2]).await;
    assert!(sets.iter().all(|set| set.as_ref().is_ok_and(|set| set.values.len() == 1)));
    assert_eq!(world.cloud.faults().calls().0, before + 6, "two names are fewer than three pages, which the first one tells of");
}

#[tokio::test]
async fn many_names_take_one_call_each_and_one_list() {
    let world = World::new().await;
    let changes = world.additions(30).await;
    assert!(world.apply(&changes).await.iter().all(Result::is_ok));
    assert_eq!(world.cloud.faults().calls(), (1, 30));
    assert_eq!(world.txt_records().len(), 30);
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
    assert_eq!(attempt(Fault::Unauthorized, "e").await, Error::Auth("HTTP 401: Unable to authenticate you".to_owned()));
    assert_eq!(world.values(owner).await, ["b", "c"], "what was lost after the effect stands");
    world.cloud.faults().on_writes([Fault::Interfere]);
    assert_eq!(world.change(owner, &["f"], &["b", "c"]).await, Ok(()));
    assert_eq!(world.values(owner).await, ["f", "interference 1"]);
    world.cloud.stranger_adds("example.com", "alias.example.com", "CNAME", "other.example.net", 300);
    let refused = world.change("alias.example.com", &["value"], &[]).await;
    assert!(matches!(refused, Err(Error::Rejected(_))), "{refused:?}");
    let throttled = attempt(Fault::Throttle(Duration::from_secs(60)), "g").await;
    assert!(matches!(throttled, Error::RateLimited { retry_after: Some(pause), .. } if pause.as_secs() == 60), "{throttled:?}");
    let calls = world.cloud.faults().calls();
    let refused = world.provider.read(&world.zone, &[name(owner)]).await.remove(0);
    assert!(matches!(refused, Err(Error::RateLimited { .. })), "{refused:?}");
    assert_eq!(world.cloud.faults().calls(), calls, "nothing is sent while the door is closed");
}

#[tokio::test]
async fn a_change_that_stops_midway_is_to_be_read_again() {
    let world = World::new().await;
    let owner = "_acme-challenge.example.com";
    assert_eq!(world.change(owner, &["old"], &[]).await, Ok(()));
    let version = world.read(owner).await.version;
    world.cloud.stranger_adds("example.com", "alias.example.com", "CNAME", "other.example.net", 300);
    let alias = world.read("alias.example.com").await.version;
    world.cloud.faults().on_writes([Fault::Interfere, Fault::Unauthorized]);
    let result = world.apply(&[change(owner, &["new"], &["old"], &version)]).await.remove(0);
    assert!(matches!(&result, Err(Error::Transport(text)) if text.contains("a part of the change was made")), "{result:?}");
    assert_eq!(world.values(owner).await, ["interference 1", "new", "old"]);
    let version = world.read(owner).await.version;
    let results = world.apply(&[change("alias.example.com", &["x"], &[], &alias), change(owner, &[], &["old"], &version)]).await;
    assert!(matches!(results[0], Err(Error::Rejected(_))) && results[1].is_ok(), "one bad change is alone with it: {results:?}");
}

#[tokio::test]
async fn after_no_answer_nothing_more_is_sent() {
    let world = World::new().await;
    let changes = world.additions(30).await;
    world.cloud.faults().outage(Some(Fault::LostReply));
    let results = world.apply(&changes).await;
    let lost = results.iter().filter(|result| matches!(result, Err(Error::Transport(_)))).count();
    let unsent = results.iter().filter(|result| matches!(result, Err(Error::Unsent(_)))).count();
    assert!((1..=4).contains(&lost) && lost + unsent == 30, "{results:?}");
    assert_eq!(world.cloud.faults().calls().1, lost as u64, "those in flight, and no more");
    world.cloud.faults().outage(None);
    assert_eq!(world.txt_records().len(), lost);
}

#[tokio::test]
async fn what_strangers_removed_first_is_removed() {
    let world = World::new().await;
    let id = world.cloud.stranger_adds("example.com", "a.example.com", "TXT", "value", 300);
    let version = world.read("a.example.com").await.version;
    world.cloud.stranger_removes(id);
    assert_eq!(world.apply(&[change("a.example.com", &[], &["value"], &version)]).await, [Ok(())]);
}

#[tokio::test]
async fn a_domain_that_vanishes() {
    let world = World::new().await;
    let changes = world.additions(20).await;
    world.cloud.remove_domain("example.com");
    let results = world.apply(&changes).await;
    assert!(results.iter().all(|result| matches!(result, Err(Error::NotFound(_)))), "{results:?}");
    assert!(world.cloud.faults().calls().1 <= 4, "those in flight, and no more");
    let read = world.provider.read(&world.zone, &[name("example.com"), name("a.example.com")]).await;
    assert!(read.iter().all(|set| matches!(set, Err(Error::NotFound(_)))), "{read:?}");
}

#[tokio::test]
async fn zones_by_name_and_all_of_them() {
    let world = World::new().await;
    for n in 0..450 {
        world.cloud.add_domain(&format!("z{n}.example"));
    }
    let found = world.provider.zones(Some(&name("example.com"))).await.expect("a listing");
    let servers = ["ns1.digitalocean.com", "ns2.digitalocean.com", "ns3.digitalocean.com"].map(name);
    assert_eq!(found.zones, [Zone { nameservers: servers.into(), ..world.zone.clone() }]);
    assert_eq!(world.provider.zones(Some(&name("other.example"))).await.map(|listing| listing.zones), Ok(vec![]));
    let all = world.provider.zones(None).await.expect("a listing");
    assert!(all.complete && all.zones.len() == 451, "{}", all.zones.len());
    for n in 450..1100 {
        world.cloud.add_domain(&format!("z{n}.example"));
    }
    let all = world.provider.zones(None).await.expect("a listing");
    assert!(!all.complete && all.zones.is_empty(), "too many to list");
}

#[tokio::test]
async fn the_hour_is_heeded_before_the_door_closes() {
    let world = World::new().await;
    world.cloud.limit_rate(Some((2, 250)));
    for _ in 0..2 {
        assert_eq!(world.values("example.com").await, Vec::<String>::new());
    }
    let next = world.provider.read(&world.zone, &[name("example.com")]).await.remove(0);
    assert!(matches!(next, Err(Error::RateLimited { .. })), "{next:?}");
    assert_eq!(world.provider.calls().throttled, 0);

    let other = provider(&world.cloud, &world.folder, json!({})).expect("a provider");
    let refused = other.read(&world.zone, &[name("example.com")]).await.remove(0);
    let near_an_hour = |pause: Duration| (3500..=3600).contains(&pause.as_secs());
    assert!(matches!(refused, Err(Error::RateLimited { retry_after: Some(pause), .. }) if near_an_hour(pause)), "{refused:?}");
}

#[tokio::test]
async fn tokens_with_more_and_fewer_rights() {
    let world = World::new().await;
    assert_eq!(world.provider.verify().await, Ok("the account of admin@example.com, active; 1 domains can be seen".to_owned()));
    world.cloud.grant("dop_v1_domains", &[Right::Read, Right::Write]);
    secret(&world.folder, "dop_v1_domains\n");
    assert_eq!(world.provider.verify().await, Ok("1 domains can be seen".to_owned()));
    assert_eq!(world.change("example.com", &["one"], &[]).await, Ok(()));
    world.cloud.grant("dop_v1_reader", &[Right::Read]);
    secret(&world.folder, "dop_v1_reader");
    let refused = world.change("example.com", &[], &["one"]).await.expect_err("no right").to_string();
    assert!(refused.contains("domain:delete"), "{refused}");
    world.cloud.revoke("dop_v1_reader");
    assert!(matches!(world.provider.verify().await, Err(Error::Auth(_))));
    secret(&world.folder, TOKEN);
    assert_eq!(world.change("example.com", &[], &["one"]).await, Ok(()), "a token put in its place is used at once");
}

#[tokio::test]
async fn no_secret_shows_up_anywhere() {
    let world = World::new().await;
    let mut said = vec![format!("{:?}", world.provider)];
    for bad in [format!("{TOKEN}\nInjected: header"), format!("{TOKEN} {TOKEN}"), format!("{TOKEN}-unknown")] {
        secret(&world.folder, &bad);
        let read = world.provider.read(&world.zone, &[name("example.com")]).await.remove(0);
        said.extend([format!("{read:?}"), format!("{:?}", world.provider.verify().await)]);
    }
    world.cloud.faults().outage(Some(Fault::LostRequest));
    said.push(format!("{:?}", world.provider.verify().await));
    for text in said {
        assert!(!text.contains(TOKEN) && !text.contains("Injected") && !text.contains("4d9d8375"), "{text}");
    }
    for (settings, error) in [(json!({"endpoint": "http://api.digitalocean.com"}), "in the clear"), (json!({"tokn": 1}), "unknown field")] {
        let said = provider(&world.cloud, &world.folder, settings).expect_err(error);
        assert!(said.contains(error), "{said}");
    }
}
