# What schemathesis is told beyond the OpenAPI document: cert-manager's protocol, and where names of the test's zone are.

import json
import os
import zlib

import schemathesis

ZONE = os.environ["ZONE"]


@schemathesis.hook
def map_body(context, body):
    """Makes three of four requests ones that could be met, but for what is wrong with the rest of them: those made at random never get to the store."""
    request = body.get("request") if isinstance(body, dict) else None
    if isinstance(request, dict) and isinstance(request.get("resolvedFQDN"), str):
        chance = zlib.crc32(request["resolvedFQDN"].encode(errors="replace"))
        if chance % 4:
            request["resolvedFQDN"] = f"l{chance % 50}.{ZONE}."
        if chance % 8 > 2:
            request["dnsName"] = "example.com"
            request.pop("config", None)
    return body


@schemathesis.check
def webhook_protocol(context, response, case):
    """A breach of one of these is an outage in cert-manager: a crash, a lost failure, a hot loop, or a worker that hangs."""
    assert "retry-after" not in response.headers, "cert-manager's client would repeat the call at once, ten times"
    if response.status_code != 201:
        return
    answer = response.json()
    outcome = answer.get("response")
    assert isinstance(outcome, dict), "an answer without a response crashes cert-manager"
    if outcome["success"]:
        assert "status" not in outcome
    else:
        assert outcome["status"]["message"], "a failure without a message counts as a success"
    request = json.loads(response.request.body)["request"]
    assert answer["request"] == request, "the request is echoed as it came"
    assert outcome["uid"] == (request.get("uid") or "")
