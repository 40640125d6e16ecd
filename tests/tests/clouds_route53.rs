//! The gate before ministack judged by AWS's own Python client, unmodified: what it accepts, a provider can be proved against. (octodns has its Route 53
//! provider in a package of its own, which is that client and nothing else; it is not among the pinned ones.)
#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::time::Duration;

use acmegate_tests::{dns, ministack::Ministack, process, python};
use emulators::{Fault, Nameservers, route53::Route53};

/// Runs a script of the official client, which has `route53` of it, and gives what it printed.
async fn client(gate: &Route53, text: &str) -> Vec<String> {
    let begin = r#"
import boto3, sys
from botocore.config import Config
from botocore.exceptions import ClientError
route53 = boto3.client("route53", endpoint_url=sys.argv[1], region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test",
                       config=Config(retries={"total_max_attempts": 1}))
def zone(name):
    return route53.create_hosted_zone(Name=name, CallerReference=name)["HostedZone"]["Id"]
def change(zone, *changes):
    def one(action, name, values, ttl=60, kind="TXT", **more):
        records = [{"Value": value} for value in values]
        return {"Action": action, "ResourceRecordSet": {"Name": name, "Type": kind, "TTL": ttl, "ResourceRecords": records, **more}}
    return route53.change_resource_record_sets(HostedZoneId=zone, ChangeBatch={"Changes": [one(*c[:-1], **c[-1]) if isinstance(c[-1], dict) else one(*c) for c in changes]})
def sets(zone):
    pages = route53.get_paginator("list_resource_record_sets").paginate(HostedZoneId=zone)
    return [s for page in pages for s in page["ResourceRecordSets"] if s["Type"] == "TXT"]
def refused(code, call):
    try:
        call()
    except ClientError as error:
        assert error.response["Error"]["Code"] == code, error
        return error.response["Error"]["Message"]
    raise AssertionError(f"no {code}")
"#;
    let mut command = python::clouds(&format!("{begin}{text}"));
    command.arg(gate.url());
    let output = process::run("boto3", command, Duration::from_secs(60)).await;
    assert_eq!(output.code, Some(0), "{}{}", output.stdout, output.stderr);
    output.stdout.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn zones_and_records_come_and_go() {
    let ministack = Ministack::start().await;
    let server = acmegate_tests::addresses::Address::reserve();
    let gate = Route53::start(ministack.address(), Nameservers::start(&[(server.dns(), Duration::ZERO)]).await).await;
    let said = client(
        &gate,
        r#"
z = zone("example.com")
assert len(route53.get_hosted_zone(Id=z)["DelegationSet"]["NameServers"]) == 4
made = change(z, ("CREATE", "*.Example.com", ['"one"', '"t" "wo"']), ("UPSERT", "example.com.", ['"apex"']))["ChangeInfo"]
assert made["Status"] == "PENDING", made
route53.get_waiter("resource_record_sets_changed").wait(Id=made["Id"], WaiterConfig={"Delay": 0})
print([(s["Name"], [r["Value"] for r in s["ResourceRecords"]]) for s in sets(z)])
one = route53.list_resource_record_sets(HostedZoneId=z, StartRecordName="*.example.com", StartRecordType="TXT", MaxItems="1")
assert one["ResourceRecordSets"][0]["Name"] == "\\052.example.com.", one
change(z, ("DELETE", "\\052.example.com.", ['"t" "wo"', '"one"']))
assert len(sets(z)) == 1
found = route53.list_hosted_zones_by_name(DNSName="example.com", MaxItems="1")["HostedZones"]
assert [f["Id"] for f in found] == [z], found
for batch in range(0, 700, 100):
    change(z, *[("CREATE", f"n{n}.example.com", ['"x"']) for n in range(batch, batch + 100)])
print(len(sets(z)))
"#,
    )
    .await;
    assert_eq!(said, [r#"[('example.com.', ['"apex"']), ('\\052.example.com.', ['"one"', '"t" "wo"'])]"#, "701"]);
    assert_eq!(gate.count("ChangeResourceRecordSets"), 9);
    assert_eq!(dns::txt(server.dns(), "example.com").await, ["apex".to_owned()].into());
    assert_eq!(dns::txt(server.dns(), "n699.example.com").await, ["x".to_owned()].into());
}

#[tokio::test]
async fn what_route_53_refuses_is_refused_in_its_words() {
    let ministack = Ministack::start().await;
    let gate = Route53::start(ministack.address(), Nameservers::none()).await;
    let said = client(
        &gate,
        r#"
z = zone("example.com")
change(z, ("CREATE", "a.example.com", ['"1"']), ("CREATE", "c.example.com", ["x.test."], 60, {"kind": "CNAME"}))
print(refused("InvalidChangeBatch", lambda: change(z,
    ("CREATE", "a.example.com", ['"2"']), ("DELETE", "b.example.com", ['"2"']), ("CREATE", "fine.example.com", ['"2"']))))
print(refused("InvalidChangeBatch", lambda: change(z, ("DELETE", "a.example.com", ['"1"'], 61))))
print(refused("InvalidChangeBatch", lambda: change(z, ("CREATE", "c.example.com", ['"2"']))))
print(refused("InvalidChangeBatch", lambda: change(z, ("CREATE", "b.example.org", ['"2"']))))
print(refused("InvalidChangeBatch", lambda: change(z, ("CREATE", "b.example.com", ["bare"]))))
print(refused("InvalidChangeBatch", lambda: change(z, *[("UPSERT", f"n{n}.example.com", ['"x"']) for n in range(501)])))
print(refused("InvalidChangeBatch", lambda: change(z, *[("UPSERT", f"n{n}.example.com", ['"' + "x" * 250 + '"']) for n in range(64)])))
change(z, *[("CREATE", f"n{n}.example.com", ['"' + "x" * 250 + '"']) for n in range(64)])
print(refused("NoSuchHostedZone", lambda: route53.get_hosted_zone(Id="ZMISSING")))
print(refused("NoSuchHostedZone", lambda: change("ZMISSING", ("CREATE", "a.example.com", ['"1"']))))
print(len(sets(z)))
"#,
    )
    .await;
    let beginnings = [
        "[Tried to create resource record set [name='a.example.com.', type='TXT'] but it already exists, \
         Tried to delete resource record set [name='b.example.com.', type='TXT'] but it was not found]",
        "[Tried to delete resource record set [name='a.example.com.', type='TXT'] but the values provided do not match the current values]",
        "[RRSet of type TXT with DNS name c.example.com. is not permitted as it conflicts with other records with the same DNS name",
        "[RRSet with DNS name b.example.org. is not permitted in zone example.com.]",
        "[Invalid Resource Record: 'FATAL problem: InvalidCharacterString (Value should be enclosed in quotation marks)",
        "[Number of records limit of 1000 exceeded.]",
        "[Number of characters limit of 32000 exceeded.]",
        "No hosted zone found with ID: ZMISSING",
        "No hosted zone found with ID: ZMISSING",
        "65",
    ];
    assert_eq!(said.len(), beginnings.len(), "{said:?}");
    for (said, beginning) in said.iter().zip(beginnings) {
        assert!(said.starts_with(beginning), "{said}");
    }
}

#[tokio::test]
async fn faults_and_the_rate_reach_the_client_as_its_own_errors() {
    let ministack = Ministack::start().await;
    let gate = Route53::start(ministack.address(), Nameservers::none()).await;
    let zone = gate.create_zone("example.com", false).await;
    gate.faults().on_writes([
        Fault::Throttle(Duration::from_secs(1)),
        Fault::ErrorBefore,
        Fault::ErrorAfter,
        Fault::Unauthorized,
        Fault::Interfere,
        Fault::LostReply,
    ]);
    let said = client(
        &gate,
        &r#"
from botocore.exceptions import BotoCoreError
z = "ZONE"
create = lambda n: change(z, ("CREATE", f"n{n}.example.com", ['"x"']))
print(refused("Throttling", lambda: create(0)), refused("InternalFailure", lambda: create(1)), refused("InternalFailure", lambda: create(2)))
print(refused("InvalidClientTokenId", lambda: create(3)))
print(refused("InvalidChangeBatch", lambda: create(4)))
try:
    create(5)
except BotoCoreError as error:
    print(type(error).__name__)
print([(s["Name"], s["ResourceRecords"][0]["Value"]) for s in sets(z)])
"#
        .replace("ZONE", &zone),
    )
    .await;
    assert!(said[0].starts_with("Rate exceeded We encountered"), "{said:?}");
    assert!(said[2].contains("n4.example.com.") && said[2].contains("already exists"), "{said:?}");
    assert_eq!(said[3], "ConnectionClosedError");
    assert_eq!(said[4], r#"[('n2.example.com.', '"x"'), ('n4.example.com.', '"stranger-1"'), ('n5.example.com.', '"x"')]"#);

    gate.limit_rate(true);
    let said = client(
        &gate,
        r#"
from concurrent.futures import ThreadPoolExecutor
def ask(_):
    try:
        route53.list_hosted_zones()
        return "ok"
    except ClientError as error:
        return error.response["Error"]["Code"]
answers = list(ThreadPoolExecutor(20).map(ask, range(40)))
print(answers.count("ok") < 40, set(answers) == {"ok", "Throttling"})
"#,
    )
    .await;
    assert_eq!(said, ["True True"]);
    assert!(gate.throttled() > 0);
}
