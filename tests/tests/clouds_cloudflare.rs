//! The emulated Cloudflare judged by Cloudflare's own Python client and by octodns, both unmodified: what they accept, a provider can be proved against.
#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::{path::Path, process::Command, time::Duration};

use acmegate_tests::{python, temporary_folder, write};
use emulators::{
    Fault, Nameservers,
    cloudflare::{Cloudflare, Right},
};

const TOKEN: &str = "a-token-with-all-rights";

/// Runs a program to its end, and gives what it printed.
async fn run(mut command: Command) -> String {
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("it ran").expect("it could be started");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    out.into_owned()
}

/// Runs a script of the official client: `client` is ready, `zone` is the id of `example.com`.
async fn client(cloud: &Cloudflare, text: &str) -> String {
    let begin = "import sys, cloudflare\nurl, token = sys.argv[1:]\n\
                 client = cloudflare.Cloudflare(api_token=token, base_url=url, max_retries=0)\n\
                 def refused(kind, call):\n    \
                     try:\n        call()\n    \
                     except kind as error:\n        return [told.code for told in error.errors]\n    \
                     raise AssertionError(f'no {kind}')\n\
                 zone = client.zones.list(name='example.com').result[0].id\n";
    let mut command = python::clouds(&format!("{begin}{text}"));
    command.args([&cloud.url(), TOKEN]);
    run(command).await
}

#[tokio::test]
async fn records_come_and_go() {
    let cloud = Cloudflare::start(TOKEN, Nameservers::none()).await;
    cloud.add_zone("example.com");
    let said = client(
        &cloud,
        r#"
records = client.dns.records
one = records.create(zone_id=zone, type="TXT", name="_acme-challenge.example.com", content='"One"', ttl=60, comment="mine")
assert (one.name, one.content, one.ttl, one.comment, one.type) == ("_acme-challenge.example.com", '"One"', 60, "mine", "TXT"), one
assert records.get(one.id, zone_id=zone).id == one.id
assert records.edit(dns_record_id=one.id, zone_id=zone, type="TXT", name=one.name, ttl=120).ttl == 120
two = records.update(dns_record_id=one.id, zone_id=zone, type="TXT", name=one.name, content='"Two"', ttl=300)
assert (two.id, two.content, two.comment) == (one.id, '"Two"', None), two
found = records.list(zone_id=zone, type="TXT", name={"exact": "_ACME-challenge.example.com"}, content={"exact": '"two"'}).result
assert [record.id for record in found] == [one.id], "filters ignore letter case"
assert records.list(zone_id=zone, name={"exact": "example.com"}).result == []
assert records.delete(dns_record_id=one.id, zone_id=zone).id == one.id
print(refused(cloudflare.NotFoundError, lambda: records.delete(dns_record_id=one.id, zone_id=zone)))
"#,
    )
    .await;
    assert_eq!(said.trim(), "[81044]");
    assert_eq!(cloud.records("example.com"), []);
}

#[tokio::test]
async fn lists_go_on_over_pages() {
    let cloud = Cloudflare::start(TOKEN, Nameservers::none()).await;
    cloud.add_zone("example.com");
    for n in 0..249 {
        cloud.stranger_adds("example.com", &format!("h{n}.example.com"), "TXT", &format!("\"{n}\""), 300);
    }
    for n in 0..60 {
        cloud.add_zone(&format!("z{n}.example"));
    }
    let said = client(
        &cloud,
        r#"
first = client.dns.records.list(zone_id=zone)
print(len(first.result), first.result_info.per_page, len(list(first)))
print(len(client.zones.list().result), len(list(client.zones.list(per_page=50))))
page = client.dns.records.list(zone_id=zone, per_page=1000, name={"startswith": "h24"})
print(len(page.result), page.result_info.total_pages, page.result_info.total_count)
"#,
    )
    .await;
    assert_eq!(said.lines().collect::<Vec<_>>(), ["100 100 249", "20 61", "10 1 10"]);
}

#[tokio::test]
async fn batches_are_one_transaction() {
    let cloud = Cloudflare::start(TOKEN, Nameservers::none()).await;
    cloud.add_zone("example.com");
    let old = cloud.stranger_adds("example.com", "a.example.com", "TXT", "\"old\"", 300);
    cloud.stranger_adds("example.com", "b.example.com", "TXT", "\"kept\"", 300);
    let said = client(
        &cloud,
        r#"
records = client.dns.records
old = records.list(zone_id=zone, name={"exact": "a.example.com"}).result[0].id
post = lambda name, content: {"type": "TXT", "name": name, "content": content, "ttl": 60}
same = records.batch(zone_id=zone, deletes=[{"id": old}], posts=[post("a.example.com", '"old"'), post("c.example.com", '"new"')])
assert [record.id for record in same.deletes] == [old] and [record.content for record in same.posts] == ['"old"', '"new"'], same
bad = dict(zone_id=zone, deletes=[{"id": same.posts[0].id}], posts=[post("b.example.com", '"kept"')])
print(refused(cloudflare.BadRequestError, lambda: records.batch(**bad)))
print(refused(cloudflare.NotFoundError, lambda: records.batch(zone_id=zone, deletes=[{"id": old}])))
print(refused(cloudflare.BadRequestError, lambda: records.batch(zone_id=zone, posts=[post(f"n{n}.example.com", '"x"') for n in range(201)])))
"#,
    )
    .await;
    assert_eq!(said.lines().collect::<Vec<_>>(), ["[81058]", "[81044]", "[1004]"]);
    assert!(cloud.records("example.com").iter().all(|record| record.id != old), "deletes come before posts");
    assert_eq!(cloud.contents("a.example.com"), ["\"old\""], "what was refused was undone");
    assert_eq!(cloud.batches(), [3]);
}

#[tokio::test]
async fn errors_are_of_the_clients_classes() {
    let cloud = Cloudflare::start(TOKEN, Nameservers::none()).await;
    let zone = cloud.add_zone("example.com");
    cloud.grant("reader", &[Right::ZoneRead, Right::DnsRead]);
    cloud.stranger_adds("example.com", "alias.example.com", "CNAME", "other.example.net", 300);
    cloud.faults().on_writes([Fault::Throttle(Duration::from_secs(7)), Fault::ErrorBefore]);
    let said = client(
        &cloud,
        r#"
records = client.dns.records
make = lambda client=client, zone=zone, **over: client.dns.records.create(**{"zone_id": zone, "type": "TXT", "name": "x.example.com", "content": '"x"', "ttl": 60, **over})
try:
    make()
except cloudflare.RateLimitError as error:
    print(error.response.headers["retry-after"], [told.code for told in error.errors])
print(refused(cloudflare.InternalServerError, make))
print(refused(cloudflare.BadRequestError, lambda: make(ttl=59)))
print(refused(cloudflare.BadRequestError, lambda: make(comment="x" * 101)))
print(refused(cloudflare.BadRequestError, lambda: make(name="alias.example.com")))
print(refused(cloudflare.NotFoundError, lambda: make(zone="0" * 32)))
other = lambda token: cloudflare.Cloudflare(api_token=token, base_url=url, max_retries=0)
print(refused(cloudflare.PermissionDeniedError, lambda: make(client=other("reader"))))
print(refused(cloudflare.PermissionDeniedError, lambda: make(client=other("unknown"))))
print(refused(cloudflare.AuthenticationError, other("unknown").user.tokens.verify))
print(client.user.tokens.verify().status, client.dns.records.with_raw_response.list(zone_id=zone).headers["ratelimit"].split(";")[0])
"#,
    )
    .await;
    let expected = ["7 [971]", "[10001]", "[1004]", "[1004]", "[81054]", "[7003]", "[10000]", "[9109]", "[1000]", "active \"default\""];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
    assert_eq!(cloud.records("example.com").len(), 1, "of {zone}");
}

#[tokio::test]
async fn octodns_brings_a_zone_in_line_and_leaves_it_so() {
    let cloud = Cloudflare::start(TOKEN, Nameservers::none()).await;
    cloud.add_zone("example.com");
    cloud.stranger_adds("example.com", "gone.example.com", "TXT", "\"old\"", 300);
    cloud.stranger_adds("example.com", "_acme-challenge.example.com", "TXT", "\"kept\"", 300);
    let folder = temporary_folder("octodns");
    let zone = "_acme-challenge:\n  ttl: 300\n  type: TXT\n  values: [kept, 'semi\\; colon', added]\nwww:\n  ttl: 300\n  type: A\n  value: 192.0.2.1\n";
    write(&folder.path().join("example.com.yaml"), zone);
    write(
        &folder.path().join("octodns.yaml"),
        &format!(
            "providers:\n  files:\n    class: octodns.provider.yaml.YamlProvider\n    directory: {}\n  cloud:\n    \
             class: octodns_cloudflare.CloudflareProvider\n    token: {TOKEN}\n    api_url: {}\n    pagerules: false\n\
             zones:\n  example.com.:\n    sources: [files]\n    targets: [cloud]\n",
            folder.path().display(),
            cloud.url(),
        ),
    );
    sync(folder.path()).await;
    let kept = cloud.contents("_acme-challenge.example.com");
    assert_eq!(kept, ["\"added\"", "\"kept\"", "\"semi; colon\""]);
    assert!(cloud.contents("gone.example.com").is_empty());
    let writes = cloud.faults().calls().1;
    sync(folder.path()).await;
    assert_eq!(cloud.faults().calls().1, writes, "what it wrote reads back as it meant it");
}

async fn sync(folder: &Path) {
    let mut command = python::clouds_program("octodns-sync");
    command.arg("--config-file").arg(folder.join("octodns.yaml")).args(["--doit", "--force"]);
    run(command).await;
}
