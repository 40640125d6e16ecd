//! Route 53 through the real SDK, against ministack behind the gate: what stands, what is changed, what goes wrong. Its credentials have a file of
//! their own.
#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

#[path = "route53/common.rs"]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod common;

use std::time::{Duration, Instant};

use common::{World, build, change, names, owner, txt};
use emulators::{Fault, Nameservers, route53::RecordSet};
use providers::{Change, Error, Progress, Provider, Receipt, Zone, zones::MOST_LISTED};

/// Reads and applies one change as its version says.
async fn make(provider: &dyn Provider, zone: &Zone, mut wanted: Change) -> Result<Receipt, Error> {
    let read = provider.read(zone, std::slice::from_ref(&wanted.owner)).await.remove(0)?;
    wanted.version = read.version;
    provider.apply(zone, &[wanted]).await.remove(0)
}

#[tokio::test]
async fn values_come_and_go_and_foreign_ones_stay_byte_for_byte() {
    let world = World::start().await;
    let (provider, zone) = (world.provider(), world.zone("example.com").await);
    let foreign =
        [r#""v=spf1 -all" " second \"string\"""#, r#""\303\274 \\ back""#, &format!("\"{}\" \"{}\"", "a".repeat(255), "b".repeat(255))];
    for at in [
        "_acme-challenge.www.example.com",
        "example.com",
        "*.example.com",
        "_acme-challenge.xn--bcher-kva.example.com",
        "a\\.b.example.com",
    ] {
        // The API writes what is special in octal.
        let api = at.replace("\\.", "\\056");
        world.gate.stranger(&zone.id, RecordSet::txt(&api, 4242, &foreign)).await;
        make(&*provider, &zone, change(at, &["one", "two"], &[])).await.expect("added");
        let (ttl, values) = world.gate.txt(&zone.id, &api).await.expect("an RRset");
        assert_eq!(ttl, 4242, "the TTL of an RRset that stands is kept");
        assert_eq!(values[..3], foreign, "{at}");
        assert_eq!(values[3..], ["\"one\"", "\"two\""], "{at}");
        let before = provider.calls().sent;
        let read = txt(&*provider, &zone, at).await;
        assert_eq!(read.len(), 5);
        assert!(read.contains("v=spf1 -all second \"string\"") && read.contains("ü \\ back"), "{read:?}");
        make(&*provider, &zone, change(at, &["one"], &["gone"])).await.expect("nothing to do");
        assert_eq!(provider.calls().sent - before, 2, "two reads; what stands already needs no call");
        make(&*provider, &zone, change(at, &["three"], &["one", "two"])).await.expect("changed");
        make(&*provider, &zone, change(at, &[], &["three"])).await.expect("removed");
        let (ttl, values) = world.gate.txt(&zone.id, &api).await.expect("an RRset");
        assert_eq!((ttl, values.as_slice()), (4242, foreign.map(str::to_owned).as_slice()));
    }
    let at = "_acme-challenge.new.example.com";
    make(&*provider, &zone, change(at, &["only"], &[])).await.expect("added");
    assert_eq!(world.gate.txt(&zone.id, at).await, Some((60, vec!["\"only\"".to_owned()])));
    make(&*provider, &zone, change(at, &[], &["only"])).await.expect("removed");
    assert_eq!(world.gate.txt(&zone.id, at).await, None);
}

#[tokio::test]
async fn what_changed_since_it_was_read_is_not_overwritten() {
    let world = World::start().await;
    let (provider, zone) = (world.provider(), world.zone("example.com").await);
    let owners = names(["absent", "changed", "gone", "fine"].map(owner));
    world.gate.stranger(&zone.id, RecordSet::txt(&owner("changed"), 300, &["\"a\""])).await;
    world.gate.stranger(&zone.id, RecordSet::txt(&owner("gone"), 300, &["\"a\""])).await;
    let read = provider.read(&zone, &owners).await;
    let changes: Vec<Change> = owners
        .iter()
        .zip(read)
        .map(|(owner, read)| Change { version: read.expect("read").version, ..change(&owner.to_string(), &["ours"], &[]) })
        .collect();
    world.gate.stranger(&zone.id, RecordSet::txt(&owner("absent"), 300, &["\"theirs\""])).await;
    world.gate.stranger(&zone.id, RecordSet::txt(&owner("changed"), 301, &["\"a\""])).await;
    world.gate.stranger(&zone.id, RecordSet::txt(&owner("gone"), 300, &[])).await;
    let results = provider.apply(&zone, &changes).await;
    assert!(results[..3].iter().all(|result| matches!(result, Err(Error::Conflict(_)))), "{results:?}");
    assert!(results[3].is_ok(), "{results:?}");
    assert_eq!(world.gate.count("ChangeResourceRecordSets"), 2, "all faults are told of at once");
    assert_eq!(world.gate.txt(&zone.id, &owner("absent")).await, Some((300, vec!["\"theirs\"".to_owned()])));
    assert_eq!(world.gate.txt(&zone.id, &owner("changed")).await, Some((301, vec!["\"a\"".to_owned()])));
    assert_eq!(world.gate.txt(&zone.id, &owner("gone")).await, None);
    assert_eq!(world.gate.txt(&zone.id, &owner("fine")).await, Some((60, vec!["\"ours\"".to_owned()])));
}

#[tokio::test]
async fn every_fault_says_what_to_do_next() {
    let world = World::start().await;
    let (provider, zone) = (world.provider(), world.zone("example.com").await);
    let at = owner("www");
    let name = names([at.clone()]);

    for (fault, expected) in [
        (Fault::Throttle(Duration::from_secs(1)), "RateLimited"),
        (Fault::ErrorBefore, "Transport"),
        (Fault::LostRequest, "Transport"),
        (Fault::LostReply, "Transport"),
        (Fault::Unauthorized, "Auth"),
    ] {
        world.gate.faults().on_reads([fault]);
        let error = provider.read(&zone, &name).await.remove(0).expect_err("a fault");
        assert!(format!("{error:?}").starts_with(expected), "{fault:?}: {error:?}");
        world.gate.faults().on_reads([fault]);
        let again = provider.read(&zone, &name).await.remove(0).expect_err("a fault");
        assert_eq!(error, again, "the same text each time");
    }
    for (number, (fault, expected, done)) in [
        (Fault::Throttle(Duration::from_secs(1)), "RateLimited", false),
        (Fault::ErrorBefore, "Transport", false),
        (Fault::ErrorAfter, "Transport", true),
        (Fault::LostRequest, "Transport", false),
        (Fault::LostReply, "Transport", true),
        (Fault::Unauthorized, "Auth", false),
        (Fault::Interfere, "Conflict", false),
    ]
    .into_iter()
    .enumerate()
    {
        let value = format!("value-{number}");
        world.gate.faults().on_writes([fault]);
        let error = make(&*provider, &zone, change(&at, &[&value], &[])).await.expect_err("a fault");
        assert!(format!("{error:?}").starts_with(expected), "{fault:?}: {error:?}");
        assert_eq!(error.is_untouched(), expected != "Transport");
        assert_eq!(txt(&*provider, &zone, &at).await.contains(&value), done, "{fault:?}");
    }
    assert!(txt(&*provider, &zone, &at).await.contains("stranger-1"));
    let calls = provider.calls();
    assert_eq!(calls.throttled, 3);
    assert!(calls.failed >= 10, "{calls:?}");

    world.gate.delete_zone(&zone.id).await;
    assert!(matches!(provider.read(&zone, &name).await.remove(0), Err(Error::NotFound(_))));
    let stale = Change { version: "\"absent\"".to_owned(), ..change(&at, &["late"], &[]) };
    assert!(matches!(provider.apply(&zone, &[stale]).await.remove(0), Err(Error::NotFound(_))));

    let nowhere = world.settings("http://127.0.0.1:1");
    let nowhere = build(&nowhere);
    assert!(matches!(nowhere.read(&zone, &name).await.remove(0), Err(Error::Unsent(_))), "nothing was sent where nobody listens");
    assert!(matches!(nowhere.verify().await, Err(Error::Unsent(_))));
}

#[tokio::test]
async fn three_hundred_names_are_two_calls() {
    let world = World::start().await;
    let (provider, zone) = (world.provider(), world.zone("example.com").await);
    let owners = names((0..300).map(|n| owner(&format!("n{n}"))));
    let fresh: Vec<Change> = owners.iter().map(|owner| change(&owner.to_string(), &["first"], &[])).collect();
    let versions = |read: Vec<Result<providers::TxtSet, Error>>, changes: &[Change]| -> Vec<Change> {
        read.into_iter().zip(changes).map(|(read, change)| Change { version: read.expect("read").version, ..change.clone() }).collect()
    };
    let changes = versions(provider.read(&zone, &owners).await, &fresh);
    let results = provider.apply(&zone, &changes).await;
    assert_eq!((world.gate.count("ListResourceRecordSets"), world.gate.count("ChangeResourceRecordSets")), (1, 1));
    let receipt = results[0].clone().expect("made");
    assert!(results.iter().all(|result| result.as_ref() == Ok(&receipt)), "one receipt for the batch");

    // Pages: the apex has two, so that 300 are no longer one page.
    let more: Vec<Change> = owners.iter().map(|owner| change(&owner.to_string(), &["second"], &["first"])).collect();
    let changes = versions(provider.read(&zone, &owners).await, &more);
    assert!(world.gate.count("ListResourceRecordSets") <= 3, "{:?}", world.gate.calls());
    assert!(provider.apply(&zone, &changes).await.iter().all(Result::is_ok));
    let standing = world.gate.records(&zone.id).await;
    assert_eq!(standing.iter().filter(|set| set.values == ["\"second\""]).count(), 300);
}

#[tokio::test]
async fn batches_are_cut_to_what_a_call_takes() {
    let world = World::start().await;
    let (provider, zone) = (world.provider(), world.zone("example.com").await);
    // 700 characters each: 45 fit in a call.
    let value = "x".repeat(698);
    let changes: Vec<Change> = (0..100).map(|n| change(&owner(&format!("n{n}")), &[&value], &[])).collect();
    let results = provider.apply(&zone, &changes).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(world.gate.count("ChangeResourceRecordSets"), 3);
    let receipts: std::collections::BTreeSet<_> = results.into_iter().map(|result| result.expect("made").0).collect();
    assert_eq!(receipts.len(), 3, "a receipt for each call");

    // One that fits in no call is refused without one, and does not hold back the others.
    let foreign: Vec<String> = (0..80).map(|n| format!("\"{n:0240}\"")).collect();
    let foreign: Vec<&str> = foreign.iter().map(String::as_str).collect();
    world.gate.stranger(&zone.id, RecordSet::txt(&owner("huge"), 60, &foreign)).await;
    let results = provider.apply(&zone, &[change(&owner("huge"), &["ours"], &[]), change(&owner("small"), &["ours"], &[])]).await;
    assert!(matches!(&results[0], Err(Error::Rejected(text)) if text.contains("do not fit")), "{results:?}");
    assert!(results[1].is_ok());
}

#[tokio::test]
async fn a_bad_change_does_not_hold_back_the_others() {
    let world = World::start().await;
    let (provider, zone) = (world.provider(), world.zone("example.com").await);
    let cname =
        RecordSet { kind: "CNAME".to_owned(), values: vec!["elsewhere.test.".to_owned()], ..RecordSet::txt(&owner("cname"), 60, &[]) };
    world.gate.stranger(&zone.id, cname).await;
    let weighted = RecordSet::txt(&owner("weighted"), 60, &["\"w\""]).with("SetIdentifier", "a").with("Weight", "1");
    world.gate.stranger(&zone.id, weighted).await;
    let alias = "<HostedZoneId>Z</HostedZoneId><DNSName>x.test.</DNSName><EvaluateTargetHealth>false</EvaluateTargetHealth>";
    let alias = RecordSet { ttl: None, ..RecordSet::txt(&owner("alias"), 60, &[]) }.with("AliasTarget", alias);
    world.gate.stranger(&zone.id, alias).await;

    // A CNAME that was not seen when the owner was read (one owner alone is asked for its TXT only).
    let read = provider.read(&zone, &names([owner("cname")])).await.remove(0).expect("read");
    let unseen = Change { version: read.version, ..change(&owner("cname"), &["ours"], &[]) };
    let results = provider.apply(&zone, &[change(&owner("one"), &["ours"], &[]), unseen, change(&owner("two"), &["ours"], &[])]).await;
    assert!(results[0].is_ok() && results[2].is_ok(), "{results:?}");
    assert!(matches!(&results[1], Err(Error::Rejected(text)) if text.contains("CNAME")), "{results:?}");

    let outside = change("_acme-challenge.elsewhere.test", &["ours"], &[]);
    let results = provider.apply(&zone, &[outside, change(&owner("three"), &["ours"], &[])]).await;
    assert!(matches!(&results[0], Err(Error::Rejected(text)) if text.contains("not permitted in zone")), "{results:?}");
    assert!(results[1].is_ok(), "{results:?}");

    for (at, said) in [("weighted", "weighted"), ("alias", "alias")] {
        let error = make(&*provider, &zone, change(&owner(at), &["ours"], &[])).await.expect_err("not ours to change");
        assert!(matches!(&error, Error::Rejected(text) if text.contains(said)), "{error}");
        make(&*provider, &zone, change(&owner(at), &[], &["gone"])).await.expect("nothing to remove");
    }
    assert_eq!(txt(&*provider, &zone, &owner("weighted")).await, ["w".to_owned()].into());
}

#[tokio::test]
async fn multivalue_sets_are_joined_and_never_converted() {
    let world = World::start().await;
    let (provider, zone) = (world.provider(), world.zone("example.com").await);
    let at = owner("multi");
    for id in ["a", "b"] {
        let set = RecordSet::txt(&at, 120, &[&format!("\"{id}\"")]).with("SetIdentifier", id).with("MultiValueAnswer", "true");
        world.gate.stranger(&zone.id, set).await;
    }
    make(&*provider, &zone, change(&at, &["ours"], &[])).await.expect("added");
    assert_eq!(txt(&*provider, &zone, &at).await, ["a", "b", "ours"].map(str::to_owned).into());
    let sets = world.gate.records(&zone.id).await;
    let ours = sets.iter().find(|set| set.values == ["\"ours\""]).expect("our set");
    assert!(ours.identifier.as_ref().is_some_and(|id| id.starts_with("acmegate-")) && ours.ttl == Some(120), "{ours:?}");
    make(&*provider, &zone, change(&at, &[], &["ours"])).await.expect("removed");
    assert_eq!(txt(&*provider, &zone, &at).await, ["a", "b"].map(str::to_owned).into());
}

#[tokio::test]
async fn zones_are_found_by_name_and_told_apart() {
    let world = World::start().await;
    let provider = world.provider();
    let first = world.zone("example.com").await;
    assert_eq!(
        provider.zones(Some(&first.name)).await.expect("zones").zones,
        std::slice::from_ref(&first),
        "its servers are not asked for"
    );
    assert_eq!(world.gate.count("GetHostedZone"), 0);
    world.gate.create_zone("example.com", true).await;
    world.gate.create_zone("www.example.com", false).await;
    assert_eq!(provider.zones(Some(&first.name)).await.expect("zones").zones.len(), 1, "no CA sees a private zone");
    let second = world.gate.create_zone("example.com", false).await;
    let listing = provider.zones(Some(&first.name)).await.expect("zones");
    assert!(listing.complete && listing.zones.len() == 2, "{listing:?}");
    assert!(listing.zones.iter().all(|zone| !zone.nameservers.is_empty()), "{listing:?}");
    assert!(listing.zones.iter().any(|zone| zone.id == second));
    assert_eq!(provider.zones(Some(&"nothing.test".parse().expect("a name"))).await.expect("zones").zones, []);

    for n in 0..150 {
        world.gate.create_zone(&format!("z{n}.test"), false).await;
    }
    let all = provider.zones(None).await.expect("zones");
    assert!(all.complete, "fewer than {MOST_LISTED}");
    assert_eq!(all.zones.len(), 153);
    assert_eq!(world.gate.count("ListHostedZones"), 2);
}

#[tokio::test]
async fn a_change_is_pending_until_it_is_everywhere() {
    let world = World::start().await;
    let (provider, zone) = (world.provider(), world.zone("example.com").await);
    world.gate.pend(Duration::from_secs(1));
    let start = Instant::now();
    let receipt = make(&*provider, &zone, change(&owner("www"), &["ours"], &[])).await.expect("made");
    let mut pending = 0;
    while provider.progress(&receipt).await.expect("progress") == Progress::Pending {
        pending += 1;
    }
    assert!(pending > 0 && start.elapsed() >= Duration::from_secs(1));
    assert_eq!(provider.progress(&Receipt("CFORGOTTEN".to_owned())).await.expect("progress"), Progress::Done);
}

#[tokio::test]
async fn the_accounts_rate_is_kept() {
    let world = World::start().await;
    let (provider, zone) = (world.provider(), world.zone("example.com").await);
    world.gate.limit_rate(true);
    for _ in 0..12 {
        txt(&*provider, &zone, &owner("www")).await;
    }
    assert_eq!(world.gate.throttled(), 0);
}

#[tokio::test]
async fn what_was_changed_is_served() {
    let address = acmegate_tests::addresses::Address::reserve();
    let servers = Nameservers::start(&[(address.dns(), Duration::ZERO)]).await;
    let world = World::with(servers).await;
    let (provider, zone) = (world.provider(), world.zone("example.com").await);
    make(&*provider, &zone, change("*.example.com", &["ours"], &[])).await.expect("made");
    let served = acmegate_tests::dns::txt(address.dns(), "anything.example.com").await;
    assert_eq!(served, ["ours".to_owned()].into());
}
