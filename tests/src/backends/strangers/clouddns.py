from google.api_core import exceptions
from google.cloud import dns

endpoint, key, project, zone_name, dns_name = sys.argv[5:]


def change(name, edit):
    """Exactly what stands is exchanged for what shall stand; if somebody was faster, again."""
    name += "."
    while True:
        old = [s for s in zone().list_resource_record_sets() if (s.name, s.record_type) == (name, "TXT")]
        values = edit([value for s in old for value in s.rrdatas])
        change = zone().changes()
        for standing in old:
            change.delete_record_set(standing)
        if values:
            change.add_record_set(zone().resource_record_set(name, "TXT", old[0].ttl if old else 300, values))
        try:
            return change.create()
        except (exceptions.PreconditionFailed, exceptions.Conflict):
            pass


clients = threading.local()


def zone():
    """A client of each thread's own: its HTTP session is not to be shared."""
    if not hasattr(clients, "zone"):
        client = dns.Client.from_service_account_json(key, project=project, client_options={"api_endpoint": endpoint})
        clients.zone = client.zone(zone_name, dns_name + ".")
    return clients.zone


def add(name, value):
    change(name, lambda values: values + [quoted(value)])


def remove(name, value):
    change(name, lambda values: [other for other in values if other != quoted(value)])


run(add, remove)
