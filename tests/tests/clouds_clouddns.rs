//! The emulated Cloud DNS judged by Google's own Python client (google-cloud-dns, with google-auth for its tokens) and by octodns: what they accept, a
//! provider can be proved against.
#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::time::Duration;

use acmegate_tests::{python, temporary_folder, write};
use emulators::{
    Fault, Nameservers,
    clouddns::{CloudDns, Quota, Rrset, Throttling},
};

const PROJECT: &str = "infra-1";

/// Runs a script of the official client, and gives what it printed: `client` is ready, with the key of a service account; `zone` is `example.com`.
async fn client(cloud: &CloudDns, text: &str) -> String {
    let begin = r#"
import sys
from google.api_core import exceptions
from google.cloud import dns

key, url, project = sys.argv[1:]
client = dns.Client.from_service_account_json(key, project=project, client_options={"api_endpoint": url})
zone = client.zone("example-com", "example.com.")

def refused(kind, call):
    try:
        call()
    except kind as error:
        return int(error.code), error.errors[0]["reason"], error.message.split(": ", 1)[1]
    raise AssertionError(f"no {kind}")

def change(added=(), deleted=(), zone=zone):
    change = zone.changes()
    for record in added:
        change.add_record_set(zone.resource_record_set(*record))
    for record in deleted:
        change.delete_record_set(zone.resource_record_set(*record))
    change.create()
    return change
"#;
    let folder = temporary_folder("clouddns");
    let key = folder.path().join("key.json");
    write(&key, &cloud.service_account("client"));
    let mut command = python::clouds(&format!("{begin}{text}"));
    command.arg(&key).args([&cloud.url(), PROJECT]);
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("it ran").expect("it could be started");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    out.into_owned()
}

async fn start() -> CloudDns {
    let cloud = CloudDns::start(PROJECT, Nameservers::none()).await;
    cloud.add_zone("example.com");
    cloud
}

fn lines(said: &str) -> Vec<&str> {
    said.lines().collect()
}

#[tokio::test]
async fn zones_come_and_go() {
    let cloud = start().await;
    let said = client(
        &cloud,
        r#"
made = client.zone("made-here", "made.test.", description="by a test")
assert not made.exists()
made.create()
assert made.exists() and made.zone_id and made.created and len(made.name_servers) == 4, made._properties
again = client.zone("made-here", "made.test.")
again.reload()
assert (again.dns_name, again.name_servers) == ("made.test.", made.name_servers)
print(refused(exceptions.Conflict, lambda: client.zone("made-here", "made.test.").create()))
print(refused(exceptions.BadRequest, lambda: client.zone("Made-Here", "made.test.").create()))
change([("x.made.test.", "A", 60, ["192.0.2.1"])], zone=made)
print(refused(exceptions.BadRequest, made.delete))
change([], [("x.made.test.", "A", 60, ["192.0.2.1"])], zone=made)
made.delete()
print(refused(exceptions.NotFound, made.delete))
print(sorted(client.quotas().items())[3:6])
"#,
    )
    .await;
    assert_eq!(
        lines(&said),
        [
            "(409, 'alreadyExists', \"The resource 'entity.managedZone' named 'made-here' already exists\")",
            "(400, 'invalidFieldValue', \"Invalid value for 'entity.managedZone.name': 'Made-Here'\")",
            "(400, 'containerNotEmpty', 'The resource cannot be deleted because it is not empty')",
            "(404, 'notFound', \"The 'parameters.managedZone' resource named 'made-here' does not exist.\")",
            "[('rrsetDeletionsPerChange', 1000), ('rrsetsPerManagedZone', 10000), ('totalRrdataSizePerChange', 100000)]",
        ]
    );
    assert_eq!(cloud.token_calls().oauth, 1, "google-auth asked for a token with a signed assertion");
}

#[tokio::test]
async fn lists_go_on_over_pages() {
    let cloud = start().await;
    for n in 0..249 {
        cloud.stranger_adds("example-com", &format!("h{n}.example.com"), "TXT", 300, &format!("\"{n}\""));
    }
    for n in 0..120 {
        cloud.add_zone(&format!("z{n}.example"));
    }
    let said = client(
        &cloud,
        r#"
print(len(list(client.list_zones())), len(list(client.list_zones(max_results=7))))
pages = [len(list(page)) for page in zone.list_resource_record_sets().pages]
print(pages)
found = {(record.name, record.record_type): (record.ttl, record.rrdatas) for record in zone.list_resource_record_sets()}
print(len(found), found[("h77.example.com.", "TXT")], sorted(kind for name, kind in found if name == "example.com."))
"#,
    )
    .await;
    assert_eq!(lines(&said), ["121 7", "[100, 100, 51]", "251 (300, ['\"77\"']) ['NS', 'SOA']"]);
}

#[tokio::test]
async fn changes_are_exact_and_atomic() {
    let cloud = start().await;
    cloud.set_polls(2);
    let said = client(
        &cloud,
        r#"
owner = "_acme-challenge.example.com."
first = change([(owner, "TXT", 60, ['"one"', "two words"])])
print(first.name, first.status, first.started.year, [record.rrdatas for record in first.additions])
polls = []
for _ in range(3):
    first.reload()
    polls.append(first.status)
print(polls, first.exists(), [change.name for change in zone.list_changes()])
old = (owner, "TXT", 60, ['"two" "words"', '"one"'])
print(refused(exceptions.PreconditionFailed, lambda: change([("new.example.com.", "TXT", 60, ['"x"'])], [(owner, "TXT", 61, old[3])])))
print(refused(exceptions.PreconditionFailed, lambda: change([], [("_acme-challenge.example.com.", "TXT", 60, ['"one"'])])))
print(refused(exceptions.NotFound, lambda: change([], [("gone.example.com.", "TXT", 60, ['"x"'])])))
print(refused(exceptions.Conflict, lambda: change([("new.example.com.", "TXT", 60, ['"x"']), (owner, "TXT", 60, ['"x"'])])))
assert change([(owner, "TXT", 60, ['"one"'])], [old]).deletions[0].rrdatas == old[3], "the order of the records does not matter"
"#,
    )
    .await;
    assert_eq!(
        lines(&said),
        [
            "1 pending 2026 [['\"one\"', '\"two\" \"words\"']]",
            "['pending', 'pending', 'done'] True ['1', '0']",
            "(412, 'conditionNotMet', \"Precondition not met for 'entity.change.deletions[0]'\")",
            "(412, 'conditionNotMet', \"Precondition not met for 'entity.change.deletions[0]'\")",
            "(404, 'notFound', \"The 'entity.change.deletions[0]' resource named 'gone.example.com. (TXT)' does not exist.\")",
            "(409, 'alreadyExists', \"The resource 'entity.change.additions[1]' named '_acme-challenge.example.com. (TXT)' already exists\")",
        ]
    );
    let left = Rrset { ttl: 60, rrdatas: vec!["\"one\"".to_owned()], routing_policy: None };
    assert_eq!(cloud.txt("example-com", "_acme-challenge.example.com"), Some(left));
    assert_eq!(cloud.txt("example-com", "new.example.com"), None, "of a change that is refused, nothing is made");
    assert_eq!(cloud.changes(), [(1, 0), (1, 1)]);
}

#[tokio::test]
async fn errors_are_of_the_clients_classes() {
    let cloud = start().await;
    cloud.set_quota(Quota { additions: 2, deletions: 2, size: 1000, records: 2 });
    cloud.stranger_sets(
        "example-com",
        "alias.example.com",
        "CNAME",
        Rrset { ttl: 60, rrdatas: vec!["other.example.".to_owned()], routing_policy: None },
    );
    let said = client(
        &cloud,
        r#"
txt = lambda name, *data, ttl=60: (name, "TXT", ttl, list(data))
for bad in [
    [txt("x.example.net.", '"x"')],
    [txt("a..example.com.", '"x"')],
    [txt("x.example.com.", '"open')],
    [txt("x.example.com.", '"' + "x" * 256 + '"')],
    [txt("x.example.com.", '"x"', ttl=-1)],
    [("x.example.com.", "NONE", 60, ["x"])],
    [txt("alias.example.com.", '"x"')],
    [("example.com.", "CNAME", 60, ["x.example."])],
]:
    print(refused(exceptions.BadRequest, lambda: change(bad))[1])
print(refused(exceptions.BadRequest, lambda: change([], [("example.com.", "SOA", 21600, next(r.rrdatas for r in zone.list_resource_record_sets() if r.record_type == "SOA"))]))[1])
print(refused(exceptions.Forbidden, lambda: change([txt(f"n{n}.example.com.", '"x"') for n in range(3)])))
print(refused(exceptions.Forbidden, lambda: change([txt("x.example.com.", '"a"', '"b"', '"c"')]))[2])
print(refused(exceptions.Forbidden, lambda: change([txt("x.example.com.", " ".join(['"' + "x" * 255 + '"'] * 4))]))[2])
other = dns.Client.from_service_account_json(key, project="other", client_options={"api_endpoint": url})
print(refused(exceptions.Forbidden, lambda: list(other.list_zones()))[:2])
"#,
    )
    .await;
    assert_eq!(
        lines(&said),
        [
            "invalid",
            "invalid",
            "invalid",
            "invalid",
            "invalid",
            "invalid",
            "cnameResourceRecordSetConflict",
            "cnameResourceRecordSetConflict",
            "invalidZoneApex",
            "(403, 'quotaExceeded', 'The change would exceed quota for additions per change.')",
            "The change would exceed quota for resource records per rrset.",
            "The change would exceed quota for total rrdata size per change.",
            "(403, 'forbidden')",
        ]
    );
}

#[tokio::test]
async fn throttling_and_outages_are_googles() {
    let cloud = start().await;
    let pause = Duration::from_secs(7);
    cloud.faults().on_reads([Fault::Throttle(pause), Fault::ErrorBefore]);
    let said = client(
        &cloud,
        "print(refused(exceptions.TooManyRequests, zone.reload)[1], refused(exceptions.InternalServerError, zone.reload)[1])",
    )
    .await;
    assert_eq!(said.trim(), "rateLimitExceeded backendError");
    cloud.throttle_with(Throttling::Forbidden);
    cloud.limit_rate(Some((2, Duration::from_secs(3600))));
    let said = client(&cloud, "zone.reload(); zone.reload()\nprint(refused(exceptions.Forbidden, zone.reload)[:2])").await;
    assert_eq!(said.trim(), "(403, 'rateLimitExceeded')");
    cloud.limit_rate(None);
    // A token that is refused has google-auth ask for another one.
    cloud.faults().on_reads([Fault::Unauthorized]);
    let before = cloud.token_calls().oauth;
    assert_eq!(client(&cloud, "zone.reload(); print('again')").await.trim(), "again");
    assert_eq!(cloud.token_calls().oauth, before + 2);
}

/// octodns-googlecloud has no setting for the API's address, and the client that it makes reads none from the environment. So the client inside the
/// provider is given one here; the code of both is as it was installed.
#[tokio::test]
async fn octodns_brings_a_zone_in_line_and_leaves_it_so() {
    let cloud = start().await;
    cloud.set_polls(0);
    cloud.stranger_adds("example-com", "stale.example.com", "TXT", 300, "\"stale\"");
    cloud.stranger_adds("example-com", "kept.example.com", "TXT", 300, "\"v=spf1 \" \"-all\"");
    let said = client(
        &cloud,
        r#"
from octodns.record import Record
from octodns.zone import Zone
from octodns_googlecloud import GoogleCloudProvider

def run():
    provider = GoogleCloudProvider("google", project=project, credentials_file=key)
    provider.gcloud_client._connection.API_BASE_URL = url
    desired = Zone("example.com.", [])
    for name, kind, data in [
        ("_acme-challenge", "TXT", {"ttl": 60, "values": ["one", "two words"]}),
        ("kept", "TXT", {"ttl": 300, "value": "v=spf1 -all"}),
        ("www", "A", {"ttl": 60, "value": "192.0.2.1"}),
    ]:
        desired.add_record(Record.new(desired, name, {"type": kind, **data}))
    plan = provider.plan(desired)
    if plan is None:
        return "nothing to do"
    return sorted(f"{change.__class__.__name__} {change.record.fqdn}" for change in plan.changes), provider.apply(plan)

print(run())
print(run())
"#,
    )
    .await;
    assert_eq!(
        lines(&said),
        ["(['Create _acme-challenge.example.com.', 'Create www.example.com.', 'Delete stale.example.com.'], 3)", "nothing to do"]
    );
    let made = cloud.txt("example-com", "_acme-challenge.example.com").map(|rrset| rrset.rrdatas);
    assert_eq!(made, Some(vec!["\"one\"".to_owned(), "\"two words\"".to_owned()]));
    assert_eq!(cloud.txt("example-com", "stale.example.com"), None);
}
