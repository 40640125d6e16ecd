//! `acmedns` against an emulator of the original.
#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::{
    collections::BTreeSet,
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use acmegate_tests::temporary_folder;
use authdns::Name;
use emulators::{
    Fault, Nameservers,
    acmedns::{Account, AcmeDns},
};
use providers::{Change, Context, Error, Provider, TxtSet, Zone, kind, secret::LocalSecrets};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

const ZONE: &str = "auth.test";

struct World {
    server: AcmeDns,
    dns: SocketAddr,
    folder: TempDir,
}

impl World {
    async fn new() -> Self {
        let nameservers = Nameservers::start(&[((Ipv4Addr::LOCALHOST, 0).into(), Duration::ZERO)]).await;
        let dns = nameservers.addresses()[0];
        Self { server: AcmeDns::start(ZONE, nameservers).await, dns, folder: temporary_folder("acmedns") }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("accounts.json")
    }

    fn stored(&self) -> Map<String, Value> {
        serde_json::from_str(&acmegate_tests::read(&self.file())).expect("a map")
    }

    /// Registers an account past the provider, and puts it into the file.
    fn account(&self, domain: &str) -> Account {
        let account = self.server.register();
        self.store(domain, &account);
        account
    }

    fn store(&self, domain: &str, account: &Account) {
        let mut all = if self.file().exists() { self.stored() } else { Map::new() };
        let Account { username, password, fulldomain, subdomain, .. } = account;
        all.insert(
            domain.to_owned(),
            json!({"username": username, "password": password, "fulldomain": fulldomain, "subdomain": subdomain, "allowfrom": []}),
        );
        acmegate_tests::write(&self.file(), &Value::from(all).to_string());
    }

    fn provider(&self) -> Arc<dyn Provider> {
        self.provider_with(json!({})).expect("good settings")
    }

    fn provider_with(&self, more: Value) -> Result<Arc<dyn Provider>, String> {
        let mut settings = json!({"endpoint": self.server.url(), "accounts": {"file": self.file()}, "nameserver": self.dns.to_string()});
        let (Value::Object(all), Value::Object(more)) = (&mut settings, more) else { panic!("no maps") };
        all.extend(more);
        let context = Context { backend: "dns".into(), ttl: 60, mark: String::new(), secrets: Arc::new(LocalSecrets) };
        (kind("acmedns").expect("in the table").build)(settings, &context)
    }

    fn standing(&self, account: &Account) -> BTreeSet<String> {
        self.server.rows(&account.subdomain).into_iter().map(|(value, _)| value).filter(|value| !value.is_empty()).collect()
    }
}

fn name(text: &str) -> Name {
    text.parse().expect(text)
}

fn zone(apex: &str) -> Zone {
    Zone { id: apex.to_owned(), name: name(apex), nameservers: BTreeSet::new() }
}

/// A value as ACME makes them.
fn value(letter: char) -> String {
    letter.to_string().repeat(43)
}

fn set(letters: &str) -> BTreeSet<String> {
    letters.chars().map(value).collect()
}

fn change(owner: &str, add: &str, remove: &str) -> Change {
    Change { owner: name(owner), add: set(add), remove: set(remove), version: String::new() }
}

async fn read(provider: &dyn Provider, apex: &str, owner: &str) -> Result<TxtSet, Error> {
    provider.read(&zone(apex), &[name(owner)]).await.remove(0)
}

async fn apply(provider: &dyn Provider, change: Change) -> Result<(), Error> {
    provider.apply(&zone(ZONE), &[change]).await.remove(0).map(|_| ())
}

#[tokio::test]
async fn values_are_added_and_pushed_out() {
    let world = World::new().await;
    let (one, other) = (world.account("www.example.com"), world.account("example.com"));
    let provider = world.provider();
    let limits = provider.limits();
    assert_eq!((limits.values, limits.removes), (2, false));
    let listing = provider.zones(None).await.expect("a listing");
    assert_eq!((listing.zones, listing.complete), (vec![zone(ZONE)], true));
    assert_eq!(provider.zones(Some(&name(ZONE))).await.expect("a listing").zones, [zone(ZONE)]);
    assert_eq!(provider.zones(Some(&name("example.com"))).await.expect("a listing").zones, []);

    assert_eq!(read(&*provider, ZONE, &one.fulldomain).await, Ok(TxtSet::default()), "a name without values does not exist");
    let changes = [change(&one.fulldomain, "ab", ""), change(&other.fulldomain, "c", "")];
    let results = provider.apply(&zone(ZONE), &changes).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    let owners = [name(&one.fulldomain), name(&other.fulldomain)];
    let sets: Vec<_> = provider.read(&zone(ZONE), &owners).await.into_iter().map(|read| read.expect("read").values).collect();
    assert_eq!(sets, [set("ab"), set("c")]);

    let writes = world.server.faults().calls().1;
    apply(&*provider, change(&one.fulldomain, "a", "")).await.expect("it stands");
    apply(&*provider, change(&one.fulldomain, "", "ab")).await.expect("nothing can be done, and nothing has to");
    assert_eq!((world.server.faults().calls().1, world.standing(&one)), (writes, set("ab")));
    apply(&*provider, change(&one.fulldomain, "de", "")).await.expect("added");
    assert_eq!(world.standing(&one), set("de"));
}

#[tokio::test]
async fn the_original_goes_by_seconds() {
    let world = World::new().await;
    let account = world.account("example.com");
    world.server.freeze(Some(1_700_000_000));
    let client = reqwest::Client::new();
    for letter in "abcde".chars() {
        let request = client.post(format!("{}/update", world.server.url())).header("X-Api-User", &account.username);
        let request = request.header("X-Api-Key", &account.password).json(&json!({"subdomain": account.subdomain, "txt": value(letter)}));
        let reply = request.send().await.expect("an answer");
        assert_eq!((reply.status().as_u16(), reply.text().await.expect("text")), (200, format!("{{\"txt\": \"{}\"}}", value(letter))));
    }
    assert_eq!(world.standing(&account), set("be"), "five updates within a second leave the second and the last");
}

#[tokio::test]
async fn what_shall_stay_stays_whichever_is_the_oldest() {
    let world = World::new().await;
    for letters in ["kx", "xk"] {
        let account = world.account("example.com");
        for (second, letter) in letters.chars().enumerate() {
            world.server.freeze(Some(1000 + second as u64));
            world.server.stranger_updates(&account.subdomain, &value(letter));
        }
        world.server.freeze(None);
        let provider = world.provider();
        apply(&*provider, change(&account.fulldomain, "kn", "x")).await.expect("added");
        assert_eq!(world.standing(&account), set("kn"), "{letters}");
    }
}

#[tokio::test]
async fn an_acmegate_keeps_more() {
    let world = World::new().await;
    let account = world.account("example.com");
    let provider = world.provider_with(json!({"values": 8})).expect("good settings");
    assert_eq!(provider.limits().values, 8);
    let error = apply(&*provider, change(&account.fulldomain, "abcdefghi", "")).await.expect_err("nine");
    assert!(matches!(&error, Error::Rejected(text) if text.contains("keeps 8 values")), "{error}");
    let error = apply(&*world.provider(), change(&account.fulldomain, "abc", "")).await.expect_err("three");
    assert!(matches!(&error, Error::Rejected(text) if text.contains("keeps 2 values")), "{error}");
    let short = Change { add: BTreeSet::from(["short".to_owned()]), ..change(&account.fulldomain, "", "") };
    let error = apply(&*provider, short).await.expect_err("no value of DNS-01");
    assert!(matches!(&error, Error::Rejected(text) if text.contains("43 characters")), "{error}");
    assert_eq!(world.server.faults().calls().1, 0, "nothing is sent that would be refused");
}

#[tokio::test]
async fn faults_become_the_errors_that_say_what_to_do() {
    let world = World::new().await;
    let account = world.account("example.com");
    let attempt = async |fault: Fault, letter: &str| {
        world.server.faults().on_writes([fault]);
        // Another provider each time: a rate that was heeded is not to be waited for.
        apply(&*world.provider(), change(&account.fulldomain, letter, "")).await.expect_err(letter)
    };
    assert!(matches!(attempt(Fault::ErrorBefore, "a").await, Error::Transport(text) if text.contains("db_error")));
    assert!(matches!(attempt(Fault::LostRequest, "b").await, Error::Transport(_)));
    assert!(world.standing(&account).is_empty());
    assert!(matches!(attempt(Fault::ErrorAfter, "c").await, Error::Transport(_)));
    assert!(matches!(attempt(Fault::LostReply, "d").await, Error::Transport(_)));
    assert_eq!(world.standing(&account), set("cd"), "what was lost after the effect stands");
    let refused = attempt(Fault::Unauthorized, "e").await;
    assert!(
        matches!(&refused, Error::Auth(text) if text.contains("the account of example.com") && text.contains("allowfrom")),
        "{refused}"
    );
    let throttled = attempt(Fault::Throttle(Duration::from_secs(60)), "f").await;
    assert!(matches!(throttled, Error::RateLimited { retry_after: Some(pause), .. } if pause.as_secs() == 60), "{throttled}");

    // After no answer, nothing more is sent; a change that was made in part says so.
    world.server.faults().on_writes([Fault::Interfere, Fault::LostReply]);
    let error = apply(&*world.provider(), change(&account.fulldomain, "gh", "")).await.expect_err("the second is lost");
    assert!(matches!(&error, Error::Transport(text) if text.contains("a part of the change was made")), "{error}");
}

#[tokio::test]
async fn one_account_that_is_refused_holds_back_no_other() {
    let world = World::new().await;
    let accounts: Vec<Account> = (0..3).map(|n| world.account(&format!("n{n}.example.com"))).collect();
    world.server.set_password(&accounts[1].subdomain, "another");
    let changes: Vec<Change> = accounts.iter().map(|account| change(&account.fulldomain, "a", "")).collect();
    let provider = world.provider();
    let results = provider.apply(&zone(ZONE), &changes).await;
    assert!(results[0].is_ok() && results[2].is_ok(), "{results:?}");
    assert!(matches!(&results[1], Err(Error::Auth(text)) if text.contains("n1.example.com")), "{results:?}");
    let error = provider.verify().await.expect_err("one is refused");
    assert!(matches!(&error, Error::Auth(text) if text.contains("n1.example.com")), "{error}");
    // The file is read again each time.
    world.store("n1.example.com", &Account { password: "another".to_owned(), ..accounts[1].clone() });
    apply(&*provider, changes[1].clone()).await.expect("the new password");
    assert_eq!(provider.verify().await, Ok("3 accounts at 127.0.0.1, of which 3 were tried now".to_owned()));
    assert!(accounts.iter().all(|account| world.standing(account) == set("a")), "trying a credential changes nothing");
}

#[tokio::test]
async fn many_accounts_are_tried_in_turn() {
    let world = World::new().await;
    let accounts: Vec<Account> = (0..12).map(|n| world.account(&format!("n{n:02}.example.com"))).collect();
    world.server.set_password(&accounts[11].subdomain, "another");
    let provider = world.provider();
    assert!(provider.verify().await.expect("the first ten are good").contains("12 accounts"));
    let error = provider.verify().await.expect_err("the last two");
    assert!(matches!(&error, Error::Auth(text) if text.contains("n11.example.com")), "{error}");
}

#[tokio::test]
async fn accounts_are_made_when_they_are_wanted() {
    let world = World::new().await;
    let settings = json!({"register": ["example.com"], "allow_from": ["127.0.0.0/8"]});
    let provider = world.provider_with(settings).expect("good settings");
    assert_eq!(provider.zones(None).await.expect("no account yet").zones, [zone("example.com")]);

    let owner = "_acme-challenge.www.example.com";
    let (one, other) = tokio::join!(read(&*provider, "example.com", owner), read(&*provider, "example.com", owner));
    let accounts = world.server.accounts();
    assert_eq!(accounts.len(), 1, "a domain gets one account, whoever asks together");
    let [account] = accounts.as_slice() else { panic!("{accounts:?}") };
    assert_eq!(account.allowfrom, ["127.0.0.0/8"]);
    let wanted = format!("create the record `{owner}. CNAME {}.`", account.fulldomain);
    for error in
        [one.expect_err("no CNAME"), other.expect_err("no CNAME"), apply(&*provider, change(owner, "a", "")).await.expect_err("none")]
    {
        assert!(matches!(&error, Error::Rejected(text) if text.contains(&wanted)), "{error}");
    }
    assert_eq!(world.server.accounts().len(), 1);
    let stored = world.stored();
    let kept = &stored["www.example.com"];
    assert_eq!((&kept["subdomain"], &kept["password"]), (&json!(account.subdomain), &json!(account.password)));
    assert_eq!((&kept["server_url"], stored.len()), (&json!(world.server.url()), 1));
    assert_eq!(fs::metadata(world.file()).expect("a file").permissions().mode() & 0o777, 0o600);

    // The CNAME leads here.
    assert_eq!(provider.zones(Some(&name(ZONE))).await.expect("a listing").zones, [zone(ZONE)]);
    apply(&*provider, change(&account.fulldomain, "a", "")).await.expect("added");
    assert_eq!(world.standing(account), set("a"));

    // Not everywhere, and not for nothing.
    let error = read(&*provider, ZONE, &format!("other.{ZONE}")).await.expect_err("not an account's");
    assert!(matches!(&error, Error::Rejected(text) if text.contains("no account whose values stand at")), "{error}");
    let error = read(&*provider, "gone.test", "a.gone.test").await.expect_err("no such zone");
    assert!(matches!(error, Error::NotFound(_)), "{error}");
    world.server.close_registration();
    let error = read(&*provider, "example.com", "_acme-challenge.example.com").await.expect_err("closed");
    assert!(matches!(&error, Error::Rejected(text) if text.contains("registration is switched off there")), "{error}");
    assert_eq!(world.stored().len(), 1);
}

#[tokio::test]
async fn an_account_that_cannot_be_kept_is_not_made() {
    let world = World::new().await;
    let owner = "_acme-challenge.example.com";
    let nowhere = world.folder.path().join("none/accounts.json");
    let settings = json!({"register": ["example.com"], "accounts": {"file": nowhere}});
    let error = read(&*world.provider_with(settings).expect("good settings"), "example.com", owner).await.expect_err("no folder");
    assert!(matches!(&error, Error::Auth(text) if text.contains("let acmegate write")), "{error}");
    acmegate_tests::write(&world.file(), "{broken");
    let provider = world.provider_with(json!({"register": ["example.com"]})).expect("good settings");
    let error = read(&*provider, "example.com", owner).await.expect_err("no JSON");
    assert!(matches!(&error, Error::Auth(text) if text.contains("no JSON map")), "{error}");
    assert_eq!(acmegate_tests::read(&world.file()), "{broken", "it is a person's to mend");
    assert!(world.server.accounts().is_empty());
    fs::remove_file(world.file()).expect("removed");
    world.server.faults().on_writes([Fault::ErrorBefore]);
    assert!(matches!(read(&*provider, "example.com", owner).await, Err(Error::Transport(_))));
    assert!(!world.file().exists());
    // Without anything to register, the file has to be there.
    let error = world.provider().zones(None).await.expect_err("no file");
    assert!(matches!(&error, Error::Auth(text) if text.contains("is not there")), "{error}");
}

#[tokio::test]
async fn what_stands_is_read_from_its_own_dns() {
    let world = World::new().await;
    let account = world.account("example.com");
    let nobody = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr()).expect("a port");
    let provider = world.provider_with(json!({"nameserver": nobody.to_string()})).expect("good settings");
    let errors = [
        read(&*provider, ZONE, &account.fulldomain).await.expect_err("nobody"),
        apply(&*provider, change(&account.fulldomain, "a", "")).await.expect_err("nobody"),
        provider.verify().await.expect_err("nobody"),
    ];
    for error in errors {
        assert!(matches!(&error, Error::Unsent(text) if text.contains("set `nameserver`")), "{error:?}");
    }
    // Somebody else's DNS.
    let other = Nameservers::start(&[((Ipv4Addr::LOCALHOST, 0).into(), Duration::ZERO)]).await;
    other.publish("elsewhere.test", Vec::new());
    let provider = world.provider_with(json!({"nameserver": other.addresses()[0].to_string()})).expect("good settings");
    let error = read(&*provider, ZONE, &account.fulldomain).await.expect_err("not there");
    assert!(matches!(&error, Error::Rejected(text) if text.contains("is not authoritative")), "{error:?}");
    assert!(world.standing(&account).is_empty());
}

#[tokio::test]
async fn no_secret_shows_up_anywhere() {
    let world = World::new().await;
    world.server.behind("/a-path-that-is-a-secret");
    let account = world.account("example.com");
    let provider = world.provider();
    apply(&*provider, change(&account.fulldomain, "a", "")).await.expect("behind a prefix");
    let mut said = vec![format!("{provider:?}"), format!("{:?}", provider.verify().await)];
    world.server.set_password(&account.subdomain, "another");
    said.push(format!("{:?}", apply(&*provider, change(&account.fulldomain, "b", "")).await));
    world.server.faults().outage(Some(Fault::LostRequest));
    said.push(format!("{:?}", apply(&*provider, change(&account.fulldomain, "b", "")).await));
    world.server.faults().outage(None);
    world.server.behind("/another");
    let error = apply(&*provider, change(&account.fulldomain, "b", "")).await.expect_err("404");
    assert!(matches!(&error, Error::Auth(text) if text.contains("its path included")), "{error}");
    said.push(format!("{error:?}"));
    acmegate_tests::write(&world.file(), &format!("{{\"example.com\": {:?}", account.password));
    said.push(format!("{:?}", provider.verify().await));
    world.store_broken(&account);
    let error = provider.verify().await.expect_err("half an account");
    assert!(matches!(&error, Error::Auth(text) if text.contains("the account of half.example.com has no good `username`")), "{error}");
    said.push(format!("{error:?}"));
    for text in said {
        assert!(!text.contains(&account.password) && !text.contains(&account.username) && !text.contains("secret"), "{text}");
    }
}

impl World {
    fn store_broken(&self, account: &Account) {
        let broken = json!({"half.example.com": {"password": account.password, "fulldomain": account.fulldomain, "subdomain": "x"}});
        acmegate_tests::write(&self.file(), &broken.to_string());
    }
}

#[tokio::test]
async fn settings_say_what_is_wrong_with_them() {
    let world = World::new().await;
    for (more, said) in [
        (json!({"endpoint": "http://auth.acme-dns.io"}), "in the clear"),
        (json!({"register": ["a..b"]}), "register: "),
        (json!({"register": ["example.com"], "accounts": {"env": "ACCOUNTS"}}), "have to be kept"),
        (json!({"values": 1}), "values: "),
        (json!({"nameserver": "https://auth.acme-dns.io"}), "nameserver: "),
        (json!({"token": "x"}), "unknown field"),
    ] {
        let error = world.provider_with(more.clone()).expect_err("bad settings");
        assert!(error.contains(said), "{more}: {error}");
    }
    let context = Context { backend: "dns".into(), ttl: 60, mark: String::new(), secrets: Arc::new(LocalSecrets) };
    let settings = json!({"endpoint": "https://auth.acme-dns.io", "accounts": {"kubernetes": {"name": "acme-dns", "key": "acmedns.json"}}});
    let provider = (kind("acmedns").expect("in the table").build)(settings, &context).expect("as cert-manager has it");
    assert_eq!(format!("{provider:?}"), "acmedns auth.acme-dns.io");
    let error = provider.zones(None).await.expect_err("no cluster");
    assert!(matches!(error, Error::Auth(_)), "{error}");
}
