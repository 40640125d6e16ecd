//! The worked examples of the README, run as written: its configuration, its records, its commands. Only what no reader shares is replaced: addresses,
//! and the certificate authority.

#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use acmegate_tests::{
    acmegate::binary,
    addresses::Address,
    bind::{self, Bind},
    certificates::assert_issued,
    dns,
    peers::peer,
    ports::Port,
    process::{Output, Process, run},
    read, temporary_folder,
    testca::Options,
    unbound::Unbound,
    updates::{TsigKey, Updates},
    wait::{LIMIT, until},
    workspace, write,
};
use hickory_proto::rr::RecordType;

/// The text of every fenced block in a language.
fn blocks(readme: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = readme.lines();
    while let Some(line) = lines.next() {
        let Some(found) = line.strip_prefix("```") else { continue };
        let text: String = lines.by_ref().take_while(|line| *line != "```").flat_map(|line| [line, "\n"]).collect();
        if found == language {
            blocks.push(text);
        }
    }
    blocks
}

/// The one block that has a line with this beginning.
fn block(blocks: &[String], text: &str) -> String {
    let mut found = blocks.iter().filter(|block| block.lines().any(|line| line.trim_start().starts_with(text)));
    let block = found.next().unwrap_or_else(|| panic!("the README has no block with {text:?}"));
    assert!(found.next().is_none(), "the README has several blocks with {text:?}");
    block.clone()
}

async fn shell(folder: &Path, tools: &Path, script: &str) -> Output {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("bash");
    command.args(["-euc", script]).current_dir(folder);
    command.env("PATH", format!("{}:{path}", tools.display()));
    run("bash", command, LIMIT * 3).await
}

#[tokio::test]
async fn the_worked_examples_run_as_written() {
    let readme = read(&workspace().join("README.md"));
    let (yaml, records, commands) = (blocks(&readme, "yaml"), blocks(&readme, ""), blocks(&readme, "sh"));
    let folder = temporary_folder("readme");

    // The world: the domains of the examples in BIND, with the README's delegations.
    let (bind_address, resolver_address, gateway) = (Address::reserve(), Address::reserve(), Address::reserve());
    let office_address = Address::reserve();
    let delegation = block(&records, "auth.example.org.      NS").replace("203.0.113.5", &gateway.ip().to_string());
    let by_ns = block(&records, "_acme-challenge.example.net.  NS");
    let mut root = bind::zone("", &bind_address);
    for zone in ["example.com", "example.net", "example.org"] {
        root += &format!("{zone}. NS ns.{zone}.\nns.{zone}. A {}\n", bind_address.ip());
    }
    root += &format!("corp.example. NS ns.corp.example.\nns.corp.example. A {}\n", office_address.ip());
    let zones = [
        (".", root),
        ("example.com", bind::zone("example.com", &bind_address)),
        ("example.net", bind::zone("example.net", &bind_address) + &by_ns),
        ("example.org", bind::zone("example.org", &bind_address) + &delegation),
    ];
    let bind = Bind::start(bind_address, &zones).await;
    // The server that takes dynamic updates.
    let key = TsigKey::new("acmegate", "hmac-sha256");
    write(&folder.path().join("tsig-key"), &key.secret);
    let zone = bind::zone("corp.example", &office_address);
    let updates = Updates { keys: vec![key], ..Updates::default() };
    let office = Bind::start_signed(office_address, &[("corp.example", zone)], &updates).await;
    let resolver = Unbound::start(resolver_address, bind.dns().ip()).await;
    let ca = Options::resolver(resolver.dns()).every_nonce().start().await;

    // The configuration, with the zone of the last example.
    let (acmedns, metrics) = (Port::reserve(), Port::reserve());
    let config = block(&yaml, "version: v1");
    let config = config
        .replace("203.0.113.5", &gateway.ip().to_string())
        .replace("127.0.0.1:8080", &acmedns.address().to_string())
        .replace("127.0.0.1:9090", &metrics.address().to_string())
        .replace("https://acme-v02.api.letsencrypt.org/directory", ca.directory())
        .replace(
            "      contact: ops@example.org\n",
            &format!("      contact: ops@example.org\n      ca_file: {}\n", ca.ca_file().display()),
        )
        .replace("acmedns:\n", &format!("{}acmedns:\n", block(&yaml, "- name: _acme-challenge.example.net")));
    let backends = block(&yaml, "provider: rfc2136").replace("192.0.2.53:53", &office.dns().to_string());
    let config = format!("{config}{backends}propagation:\n  resolvers: [\"{}\"]\n", resolver.dns());
    write(&folder.path().join("acmegate.yaml"), &config);

    // `acmegate` and `lego` as the shell finds them; lego is told of the authority and the resolver of this world.
    let tools = temporary_folder("tools");
    std::os::unix::fs::symlink(binary(), tools.path().join("acmegate")).expect("a link");
    let lego = format!(
        "#!/bin/sh\nshift\nexport LEGO_CA_CERTIFICATES={}\nexec {} run --server {} --dns.resolvers {} --dns.propagation.disable-ans \"$@\"\n",
        ca.ca_file().display(),
        peer("lego5").display(),
        ca.directory(),
        resolver.dns()
    );
    write(&tools.path().join("lego"), &lego);
    fs::set_permissions(tools.path().join("lego"), fs::Permissions::from_mode(0o755)).expect("an executable");

    let serve = block(&commands, "acmegate serve");
    let mut command = Command::new("bash");
    command.args(["-euc", &format!("exec {serve}")]).current_dir(folder.path());
    command.env("PATH", format!("{}:{}", tools.path().display(), std::env::var("PATH").unwrap_or_default()));
    let serving = Process::spawn("acmegate serve", command);
    serving.stdout_line("the line ready", |line| (line == "ready").then_some(())).await;

    // The acme-dns client: the first run asks for a CNAME, the second one issues.
    let with_lego = block(&commands, "lego run").replace("127.0.0.1:8080", &acmedns.address().to_string());
    let first = shell(folder.path(), tools.path(), &with_lego).await;
    assert_ne!(first.code, Some(0), "{first}");
    let asked = regex::Regex::new(r"_acme-challenge\.example\.com\. CNAME (\S+\.)").expect("a pattern");
    let text = format!("{}{}", first.stdout, first.stderr);
    let account = &asked.captures(&text).unwrap_or_else(|| panic!("lego asks for a CNAME: {first}"))[1];
    bind.add(&format!("_acme-challenge.example.com. 1 CNAME {account}")).await;
    shell(folder.path(), tools.path(), &with_lego).await.succeeded();
    assert!(folder.path().join(".lego/certificates/example.com.crt").exists(), "where the README says");

    // `acmegate issue`: without its record, with it, and what it leaves.
    bind.delete("_acme-challenge.example.com. CNAME").await;
    let record = block(&records, "_acme-challenge.example.com.  CNAME").replace("  CNAME", " 1 CNAME");
    let issue = block(&commands, "acmegate issue example.com");
    let refused = shell(folder.path(), tools.path(), &issue).await;
    refused.exited(1).says("_acme-challenge.example.com. CNAME example.com.auth.example.org.");
    bind.add(record.trim()).await;
    // The resolver may remember for a second that there was no such record, or the one before it.
    until("the resolver to see the CNAME", async || {
        let mut question = dns::query("_acme-challenge.example.com", RecordType::CNAME);
        question.metadata.recursion_desired = true;
        let answer = dns::exchange(resolver.dns(), &question).await?;
        let leads = answer.answers.iter().any(|found| found.data.to_string() == "example.com.auth.example.org.");
        anyhow::ensure!(leads, "no such CNAME yet: {:?}", answer.answers);
        Ok::<(), anyhow::Error>(())
    })
    .await;
    let issued = shell(folder.path(), tools.path(), &issue).await;
    issued.succeeded();
    assert_issued(&folder.path().join("certs"), &ca, &["example.com", "*.example.com"]).await;
    assert!(dns::txt(gateway.dns(), "example.com.auth.example.org").await.is_empty(), "no value is left");

    // Delegation by NS.
    shell(folder.path(), tools.path(), &block(&commands, "acmegate issue example.net")).await.succeeded();
    assert_issued(&folder.path().join("certs-net"), &ca, &["example.net", "*.example.net"]).await;
    assert!(dns::txt(gateway.dns(), "_acme-challenge.example.net").await.is_empty(), "no value is left");

    serving.terminate();
    assert_eq!(serving.ended().await.code(), Some(0));

    // The list of certificates, from cron.
    let list = block(&yaml, "certificates:").replace("systemd_reload: nginx", "exec: \"true\"");
    assert!(list.contains("exec"), "the README reloads something: {list}");
    write(&folder.path().join("acmegate.yaml"), &format!("{config}{list}"));
    shell(folder.path(), tools.path(), &block(&commands, "acmegate certificates list")).await.succeeded().says("www: valid");
    assert_issued(&folder.path().join("www"), &ca, &["example.com", "*.example.com"]).await;
    write(&folder.path().join("acmegate.yaml"), &config);

    // A backend: checked with a test value, written, and swept.
    shell(folder.path(), tools.path(), &block(&commands, "acmegate check www.corp.example")).await.succeeded();
    assert_issued(&folder.path().join("certs-corp"), &ca, &["www.corp.example"]).await;
    until("no value to be left", async || {
        let left = dns::txt(office.dns(), "_acme-challenge.www.corp.example").await;
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    shell(folder.path(), tools.path(), &block(&commands, "acmegate sweep")).await.succeeded();
}
