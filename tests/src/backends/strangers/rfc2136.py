import dns.name
import dns.query
import dns.rcode
import dns.tsigkeyring
import dns.update

server, zone, key, secret = sys.argv[5:]
keyring = dns.tsigkeyring.from_text({key: secret})


def send(change):
    update = dns.update.Update(zone, keyring=keyring, keyalgorithm="hmac-sha256")
    change(update)
    reply = dns.query.tcp(update, server, timeout=30)
    if reply.rcode() != dns.rcode.NOERROR:
        raise RuntimeError(dns.rcode.to_text(reply.rcode()))


def add(name, value):
    send(lambda update: update.add(dns.name.from_text(name), 300, "TXT", quoted(value)))


def remove(name, value):
    send(lambda update: update.delete(dns.name.from_text(name), "TXT", quoted(value)))


run(add, remove)
