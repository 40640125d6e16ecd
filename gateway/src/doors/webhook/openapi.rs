//! The OpenAPI documents: what `kubectl explain` shows, and what a generator of clients or of tests reads.

use serde_json::{Value, json};

use super::{PAYLOAD_GROUP, PAYLOAD_KIND, VERSION};

/// OpenAPI 2.0, which the API server merges with its own. It is empty: kubectl and all clients of this decade read version 3.
pub(super) fn v2(info: &Value) -> Value {
    json!({"swagger": "2.0", "info": info, "paths": {}})
}

/// OpenAPI 3.0 of the group: one resource, and one verb.
pub(super) fn v3(info: &Value, group: &str, solver: &str) -> Value {
    let payload = json!({"content": {"application/json": {"schema": {"$ref": format!("#/components/schemas/{PAYLOAD}")}}}});
    let mut body = payload.clone();
    body["required"] = json!(true);
    let mut responses = json!({"201": described(payload, "It is done, or the response says why it is not: `success` tells.")});
    for (code, description) in [
        ("400", "The body is not a ChallengePayload."),
        ("401", "Nobody knows who asks."),
        ("403", "Whoever asks may not."),
        ("408", "The body did not come in time."),
        ("413", "The body is too large."),
        ("415", "The body is not JSON."),
        ("503", "The server is stopping."),
    ] {
        responses[code] = json!({"description": description, "content": {"application/json": {"schema": {"type": "object"}}}});
    }
    json!({
        "openapi": "3.0.0",
        "info": info,
        "paths": {format!("/apis/{group}/{VERSION}/{solver}"): {"post": {
            "description": "Presents or cleans up the value of a DNS-01 challenge",
            "operationId": format!("create{PAYLOAD_KIND}"),
            "x-kubernetes-action": "post",
            "x-kubernetes-group-version-kind": kind(),
            "requestBody": body,
            "responses": responses,
        }}},
        "components": {"schemas": schemas()},
    })
}

/// The schema's name: cert-manager's Go package of the type, in the order that Kubernetes has it.
const PAYLOAD: &str = "io.cert-manager.acme.webhook.v1alpha1.ChallengePayload";

fn kind() -> Value {
    json!({"group": PAYLOAD_GROUP, "version": VERSION, "kind": PAYLOAD_KIND})
}

fn schemas() -> Value {
    json!({PAYLOAD: {
        "description": "What cert-manager asks of a DNS-01 webhook, and what it is told.",
        "type": "object",
        "required": ["request"],
        "x-kubernetes-group-version-kind": [kind()],
        "properties": {
            "apiVersion": string("The version of this object's schema. cert-manager leaves it out."),
            "kind": string("What this object is. cert-manager leaves it out."),
            "metadata": {"description": "Unused.", "type": "object"},
            "request": {
                "description": "What is asked. It is echoed in the answer.",
                "type": "object",
                "required": ["action", "key", "resourceNamespace", "resolvedFQDN"],
                "properties": {
                    "uid": string("Comes back in the response."),
                    "action": choice("Whether the value shall stand or go.", &["Present", "CleanUp"]),
                    "type": choice("The type of the challenge.", &["dns-01"]),
                    "dnsName": string("The name that the certificate is for, without `*.`."),
                    "key": string("The value of the TXT record."),
                    "resourceNamespace": string("The namespace of the Issuer, or that of cert-manager's own secrets for a ClusterIssuer."),
                    "resolvedFQDN": string("Where the value belongs, after CNAMEs if the Issuer follows them."),
                    "resolvedZone": string("The zone of that name."),
                    "allowAmbientCredentials": {"description": "Unused: credentials stand in acmegate's configuration.", "type": "boolean"},
                    "config": {"description": "The Issuer's `webhook.config`.", "nullable": true, "x-kubernetes-preserve-unknown-fields": true},
                },
            },
            "response": {
                "description": "What came of it. Absent in what is asked.",
                "type": "object",
                "required": ["uid", "success"],
                "properties": {
                    "uid": string("That of the request."),
                    "success": {"description": "Whether it is done.", "type": "boolean"},
                    "status": {
                        "description": "Why it is not done.",
                        "type": "object",
                        "properties": {"status": string("`Failure`."), "message": string("What happened, and what to do.")},
                    },
                },
            },
        },
    }})
}

fn string(description: &str) -> Value {
    json!({"description": description, "type": "string"})
}

fn choice(description: &str, values: &[&str]) -> Value {
    json!({"description": description, "type": "string", "enum": values})
}

fn described(mut response: Value, description: &str) -> Value {
    response["description"] = json!(description);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// kubectl goes from the path to the kind, and from the kind to the schema.
    #[test]
    fn the_resource_leads_to_its_schema() {
        let document = v3(&json!({}), "acme.corp.test", "mysolver");
        let post = &document["paths"]["/apis/acme.corp.test/v1alpha1/mysolver"]["post"];
        let reference = post["requestBody"]["content"]["application/json"]["schema"]["$ref"].as_str().unwrap();
        let schema = document.pointer(reference.strip_prefix('#').unwrap()).unwrap();
        assert_eq!(schema["x-kubernetes-group-version-kind"][0], post["x-kubernetes-group-version-kind"]);
        assert_eq!(post["responses"]["201"]["content"], post["requestBody"]["content"]);
        assert_eq!(post["x-kubernetes-group-version-kind"]["kind"], "ChallengePayload");
        assert_eq!(schema["properties"]["request"]["properties"]["action"]["enum"], json!(["Present", "CleanUp"]));
    }
}
