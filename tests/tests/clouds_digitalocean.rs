//! The emulated DigitalOcean judged by DigitalOcean's own Python client and by octodns, both unmodified: what they accept, a provider can be proved against.
#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::{path::Path, process::Command, time::Duration};

use acmegate_tests::{python, temporary_folder, write};
use emulators::{
    Fault, Nameservers,
    digitalocean::{DigitalOcean, Right},
};

const TOKEN: &str = "dop_v1_all";

/// Runs a program to its end, and gives what it printed.
async fn run(mut command: Command) -> String {
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("it ran").expect("it could be started");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    out.into_owned()
}

/// Runs a script of the official client, which has `domains` of it. It refuses to send a token without TLS unless each call says otherwise.
async fn client(cloud: &DigitalOcean, text: &str) -> String {
    let begin = "import functools, sys\nfrom azure.core.exceptions import *\nfrom pydo import Client\n\
                 url, token = sys.argv[1:]\n\
                 class Plain:\n    \
                     def __init__(self, token):\n        self.operations = Client(token, endpoint=url, retry_total=0).domains\n    \
                     def __getattr__(self, name):\n        return functools.partial(getattr(self.operations, name), enforce_https=False)\n\
                 def refused(kind, call):\n    \
                     try:\n        call()\n    \
                     except kind as error:\n        return type(error).__name__, error.status_code\n    \
                     raise AssertionError(f'no {kind}')\n\
                 domains = Plain(token)\n";
    let mut command = python::clouds(&format!("{begin}{text}"));
    command.args([&cloud.url(), TOKEN]);
    run(command).await
}

#[tokio::test]
async fn records_come_and_go() {
    let cloud = DigitalOcean::start(TOKEN, Nameservers::none()).await;
    cloud.add_domain("example.com");
    let said = client(
        &cloud,
        r#"
post = lambda **body: domains.create_record("example.com", body={"type": "TXT", "ttl": 60, **body})
one = post(name="_acme-challenge", data="One")["domain_record"]
assert (one["type"], one["name"], one["data"], one["ttl"]) == ("TXT", "_acme-challenge", "One", 60), one
whole = post(name="_acme-challenge.example.com.", data="Two")["domain_record"]
assert whole["name"] == "_acme-challenge", whole
assert post(name="@", data="apex")["domain_record"]["name"] == "@"
found = domains.list_records("example.com", type="TXT", name="_acme-challenge.example.com")["domain_records"]
assert [record["data"] for record in found] == ["One", "Two"], found
assert domains.list_records("example.com", name="_acme-challenge")["domain_records"] == [], "the filter takes whole names"
assert domains.patch_record("example.com", one["id"], body={"type": "TXT", "data": "Three"})["domain_record"]["data"] == "Three"
assert domains.get_record("example.com", one["id"])["domain_record"]["ttl"] == 60
domains.delete_record("example.com", one["id"])
# The client does not raise for the codes that it knows, but gives the body.
print(domains.delete_record("example.com", one["id"])["id"])
print(domains.list_records("missing.example")["id"], domains.get("missing.example")["id"], domains.get("example.com")["domain"]["name"])
"#,
    )
    .await;
    assert_eq!(said.lines().collect::<Vec<_>>(), ["not_found", "not_found not_found example.com"]);
    assert_eq!(cloud.values("_acme-challenge.example.com"), ["Two"]);
    assert_eq!(cloud.values("example.com"), ["apex"]);
}

#[tokio::test]
async fn lists_go_on_over_pages() {
    let cloud = DigitalOcean::start(TOKEN, Nameservers::none()).await;
    cloud.add_domain("example.com");
    for n in 0..250 {
        cloud.stranger_adds("example.com", &format!("h{n}.example.com"), "TXT", "x", 300);
    }
    let said = client(
        &cloud,
        r#"
first = domains.list_records("example.com", type="TXT")
print(len(first["domain_records"]), first["meta"]["total"], "next" in first["links"]["pages"], "prev" in first["links"]["pages"])
pages = [domains.list_records("example.com", type="TXT", per_page=200, page=page) for page in (1, 2, 3)]
print([len(page["domain_records"]) for page in pages], "last" in pages[1]["links"]["pages"])
print(len(domains.list(per_page=200)["domains"]))
"#,
    )
    .await;
    assert_eq!(said.lines().collect::<Vec<_>>(), ["20 250 True False", "[200, 50, 0] False", "1"]);
}

#[tokio::test]
async fn errors_are_of_the_clients_classes() {
    let cloud = DigitalOcean::start(TOKEN, Nameservers::none()).await;
    cloud.add_domain("example.com");
    cloud.grant("dop_v1_reader", &[Right::Read]);
    cloud.faults().on_writes([Fault::Throttle(Duration::from_secs(7)), Fault::ErrorBefore]);
    let said = client(
        &cloud,
        r#"
make = lambda domains=domains, **over: domains.create_record("example.com", body={"type": "TXT", "name": "x", "data": "x", "ttl": 30, **over})
try:
    make()
except HttpResponseError as error:
    print(error.status_code, error.response.headers["retry-after"], error.response.json()["id"])
print(*refused(HttpResponseError, make))
print(*refused(HttpResponseError, lambda: make(ttl=29)))
print(*refused(HttpResponseError, lambda: make(data="x" * 513)))
print(*refused(ClientAuthenticationError, lambda: make(domains=Plain("dop_v1_unknown"))))
print(*refused(HttpResponseError, lambda: make(domains=Plain("dop_v1_reader"))))
seen = {}
domains.list(cls=lambda response, body, headers: seen.update(headers))
print(seen["ratelimit-limit"], seen["ratelimit-remaining"])
"#,
    )
    .await;
    let expected = [
        "429 7 too_many_requests",
        "HttpResponseError 500",
        "HttpResponseError 422",
        "HttpResponseError 422",
        "ClientAuthenticationError 401",
        "HttpResponseError 403",
        "5000 4995",
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
    assert!(cloud.values("x.example.com").is_empty());
}

#[tokio::test]
async fn octodns_brings_a_domain_in_line_and_leaves_it_so() {
    let cloud = DigitalOcean::start(TOKEN, Nameservers::none()).await;
    cloud.add_domain("example.com");
    for n in 0..30 {
        cloud.stranger_adds("example.com", &format!("gone{n}.example.com"), "TXT", "old", 300);
    }
    cloud.stranger_adds("example.com", "_acme-challenge.example.com", "TXT", "kept", 300);
    let folder = temporary_folder("octodns");
    let zone = "_acme-challenge:\n  ttl: 300\n  type: TXT\n  values: [added, kept, 'semi\\; colon']\nwww:\n  ttl: 300\n  type: A\n  value: 192.0.2.1\n";
    write(&folder.path().join("example.com.yaml"), zone);
    write(
        &folder.path().join("octodns.yaml"),
        &format!(
            "providers:\n  files:\n    class: octodns.provider.yaml.YamlProvider\n    directory: {}\n  cloud:\n    \
             class: octodns_digitalocean.DigitalOceanProvider\n    token: {TOKEN}\n\
             zones:\n  example.com.:\n    sources: [files]\n    targets: [cloud]\n",
            folder.path().display(),
        ),
    );
    sync(&cloud, folder.path()).await;
    assert_eq!(cloud.values("_acme-challenge.example.com"), ["added", "kept", "semi; colon"]);
    assert!((0..30).all(|n| cloud.values(&format!("gone{n}.example.com")).is_empty()), "all pages were read");
    let writes = cloud.faults().calls().1;
    sync(&cloud, folder.path()).await;
    assert_eq!(cloud.faults().calls().1, writes, "what it wrote reads back as it meant it");
}

/// octodns knows no setting for where DigitalOcean is, only a constant of a class.
async fn sync(cloud: &DigitalOcean, folder: &Path) {
    let script = "import sys\nfrom octodns.cmds.sync import main\nfrom octodns_digitalocean import DigitalOceanClient\n\
                  DigitalOceanClient.BASE = sys.argv.pop(1)\nmain()\n";
    let mut command = python::clouds(script);
    command.arg(format!("{}/v2", cloud.url())).arg("--config-file").arg(folder.join("octodns.yaml")).args(["--doit", "--force"]);
    run(command).await;
}
