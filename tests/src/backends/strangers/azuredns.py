import os

from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.identity import ClientSecretCredential
from azure.mgmt.dns import DnsManagementClient
from azure.mgmt.dns.models import RecordSet, TxtRecord

endpoint, ca, tenant, application, secret, subscription, group, zone = sys.argv[5:]
os.environ["REQUESTS_CA_BUNDLE"] = ca
credential = ClientSecretCredential(tenant, application, secret, authority=endpoint, disable_instance_discovery=True)
client = DnsManagementClient(credential, subscription, base_url=endpoint, credential_scopes=[endpoint + "/.default"])


def change(name, edit):
    """The whole set is exchanged under the ETag that it was read with; if somebody was faster, again."""
    relative = name.removesuffix("." + zone)
    while True:
        try:
            old = client.record_sets.get(group, zone, relative, "TXT")
        except ResourceNotFoundError:
            old = None
        values = edit([record.value for record in old.txt_records] if old else [])
        new = RecordSet(ttl=old.ttl if old else 300, txt_records=[TxtRecord(value=chunks) for chunks in values])
        try:
            if not old:
                return client.record_sets.create_or_update(group, zone, relative, "TXT", new, if_none_match="*")
            if not values:
                return client.record_sets.delete(group, zone, relative, "TXT", if_match=old.etag)
            return client.record_sets.create_or_update(group, zone, relative, "TXT", new, if_match=old.etag)
        except HttpResponseError as error:
            if error.status_code not in (404, 409, 412):
                raise


def add(name, value):
    change(name, lambda values: values + [[value]])


def remove(name, value):
    change(name, lambda values: [chunks for chunks in values if chunks != [value]])


run(add, remove)
