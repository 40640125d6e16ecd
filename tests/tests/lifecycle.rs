//! Starting, stopping, and every way in which a start can go wrong: each gives one clear error and loses nothing.

#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use acmegate_tests::{
    acmedns::{Account, register, update, value},
    acmegate::{Acmegate, Config, command},
    dns,
    process::{Output, run},
    skip,
    tmpfs::Tmpfs,
    wait::{LIMIT, until},
    write,
};
use reqwest::{Client, StatusCode};
use tokio::{sync::Mutex, task::JoinSet};

const ZONE: &str = "auth.example.org";
const NAMESERVERS: [(&str, IpAddr); 1] = [("ns1", IpAddr::V4(Ipv4Addr::LOCALHOST))];

#[tokio::test]
async fn every_door_is_announced_and_open_when_it_says_ready() {
    let acmegate = Acmegate::started(config().webhook()).await;
    let client = Client::new();
    for path in ["/healthz", "/readyz", "/metrics"] {
        let answer = client.get(acmegate.url("metrics", path)).send().await.expect("the metrics door answers");
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
    }
    let health = client.get(acmegate.url("acmedns", "/health")).send().await.expect("the acme-dns door answers");
    assert_eq!(health.status(), StatusCode::OK);
    dns::serves(acmegate.door("dns-udp"), ZONE).await;
    let query = dns::query(ZONE, hickory_proto::rr::RecordType::SOA).to_vec().expect("a query encodes");
    assert!(dns::tcp(acmegate.door("dns-tcp"), &query).await.expect("TCP is served").is_some());
    tokio::net::TcpStream::connect(acmegate.door("webhook")).await.expect("the webhook door listens");
    let admin = PathBuf::from(acmegate.doors("admin").first().expect("the admin socket is announced"));
    assert_eq!(admin.file_name().and_then(|n| n.to_str()), Some("acmegate.sock"));
    let mode = fs::metadata(&admin).expect("the admin socket exists").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "only the owner may administrate");

    let stdout = acmegate.process().stdout();
    let (last, listening) = stdout.lines().collect::<Vec<_>>().split_last().map(|(l, rest)| (*l, rest.to_vec())).expect("lines");
    assert_eq!(last, "ready");
    assert!(listening.iter().all(|line| line.starts_with("listening ")), "standard output is for the start lines alone: {stdout}");
}

#[tokio::test]
async fn a_closed_door_is_not_announced() {
    let acmegate = Acmegate::started(Config::new().dns(any_port()).zone(ZONE, &NAMESERVERS)).await;
    for door in ["acmedns", "webhook", "metrics"] {
        assert!(acmegate.doors(door).is_empty(), "{door} was not asked for");
    }
}

#[tokio::test]
async fn without_a_configuration_it_runs_on_loopback() {
    let folder = acmegate_tests::temporary_folder("defaults");
    let mut serve = command();
    serve.arg("serve").current_dir(folder.path());
    let process = acmegate_tests::process::Process::spawn("acmegate", serve);
    // The embedded defaults name fixed ports, which another program of this machine may hold: then the error has to say so.
    let ready = process.stdout_line("its line \"ready\"", |line| (line == "ready").then_some(()));
    tokio::select! {
        () = ready => {
            for line in process.stdout().lines().filter(|line| line.starts_with("listening ") && !line.contains(" admin ")) {
                assert!(line.contains(" 127.0.0.1:") || line.contains(" [::1]:"), "{line} is not on loopback");
            }
        }
        _ = process.ended() => skip(&format!("the default ports are taken: {}", process.stderr())),
    }
}

/// SIGTERM while clients update: it ends with 0, and what it had acknowledged is there after the next start.
#[tokio::test]
async fn sigterm_drains_and_loses_nothing() {
    let mut acmegate = Acmegate::started(config()).await;
    let client = Client::new();
    let base = acmegate.url("acmedns", "");
    let acknowledged: Arc<Mutex<Vec<(Account, String)>>> = Arc::default();
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        let (client, base, acknowledged) = (client.clone(), base.clone(), Arc::clone(&acknowledged));
        let account = register(&client, &base).await.expect("it registers");
        writers.spawn(async move {
            for number in 0.. {
                let txt = value(writer * 1_000_000 + number);
                if update(&client, &base, &account, &txt).await.is_err() {
                    return;
                }
                acknowledged.lock().await.push((account.clone(), txt));
            }
        });
    }
    let some = || async { if acknowledged.lock().await.len() >= 100 { Ok(()) } else { Err("too few updates") } };
    until("a hundred updates", some).await;
    let output = acmegate.stop().await;
    assert_eq!(output.code, Some(0), "{output}");
    writers.join_all().await;

    acmegate.start().await;
    let acknowledged = acknowledged.lock().await;
    let subdomains: BTreeSet<_> = acknowledged.iter().map(|(account, _)| account.fulldomain.clone()).collect();
    for name in subdomains {
        let last = acknowledged.iter().rev().find(|(account, _)| account.fulldomain == name).map(|(_, txt)| txt).expect("one");
        assert!(dns::txt(acmegate.dns(), &name).await.contains(last), "the last acknowledged value of {name} is answered");
    }
}

#[tokio::test]
async fn a_second_process_on_the_same_data_folder_is_refused() {
    let mut first = Acmegate::started(config()).await;
    let second = Acmegate::new(config().data(first.data()));
    let refused = second.serve().output(LIMIT).await;
    one_clear_error(&refused, 75, &[path(first.data()), "in use"]);
    dns::serves(first.dns(), ZONE).await;
    assert_eq!(first.stop().await.code, Some(0));
    let mut second = second;
    second.start().await;
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    for (config, taken) in [
        (Config::new().dns(udp.local_addr().expect("bound")).zone(ZONE, &NAMESERVERS), udp.local_addr()),
        (Config::new().dns(tcp.local_addr().expect("bound")).zone(ZONE, &NAMESERVERS), tcp.local_addr()),
        (config().section("webhook", &format!("listen: \"{}\"", tcp.local_addr().expect("bound"))), tcp.local_addr()),
    ] {
        let output = Acmegate::new(config).serve().output(LIMIT).await;
        one_clear_error(&output, 1, &[&taken.expect("bound").to_string()]);
    }
}

#[tokio::test]
async fn an_address_of_another_machine_is_named() {
    let elsewhere = Config::new().dns("192.0.2.1:5353".parse().expect("an address")).zone(ZONE, &NAMESERVERS);
    let output = Acmegate::new(elsewhere).serve().output(LIMIT).await;
    one_clear_error(&output, 1, &["192.0.2.1:5353"]);
}

#[tokio::test]
async fn a_read_only_data_folder_is_refused_and_unharmed() {
    let Some(disk) = Tmpfs::mount("16m") else { return skip("mounting a tmpfs is not permitted") };
    let data = disk.path().join("data");
    let mut before = Acmegate::started(config().data(&data)).await;
    let account = register(&Client::new(), &before.url("acmedns", "")).await.expect("it registers");
    update(&Client::new(), &before.url("acmedns", ""), &account, &value(1)).await.expect("it updates");
    assert_eq!(before.stop().await.code, Some(0));
    disk.make_read_only();
    let output = Acmegate::new(config().data(&data)).serve().output(LIMIT).await;
    one_clear_error(&output, 1, &[path(&data)]);
}

#[tokio::test]
async fn a_data_folder_that_is_a_file_is_refused() {
    let folder = acmegate_tests::temporary_folder("file");
    let file = folder.path().join("file");
    write(&file, "not a folder");
    let output = Acmegate::new(config().data(&file)).serve().output(LIMIT).await;
    one_clear_error(&output, 1, &[path(&file)]);
    assert_eq!(acmegate_tests::read(&file), "not a folder");
}

/// File, line and key, for whatever kind of mistake.
#[tokio::test]
async fn a_bad_configuration_names_file_line_and_key() {
    let cases = [
        ("version: v1\ndata: ./d\nacmedsn:\n  listen: \"127.0.0.1:0\"\n", 3, "acmedsn"),
        ("version: v1\nacmedns:\n  listen: \"127.0.0.1:0\"\n  vales: 8\n", 4, "vales"),
        ("version: v1\nacmedns:\n  listen: \"127.0.0.1:0\"\n  values: many\n", 4, "values"),
        ("version: v1\nacmedns:\n  listen: \"127.0.0.1:0\"\n  values: 0\n", 4, "values"),
        ("version: v1\nacmedns:\n  listen: \"127.0.0.1\"\n", 3, "listen"),
        (
            "version: v1\ndns:\n  listen: [\"127.0.0.1:0\"]\n  zones:\n    - name: \"no..name\"\n      nameservers: [a.b]\n      contact: c.d\n",
            5,
            "name",
        ),
        ("version: v9\n", 1, "version"),
        ("data: ./d\n", 1, "version"),
        ("version: v1\npropagation:\n  timeout: soon\n", 3, "timeout"),
        ("version: v1\npropagation:\n  check: everybody\n", 3, "check"),
        ("version: v1\nwebhook:\n  listen: \"0.0.0.0:8443\"\n  group: acme.example.org\n  solver: s\n", 3, "listen"),
    ];
    let folder = acmegate_tests::temporary_folder("config");
    for (number, (text, line, key)) in cases.iter().enumerate() {
        let file = folder.path().join(format!("{number}.yaml"));
        write(&file, text);
        for arguments in [&["serve"][..], &["config", "check"]] {
            let mut acmegate = command();
            acmegate.args(arguments).arg("--config").arg(&file).current_dir(folder.path());
            let output = run("acmegate", acmegate, LIMIT).await;
            one_clear_error(&output, 2, &[&format!("{}:{line}", path(&file)), key]);
        }
    }
}

#[tokio::test]
async fn a_configuration_that_is_not_there_or_not_yaml_is_named() {
    let folder = acmegate_tests::temporary_folder("config");
    let missing = folder.path().join("missing.yaml");
    let broken = folder.path().join("broken.yaml");
    write(&broken, "version: v1\ndns: [\n");
    for file in [&missing, &broken] {
        let mut acmegate = command();
        acmegate.arg("serve").arg("--config").arg(file);
        one_clear_error(&run("acmegate", acmegate, LIMIT).await, 2, &[path(file)]);
    }
}

#[tokio::test]
async fn the_example_passes_its_own_check_and_the_schema_is_json() {
    let folder = acmegate_tests::temporary_folder("config");
    let print = |what: &'static str| {
        let mut acmegate = command();
        acmegate.args(["config", what]);
        run("acmegate config", acmegate, LIMIT)
    };
    let example = folder.path().join("example.yaml");
    write(&example, &print("example").await.succeeded().stdout);
    let mut check = command();
    check.args(["config", "check", "--config"]).arg(&example).current_dir(folder.path());
    run("acmegate config check", check, LIMIT).await.succeeded();
    let schema: serde_json::Value = serde_json::from_str(&print("schema").await.succeeded().stdout).expect("the schema is JSON");
    assert!(schema.pointer("/properties/dns").is_some(), "the schema knows the section dns");
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused_and_unharmed() {
    let mut acmegate = Acmegate::started(config()).await;
    assert_eq!(acmegate.stop().await.code, Some(0));
    let file = database(acmegate.data());
    {
        let connection = rusqlite::Connection::open(&file).expect("a database");
        connection.pragma_update(None, "user_version", 9999).expect("it is written");
        let _mode: String = connection.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0)).expect("one file");
    }
    let before = fs::read(&file).expect("it reads");
    one_clear_error(&acmegate.serve().output(LIMIT).await, 1, &[path(&file), "newer"]);
    let version: i64 =
        rusqlite::Connection::open(&file).and_then(|c| c.query_row("PRAGMA user_version", [], |r| r.get(0))).expect("it reads");
    assert_eq!(version, 9999);
    assert_eq!(fs::metadata(&file).expect("it is there").len(), u64::try_from(before.len()).expect("a size"));
}

#[tokio::test]
async fn a_broken_database_is_refused_and_unharmed() {
    let mut acmegate = Acmegate::started(config()).await;
    let base = acmegate.url("acmedns", "");
    for _ in 0..100 {
        register(&Client::new(), &base).await.expect("it registers");
    }
    assert_eq!(acmegate.stop().await.code, Some(0));
    let file = database(acmegate.data());
    let whole = fs::read(&file).expect("it reads");
    let text = b"this is a text, and a rather long one, so that nobody takes it for an empty database\n".to_vec();
    let mut overwritten = whole.clone();
    overwritten.get_mut(100..3_100).expect("a database of some pages").fill(0xff);
    for (what, broken) in [("a text", text), ("an overwritten schema", overwritten)] {
        fs::write(&file, &broken).expect("it is written");
        one_clear_error(&acmegate.serve().output(LIMIT).await, 1, &[path(&file)]);
        assert_eq!(fs::read(&file).expect("it reads"), broken, "{what} is left for the one who repairs it");
    }
    fs::write(&file, &whole).expect("it is whole again");
    acmegate.start().await;
}

/// On a full disk it refuses what it cannot make durable, goes on answering, and recovers without a restart.
#[tokio::test]
async fn a_full_disk_refuses_updates_keeps_answers_and_heals() {
    let Some(disk) = Tmpfs::mount("8m") else { return skip("mounting a tmpfs is not permitted") };
    let mut acmegate = Acmegate::started(config().data(&disk.path().join("data"))).await;
    let client = Client::new();
    let base = acmegate.url("acmedns", "");
    let account = register(&client, &base).await.expect("it registers");
    update(&client, &base, &account, &value(0)).await.expect("it updates");

    let filler = disk.path().join("filler");
    fill(&filler);
    // The log that is there may still have room: go on until one is refused.
    let (mut acknowledged, mut refused) = (vec![value(0)], None);
    for number in 1..20_000 {
        match update(&client, &base, &account, &value(number)).await {
            Ok(()) => acknowledged.push(value(number)),
            Err(error) => {
                refused = Some((number, error.to_string()));
                break;
            }
        }
    }
    let (number, error) = refused.expect("an update was refused for want of room");
    assert!(error.contains("500") || error.contains("503") || error.contains("507"), "{error}");
    let answered = dns::txt(acmegate.dns(), &account.fulldomain).await;
    assert!(!answered.contains(&value(number)), "what was refused is not answered");
    assert!(acknowledged.last().is_some_and(|last| answered.contains(last)), "what was acknowledged is answered");

    fs::remove_file(&filler).expect("room again");
    let last = value(99_999);
    until("updates to work again", || update(&client, &base, &account, &last)).await;
    acknowledged.push(last);
    assert_eq!(acmegate.stop().await.code, Some(0));
    acmegate.start().await;
    let answered = dns::txt(acmegate.dns(), &account.fulldomain).await;
    for value in acknowledged.iter().rev().take(8) {
        assert!(answered.contains(value), "{value} was acknowledged");
    }
}

/// Starting on a full disk says so, and does no harm.
#[tokio::test]
async fn a_disk_that_is_full_at_the_start_is_named() {
    let Some(disk) = Tmpfs::mount("1m") else { return skip("mounting a tmpfs is not permitted") };
    fill(&disk.path().join("filler"));
    let data = disk.path().join("data");
    let output = Acmegate::new(config().data(&data)).serve().output(LIMIT).await;
    one_clear_error(&output, 1, &["data folder", "full"]);
}

fn config() -> Config {
    Config::new().dns(any_port()).zone(ZONE, &NAMESERVERS).acmedns().metrics()
}

fn any_port() -> std::net::SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

/// The exit code, every one of `texts` on standard error, and no panic, backtrace or `ready` anywhere.
fn one_clear_error(output: &Output, code: i32, texts: &[&str]) {
    output.exited(code);
    for text in texts {
        assert!(output.stderr.contains(text), "the error should name {text:?}:\n{output}");
    }
    output.never_says("panicked").never_says("RUST_BACKTRACE").never_says("stack backtrace");
    assert!(!output.stdout.lines().any(|line| line == "ready"), "it never was ready:\n{output}");
}

fn path(path: &Path) -> &str {
    path.to_str().expect("temporary folders have names of text")
}

/// The SQLite file of a data folder.
fn database(data: &Path) -> PathBuf {
    let files = fs::read_dir(data).expect("the data folder").map(|entry| entry.expect("an entry").path());
    let is_database = |file: &PathBuf| fs::read(file).is_ok_and(|bytes| bytes.starts_with(b"SQLite format 3\0"));
    files.filter(|file| file.is_file()).find(is_database).expect("a database in the data folder")
}

/// Writes zeros until no room is left.
fn fill(file: &Path) {
    let mut filler = fs::File::create(file).expect("a file");
    for block in [65_536, 4_096] {
        while filler.write_all(&vec![0; block]).is_ok() {}
    }
}
