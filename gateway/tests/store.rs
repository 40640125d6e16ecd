//! The contract of a store: every implementation passes this battery.

#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

mod common;

use std::{fs, path::Path};

use authdns::Name;
use common::{name, open};
use gateway::{
    claim::{Backend, Claim, ClaimId, Event, Holder, Lane, Release, State, Timestamp},
    store::{
        AccountChange, AccountRow, BudgetRow, DirectoryAccount, NewClaim, OrderEnd, OrderEntry, Renewal, SqliteStore, Standing, Store,
        StoreError, StoreMetrics, StoredCertificate,
    },
};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use uuid::Uuid;
use zeroize::Zeroizing;

const ZONE: &str = "auth.test";

fn claim(owner: &str, value: &str, holder: &str) -> NewClaim {
    NewClaim {
        lane: Lane { backend: Backend::Embedded, zone: name(ZONE) },
        owner: name(owner),
        value: value.parse().expect("a value"),
        holder: Holder::from(holder),
        expires: None,
        keep: None,
    }
}

fn remote(owner: &str, value: &str) -> NewClaim {
    NewClaim { lane: Lane { backend: Backend::from("corp"), zone: name("example.com") }, ..claim(owner, value, "webhook:ns/x") }
}

fn release(owner: Option<&str>, value: &str, holder: &str) -> Release {
    Release { holder: Holder::from(holder), owner: owner.map(name), value: value.parse().expect("a value") }
}

fn states(claims: &[Claim]) -> Vec<State> {
    claims.iter().map(|claim| claim.state).collect()
}

#[tokio::test]
async fn an_embedded_claim_is_answered_when_the_verb_returns_and_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, answers) = open(folder.path(), &[ZONE]);
    let claims =
        store.claim(vec![claim("a.auth.test", "one", "webhook:ns/a"), claim("a.auth.test", "two", "webhook:ns/a")]).await.expect("claimed");
    assert_eq!(states(&claims), [State::Visible, State::Visible]);
    assert_eq!(answers.at("a.auth.test"), ["one", "two"]);
    store.close().await;
    let (_store, answers) = open(folder.path(), &[ZONE]);
    assert_eq!(answers.at("a.auth.test"), ["one", "two"]);
}

#[tokio::test]
async fn the_runs_of_a_process_end_with_it_and_so_do_their_values() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _) = open(folder.path(), &[ZONE]);
    store.claim(vec![claim("a.auth.test", "run", "issue:1"), claim("a.auth.test", "account", "acmedns:x")]).await.expect("claimed");
    let run = |value| NewClaim { holder: Holder::from("issue:1"), ..remote("a.example.com", value) };
    let sent = store.claim(vec![run("sent"), run("unsent")]).await.expect("claimed")[0].id;
    store.advance(vec![(sent, Event::Submit { placed: true })]).await.expect("submitted");
    store.close().await;
    let (store, answers) = open(folder.path(), &[ZONE]);
    assert_eq!(answers.at("a.auth.test"), ["account"]);
    let work = store.work(&run("sent").lane).await.expect("work");
    assert_eq!(work.iter().map(|claim| (claim.id, claim.state)).collect::<Vec<_>>(), [(sent, State::Releasing)]);
}

/// Owner, value and state of each.
fn overdue_of(found: &[gateway::store::Overdue]) -> Vec<(String, String, State)> {
    found.iter().map(|one| (one.claim.owner.to_relative_string(), one.claim.value.to_string(), one.claim.state)).collect()
}

#[tokio::test]
async fn what_should_be_gone_from_providers_is_overdue_with_the_time_since_when() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _) = open(folder.path(), &[ZONE]);
    let until = |claim: NewClaim, at: i64| NewClaim { expires: Some(Timestamp(at)), ..claim };
    let begun = Timestamp::now();
    let claims = store
        .claim(vec![
            until(claim("a.auth.test", "embedded", "acmedns:1"), 10),
            until(remote("b.example.com", "expired"), 10),
            until(remote("b.example.com", "later"), 20),
            remote("a.example.com", "released"),
            remote("a.example.com", "stands"),
        ])
        .await
        .expect("claimed");
    let placed = claims.iter().map(|claim| (claim.id, Event::Submit { placed: true })).collect();
    store.advance(placed).await.expect("submitted");
    store.release(vec![release(None, "released", "webhook:ns/x")]).await.expect("released");
    let found = store.overdue(Timestamp(10), 100).await.expect("overdue");
    let row = |owner: &str, value: &str, state| (owner.to_owned(), value.to_owned(), state);
    assert_eq!(overdue_of(&found), [row("a.example.com", "released", State::Releasing), row("b.example.com", "expired", State::Submitted)]);
    assert!(found[0].since.is_some_and(|since| since >= begun), "{found:?}");
    assert_eq!(found[1].since, Some(Timestamp(10)));
    assert_eq!(store.overdue(Timestamp(10), 1).await.expect("overdue").len(), 1);
    // Claimed again, it is due no more.
    store.claim(vec![remote("a.example.com", "released")]).await.expect("claimed");
    assert_eq!(store.overdue(Timestamp(9), 100).await.expect("overdue"), []);
}

#[tokio::test]
async fn a_stray_is_adopted_unless_anybody_claims_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _) = open(folder.path(), &[ZONE]);
    store.claim(vec![remote("a.example.com", "claimed")]).await.expect("claimed");
    let stray = |value: &str, backend: &str| NewClaim {
        holder: Holder::from("sweep:mark"),
        lane: Lane { backend: Backend::from(backend), zone: name("example.com") },
        ..remote("a.example.com", value)
    };
    let asked = [("claimed", true), ("stray", false)].map(|(value, _)| (name("a.example.com"), value.parse().expect("a value")));
    assert_eq!(store.claimed(asked.to_vec()).await.expect("claimed"), asked[..1]);
    // The other backend sees the same zone.
    let strays = vec![stray("claimed", "corp"), stray("claimed", "other"), stray("stray", "corp"), stray("stray", "other")];
    let adopted = store.adopt(strays.clone()).await.expect("adopted");
    let [one] = adopted.as_slice() else { panic!("{adopted:?}") };
    assert_eq!((one.value.as_str(), one.state, one.placed, one.lane.backend.as_str()), ("stray", State::Releasing, true, "corp"));
    assert_eq!(store.work(&one.lane).await.expect("work").iter().find(|claim| claim.id == one.id), Some(one));
    assert_eq!(store.adopt(strays).await.expect("adopted"), []);
    let census = store.census().await.expect("counted");
    assert_eq!(census, State::ALL.map(|state| (state, u64::from(matches!(state, State::Wanted | State::Releasing)))));
}

#[tokio::test]
async fn a_claim_that_waits_after_a_failure_can_be_hurried() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _) = open(folder.path(), &[ZONE]);
    let id = store.claim(vec![remote("a.example.com", "v")]).await.expect("claimed")[0].id;
    let failed = Event::Failed { reason: "no".to_owned(), retry_at: Timestamp(i64::MAX), untouched: true };
    store.advance(vec![(id, failed)]).await.expect("failed");
    store.hurry(vec![id, ClaimId(id.0 + 1)]).await.expect("hurried");
    let failure = store.find(vec![id]).await.expect("found")[0].failure.clone().expect("a failure");
    assert_eq!((failure.reason.as_str(), failure.attempts, failure.retry_at), ("no", 1, Timestamp(0)));
}

#[tokio::test]
async fn a_value_of_two_holders_stands_until_both_let_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, answers) = open(folder.path(), &[ZONE]);
    store.claim(vec![claim("a.auth.test", "v", "issue:1"), claim("a.auth.test", "v", "issue:2")]).await.expect("claimed");
    assert_eq!(answers.at("a.auth.test"), ["v"]);
    assert_eq!(store.release(vec![release(Some("a.auth.test"), "v", "issue:1")]).await.expect("released").len(), 1);
    assert_eq!(answers.at("a.auth.test"), ["v"]);
    assert_eq!(store.release(vec![release(Some("a.auth.test"), "v", "issue:2")]).await.expect("released").len(), 1);
    assert_eq!(answers.at("a.auth.test"), [""; 0]);
    assert_eq!(store.release(vec![release(Some("a.auth.test"), "v", "issue:2")]).await.expect("released again").len(), 0);
}

#[tokio::test]
async fn only_the_newest_are_kept_and_a_renewed_value_is_new() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, answers) = open(folder.path(), &[ZONE]);
    let keep = |value: &str| NewClaim { keep: Some(2), ..claim("a.auth.test", value, "acmedns:x") };
    store.claim(vec![claim("a.auth.test", "other", "issue:1")]).await.expect("claimed");
    for value in ["1", "2", "1", "3"] {
        store.claim(vec![keep(value)]).await.expect("claimed");
    }
    assert_eq!(answers.at("a.auth.test"), ["other", "1", "3"], "the other holder's value is not counted");
}

#[tokio::test]
async fn the_newest_are_those_claimed_last_whatever_became_of_others_since() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _) = open(folder.path(), &[ZONE]);
    let mut ids = Vec::new();
    for value in ["1", "2"] {
        ids.push(store.claim(vec![remote("a.example.com", value)]).await.expect("claimed")[0].id);
    }
    store.advance(vec![(ids[0], Event::Submit { placed: true })]).await.expect("the older one moves on");
    store.claim(vec![NewClaim { keep: Some(2), ..remote("a.example.com", "3") }]).await.expect("claimed");
    assert_eq!(states(&store.find(ids).await.expect("found")), [State::Releasing, State::Wanted]);
}

#[tokio::test]
async fn claims_without_an_owner_are_released_wherever_they_stand() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, answers) = open(folder.path(), &[ZONE]);
    for holder in ["webhook:ns/x", "acmedns:y"] {
        store
            .claim(vec![claim("a.auth.test", "v", holder), claim("b.auth.test", "v", holder), claim("b.auth.test", "w", holder)])
            .await
            .expect("claimed");
        assert_eq!(store.release(vec![release(None, "v", holder)]).await.expect("released").len(), 2);
        assert_eq!((answers.at("a.auth.test"), answers.at("b.auth.test")), (vec![], vec!["w".to_owned()]));
        assert_eq!(store.release_all(&Holder::from(holder)).await.expect("released").len(), 1);
        assert_eq!(answers.at("b.auth.test"), [""; 0]);
    }
}

#[tokio::test]
async fn what_expires_goes_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, answers) = open(folder.path(), &[ZONE]);
    let until = |value: &str, at| NewClaim { expires: Some(Timestamp(at)), ..claim("a.auth.test", value, "acmedns:x") };
    store.claim(vec![until("early", 10), until("late", 20), claim("a.auth.test", "ever", "acmedns:x")]).await.expect("claimed");
    assert_eq!(store.expire(Timestamp(9), 100).await.expect("nothing due").len(), 0);
    assert_eq!(store.expire(Timestamp(10), 100).await.expect("one due").len(), 1);
    assert_eq!(answers.at("a.auth.test"), ["late", "ever"]);
    store.claim(vec![until("late", 30)]).await.expect("renewed");
    assert_eq!(store.expire(Timestamp(29), 100).await.expect("renewed meanwhile").len(), 0);
    assert_eq!(store.expire(Timestamp(30), 100).await.expect("due").len(), 1);
    assert_eq!(answers.at("a.auth.test"), ["ever"]);
}

#[tokio::test]
async fn a_zone_s_serial_grows_with_every_change_and_over_restarts() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut last = 0;
    for _ in 0..3 {
        let (store, answers) = open(folder.path(), &[ZONE, "other.test"]);
        for value in ["1", "2", "3"] {
            store.claim(vec![claim("a.auth.test", value, "issue:1")]).await.expect("claimed");
        }
        store.release_all(&Holder::from("issue:1")).await.expect("released");
        let serials = answers.serials.lock()[&name(ZONE)].clone();
        assert_eq!(serials.len(), 5, "one at the start, one for each change");
        for serial in serials {
            assert!(serial > last, "{serial} after {last}");
            last = serial;
        }
        assert_eq!(answers.serials.lock()[&name("other.test")].len(), 1, "a change of one zone is none of the other");
        store.close().await;
    }
}

#[tokio::test]
async fn claims_of_a_zone_that_is_no_longer_served_end_quietly() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _) = open(folder.path(), &[ZONE]);
    store.claim(vec![NewClaim { expires: Some(Timestamp(10)), ..claim("a.auth.test", "v", "acmedns:x") }]).await.expect("claimed");
    store.close().await;
    let (store, answers) = open(folder.path(), &["other.test"]);
    assert_eq!(store.expire(Timestamp(10), 100).await.expect("expired").len(), 1);
    assert!(!answers.serials.lock().contains_key(&name(ZONE)), "nobody is told of a zone that is not served");
}

#[tokio::test]
async fn concurrent_verbs_share_commits_and_all_take_effect() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, answers) = open(folder.path(), &[ZONE]);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..500 {
        let store = store.clone();
        tasks.spawn(async move { store.claim(vec![claim(&format!("n{n}.auth.test"), "v", "issue:1")]).await });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no panic").expect("claimed");
    }
    assert_eq!(answers.values.lock().len(), 500);
    let serials = answers.serials.lock()[&name(ZONE)].len();
    assert!(serials < 400, "{serials} commits for 500 concurrent claims: they were not grouped");
}

#[tokio::test]
async fn a_providers_claim_moves_by_events_and_is_found_as_work() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _) = open(folder.path(), &[ZONE]);
    let lane = remote("a.example.com", "v").lane;
    let claims = store.claim(vec![remote("a.example.com", "v"), remote("b.example.com", "v")]).await.expect("claimed");
    assert_eq!(states(&claims), [State::Wanted, State::Wanted]);
    assert_eq!(store.lanes().await.expect("lanes"), std::slice::from_ref(&lane));
    let (a, b) = (claims[0].id, claims[1].id);
    let all = |event: Event| vec![(a, event.clone()), (b, event), (ClaimId(999), Event::Seen)];
    assert_eq!(store.advance(all(Event::Submit { placed: true })).await.expect("submitted").len(), 2);
    assert_eq!(store.advance(all(Event::Applied { receipt: "r".to_owned() })).await.expect("applied").len(), 2);
    assert_eq!(store.work(&lane).await.expect("work")[0].receipt.as_deref(), Some("r"));
    assert_eq!(store.advance(all(Event::Seen)).await.expect("seen").len(), 2);
    assert_eq!(store.work(&lane).await.expect("work"), []);
    assert_eq!(store.lanes().await.expect("lanes"), []);

    let released = store.release(vec![release(Some("a.example.com"), "v", "webhook:ns/x")]).await.expect("released");
    assert_eq!(states(&released), [State::Releasing]);
    let failed = Event::Failed { reason: "later".to_owned(), retry_at: Timestamp(7), untouched: false };
    let changed = store.advance(vec![(a, failed)]).await.expect("failed");
    let failure = changed[0].failure.as_ref().expect("a failure");
    assert_eq!((failure.reason.as_str(), failure.attempts, failure.retry_at), ("later", 1, Timestamp(7)));
    store.close().await;

    let (store, _) = open(folder.path(), &[ZONE]);
    assert_eq!(states(&store.work(&lane).await.expect("work")), [State::Releasing], "it is found after a restart");
    assert_eq!(store.advance(vec![(a, Event::Removed)]).await.expect("removed"), []);
    assert_eq!(states(&store.find(vec![a, b]).await.expect("found")), [State::Visible]);
    assert_eq!(store.census().await.expect("counted").into_iter().map(|(_, n)| n).collect::<Vec<_>>(), [0, 0, 0, 1, 0]);
}

#[tokio::test]
async fn claims_are_counted_by_state_over_renewals_refusals_and_restarts() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _) = open(folder.path(), &[ZONE]);
    let count = async |store: &SqliteStore| store.census().await.expect("counted").into_iter().map(|(_, n)| n).collect::<Vec<_>>();
    store.claim(vec![claim("a.auth.test", "v", "acmedns:x"), claim("a.auth.test", "v", "acmedns:x")]).await.expect("claimed");
    let id = store.claim(vec![remote("a.example.com", "v"), remote("b.example.com", "v")]).await.expect("claimed")[0].id;
    assert_eq!(count(&store).await, [2, 0, 0, 1, 0]);
    store.advance(vec![(id, Event::Submit { placed: true })]).await.expect("submitted");
    store.release(vec![release(Some("a.example.com"), "v", "webhook:ns/x")]).await.expect("released");
    assert_eq!(count(&store).await, [1, 0, 0, 1, 1]);
    store.claim(vec![remote("a.example.com", "v")]).await.expect("claimed again");
    store.release(vec![release(Some("a.auth.test"), "v", "acmedns:x")]).await.expect("released");
    assert_eq!(count(&store).await, [2, 0, 0, 0, 0]);
    store.close().await;
    let (store, _) = open(folder.path(), &[ZONE]);
    assert_eq!(count(&store).await, [2, 0, 0, 0, 0]);
}

#[tokio::test]
async fn accounts_come_back_as_they_were() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _) = open(folder.path(), &[ZONE]);
    let rows: Vec<AccountRow> = (0..3u8)
        .map(|n| AccountRow {
            username: Uuid::new_v4(),
            subdomain: Uuid::new_v4(),
            key_hash: [n; 32],
            allowfrom: if n == 1 { vec!["10.0.0.0/8".parse().expect("a network"), "::1/128".parse().expect("a network")] } else { vec![] },
        })
        .collect();
    for row in &rows {
        store.register(row.clone()).await.expect("registered");
    }
    let pepper = store.pepper();
    store.close().await;
    let (store, _) = open(folder.path(), &[ZONE]);
    assert_eq!(store.pepper(), pepper);
    let found = Arc::new(Mutex::new(Vec::new()));
    let sink = found.clone();
    store.each_account(Box::new(move |row| sink.lock().push(row))).await.expect("listed");
    assert_eq!(*found.lock(), rows);
}

#[tokio::test]
async fn a_directory_account_keeps_its_first_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _) = open(folder.path(), &[ZONE]);
    let account = |key: &[u8], url: Option<&str>| DirectoryAccount {
        directory: "https://ca.test/dir".to_owned(),
        key: Zeroizing::new(key.to_vec()),
        url: url.map(str::to_owned),
        contact: None,
        next_key: None,
    };
    assert!(store.directory_account("https://ca.test/dir").await.expect("read").is_none());
    store.save_directory_account(account(b"first", None)).await.expect("saved");
    let kept = store.save_directory_account(account(b"second", Some("https://ca.test/2"))).await.expect("asked");
    assert_eq!((kept.key.as_slice(), kept.url), (b"first".as_slice(), None));
    store.save_directory_account(account(b"first", Some("https://ca.test/1"))).await.expect("saved");
    let kept = store.save_directory_account(account(b"first", None)).await.expect("saved");
    assert_eq!(kept.url.as_deref(), Some("https://ca.test/1"), "a known URL is not forgotten");
}

#[tokio::test]
async fn a_key_is_changed_in_two_steps_and_a_crash_between_them_leaves_both() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _) = open(folder.path(), &[ZONE]);
    let directory = "https://ca.test/dir";
    let account = DirectoryAccount {
        directory: directory.to_owned(),
        key: Zeroizing::new(b"first".to_vec()),
        url: Some("https://ca.test/1".to_owned()),
        contact: Some("ops@example.org".to_owned()),
        next_key: None,
    };
    let change = async |store: &SqliteStore, change| store.change_directory_account(directory, change).await.expect("changed");
    assert!(change(&store, AccountChange::KeyAnswered(true)).await.is_none(), "there is no account");
    store.save_directory_account(account).await.expect("saved");
    let nothing = change(&store, AccountChange::KeyAnswered(true)).await.expect("an account");
    assert_eq!(nothing.key.as_slice(), b"first", "without a next key nothing changes");
    change(&store, AccountChange::NextKey(Zeroizing::new(b"second".to_vec()))).await;
    let kept = change(&store, AccountChange::NextKey(Zeroizing::new(b"third".to_vec()))).await.expect("an account");
    assert_eq!(kept.next_key.as_deref().map(Vec::as_slice), Some(b"second".as_slice()), "the CA may have taken it");
    store.close().await;
    let (store, _) = open(folder.path(), &[ZONE]);
    let kept = store.directory_account(directory).await.expect("read").expect("an account");
    assert_eq!((kept.key.as_slice(), kept.next_key.is_some()), (b"first".as_slice(), true));
    let changed = change(&store, AccountChange::KeyAnswered(true)).await.expect("an account");
    assert_eq!((changed.key.as_slice(), changed.next_key.is_none()), (b"second".as_slice(), true));
    change(&store, AccountChange::NextKey(Zeroizing::new(b"third".to_vec()))).await;
    let refused = change(&store, AccountChange::KeyAnswered(false)).await.expect("an account");
    assert_eq!((refused.key.as_slice(), refused.next_key.is_none()), (b"second".as_slice(), true));
    let told = change(&store, AccountChange::Contact(None)).await.expect("an account");
    assert_eq!((told.contact, told.url.as_deref()), (None, Some("https://ca.test/1")));
    assert_eq!(store.directory_accounts().await.expect("listed").len(), 1);
    assert!(change(&store, AccountChange::Closed).await.is_none());
    assert!(store.directory_accounts().await.expect("listed").is_empty());
}

#[tokio::test]
async fn after_closing_verbs_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _) = open(folder.path(), &[ZONE]);
    let waiting = store.claim(vec![claim("a.auth.test", "v", "issue:1")]);
    let (taken, ()) = tokio::join!(waiting, store.close());
    taken.expect("what was asked before is still written");
    assert_eq!(store.claim(vec![claim("a.auth.test", "w", "issue:1")]).await, Err(StoreError::Closed));
}

#[tokio::test]
async fn a_name_is_shared_while_anybody_else_has_a_claim_at_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _) = open(folder.path(), &[ZONE]);
    let (own, other) = (remote("own.example.com", "v"), remote("both.example.com", "w"));
    let mine = NewClaim { holder: Holder::from("issue:1"), ..remote("both.example.com", "v") };
    let holder = mine.holder.clone();
    store.claim(vec![NewClaim { holder: holder.clone(), ..own.clone() }, mine, other]).await.expect("claimed");
    let owners = vec![own.owner, name("both.example.com"), name("nobody.example.com")];
    assert_eq!(store.shared(owners, &holder).await, Ok(vec![name("both.example.com")]));
}

fn refused(folder: &Path) -> String {
    let zones: Vec<Name> = vec![name(ZONE)];
    let answers = Arc::new(common::Answers::default());
    match SqliteStore::open(folder, &zones, answers, StoreMetrics::register(&mut Registry::default())) {
        Ok(_) => panic!("it was opened"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn files_that_cannot_be_used_are_left_as_they_are() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("acmegate.sqlite");
    fs::write(&file, b"this is no database, and it is long enough to be looked at as one, page header and all............")
        .expect("written");
    let before = fs::read(&file).expect("read");
    let text = refused(folder.path());
    assert!(text.contains("acmegate.sqlite") && text.contains("broken"), "{text}");
    assert_eq!(fs::read(&file).expect("read"), before);

    fs::remove_file(&file).expect("removed");
    let (store, _) = open(folder.path(), &[ZONE]);
    store.close().await;
    let connection = rusqlite::Connection::open(&file).expect("a database");
    connection.pragma_update(None, "user_version", 4711).expect("written");
    drop(connection);
    let text = refused(folder.path());
    assert!(text.contains("newer acmegate") && text.contains("4711"), "{text}");

    fs::remove_file(&file).expect("removed");
    let connection = rusqlite::Connection::open(&file).expect("a database");
    connection.execute_batch("CREATE TABLE mine (x)").expect("written");
    drop(connection);
    let text = refused(folder.path());
    assert!(text.contains("another program"), "{text}");
}

fn certificate(name: &str, chain: &str) -> StoredCertificate {
    StoredCertificate {
        name: name.to_owned(),
        names: vec![format!("{name}.test"), format!("*.{name}.test")],
        directory: "https://ca.test/directory".to_owned(),
        key_pem: Zeroizing::new(format!("the key of {name}")),
        certificate_pem: format!("the leaf of {name}"),
        chain_pem: chain.to_owned(),
        url: format!("https://ca.test/{name}"),
        not_before: Timestamp(1000),
        not_after: Timestamp(2000),
    }
}

fn order(job: &str, directory: &str) -> OrderEntry {
    OrderEntry {
        job: job.to_owned(),
        directory: directory.to_owned(),
        wish: "w".to_owned(),
        run: Uuid::new_v4(),
        url: None,
        key_pem: None,
        begun: Timestamp(1),
    }
}

fn stands(name: &str, failures: u32) -> Renewal {
    Renewal { name: name.to_owned(), failures, ..Renewal::default() }
}

#[tokio::test]
async fn a_certificate_its_state_its_claims_and_the_end_of_its_order_are_one_transaction() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _) = open(folder.path(), &[ZONE]);
    let (ours, theirs) = ("webhook:the order's", "webhook:another's");
    for directory in ["https://a.test/", "https://b.test/"] {
        store.begin_order(order("certificate www", directory), Vec::new()).await.expect("begun");
    }
    let left = store.orders("certificate www").await.expect("read");
    assert_eq!(left.iter().map(|order| order.directory.as_str()).collect::<Vec<_>>(), ["https://a.test/", "https://b.test/"]);
    let placed = OrderEntry { url: Some("u".to_owned()), key_pem: Some(Zeroizing::new("k".to_owned())), ..left[1].clone() };
    let claims = vec![claim("www.auth.test", "ours", ours), claim("www.auth.test", "theirs", theirs)];
    let claimed = store.order_placed(placed, claims).await.expect("placed");
    assert_eq!(states(&claimed), [State::Visible, State::Visible]);
    store.forget_order("certificate www", "https://a.test/").await.expect("forgotten");
    store.close().await;

    let (store, _) = open(folder.path(), &[ZONE]);
    let left = store.orders("certificate www").await.expect("read");
    let [left] = left.as_slice() else { panic!("{}", left.len()) };
    assert_eq!((left.url.as_deref(), left.key_pem.as_ref().map(|key| key.as_str())), (Some("u"), Some("k")));
    let end = OrderEnd {
        job: "certificate www".to_owned(),
        certificate: Some(certificate("www", "the chain")),
        renewal: Some(stands("www", 0)),
        holder: Some(Holder::from(ours)),
        learned: vec![BudgetRow {
            directory: "https://b.test/".to_owned(),
            limit: "l".to_owned(),
            subject: "s".to_owned(),
            full_at: Timestamp(i64::MAX),
        }],
    };
    let gone = store.end_order(end).await.expect("ended");
    assert_eq!(gone.iter().map(|claim| claim.holder.as_str()).collect::<Vec<_>>(), [ours]);
    assert_eq!(store.budget().await.expect("read").len(), 1);
    assert_eq!(store.release_all(&Holder::from(theirs)).await.expect("released").len(), 1, "another's is not touched");
    assert!(store.orders("certificate www").await.expect("read").is_empty());
    store.close().await;

    let (store, _) = open(folder.path(), &[ZONE]);
    let found = store.certificate("www").await.expect("read").expect("there");
    assert_eq!((found.names.join(" "), found.chain_pem.as_str()), ("www.test *.www.test".to_owned(), "the chain"));
    assert_eq!((found.key_pem.as_str(), found.certificate_pem.as_str()), ("the key of www", "the leaf of www"));
    assert_eq!((found.not_before, found.not_after), (Timestamp(1000), Timestamp(2000)));
    assert_eq!(store.renewals().await.expect("read"), [stands("www", 0)]);
}

#[tokio::test]
async fn orders_that_came_to_no_end_are_forgotten_in_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _) = open(folder.path(), &[ZONE]);
    let begin = async |job: &str, hours: i64| {
        let begun = Timestamp(hours * 3_600_000);
        store.begin_order(OrderEntry { begun, ..order(job, "https://a.test/") }, Vec::new()).await.expect("begun");
    };
    let left = async |job: &str| store.orders(job).await.expect("read").len();
    begin("issue one", 0).await;
    begin("certificate www", 0).await;
    begin("issue two", 1).await;
    assert_eq!((left("issue one").await, left("certificate www").await, left("issue two").await), (1, 1, 1));
    begin("issue three", 2).await;
    assert_eq!((left("issue one").await, left("certificate www").await, left("issue two").await), (0, 1, 1));
    begin("certificate new", 91 * 24).await;
    assert_eq!((left("certificate www").await, left("certificate new").await), (0, 1));
}

#[tokio::test]
async fn certificates_share_a_chain_for_as_long_as_one_has_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _) = open(folder.path(), &[ZONE]);
    let keep = async |name: &str, chain: &str| {
        let end = OrderEnd { job: format!("certificate {name}"), certificate: Some(certificate(name, chain)), ..OrderEnd::default() };
        store.end_order(end).await.expect("kept");
    };
    keep("one", "old").await;
    keep("two", "old").await;
    keep("one", "new").await;
    assert_eq!(store.certificate("two").await.expect("read").expect("there").chain_pem, "old");
    assert!(store.delete_certificate("two", "certificate two").await.expect("deleted"));
    assert!(!store.delete_certificate("two", "certificate two").await.expect("read"), "it is gone");
    keep("one", "newer").await;
    store.close().await;
    let database = rusqlite::Connection::open(folder.path().join("acmegate.sqlite")).expect("opened");
    let mut chains = database.prepare("SELECT pem FROM chains").expect("prepared");
    let chains: Vec<String> = chains.query_map([], |row| row.get(0)).expect("read").collect::<Result<_, _>>().expect("texts");
    assert_eq!(chains, ["newer"]);
}

#[tokio::test]
async fn the_states_are_saved_and_what_is_unknown_in_them_is_borne_with() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _) = open(folder.path(), &[ZONE]);
    store.save_renewals(vec![stands("b", 1), stands("a", 2)]).await.expect("saved");
    store.save_renewals(vec![stands("b", 3)]).await.expect("saved");
    store.close().await;
    let database = rusqlite::Connection::open(folder.path().join("acmegate.sqlite")).expect("opened");
    database
        .execute("INSERT INTO renewals (name, state) VALUES ('c', '{\"failures\":7,\"of_a_later_version\":true}')", [])
        .expect("written");
    drop(database);
    let (store, _) = open(folder.path(), &[ZONE]);
    assert_eq!(store.renewals().await.expect("read"), [stands("a", 2), stands("b", 3), stands("c", 7)]);
}

#[tokio::test]
async fn what_was_known_before_a_certificate_does_not_come_after_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _) = open(folder.path(), &[ZONE]);
    let standing = |issued: i64| Standing {
        id: None,
        serial: "01".to_owned(),
        directory: "https://ca.test/directory".to_owned(),
        names: vec!["www.test".to_owned()],
        wish: "w".to_owned(),
        not_before: Timestamp(0),
        not_after: Timestamp(1),
        issued: Timestamp(issued),
    };
    let since = |issued: i64, failures: u32| Renewal { standing: Some(standing(issued)), ..stands("www", failures) };
    for renewal in [stands("www", 1), since(10, 2), stands("www", 3), since(9, 4)] {
        store.save_renewals(vec![renewal]).await.expect("saved");
    }
    assert_eq!(store.renewals().await.expect("read"), [since(10, 2)]);
    store.save_renewals(vec![since(10, 5)]).await.expect("saved");
    assert_eq!(store.renewals().await.expect("read"), [since(10, 5)]);
}

#[tokio::test]
async fn what_an_order_takes_of_the_limits_is_written_with_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _) = open(folder.path(), &[ZONE]);
    let row = |subject: &str, full_at: i64| BudgetRow {
        directory: "https://a.test/".to_owned(),
        limit: "orders".to_owned(),
        subject: subject.to_owned(),
        full_at: Timestamp(full_at),
    };
    let late = Timestamp::now().0 + 3_600_000;
    store.begin_order(order("certificate www", "https://a.test/"), vec![row("", late), row("a.test", 1)]).await.expect("begun");
    store.save_budget(vec![row("", late + 1)]).await.expect("saved");
    store.close().await;
    let (store, _) = open(folder.path(), &[ZONE]);
    assert_eq!(store.budget().await.expect("read"), [row("", late + 1)], "what is full again is gone");
}

/// A run that nobody waits for is undone; an order of the list goes on with the values that stand.
#[tokio::test]
async fn only_orders_of_the_list_keep_their_values_over_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, answers) = open(folder.path(), &[ZONE]);
    let (listed, waited_for) = (order("certificate www", "https://a.test/"), order("issue w", "https://a.test/"));
    store.claim(vec![claim("a.auth.test", "listed", Holder::issue(listed.run).as_str())]).await.expect("claimed");
    store.claim(vec![claim("a.auth.test", "waited-for", Holder::issue(waited_for.run).as_str())]).await.expect("claimed");
    store.begin_order(listed, Vec::new()).await.expect("begun");
    store.begin_order(waited_for, Vec::new()).await.expect("begun");
    assert_eq!(answers.at("a.auth.test"), ["listed", "waited-for"]);
    store.close().await;
    let (_store, answers) = open(folder.path(), &[ZONE]);
    assert_eq!(answers.at("a.auth.test"), ["listed"]);
}
