//! The emulated Azure judged by Microsoft's own Python clients (azure-mgmt-dns, with azure-identity for its tokens) and by octodns, all unmodified: what
//! they accept, a provider can be proved against.
#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::{process::Command, time::Duration};

use acmegate_tests::{python, temporary_folder, write};
use emulators::{
    Fault, Nameservers,
    azuredns::{APP_SERVICE_HEADER, AzureDns, CLIENT, IDENTITY, SECRET, SUBSCRIPTION, TENANT},
};

/// Runs a program to its end, and gives the lines that it printed.
async fn run(mut command: Command) -> Vec<String> {
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("it ran").expect("it could be started");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    out.lines().map(str::to_owned).collect()
}

/// Runs a script of the official clients over HTTPS (without, azure-identity does not sign in and azure-core sends no token): `client` has the client
/// secret and does not retry, `url` is the cloud's, `principal` is what every credential of the application is made with. Instance discovery is switched
/// off, as Microsoft says for private clouds: it would ask the public one whether it knows this authority.
async fn clients(cloud: &AzureDns, text: &str, environment: &[(&str, &str)]) -> Vec<String> {
    let begin = r#"
import sys
from azure.core.exceptions import *
from azure.identity import *
from azure.mgmt.dns import DnsManagementClient
from azure.mgmt.dns.models import *

url, subscription, tenant, application, secret = sys.argv[1:]
principal = dict(tenant_id=tenant, client_id=application, authority=url, disable_instance_discovery=True)

def client(credential, **kwargs):
    kwargs = {"retry_total": 0, "polling_interval": 0, **kwargs}
    return DnsManagementClient(credential, subscription, base_url=url, **kwargs)

def refused(kind, call):
    try:
        call()
    except kind as error:
        return type(error).__name__, error.status_code, error.error and error.error.code
    raise AssertionError(f"no {kind}")

def values(found):
    return [record.value for record in found.txt_records or []]

def txt(*values, ttl=60, **kwargs):
    return RecordSet(ttl=ttl, txt_records=[TxtRecord(value=list(chunks)) for chunks in values], **kwargs)

dns = client(ClientSecretCredential(client_secret=secret, **principal))
sets = dns.record_sets
"#;
    let folder = temporary_folder("azuredns");
    let ca = folder.path().join("ca.pem");
    write(&ca, cloud.ca());
    let mut command = python::clouds(&format!("{begin}{text}"));
    command.args([cloud.https_url(), SUBSCRIPTION, TENANT, CLIENT, SECRET]);
    command.env("REQUESTS_CA_BUNDLE", &ca).envs(environment.iter().copied());
    run(command).await
}

async fn start() -> (AzureDns, String) {
    let cloud = AzureDns::start(Nameservers::none()).await;
    let id = cloud.create_zone("infra", "example.com");
    (cloud, id)
}

#[tokio::test]
async fn record_sets_come_and_go_under_their_etags() {
    let (cloud, id) = start().await;
    let said = clients(
        &cloud,
        r#"
at = ("infra", "example.com", "_acme-challenge", "TXT")
first = sets.create_or_update(*at, txt(["one"], ["two ", "chunks"], metadata={"who": "them"}), if_none_match="*")
assert (first.name, first.ttl, first.fqdn, first.metadata) == ("_acme-challenge", 60, "_acme-challenge.example.com.", {"who": "them"}), first
assert first.type == "Microsoft.Network/dnszones/TXT" and first.id.endswith("/dnszones/example.com/TXT/_acme-challenge"), first
assert values(first) == [["one"], ["two ", "chunks"]] and first.provisioning_state == "Succeeded", first
assert sets.get(*at).etag == first.etag
print(refused(HttpResponseError, lambda: sets.create_or_update(*at, txt(["x"]), if_none_match="*")))
second = sets.create_or_update(*at, txt(["three"]), if_match=first.etag)
assert second.etag != first.etag and second.metadata is None, "a PUT replaces everything"
print(refused(HttpResponseError, lambda: sets.create_or_update(*at, txt(["x"]), if_match=first.etag)))
print(refused(HttpResponseError, lambda: sets.delete(*at, if_match=first.etag)))
third = sets.update(*at, RecordSet(ttl=77), if_match=second.etag)
assert (third.ttl, values(third)) == (77, [["three"]]), third
assert sets.update(*at, RecordSet(metadata={"a": "b"})).ttl == 77
print(sets.delete(*at), sets.delete(*at), "gone twice")
print(refused(ResourceNotFoundError, lambda: sets.get(*at)))
print(refused(HttpResponseError, lambda: sets.create_or_update(*at, txt(["x"]), if_match=third.etag)))
empty = sets.create_or_update(*at, RecordSet(ttl=60, metadata={"kept": "yes"}))
print(values(empty), empty.metadata, values(sets.get(*at)))
sets.create_or_update("INFRA", "Example.com", "@", "TXT", txt(["apex"]))
sets.create_or_update("infra", "example.com", "*", "TXT", txt(["wild"]))
"#,
        &[],
    )
    .await;
    assert_eq!(
        said,
        [
            "('HttpResponseError', 412, 'PreconditionFailed')",
            "('HttpResponseError', 412, 'PreconditionFailed')",
            "('HttpResponseError', 412, 'PreconditionFailed')",
            "None None gone twice",
            "('ResourceNotFoundError', 404, 'NotFound')",
            "('HttpResponseError', 412, 'PreconditionFailed')",
            "[] {'kept': 'yes'} []",
        ]
    );
    assert_eq!((cloud.values(&id, "@"), cloud.values(&id, "*")), (vec![vec!["apex".to_owned()]], vec![vec!["wild".to_owned()]]));
    assert_eq!(cloud.token_calls(), 1, "azure-identity keeps its token");
}

#[tokio::test]
async fn zones_come_and_go_and_lists_go_on_over_pages() {
    let (cloud, id) = start().await;
    for n in 0..120 {
        cloud.stranger_adds(&id, &format!("h{n}"), 300, &[&n.to_string()]);
        cloud.create_zone("other", &format!("z{n}.example"));
    }
    let said = clients(
        &cloud,
        r#"
made = dns.zones.create_or_update("other", "made.test", Zone(location="global", tags={"by": "a test"}))
assert (made.name, made.zone_type, made.max_number_of_records_per_record_set) == ("made.test", "Public", 20), made
assert len(made.name_servers) == 4 and made.number_of_record_sets == 2 and made.tags == {"by": "a test"}, made
twin = dns.zones.create_or_update("other", "example.com", Zone(location="global"))
assert twin.id != dns.zones.get("infra", "example.com").id
dns.zones.begin_delete("other", "made.test").result()
print(refused(ResourceNotFoundError, lambda: dns.zones.get("other", "made.test")))
print(refused(ResourceNotFoundError, lambda: dns.zones.get("nowhere", "made.test")))
print(refused(ResourceNotFoundError, lambda: list(sets.list_by_type("infra", "made.test", "TXT"))))
print(refused(HttpResponseError, lambda: dns.zones.create_or_update("other", "test", Zone(location="global"))))
count = lambda pages: [len(list(page)) for page in pages.by_page()]
print(count(dns.zones.list()), count(dns.zones.list(top=50)), count(dns.zones.list_by_resource_group("infra")))
print(count(sets.list_by_type("infra", "example.com", "TXT")), count(sets.list_by_type("infra", "example.com", "TXT", top=1000)))
print(count(sets.list_by_dns_zone("infra", "example.com", top=70)), count(sets.list_all_by_dns_zone("infra", "example.com")))
found = {found.name: values(found) for found in sets.list_by_type("infra", "example.com", "TXT", top=7)}
print(len(found), found["h77"])
print(refused(HttpResponseError, lambda: list(dns.zones.list(top=1001))))
"#,
        &[],
    )
    .await;
    assert_eq!(
        said,
        [
            "('ResourceNotFoundError', 404, 'ResourceNotFound')",
            "('ResourceNotFoundError', 404, 'ResourceGroupNotFound')",
            "('ResourceNotFoundError', 404, 'ParentResourceNotFound')",
            "('HttpResponseError', 400, 'BadRequest')",
            "[100, 22] [50, 50, 22] [1]",
            "[100, 20] [120]",
            "[70, 52] [100, 22]",
            "120 [['77']]",
            "('HttpResponseError', 400, 'BadRequest')",
        ]
    );
}

#[tokio::test]
async fn errors_are_of_the_clients_classes() {
    let (cloud, id) = start().await;
    let said = clients(
        &cloud,
        r#"
at = ("infra", "example.com", "a", "TXT")
put = lambda what, at=at: print(refused(HttpResponseError, lambda: sets.create_or_update(*at, what))[1:])
put(txt(["x" * 256]))
put(txt(*[[str(n)] for n in range(21)]))
put(txt(["same"], ["same"]))
put(txt(*[[letter * 255] * 4 for letter in "abcde"]))
put(txt(["x"], ttl=0))
put(txt(["x"]), ("infra", "example.com", "a b", "TXT"))
sets.create_or_update("infra", "example.com", "alias", "CNAME", RecordSet(ttl=60, cname_record=CnameRecord(cname="elsewhere.example")))
put(txt(["x"]), ("infra", "example.com", "alias", "TXT"))
print(refused(HttpResponseError, lambda: sets.delete("infra", "example.com", "@", "SOA"))[1:])
stranger = DnsManagementClient(dns._config.credential, "00000000-0000-0000-0000-000000000000", base_url=url, retry_total=0)
print(refused(ResourceNotFoundError, lambda: list(stranger.zones.list())))
"#,
        &[],
    )
    .await;
    assert_eq!(said[..8], ["(400, 'BadRequest')"; 8]);
    assert_eq!(said[8..], ["('ResourceNotFoundError', 404, 'SubscriptionNotFound')"]);
    assert!(cloud.txt(&id, "a").is_none(), "of what is refused, nothing is made");
}

#[tokio::test]
async fn throttling_outages_and_rights_are_azures() {
    let (cloud, id) = start().await;
    let read = "print(refused(HttpResponseError, lambda: dns.zones.get('infra', 'example.com')))\n";
    cloud.faults().on_reads([Fault::Throttle(Duration::from_secs(7)), Fault::ErrorBefore]);
    assert_eq!(
        clients(&cloud, &read.repeat(2), &[]).await,
        ["('HttpResponseError', 429, 'SubscriptionRequestsThrottled')", "('HttpResponseError', 500, 'InternalServerError')"]
    );
    // The client itself waits as it is asked to, repeats what broke, and goes on.
    cloud.faults().on_reads([Fault::Throttle(Duration::from_secs(1)), Fault::LostReply, Fault::ErrorAfter]);
    let said = clients(&cloud, "print(client(dns._config.credential, retry_total=3).zones.get('infra', 'example.com').name)", &[]).await;
    assert_eq!(said, ["example.com"]);
    cloud.pending_operations(1);
    let write = "put = lambda: sets.create_or_update('infra', 'example.com', 'a', 'TXT', txt(['x']))\n\
                 print(refused(HttpResponseError, put))\nput()\n\
                 listed = []\n\
                 sets.get('infra', 'example.com', 'a', 'TXT', raw_response_hook=lambda r: listed.append(r.http_response.headers))\n\
                 print(listed[0]['x-ms-ratelimit-remaining-subscription-reads'])\n";
    assert_eq!(clients(&cloud, write, &[]).await, ["('ResourceExistsError', 409, 'Conflict')", "249"]);
    cloud.restrict(Some(&id));
    let text = "print(dns.zones.get('infra', 'example.com').name)\nprint(refused(HttpResponseError, lambda: list(dns.zones.list())))";
    let said = clients(&cloud, text, &[]).await;
    assert_eq!(said, ["example.com", "('HttpResponseError', 403, 'AuthorizationFailed')"]);
}

#[tokio::test]
async fn microsofts_libraries_sign_in_with_every_credential() {
    let (cloud, _) = start().await;
    let folder = temporary_folder("azuredns");
    let (pem, token) = (folder.path().join("application.pem"), folder.path().join("token"));
    write(&pem, &cloud.issue_certificate());
    write(&token, "header.claims.signature");
    cloud.trust_assertion("header.claims.signature");
    let (pem, token) = (pem.display().to_string(), token.display().to_string());
    let files = [("PEM", pem.as_str()), ("TOKEN", token.as_str()), ("IDENTITY", IDENTITY)];
    let said = clients(
        &cloud,
        r#"
import os
pem, token, identity = os.environ["PEM"], os.environ["TOKEN"], os.environ["IDENTITY"]
look = lambda credential: client(credential).zones.get("infra", "example.com").name
print("certificate", look(CertificateCredential(certificate_path=pem, **principal)))
print("chain", look(CertificateCredential(certificate_path=pem, send_certificate_chain=True, **principal)))
print("workload", look(WorkloadIdentityCredential(token_file_path=token, **principal)))
try:
    look(ClientSecretCredential(client_secret="wrong", **principal))
except ClientAuthenticationError as error:
    print(error.message.splitlines()[0].split(".")[0])
# The same client secret, found where a deployment puts it.
os.environ.update(AZURE_TENANT_ID=tenant, AZURE_CLIENT_ID=application, AZURE_CLIENT_SECRET=secret, AZURE_AUTHORITY_HOST=url)
print("environment", look(EnvironmentCredential(disable_instance_discovery=True)))
"#,
        &files,
    )
    .await;
    assert_eq!(
        said,
        [
            "certificate example.com",
            "chain example.com",
            "workload example.com",
            "Authentication failed: AADSTS7000215: Invalid client secret provided",
            "environment example.com",
        ]
    );

    // The metadata service of a virtual machine, which is asked by HTTP.
    let machine = r#"
import os
look = lambda **kwargs: client(ManagedIdentityCredential(retry_total=0, **kwargs)).zones.get("infra", "example.com").name
print(look(), look(client_id=os.environ["IDENTITY"]))
try:
    look(client_id="nobody")
except (CredentialUnavailableError, ClientAuthenticationError) as error:
    print(type(error).__name__, error.message)
"#;
    let calls = cloud.token_calls();
    let unavailable =
        "CredentialUnavailableError ManagedIdentityCredential authentication unavailable, no response from the IMDS endpoint.";
    let said = clients(&cloud, machine, &[files[2], ("AZURE_POD_IDENTITY_AUTHORITY_HOST", cloud.url())]).await;
    let refusal = format!("{unavailable} Token request error: (invalid_request) Identity not found");
    assert_eq!(said, ["example.com example.com", refusal.as_str()]);
    assert_eq!(cloud.token_calls(), calls + 3, "it was the emulator that was asked");
    // The service of App Service, which the environment names.
    let app_service = cloud.app_service();
    let service = [files[2], ("IDENTITY_ENDPOINT", app_service.as_str()), ("IDENTITY_HEADER", APP_SERVICE_HEADER)];
    let said = clients(&cloud, machine, &service).await;
    assert_eq!(said[0], "example.com example.com");
    assert!(said[1].ends_with("(invalid_scope) 400, No User Assigned or Delegated Managed Identity found."), "{said:?}");
}

/// octodns-azure takes the addresses of both services; instance discovery it cannot switch off, but there is none for AD FS, whose tenant is `adfs`.
#[tokio::test]
async fn octodns_brings_a_zone_in_line_and_leaves_it_so() {
    let (cloud, id) = start().await;
    cloud.stranger_adds(&id, "stale", 300, &["stale"]);
    cloud.stranger_adds(&id, "kept", 300, &["v=spf1 -all"]);
    let said = clients(
        &cloud,
        r#"
from octodns.record import Record
from octodns.zone import Zone as Desired
from octodns_azure import AzureProvider

def run():
    provider = AzureProvider(
        "azure", subscription, "infra", directory_id="adfs", client_id=application, key=secret, authority=url, base_url=url, top=2,
    )
    desired = Desired("example.com.", [])
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
        &[],
    )
    .await;
    assert_eq!(
        said,
        ["(['Create _acme-challenge.example.com.', 'Create www.example.com.', 'Delete stale.example.com.'], 3)", "nothing to do"]
    );
    assert_eq!(cloud.values(&id, "_acme-challenge"), [["one"], ["two words"]]);
    assert!(cloud.txt(&id, "stale").is_none());
}
