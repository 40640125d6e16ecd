//! Azure DNS against its emulator, through the trait.

#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use acmegate_tests::{addresses::Address, dns};
use authdns::Name;
use emulators::{
    Fault, Nameservers,
    azuredns::{AzureDns, CLIENT, RecordSet, SECRET, SUBSCRIPTION, TENANT},
};
use providers::{Change, Context, Error, Provider, Receipt, TxtSet, Zone, kind, secret::LocalSecrets};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

const GROUP: &str = "dns";

/// The emulator with a zone, and the provider with a client secret.
struct Site {
    cloud: AzureDns,
    provider: Arc<dyn Provider>,
    zone: Zone,
    folder: TempDir,
}

impl Site {
    async fn start() -> Self {
        Self::serving(Nameservers::none()).await
    }

    async fn serving(nameservers: Nameservers) -> Self {
        let cloud = AzureDns::start(nameservers).await;
        let id = cloud.create_zone(GROUP, "example.com");
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("secret"), SECRET).expect("written");
        let provider = built(&cloud, folder.path(), json!({})).expect("good settings");
        let zone = Zone { id, name: name("example.com"), nameservers: BTreeSet::new() };
        Self { cloud, provider, zone, folder }
    }

    /// Another provider with the same credential.
    fn other(&self, settings: Value) -> Arc<dyn Provider> {
        built(&self.cloud, self.folder.path(), settings).expect("good settings")
    }

    async fn try_read(&self, owner: &str) -> Result<TxtSet, Error> {
        self.provider.read(&self.zone, &[name(owner)]).await.remove(0)
    }

    async fn read(&self, owner: &str) -> TxtSet {
        self.try_read(owner).await.expect("it can be read")
    }

    async fn apply(&self, changes: &[Change]) -> Vec<Result<Receipt, Error>> {
        self.provider.apply(&self.zone, changes).await
    }

    /// Reads, and then changes.
    async fn change(&self, owner: &str, add: &[&str], remove: &[&str]) -> Result<Receipt, Error> {
        let version = self.try_read(owner).await?.version;
        self.apply(&[change(owner, add, remove, &version)]).await.remove(0)
    }

    fn values(&self, relative: &str) -> Vec<Vec<String>> {
        self.cloud.values(&self.zone.id, relative)
    }

    fn stranger(&self, relative: &str, ttl: u64, chunks: &[&str]) {
        self.cloud.stranger_adds(&self.zone.id, relative, ttl, chunks);
    }
}

/// The settings of a client secret in `folder`, with others over them.
fn settings(cloud: &AzureDns, folder: &Path, others: Value) -> Value {
    let mut settings = json!({
        "subscription": SUBSCRIPTION,
        "authority": cloud.url(),
        "endpoint": cloud.url(),
        "credential": {"client_secret": {"tenant": TENANT, "client_id": CLIENT, "secret": {"file": folder.join("secret")}}},
    });
    for (key, value) in others.as_object().into_iter().flatten() {
        settings[key] = value.clone();
    }
    settings
}

fn built(cloud: &AzureDns, folder: &Path, others: Value) -> Result<Arc<dyn Provider>, String> {
    let context = Context { backend: "test".into(), ttl: 60, mark: "acmegate".to_owned(), secrets: Arc::new(LocalSecrets) };
    (kind("azuredns").expect("it is in the table").build)(settings(cloud, folder, others), &context)
}

fn name(text: &str) -> Name {
    text.parse().expect(text)
}

fn names(count: usize) -> Vec<Name> {
    (0..count).map(|n| name(&format!("n{n}.example.com"))).collect()
}

fn set(values: &[&str]) -> BTreeSet<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

fn change(owner: &str, add: &[&str], remove: &[&str], version: &str) -> Change {
    Change { owner: name(owner), add: set(add), remove: set(remove), version: version.to_owned() }
}

/// What does not change with each write.
fn content(set: RecordSet) -> (u64, Map<String, Value>, Value) {
    (set.ttl, set.metadata, set.records.1)
}

#[tokio::test]
async fn values_come_and_go_and_strangers_stay() {
    let site = Site::start().await;
    let long = "x".repeat(255);
    for (owner, relative) in [
        ("_acme-challenge.www.example.com", "_acme-challenge.www"),
        ("example.com", "@"),
        ("*.example.com", "*"),
        ("*.sub.example.com", "*.sub"),
        ("_acme-challenge.xn--bcher-kva.example.com", "_acme-challenge.xn--bcher-kva"),
    ] {
        site.change(owner, &["one"], &[]).await.expect("added");
        let made = site.cloud.txt(&site.zone.id, relative).map(content);
        assert_eq!(made, Some((60, Map::new(), json!([{"value": ["one"]}]))), "{owner}");
        site.change(owner, &[], &["one"]).await.expect("removed");
        assert_eq!(site.cloud.txt(&site.zone.id, relative), None, "{owner}: nothing is left of what is ours alone");

        let strange: [&[&str]; 3] = [&["v=spf1 \"a\" \\ ü", " second"], &[&long, &long, ""], &[""]];
        site.cloud.stranger_sets(&site.zone.id, relative, 4711, &[("owner", "them")], &strange);
        let before = site.cloud.txt(&site.zone.id, relative).map(content);
        assert_eq!(site.read(owner).await.values, set(&["v=spf1 \"a\" \\ ü second", &long.repeat(2), ""]), "{owner}");
        site.change(owner, &["two", "one"], &[]).await.expect("added beside it");
        let (ttl, metadata, _) = site.cloud.txt(&site.zone.id, relative).map(content).expect("it stands");
        assert_eq!((ttl, metadata), (4711, Map::from_iter([("owner".to_owned(), json!("them"))])), "{owner}");
        assert_eq!(site.values(relative)[3..], [["one"], ["two"]], "{owner}");
        site.change(owner, &[], &["one", "two", "never there"]).await.expect("removed");
        assert_eq!(site.cloud.txt(&site.zone.id, relative).map(content), before, "{owner}");
    }
}

/// Somebody noted something down at a record set that then held values of ours alone.
#[tokio::test]
async fn a_record_set_with_metadata_stays_when_it_is_empty() {
    let site = Site::start().await;
    site.cloud.stranger_sets(&site.zone.id, "a", 77, &[("owner", "them")], &[&["ours"]]);
    site.change("a.example.com", &[], &["ours"]).await.expect("removed");
    let left = site.cloud.txt(&site.zone.id, "a").map(content);
    assert_eq!(left, Some((77, Map::from_iter([("owner".to_owned(), json!("them"))]), json!([]))));
    assert_eq!(site.read("a.example.com").await.values, BTreeSet::new());
}

#[tokio::test]
async fn long_values_are_cut_into_chunks() {
    let site = Site::start().await;
    let long = "v".repeat(1024);
    site.change("a.example.com", &[&long], &[]).await.expect("added");
    let lengths: Vec<Vec<usize>> = site.values("a").iter().map(|chunks| chunks.iter().map(String::len).collect()).collect();
    assert_eq!(lengths, [[255, 255, 255, 255, 4]]);
    assert_eq!(site.read("a.example.com").await.values, set(&[&long]));
    site.change("a.example.com", &[], &[&long]).await.expect("removed");
    assert_eq!(site.cloud.txt(&site.zone.id, "a"), None);
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
    let site = Site::start().await;
    let owners = names(30);
    for n in 10..20 {
        site.stranger(&format!("n{n}"), 5, &["there before"]);
    }
    let read = site.provider.read(&site.zone, &owners).await;
    let versions: Vec<String> = read.into_iter().map(|set| set.expect("it can be read").version).collect();
    let changes: Vec<Change> =
        owners.iter().zip(&versions).map(|(owner, version)| change(&owner.to_string(), &["ours"], &[], version)).collect();
    // One that was empty is not, one has another value, one is gone, one was deleted and made again.
    site.stranger("n3", 5, &["new"]);
    site.stranger("n13", 5, &["new"]);
    site.cloud.stranger_deletes(&site.zone.id, "n17");
    site.cloud.stranger_deletes(&site.zone.id, "n18");
    site.stranger("n18", 5, &["there before"]);
    let results = site.apply(&changes).await;
    for (place, result) in results.iter().enumerate() {
        match place {
            3 | 13 | 17 | 18 => assert!(matches!(result, Err(Error::Conflict(_))), "{place}: {result:?}"),
            _ => assert!(result.is_ok(), "{place}: {result:?}"),
        }
    }
    assert_eq!(site.values("n3"), [["new"]]);
    assert_eq!(site.values("n13"), [["there before"], ["new"]]);
    assert_eq!(site.cloud.txt(&site.zone.id, "n17"), None);
    assert_eq!(site.values("n12"), [["there before"], ["ours"]]);
    // Removing is compared too.
    let version = site.read("n0.example.com").await.version;
    site.stranger("n0", 5, &["new"]);
    let result = site.apply(&[change("n0.example.com", &[], &["ours"], &version)]).await.remove(0);
    assert_eq!(result, Err(Error::Conflict("the record set has another ETag by now".to_owned())));
    assert_eq!(site.values("n0"), [["ours"], ["new"]]);
    let nonsense = site.apply(&[change("n0.example.com", &["x"], &[], "none of this provider's")]).await.remove(0);
    assert!(matches!(nonsense, Err(Error::Conflict(_))), "{nonsense:?}");
}

#[tokio::test]
async fn a_bad_change_neither_holds_back_nor_fails_the_others() {
    let site = Site::start().await;
    site.cloud.stranger_sets_other(&site.zone.id, "CNAME", "alias", 60, json!({"cname": "elsewhere.example"}));
    let mut changes = Vec::new();
    for owner in ["a.example.com", "alias.example.com", "c.example.com"] {
        changes.push(change(owner, &["x"], &[], &site.read(owner).await.version));
    }
    changes.push(change("b.example.net", &["x"], &[], &changes[0].version));
    changes.push(change("a\\/b.example.com", &["x"], &[], &changes[0].version));
    let results = site.apply(&changes).await;
    assert!(results[0].is_ok() && results[2].is_ok(), "{results:?}");
    let said = |place: usize| match &results[place] {
        Err(Error::Rejected(text)) => text.clone(),
        other => panic!("{place} has to be refused: {other:?}"),
    };
    assert!(said(1).contains("a CNAME record with the same name 'alias' already exists"), "{}", said(1));
    assert_eq!(said(3), "b.example.net is not within the zone");
    assert!(said(4).contains("characters that no record set of Azure can be named with"), "{}", said(4));
}

#[tokio::test]
async fn many_owners_are_read_by_listing_and_few_by_name() {
    let site = Site::start().await;
    let owners = names(500);
    for n in (0..500).step_by(2) {
        site.stranger(&format!("n{n}"), 60, &[&format!("v{n}")]);
    }
    site.cloud.page_size(100);
    let before = site.cloud.faults().calls().0;
    let read = site.provider.read(&site.zone, &owners).await;
    assert_eq!(site.cloud.faults().calls().0 - before, 3, "250 record sets on pages of 100");
    for (n, set) in read.iter().enumerate() {
        let expected = if n % 2 == 0 { BTreeSet::from([format!("v{n}")]) } else { BTreeSet::new() };
        assert_eq!(set.as_ref().map(|set| &set.values), Ok(&expected));
    }
    // What came from a list can be changed as well as what was asked for by name, and the apex is in it.
    site.stranger("@", 60, &["apex"]);
    let with_apex = [&owners[..20], &[name("example.com")]].concat();
    let set = site.provider.read(&site.zone, &with_apex).await.remove(20).expect("read");
    assert_eq!(set.values, BTreeSet::from(["apex".to_owned()]));
    let results = site.apply(&[change("example.com", &["ours"], &[], &set.version)]).await;
    assert!(results[0].is_ok(), "{results:?}");
    assert_eq!(site.values("@"), [["apex"], ["ours"]]);
    let before = site.cloud.faults().calls().0;
    assert!(site.provider.read(&site.zone, &owners[..5]).await.iter().all(Result::is_ok));
    assert_eq!(site.cloud.faults().calls().0 - before, 5);
    // A zone of very many record sets is not listed for a few owners more.
    site.cloud.page_size(2);
    let before = site.cloud.faults().calls().0;
    let read = site.provider.read(&site.zone, &owners[..24]).await;
    assert_eq!(read[2].as_ref().map(|set| set.values.clone()), Ok(BTreeSet::from(["v2".to_owned()])));
    let calls = site.cloud.faults().calls().0 - before;
    assert!((24..=27).contains(&calls), "three pages, and the others one by one: {calls}");
}

#[tokio::test]
async fn zones_are_paged_and_only_public_ones_count() {
    let site = Site::start().await;
    site.cloud.page_size(2);
    for apex in ["a.test", "b.test", "c.test", "d.test"] {
        site.cloud.create_zone("other", apex);
    }
    site.cloud.hide_zone(&site.cloud.create_zone("other", "hidden.test"));
    let twin = site.cloud.create_zone_at("other", "example.com", &["ns1.twin.example.", "ns2.twin.example."]);
    let all = site.provider.zones(None).await.expect("listed");
    assert!(all.complete);
    let mut apexes: Vec<String> = all.zones.iter().map(|zone| zone.name.to_relative_string()).collect();
    apexes.sort_unstable();
    assert_eq!(apexes, ["a.test", "b.test", "c.test", "d.test", "example.com", "example.com"]);
    let named = site.provider.zones(Some(&name("example.com"))).await.expect("listed").zones;
    let ids: BTreeSet<&str> = named.iter().map(|zone| zone.id.as_str()).collect();
    assert_eq!(ids, BTreeSet::from([site.zone.id.as_str(), twin.as_str()]));
    let servers = |id: &str| named.iter().find(|zone| zone.id == id).map(|zone| zone.nameservers.clone()).expect("it is listed");
    assert_eq!(servers(&twin), BTreeSet::from([name("ns1.twin.example"), name("ns2.twin.example")]));
    assert_eq!(servers(&site.zone.id).len(), 4);
    assert!(site.provider.zones(Some(&name("nowhere.test"))).await.expect("asked").zones.is_empty());

    // Each is written where its id says, in whatever letter case it was pinned.
    let pinned = Zone { id: twin.to_ascii_uppercase(), name: name("example.com"), nameservers: BTreeSet::new() };
    let version = site.provider.read(&pinned, &[name("x.example.com")]).await.remove(0).expect("read").version;
    let results = site.provider.apply(&pinned, &[change("x.example.com", &["v"], &[], &version)]).await;
    assert!(results[0].is_ok(), "{results:?}");
    assert_eq!((site.cloud.values(&twin, "x"), site.values("x")), (vec![vec!["v".to_owned()]], vec![]));

    // In one resource group there is one at most, and it is asked for by its name.
    let grouped = site.other(json!({"resource_group": "OTHER"}));
    let before = site.cloud.faults().calls().0;
    let found = grouped.zones(Some(&name("example.com"))).await.expect("asked").zones;
    assert_eq!(found.iter().map(|zone| zone.id.as_str()).collect::<Vec<_>>(), [twin.as_str()]);
    for nowhere in ["nowhere.test", "test", "hidden.test"] {
        assert!(grouped.zones(Some(&name(nowhere))).await.expect(nowhere).zones.is_empty());
    }
    assert_eq!(site.cloud.faults().calls().0 - before, 4);
    assert_eq!(grouped.zones(None).await.expect("listed").zones.len(), 5);
}

#[tokio::test]
async fn ids_that_lead_elsewhere_are_refused() {
    let site = Site::start().await;
    let calls = site.cloud.faults().calls();
    let good = &site.zone.id;
    for id in [
        "example.com".to_owned(),
        good.replace("dnszones/example.com", "dnszones/other.com"),
        good.replace("dnszones", "privateDnsZones"),
        good.replace("/resourceGroups/dns", "/resourceGroups/.."),
        good.replace("/resourceGroups/dns", "/resourceGroups/a?b"),
        format!("{good}/TXT"),
    ] {
        let zone = Zone { id: id.clone(), ..site.zone.clone() };
        let read = site.provider.read(&zone, &[name("a.example.com")]).await.remove(0);
        assert!(matches!(&read, Err(Error::Rejected(text)) if text.contains("/subscriptions/…/resourceGroups/…")), "{id}: {read:?}");
    }
    assert_eq!(site.cloud.faults().calls(), calls);
}

#[tokio::test]
async fn a_token_is_not_sent_where_a_list_goes_on_elsewhere() {
    let (site, other) = (Site::start().await, Site::start().await);
    site.cloud.create_zone("other", "a.test");
    site.cloud.page_size(1);
    site.cloud.lists_go_on_at(other.cloud.url());
    let refused = site.provider.zones(None).await;
    assert!(matches!(&refused, Err(Error::Rejected(text)) if text.contains("the token is not sent there")), "{refused:?}");
    assert_eq!(other.cloud.faults().calls(), (0, 0));
}

#[tokio::test]
async fn the_zones_own_limit_of_records_holds() {
    let site = Site::start().await;
    assert_eq!(site.provider.limits().values, 20);
    let values: Vec<String> = (0..21).map(|n| format!("v{n:02}")).collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    site.change("a.example.com", &values[..20], &[]).await.expect("twenty");
    let (_, writes) = site.cloud.faults().calls();
    let refused = site.change("a.example.com", &values, &[]).await;
    let text = "the TXT record set of a.example.com would have 21 records, more than the zone allows: remove some that nobody needs";
    assert_eq!(refused, Err(Error::Rejected(text.to_owned())));
    assert_eq!(site.cloud.faults().calls().1, writes, "it was not even sent");
    // The zone was pinned by its id: what it allows is looked up, once.
    site.cloud.most_records(&site.zone.id, 22);
    let provider = site.other(json!({}));
    let all = BTreeSet::from_iter(values.iter().map(|value| (*value).to_owned()));
    let version = site.read("a.example.com").await.version;
    let changes = [Change { owner: name("a.example.com"), add: all, remove: BTreeSet::new(), version }];
    let results = provider.apply(&site.zone, &changes).await;
    assert!(results[0].is_ok(), "{results:?}");
    assert_eq!(site.values("a").len(), 21);
    // Azure itself refuses what is too long in all.
    let long: Vec<String> = (0..5).map(|n| n.to_string().repeat(1000)).collect();
    let long: Vec<&str> = long.iter().map(String::as_str).collect();
    let refused = site.change("b.example.com", &long, &[]).await;
    assert!(matches!(&refused, Err(Error::Rejected(text)) if text.contains("combined length")), "{refused:?}");
}

#[tokio::test]
async fn documented_rates_are_kept_without_being_throttled() {
    let site = Site::start().await;
    site.cloud.enforce_rates();
    let owners = names(205);
    let read = site.provider.read(&site.zone, &owners).await;
    let changes: Vec<Change> = owners
        .iter()
        .zip(read)
        .map(|(owner, set)| change(&owner.to_string(), &["x"], &[], &set.expect("it can be read").version))
        .collect();
    let results = site.apply(&changes).await;
    assert!(results.iter().all(Result::is_ok), "{:?}", results.iter().find(|result| result.is_err()));
    assert_eq!(site.provider.calls().throttled, 0);
    assert_eq!(site.cloud.faults().calls().1, 205);
    // Whoever shares the zone with others may take less, and is then handed less at once.
    let owners = |rate: u32| site.other(json!({"writes_per_minute": rate})).limits().owners;
    assert_eq!((site.provider.limits().owners, owners(20), owners(1)), (50, 5, 1));
}

#[tokio::test]
async fn faults_say_what_to_do_next() {
    let site = Site::start().await;
    let pause = Duration::from_secs(1);
    for fault in [Fault::ErrorBefore, Fault::LostRequest] {
        site.cloud.faults().on_reads([fault]);
        let read = site.try_read("a.example.com").await;
        assert!(matches!(read, Err(Error::Transport(_))), "{fault:?}: {read:?}");
    }
    assert_eq!(site.provider.calls().failed, 2);
    let version = site.read("a.example.com").await.version;
    for (n, (fault, made)) in
        [(Fault::ErrorBefore, false), (Fault::ErrorAfter, true), (Fault::LostRequest, false), (Fault::LostReply, true)]
            .into_iter()
            .enumerate()
    {
        let owner = format!("f{n}.example.com");
        site.cloud.faults().on_writes([fault]);
        let result = site.apply(&[change(&owner, &["x"], &[], &version)]).await.remove(0);
        assert!(matches!(&result, Err(Error::Transport(_))), "{fault:?}: {result:?}");
        assert_eq!(site.cloud.txt(&site.zone.id, &format!("f{n}")).is_some(), made, "{fault:?}");
        // Read again, and it can be made good.
        site.change(&owner, &["x"], &[]).await.expect("what was in doubt is clear");
        assert_eq!(site.values(&format!("f{n}")), [["x"]]);
    }
    site.cloud.faults().on_writes([Fault::Interfere]);
    let result = site.apply(&[change("a.example.com", &["x"], &[], &version)]).await.remove(0);
    assert!(matches!(result, Err(Error::Conflict(_))), "{result:?}");
    site.change("a.example.com", &["x"], &[]).await.expect("read again, it goes through");
    assert_eq!(site.values("a"), [["interference 1"], ["x"]]);
    site.cloud.faults().on_writes([Fault::Interfere]);
    let result = site.change("a.example.com", &[], &["x"]).await;
    assert!(matches!(result, Err(Error::Conflict(_))), "{result:?}");
    assert_eq!(site.values("a"), [["interference 1"], ["x"], ["interference 2"]]);
    site.cloud.pending_operations(1);
    let result = site.change("a.example.com", &[], &["x"]).await;
    let said = "HTTP 409: Conflict: Another operation is pending for requested object. Operation group already has 1 operations like \
                '/operations/type/UpsertRecordSet queued";
    assert_eq!(result, Err(Error::Conflict(said.to_owned())), "the same words each time");
    // Last, because it closes the door for a while.
    site.cloud.faults().on_writes([Fault::Throttle(pause)]);
    let result = site.change("a.example.com", &[], &["x"]).await;
    assert!(matches!(&result, Err(Error::RateLimited { retry_after, .. }) if *retry_after == Some(pause)), "{result:?}");
    assert_eq!(site.provider.calls().throttled, 1);
    site.cloud.faults().on_reads([Fault::Throttle(Duration::from_secs(300))]);
    let read = site.try_read("a.example.com").await;
    let text = "asked too often: Azure Resource Manager: SubscriptionRequestsThrottled";
    assert_eq!(read.map_err(|error| error.to_string()), Err(text.to_owned()));
    let (reads, _) = site.cloud.faults().calls();
    assert!(matches!(site.try_read("a.example.com").await, Err(Error::RateLimited { .. })));
    assert_eq!(site.cloud.faults().calls().0, reads, "for so long nothing is asked");
}

#[tokio::test]
async fn a_cloud_that_is_not_there_leaves_nothing_in_doubt() {
    let site = Site::start().await;
    let version = site.read("a.example.com").await.version;
    let nowhere = site.other(json!({"endpoint": "http://127.0.0.1:1"}));
    let result = nowhere.apply(&site.zone, &[change("a.example.com", &["x"], &[], &version)]).await.remove(0);
    assert!(matches!(result, Err(Error::Unsent(_))), "{result:?}");
}

#[tokio::test]
async fn a_zone_that_is_gone_is_not_found() {
    let site = Site::start().await;
    let version = site.read("a.example.com").await.version;
    site.cloud.create_group(GROUP);
    site.cloud.delete_zone(&site.zone.id);
    let owners = names(50);
    let changes: Vec<Change> = owners.iter().map(|owner| change(&owner.to_string(), &["x"], &[], &version)).collect();
    let results = site.apply(&changes).await;
    assert!(results.iter().all(|result| matches!(result, Err(Error::NotFound(_)))), "{results:?}");
    for owners in [&owners[..1], &owners[..]] {
        let (before, _) = site.cloud.faults().calls();
        let read = site.provider.read(&site.zone, owners).await;
        assert!(read.iter().all(|read| matches!(read, Err(Error::NotFound(_)))), "{read:?}");
        assert_eq!(site.cloud.faults().calls().0 - before, 1);
    }
    assert!(site.provider.zones(Some(&name("example.com"))).await.expect("asked").zones.is_empty());
    // Removing what went with the zone is a matter of the zone too.
    let back = site.cloud.create_zone(GROUP, "example.com");
    assert_eq!(back, site.zone.id);
    site.change("a.example.com", &["x"], &[]).await.expect("it is back");
}

#[tokio::test]
async fn a_record_set_that_is_gone_needs_no_removal() {
    let site = Site::start().await;
    site.change("a.example.com", &["x"], &[]).await.expect("added");
    let version = site.read("a.example.com").await.version;
    site.cloud.stranger_deletes(&site.zone.id, "a");
    let results = site.apply(&[change("a.example.com", &[], &["x"], &version)]).await;
    assert_eq!(results, [Ok(Receipt::default())]);
}

#[tokio::test]
async fn what_is_changed_is_served_by_dns() {
    let address = Address::reserve();
    let site = Site::serving(Nameservers::start(&[(address.dns(), Duration::ZERO)]).await).await;
    site.stranger("a", 60, &["v=spf1 \"a\"", " b"]);
    site.change("a.example.com", &["ours"], &[]).await.expect("added");
    dns::txt_becomes(address.dns(), "a.example.com.", &["ours", "v=spf1 \"a\" b"]).await;
    site.change("a.example.com", &[], &["ours"]).await.expect("removed");
    dns::txt_becomes(address.dns(), "a.example.com.", &["v=spf1 \"a\" b"]).await;
}

#[tokio::test]
async fn https_needs_the_root_that_it_is_told() {
    let site = Site::start().await;
    let ca = site.folder.path().join("ca.pem");
    std::fs::write(&ca, site.cloud.ca()).expect("written");
    let secure = json!({"authority": site.cloud.https_url(), "endpoint": site.cloud.https_url()});
    let refused = site.other(secure.clone()).zones(None).await;
    assert!(matches!(&refused, Err(Error::Unsent(_))), "{refused:?}");
    let mut trusting = secure;
    trusting["ca_file"] = json!(ca);
    assert_eq!(site.other(trusting).zones(None).await.map(|listing| listing.zones.len()), Ok(1));
}

#[tokio::test]
async fn verify_tells_who_it_is_and_what_it_may() {
    let site = Site::start().await;
    let who = format!("the application {CLIENT} (client secret)");
    let text = site.provider.verify().await.expect("a good credential");
    assert_eq!(text, format!("{who} may list the zones of the subscription {SUBSCRIPTION}"));
    let grouped = site.other(json!({"resource_group": GROUP}));
    let text = grouped.verify().await.expect("a good credential");
    assert_eq!(text, format!("{who} may list the zones of the resource group dns of the subscription {SUBSCRIPTION}"));
    // A role that was given at the zone alone.
    site.cloud.restrict(Some(&site.zone.id));
    let text = site.provider.verify().await.expect("a credential for pinned zones");
    assert!(text.contains("may not list the zones") && text.contains("named under `zones`"), "{text}");
    let refused = site.provider.zones(None).await;
    assert!(matches!(&refused, Err(Error::Auth(text)) if text.contains("AuthorizationFailed") && text.contains("resource_group")));
    assert_eq!(grouped.zones(Some(&name("example.com"))).await.expect("asked").zones.len(), 1);
    assert!(grouped.zones(Some(&name("elsewhere.test"))).await.expect("asked").zones.is_empty());
    assert_eq!(grouped.zones(None).await.map(|listing| (listing.zones.len(), listing.complete)), Ok((0, false)));
    site.change("a.example.com", &["x"], &[]).await.expect("its own zone can be written");
    site.cloud.restrict(Some("/subscriptions/nowhere"));
    let refused = site.change("a.example.com", &["y"], &[]).await;
    assert!(matches!(&refused, Err(Error::Auth(text)) if text.contains("AuthorizationFailed")), "{refused:?}");
    let other = site.other(json!({"subscription": "00000000-0000-0000-0000-000000000000"}));
    site.cloud.restrict(None);
    let refused = other.verify().await;
    assert!(matches!(&refused, Err(Error::Auth(text)) if text.contains("SubscriptionNotFound")), "{refused:?}");
}

#[tokio::test]
async fn settings_are_checked_before_anything_is_asked() {
    let cloud = AzureDns::start(Nameservers::none()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let secret = |tenant: &str, id: &str| json!({"client_secret": {"tenant": tenant, "client_id": id, "secret": {"env": "X"}}});
    for (settings, said) in [
        (json!({"subscription": "../.."}), "subscription: "),
        (json!({"resource_group": "a/b"}), "resource_group: "),
        (json!({"writes_per_minute": 0}), "writes_per_minute: 0 would never write"),
        (json!({"cloud": "mars"}), "unknown variant"),
        (json!({"cloud": "custom", "endpoint": null}), "cloud: custom needs both"),
        (json!({"token": "x"}), "unknown field"),
        (json!({"endpoint": "http://management.example.com"}), "in the clear"),
        (json!({"authority": "http://login.example.com"}), "authority: "),
        (json!({"ca_file": "/nowhere/ca.pem"}), "ca_file: "),
        (json!({"credential": secret("a/b", "c")}), "is no tenant"),
        (json!({"credential": secret("a", " ")}), "client_id is empty"),
        (json!({"credential": {"managed_identity": {"endpoint": "http://metadata.example.com"}}}), "is not the metadata service"),
        (json!({"credential": {"client_secret": {"tenant": "a", "client_id": "b", "secret": "plain"}}}), "unknown variant"),
    ] {
        let error = built(&cloud, folder.path(), settings).expect_err(said);
        assert!(error.contains(said), "{error}");
    }
    assert_eq!((cloud.token_calls(), cloud.faults().calls()), (0, (0, 0)));
}
