import requests

endpoint, key, zone = sys.argv[5:]
sessions = threading.local()


def change(name, changetype, value):
    if not hasattr(sessions, "session"):
        sessions.session = requests.Session()
    record = {"content": quoted(value), "disabled": False}
    # An RRset has one TTL, and EXTEND refuses another.
    rrset = {"name": name + ".", "type": "TXT", "ttl": 60, "changetype": changetype, "records": [record]}
    url = f"{endpoint}/api/v1/servers/localhost/zones/{zone}."
    reply = sessions.session.patch(url, json={"rrsets": [rrset]}, headers={"X-API-Key": key}, timeout=30)
    if reply.status_code != 204:
        raise RuntimeError(f"{reply.status_code}: {reply.text}")


run(lambda name, value: change(name, "EXTEND", value), lambda name, value: change(name, "PRUNE", value))
