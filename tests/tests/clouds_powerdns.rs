//! The emulator of PowerDNS' API answers what Debian's own server answers, request by request, in what both know.
//!
//! PowerDNS has no client of its own that could judge it; but there is the server.

#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use acmegate_tests::{
    addresses::Address,
    bind,
    pdns::{API_KEY, Pdns},
    updates::Updates,
};
use emulators::{Nameservers, powerdns::PowerDns};
use reqwest::{Client, Method};
use serde_json::{Value, json};

const ZONE: &str = "example.test";

/// What a server says: its status, and its words or, of a zone, the TXT and CNAME RRsets.
async fn said(base: &str, key: &str, method: &Method, path: &str, body: Option<&Value>) -> (u16, Value) {
    let mut request = Client::new().request(method.clone(), format!("{base}/api/v1/{path}")).header("X-API-Key", key);
    if let Some(body) = body {
        request = request.json(body);
    }
    let reply = request.send().await.expect("an answer");
    let status = reply.status().as_u16();
    let text = reply.text().await.expect("text");
    let shown = match serde_json::from_str::<Value>(&text) {
        Ok(Value::Object(mut zone)) if zone.contains_key("rrsets") => {
            let rrsets = zone.remove("rrsets").unwrap_or_default();
            let mut rrsets: Vec<Value> = rrsets.as_array().cloned().unwrap_or_default();
            rrsets.retain(|rrset| rrset["type"] == "TXT" || rrset["type"] == "CNAME");
            rrsets.iter_mut().for_each(settle);
            rrsets.sort_by_key(|rrset| format!("{} {}", rrset["name"], rrset["type"]));
            json!({"id": zone["id"], "kind": zone["kind"], "name": zone["name"], "rrsets": rrsets})
        }
        Ok(Value::Array(zones)) => zones.iter().map(|zone| json!([zone["id"], zone["kind"], zone["name"]])).collect(),
        Ok(Value::Object(server)) if server.contains_key("version") => json!([server["daemon_type"], server["id"]]),
        Ok(other) => other,
        Err(_) => text.into(),
    };
    (status, shown)
}

/// The order of records is a database's own; the time and the author of a comment are not what it is about.
fn settle(rrset: &mut Value) {
    if let Some(records) = rrset["records"].as_array_mut() {
        records.sort_by_key(|record| record["content"].to_string());
    }
    for comment in rrset["comments"].as_array_mut().into_iter().flatten() {
        *comment = comment["content"].clone();
    }
}

fn patch(name: &str, kind: &str, more: Value) -> Option<Value> {
    let mut rrset = json!({"name": name, "type": kind, "ttl": 300, "changetype": "REPLACE"});
    let (Value::Object(all), Value::Object(more)) = (&mut rrset, more) else { panic!("no maps") };
    all.extend(more);
    Some(json!({"rrsets": [rrset]}))
}

fn records(contents: &[(&str, bool)]) -> Value {
    let records: Vec<Value> = contents.iter().map(|(content, disabled)| json!({"content": content, "disabled": disabled})).collect();
    json!({"records": records})
}

#[tokio::test]
async fn the_emulator_answers_as_the_server() {
    let address = Address::reserve();
    let zones = [(ZONE, bind::zone(ZONE, &address))];
    let real = Pdns::start(address, &zones, &Updates::default()).await;
    let emulator = PowerDns::start(API_KEY, Nameservers::none()).await;
    emulator.set_version("4.7.3");
    emulator.add_zone(ZONE, "Native");

    let zone = "servers/localhost/zones/example.test.";
    let one = "servers/localhost/zones/example.test.?rrset_name=a.example.test.";
    let with_comments = {
        let mut body = records(&[("\"one\"", false), ("\"two\" \"three\"", false), (r#""quo\"te \\ \200""#, false), ("\"off\"", true)]);
        body["comments"] = json!([{"content": "why", "account": ""}]);
        body
    };
    let (get, change, put) = (Method::GET, Method::PATCH, Method::PUT);
    let a = "a.example.test.";
    let requests: Vec<(&Method, &str, Option<Value>)> = vec![
        (&get, "servers/localhost", None),
        (&get, "servers/elsewhere", None),
        (&get, "servers/localhost/zones", None),
        (&get, "servers/localhost/zones?zone=example.test.", None),
        (&get, "servers/localhost/zones?zone=other.test.", None),
        (&get, "servers/localhost/zones?zone=example.test", None),
        (&get, "servers/localhost/zones/other.test.", None),
        (&change, "servers/localhost/zones/other.test.", patch(a, "TXT", records(&[("\"one\"", false)]))),
        (&change, zone, patch(a, "TXT", with_comments)),
        (&get, zone, None),
        // This server hides what is disabled of one name.
        (&get, one, None),
        (&change, zone, patch(a, "TXT", records(&[("\"one\"", false), ("\"one\"", true)]))),
        (&change, zone, patch(a, "TXT", records(&[("unquoted", false)]))),
        (&change, zone, patch("a.example.test", "TXT", records(&[("\"one\"", false)]))),
        (&change, zone, patch("a.example.org.", "TXT", records(&[("\"one\"", false)]))),
        (&change, zone, patch(a, "CNAME", records(&[("target.example.org.", false)]))),
        (&change, zone, patch("c.example.test.", "CNAME", records(&[("target.example.org.", false)]))),
        (&change, zone, patch("c.example.test.", "TXT", records(&[("\"one\"", false)]))),
        (&change, zone, patch("*.example.test.", "TXT", records(&[("\"wild\"", false)]))),
        // Without the key the comments stay; with the last record they go.
        (&change, zone, patch(a, "TXT", records(&[("\"one\"", false), ("\"off\"", true)]))),
        (&get, zone, None),
        (&change, zone, patch(a, "TXT", records(&[("\"off\"", true)]))),
        (&get, one, None),
        (&change, zone, patch(a, "TXT", records(&[]))),
        (&get, zone, None),
        (&put, "servers/localhost/zones/other.test./notify", None),
    ];
    for (method, path, body) in requests {
        let expected = said(&real.api(), API_KEY, method, path, body.as_ref()).await;
        let given = said(&emulator.url(), API_KEY, method, path, body.as_ref()).await;
        assert_eq!(given, expected, "{method} {path} {body:?}");
    }
    assert_eq!(said(&emulator.url(), "wrong", &get, zone, None).await, said(&real.api(), "wrong", &get, zone, None).await);
}
