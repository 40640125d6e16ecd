from cloudflare import Cloudflare

endpoint, token, zone = sys.argv[5:]
client = Cloudflare(api_token=token, base_url=endpoint)
zone_id = next(iter(client.zones.list(name=zone))).id
ids = {}


def add(name, value):
    ids[name, value] = client.dns.records.create(zone_id=zone_id, type="TXT", name=name, content=quoted(value), ttl=300).id


def remove(name, value):
    client.dns.records.delete(dns_record_id=ids.pop((name, value)), zone_id=zone_id)


run(add, remove)
