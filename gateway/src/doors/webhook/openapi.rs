//! The OpenAPI documents: what `kubectl explain` shows, and what a generator of clients or of tests reads.

use serde_json::{Value, json};

use super::{PAYLOAD_GROUP, PAYLOAD_KIND, VERSION};
use crate::ledger::MAX_VALUE;

/// OpenAPI 2.0, which the API server merges with its own. It is empty: kubectl and all clients of this decade read version 3.
pub(super) fn v2(info: &Value) -> Value {
    json!({"swagger": "2.0", "info": info, "paths": {}})
}

/// OpenAPI 3.0 of the group: one resource, and one verb.
pub(super) fn v3(info: &Value, group: &str, solver: &str) -> Value {
    json!({
        "openapi": "3.0.0",
        "info": info,
        "paths": {format!("/apis/{group}/{VERSION}/{solver}"): {"post": {
            "description": "Presents or cleans up the value of a DNS-01 challenge",
            "operationId": format!("create{PAYLOAD_KIND}"),
            "x-kubernetes-action": "post",
            "x-kubernetes-group-version-kind": kind(),
            "requestBody": {"required": true, "content": {JSON: {"schema": reference(PAYLOAD)}}},
            "responses": responses(),
        }}},
        "components": {"schemas": schemas(group)},
    })
}

const JSON: &str = "application/json";
const TEXT: &str = "text/plain";

// The names of the schemas: the Go packages of the types, in the order that Kubernetes has them.
const PAYLOAD: &str = "io.cert-manager.acme.webhook.v1alpha1.ChallengePayload";
const REQUEST: &str = "io.cert-manager.acme.webhook.v1alpha1.ChallengeRequest";
const RESPONSE: &str = "io.cert-manager.acme.webhook.v1alpha1.ChallengeResponse";
/// Not a type of its own in Go: what is certain of a payload that is an answer.
const ANSWER: &str = "io.cert-manager.acme.webhook.v1alpha1.ChallengePayloadAnswer";
const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";

fn kind() -> Value {
    json!({"group": PAYLOAD_GROUP, "version": VERSION, "kind": PAYLOAD_KIND})
}

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

fn responses() -> Value {
    let status = || json!({JSON: {"schema": reference(STATUS)}});
    // What a listener says when the door behind it did not.
    let text = || json!({"schema": {"type": "string"}});
    let mut unavailable = status();
    unavailable[TEXT] = text();
    let mut responses = json!({
        "201": {
            "description": "It is done, or the response says why it is not: `success` tells.",
            "content": {JSON: {"schema": reference(ANSWER)}},
        },
        "431": {"description": "The header is too large."},
        "500": {"description": "acmegate is defective; its log says how.", "content": {TEXT: text()}},
        "503": {
            "description": "It cannot be found out now who asks or what they may do, or the request hung; acmegate's log says why.",
            "content": unavailable,
        },
    });
    for (code, description) in [
        ("400", "The body is not a ChallengePayload."),
        ("401", "Nobody knows who asks."),
        ("403", "Whoever asks may not."),
        ("408", "The body did not come in time."),
        ("413", "The body is too large."),
        ("415", "The body is not JSON."),
    ] {
        responses[code] = json!({"description": description, "content": status()});
    }
    responses
}

fn schemas(group: &str) -> Value {
    let versions = [PAYLOAD_GROUP, group].map(|group| format!("{group}/{VERSION}"));
    json!({
        PAYLOAD: {
            "description": "What cert-manager asks of a DNS-01 webhook, and what it is told.",
            "type": "object",
            "required": ["request"],
            "x-kubernetes-group-version-kind": [kind()],
            "properties": {
                "apiVersion": choice("The version of this object's schema. cert-manager leaves it out.", &versions),
                "kind": choice("What this object is. cert-manager leaves it out.", &[PAYLOAD_KIND]),
                "metadata": {"description": "Unused.", "type": "object"},
                "request": {"description": "What is asked. It is echoed in the answer.", "allOf": [reference(REQUEST)]},
                "response": {"description": "What came of it. Absent in what is asked.", "allOf": [reference(RESPONSE)]},
            },
        },
        REQUEST: {
            "description": "One value of one DNS name, to stand or to go. A request that breaks these rules is answered, too: with 201, and with a response that says \
                            which. To clean up what cannot have been presented succeeds.",
            "type": "object",
            "required": ["action", "key", "resourceNamespace", "resolvedFQDN"],
            "properties": {
                "uid": string("Comes back in the response."),
                "action": choice("Whether the value shall stand or go.", &["Present", "CleanUp"]),
                "type": choice("The type of the challenge.", &["dns-01"]),
                "dnsName": string("The name that the certificate is for, without `*.`."),
                "key": {
                    "description": "The value of the TXT record: printable ASCII.",
                    "type": "string", "minLength": 1, "maxLength": MAX_VALUE, "pattern": "^[ -~]+$",
                },
                "resourceNamespace": {
                    "description": "The namespace of the Issuer, or that of cert-manager's own secrets for a ClusterIssuer.",
                    "type": "string", "minLength": 1, "maxLength": 63, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
                },
                "resolvedFQDN": string("Where the value belongs, after CNAMEs if the Issuer follows them."),
                "resolvedZone": string("The zone of that name. Unused: acmegate finds it itself."),
                "allowAmbientCredentials": {"description": "Unused: credentials stand in acmegate's configuration.", "type": "boolean"},
                "config": {
                    "description": "The Issuer's `webhook.config`.",
                    "type": "object", "nullable": true, "x-kubernetes-preserve-unknown-fields": true,
                },
            },
        },
        RESPONSE: {
            "description": "What came of a request.",
            "type": "object",
            "required": ["uid", "success"],
            "properties": {
                "uid": string("That of the request."),
                "success": {"description": "Whether it is done.", "type": "boolean"},
                "status": {
                    "description": "Why it is not done.",
                    "type": "object",
                    "required": ["status", "message"],
                    "properties": {
                        "status": choice("`Failure`.", &["Failure"]),
                        "message": {
                            "description": "What happened, and what to do: the same text each time.",
                            "type": "string", "minLength": 1,
                        },
                    },
                },
            },
        },
        ANSWER: {
            "description": "A ChallengePayload with its response.",
            "type": "object",
            "required": ["apiVersion", "kind", "request", "response"],
            "properties": {
                "apiVersion": choice("cert-manager's.", &versions[..1]),
                "kind": choice("As in the request.", &[PAYLOAD_KIND]),
                "request": {
                    "description": "What was asked, as it came, right or wrong.",
                    "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                },
                "response": reference(RESPONSE),
            },
        },
        STATUS: {
            "description": "Why a request was not even read.",
            "type": "object",
            "required": ["apiVersion", "kind", "status", "message", "reason", "code"],
            "properties": {
                "apiVersion": choice("Always the same.", &["v1"]),
                "kind": choice("Always the same.", &["Status"]),
                "metadata": {"description": "Empty.", "type": "object"},
                "status": choice("Always the same.", &["Failure"]),
                "message": {"description": "What happened, and what to do: the same text each time.", "type": "string", "minLength": 1},
                "reason": string("Kubernetes' own word for the code, such as `BadRequest`."),
                "code": {"description": "The HTTP status.", "type": "integer", "format": "int32"},
            },
        },
    })
}

fn string(description: &str) -> Value {
    json!({"description": description, "type": "string"})
}

fn choice(description: &str, values: &[impl AsRef<str>]) -> Value {
    let values: Vec<_> = values.iter().map(AsRef::as_ref).collect();
    json!({"description": description, "type": "string", "enum": values})
}

#[cfg(test)]
mod tests {
    use super::*;

    /// kubectl goes from the path to the kind, and from the kind to the schema.
    #[test]
    fn the_resource_leads_to_its_schema() {
        let document = v3(&json!({}), "acme.corp.test", "mysolver");
        let post = &document["paths"]["/apis/acme.corp.test/v1alpha1/mysolver"]["post"];
        assert_eq!(post["x-kubernetes-group-version-kind"]["kind"], "ChallengePayload");
        let schema = followed(&document, &post["requestBody"]["content"]["application/json"]["schema"]);
        assert_eq!(schema["x-kubernetes-group-version-kind"][0], post["x-kubernetes-group-version-kind"]);
        assert_eq!(schema["properties"]["apiVersion"]["enum"][1], "acme.corp.test/v1alpha1");
        let request = followed(&document, &schema["properties"]["request"]["allOf"][0]);
        assert_eq!(request["properties"]["action"]["enum"], json!(["Present", "CleanUp"]));
    }

    /// cert-manager takes an answer without a response for granted, and crashes.
    #[test]
    fn every_answer_has_a_response() {
        let document = v3(&json!({}), "acme.corp.test", "mysolver");
        let responses = &document["paths"]["/apis/acme.corp.test/v1alpha1/mysolver"]["post"]["responses"];
        let answer = followed(&document, &responses["201"]["content"]["application/json"]["schema"]);
        assert!(answer["required"].as_array().unwrap().contains(&json!("response")));
        for code in ["400", "401", "403", "408", "413", "415", "503"] {
            let status = followed(&document, &responses[code]["content"]["application/json"]["schema"]);
            assert_eq!(status["properties"]["kind"]["enum"], json!(["Status"]), "{code}");
        }
    }

    fn followed<'a>(document: &'a Value, schema: &Value) -> &'a Value {
        document.pointer(schema["$ref"].as_str().unwrap().strip_prefix('#').unwrap()).unwrap()
    }
}
