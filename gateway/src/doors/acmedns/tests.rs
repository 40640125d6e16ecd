//! The API from the client's side of a real socket, over the real store: what clients send byte by byte, and what the original answers.

use super::open;
use crate::{
    doors::testing::{Bench, ZONE},
    web::{
        Limits,
        testing::{Reply, Site},
    },
};

const TXT: &str = "LPsIwTo7o8BoG0-vjCyGQGBWSVIPxI-i_X336eUOQZo";
const FORBIDDEN: &str = "401 Unauthorized\ncontent-length: 22\ncontent-type: application/json\n\n{\"error\": \"forbidden\"}";
const NOT_FOUND: &str =
    "404 Not Found\ncontent-length: 19\ncontent-type: text/plain; charset=utf-8\nx-content-type-options: nosniff\n\n404 page not found\n";

/// The door, served.
struct Door {
    bench: Bench,
    site: Site,
}

impl Door {
    async fn open(settings: &str) -> Self {
        Self::serve(Bench::open(&section(settings))).await
    }

    async fn serve(mut bench: Bench) -> Self {
        let config = bench.engine.config.acmedns.clone().unwrap();
        let router = open(&bench.engine, &config, &mut bench.registry).await.unwrap();
        Self { site: Site::start(router, Limits::default(), None), bench }
    }

    async fn post(&self, path: &str, headers: &str, body: &str) -> Reply {
        self.site.ask(&format!("POST {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())).await
    }

    async fn register(&self, body: &str) -> Account {
        let reply = self.post("/register", "", body).await;
        assert_eq!(reply.status, "201 Created", "{reply:?}");
        Account(serde_json::from_str(&reply.body).unwrap())
    }

    async fn update(&self, account: &Account, txt: &str) -> Reply {
        self.post("/update", &account.headers(), &account.body(txt)).await
    }
}

fn section(settings: &str) -> String {
    format!("acmedns:\n  listen: \"127.0.0.1:0\"\n{}", settings.lines().map(|line| format!("  {line}\n")).collect::<String>())
}

struct Account(serde_json::Value);

impl Account {
    fn get(&self, key: &str) -> &str {
        self.0[key].as_str().unwrap()
    }

    fn headers(&self) -> String {
        format!("X-Api-User: {}\r\nX-Api-Key: {}\r\n", self.get("username"), self.get("password"))
    }

    fn body(&self, txt: &str) -> String {
        format!("{{\"subdomain\":\"{}\",\"txt\":\"{txt}\"}}", self.get("subdomain"))
    }
}

#[tokio::test]
async fn a_registration_is_one_line_in_the_order_of_the_original() {
    let door = Door::open("").await;
    let reply = door.post("/register", "", "").await;
    let account = Account(serde_json::from_str(&reply.body).unwrap());
    let (username, password, subdomain) = (account.get("username"), account.get("password"), account.get("subdomain"));
    let expected = format!(
        "{{\"username\":\"{username}\",\"password\":\"{password}\",\"fulldomain\":\"{subdomain}.{ZONE}\",\"subdomain\":\"{subdomain}\",\"allowfrom\":[]}}"
    );
    assert_eq!(reply.text(), format!("201 Created\ncontent-length: {}\ncontent-type: application/json\n\n{expected}", expected.len()));
    for uuid in [username, subdomain] {
        let parsed = uuid::Uuid::try_parse(uuid).unwrap();
        assert_eq!((parsed.get_version_num(), parsed.to_string().as_str()), (4, uuid));
    }
    assert_ne!(username, subdomain);
    assert!(password.len() == 40 && password.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{password}");
}

#[tokio::test]
async fn registration_bodies() {
    let door = Door::open("").await;
    for body in ["", "{}", "null", "null\n", " {} ", "{\"unknown\":[1,{}]}", "{\"AllowFrom\":null}", "{\"allowfrom\":[]}"] {
        let account = door.register(body).await;
        assert_eq!(account.0["allowfrom"], serde_json::json!([]), "{body:?}");
    }
    let account = door.register(r#"{"ALLOWFROM": ["192.168.100.1/24","[2002:c0a8:2a00::]/40"]}"#).await;
    assert_eq!(account.0["allowfrom"], serde_json::json!(["192.168.100.1/24", "2002:c0a8:2a00::/40"]));
    for body in
        [" ", "{", "[]", "5", "\"text\"", "{} {}", "{\"allowfrom\":\"10.0.0.0/8\"}", "{\"allowfrom\":[5]}", "{\"subdomain\":5}", "a=b"]
    {
        let reply = door.post("/register", "", body).await;
        let expected = "400 Bad Request\ncontent-length: 35\ncontent-type: application/json\n\n{\"error\": \"malformed_json_payload\"}";
        assert_eq!(reply.text(), expected, "{body:?}");
    }
    for net in ["192.168.100.1", "1.2.3.4/33", "", "example.com/8", "::/129"] {
        let reply = door.post("/register", "", &format!("{{\"allowfrom\":[\"10.0.0.0/8\",\"{net}\"]}}")).await;
        let expected = "400 Bad Request\ncontent-length: 35\ncontent-type: application/json\n\n{\"error\": \"invalid_allowfrom_cidr\"}";
        assert_eq!(reply.text(), expected, "{net:?}");
    }
}

/// What clients were seen to send, byte by byte; `HOST`, `USER`, `KEY` and `SUB` are filled in, and so is the body's length.
#[tokio::test]
async fn clients_work_unmodified() {
    let door = Door::open("prefixes: [/, /base]").await;
    let (goacmedns, null) = ("goacmedns (linux; amd64)", "null\n");
    let registrations = [
        // lego 4 and 5, Traefik, Terraform
        format!("POST /register HTTP/1.1\r\nHost: HOST\r\nUser-Agent: {goacmedns}\r\nContent-Length: LEN\r\nAccept: application/json\r\nContent-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n{null}"),
        format!("POST /register HTTP/1.1\r\nHost: HOST\r\nUser-Agent: {goacmedns}\r\nContent-Length: LEN\r\nContent-Type: application/json\r\n\r\n{{\"allowfrom\":[\"127.0.0.0/8\"]}}\n"),
        // acme.sh
        "POST /register HTTP/1.1\r\nHost: HOST\r\nUser-Agent: acme.sh/3.1.4 (https://github.com/acmesh-official/acme.sh)\r\nAccept: */*\r\nContent-Length: LEN\r\n\r\n".to_owned(),
        // pyacmedns
        "POST /register HTTP/1.1\r\nHost: HOST\r\nUser-Agent: python-requests/2.32.3\r\nAccept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: keep-alive\r\nContent-Length: LEN\r\n\r\n{\"allowfrom\": [\"127.0.0.1/32\"]}".to_owned(),
        // Posh-ACME, with a base path and Basic authentication
        "POST /base/register HTTP/1.1\r\nHost: HOST\r\nUser-Agent: Mozilla/5.0 PowerShell/7.4\r\nAuthorization: Basic dXNlcjpwYXNz\r\nContent-Type: application/json\r\nContent-Length: LEN\r\n\r\n{}".to_owned(),
        // simple-acme
        "POST /register HTTP/1.1\r\nHost: HOST\r\nAuthorization: Basic dXNlcjpwYXNz\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: LEN\r\n\r\n".to_owned(),
    ];
    let updates = [
        format!(
            "POST /update HTTP/1.1\r\nHost: HOST\r\nUser-Agent: {goacmedns}\r\nContent-Length: LEN\r\nAccept: application/json\r\nContent-Type: application/json\r\nX-Api-Key: KEY\r\nX-Api-User: USER\r\nAccept-Encoding: gzip\r\n\r\n{{\"subdomain\":\"SUB\",\"txt\":\"{TXT}\"}}\n"
        ),
        // Caddy
        format!(
            "POST /update HTTP/1.1\r\nHost: HOST\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: LEN\r\nContent-Type: application/json\r\nX-Api-Key: KEY\r\nX-Api-User: USER\r\n\r\n{{\"subdomain\":\"SUB\",\"txt\":\"{TXT}\"}}"
        ),
        // acme.sh
        format!(
            "POST /update HTTP/1.1\r\nHost: HOST\r\nUser-Agent: acme.sh/3.1.4\r\nAccept: */*\r\nX-Api-User: USER\r\nX-Api-Key: KEY\r\nContent-Length: LEN\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n{{\"subdomain\":\"SUB\", \"txt\": \"{TXT}\"}}"
        ),
        // pyacmedns
        format!(
            "POST /update HTTP/1.1\r\nHost: HOST\r\nUser-Agent: python-requests/2.32.3\r\nX-Api-User: USER\r\nX-Api-Key: KEY\r\nContent-Type: application/json\r\nContent-Length: LEN\r\n\r\n{{\"subdomain\": \"SUB\", \"txt\": \"{TXT}\"}}"
        ),
        // Posh-ACME
        format!(
            "POST /base/update HTTP/1.1\r\nHost: HOST\r\nAuthorization: Basic dXNlcjpwYXNz\r\nX-Api-User: USER\r\nX-Api-Key: KEY\r\nContent-Type: application/json\r\nContent-Length: LEN\r\n\r\n{{\r\n  \"subdomain\": \"SUB\",\r\n  \"txt\": \"{TXT}\"\r\n}}"
        ),
        // None at all of what could be left out
        format!(
            "POST //update HTTP/1.1\r\nHost: HOST\r\nx-api-user: USER\r\nx-api-key: KEY\r\nContent-Length: LEN\r\n\r\n{{\"txt\":\"{TXT}\",\"SubDomain\":\"SUB\"}}trailing"
        ),
    ];
    let filled = |request: &str| {
        let request = request.replace("HOST", &door.site.address.to_string());
        let length = request.split_once("\r\n\r\n").unwrap().1.len().to_string();
        request.replace("LEN", &length)
    };
    for registration in &registrations {
        let reply = door.site.ask(&filled(registration)).await;
        assert_eq!((&*reply.status, reply.header("content-type")), ("201 Created", "application/json"), "{registration}");
        assert!(reply.body.starts_with('{') && !reply.body.contains('\n'), "{}", reply.body);
        let account = Account(serde_json::from_str(&reply.body).unwrap());
        for update in &updates {
            let request = update
                .replace("USER", account.get("username"))
                .replace("KEY", account.get("password"))
                .replace("SUB", account.get("subdomain"));
            let reply = door.site.ask(&filled(&request)).await;
            let expected = format!("200 OK\ncontent-length: 54\ncontent-type: application/json\n\n{{\"txt\": \"{TXT}\"}}");
            assert_eq!(reply.text(), expected, "{update}");
        }
        assert_eq!(door.bench.txt(account.get("fulldomain")), [TXT]);
    }
}

#[tokio::test]
async fn updates_are_checked_in_the_order_of_the_original() {
    let door = Door::open("").await;
    let account = door.register("").await;
    let stranger = door.register("").await;
    let elsewhere = door.register("{\"allowfrom\":[\"192.0.2.0/24\"]}").await;
    let (user, key) = (account.get("username"), account.get("password"));
    let good = account.body(TXT);
    let headers = |user: &str, key: &str| format!("X-Api-User: {user}\r\nX-Api-Key: {key}\r\n");
    let forbidden = [
        (String::new(), &good),
        (headers("", key), &good),
        (headers("nobody", key), &good),
        (headers(user, ""), &good),
        (headers(user, &key[1..]), &good),
        (headers(user, &format!("{key}A")), &good),
        (headers(user, &format!("{}+", &key[1..])), &good),
        (headers(user, &"A".repeat(40)), &good),
        (headers(user, stranger.get("password")), &good),
        (headers(&uuid::Uuid::new_v4().to_string(), key), &good),
        (headers(account.get("subdomain"), key), &good),
        (stranger.headers(), &good),
        (elsewhere.headers(), &elsewhere.body(TXT)),
        // A body that is wrong in two ways is forbidden first.
        (stranger.headers(), &account.body("short")),
        (elsewhere.headers(), &elsewhere.body("short")),
        (account.headers(), &String::new()),
        (account.headers(), &"null".to_owned()),
        (account.headers(), &"{}".to_owned()),
        (account.headers(), &good[..good.len() - 1].to_owned()),
        (account.headers(), &good.to_uppercase().replace("SUBDOMAIN", "subdomain")),
        (account.headers(), &format!("{{\"subdomain\":5,\"txt\":\"{TXT}\"}}")),
        (account.headers(), &format!("subdomain={}&txt={TXT}", account.get("subdomain"))),
    ];
    for (headers, body) in forbidden {
        assert_eq!(door.post("/update", &headers, body).await.text(), FORBIDDEN, "{headers}{body}");
    }
    for txt in ["", "short", &TXT[1..], &format!("{TXT}A"), &format!("{}=", &TXT[1..]), &format!("{}é", &TXT[2..])] {
        let reply = door.update(&account, txt).await;
        assert_eq!(
            reply.text(),
            "400 Bad Request\ncontent-length: 20\ncontent-type: application/json\n\n{\"error\": \"bad_txt\"}",
            "{txt}"
        );
    }
    // A value of the wrong type is no value.
    let mistyped = format!("{{\"subdomain\":\"{}\",\"txt\":5}}", account.get("subdomain"));
    assert_eq!(door.post("/update", &account.headers(), &mistyped).await.body, "{\"error\": \"bad_txt\"}");
    assert_eq!(door.bench.txt(account.get("fulldomain")), [""; 0]);
    // Every form of UUID that the original takes.
    for user in [user.to_uppercase(), user.replace('-', ""), format!("urn:uuid:{user}"), format!("{{{user}}}")] {
        assert_eq!(door.post("/update", &headers(&user, key), &good).await.status, "200 OK", "{user}");
    }
    let counted = [
        "acmegate_acmedns_requests_total{route=\"register\",outcome=\"ok\"} 3",
        "acmegate_acmedns_requests_total{route=\"update\",outcome=\"forbidden\"} 22",
        "acmegate_acmedns_requests_total{route=\"update\",outcome=\"ok\"} 4",
        "acmegate_acmedns_requests_total{route=\"update\",outcome=\"refused\"} 7",
    ];
    assert_eq!(door.bench.metrics("acmegate_acmedns_requests_total"), counted);
    assert_eq!(door.bench.metrics("acmegate_acmedns_accounts"), ["acmegate_acmedns_accounts 3"]);
}

#[tokio::test]
async fn the_newest_values_stand() {
    let door = Door::open("values: 3").await;
    let account = door.register("").await;
    let value = |number: u32| format!("{number:043}");
    for number in [1, 2, 3, 4, 5, 3] {
        assert_eq!(door.update(&account, &value(number)).await.status, "200 OK");
    }
    assert_eq!(door.bench.txt(account.get("fulldomain")), [value(3), value(4), value(5)]);
}

#[tokio::test]
async fn paths_and_methods() {
    let door = Door::open("").await;
    let ask = async |method: &str, path: &str| {
        door.site.ask(&format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")).await.text()
    };
    for path in ["/", "/x", "/register/x", "/x/update", "/Update", "/health.html"] {
        assert_eq!(ask("POST", path).await, NOT_FOUND, "{path}");
    }
    let method_not_allowed = |allow: &str| {
        format!(
            "405 Method Not Allowed\nallow: {allow}\ncontent-length: 19\ncontent-type: text/plain; charset=utf-8\nx-content-type-options: nosniff\n\nMethod Not Allowed\n"
        )
    };
    for (method, path, allow) in [
        ("GET", "/register", "OPTIONS, POST"),
        ("PUT", "/update", "OPTIONS, POST"),
        ("DELETE", "/update/", "OPTIONS, POST"),
        ("POST", "/health", "GET, OPTIONS"),
    ] {
        assert_eq!(ask(method, path).await, method_not_allowed(allow), "{method} {path}");
    }
    assert_eq!(ask("OPTIONS", "/update").await, "200 OK\nallow: OPTIONS, POST\ncontent-length: 0\n\n");
    for path in ["/health", "/health/", "/health?x=y"] {
        assert_eq!(ask("GET", path).await, "200 OK\ncontent-length: 0\n\n", "{path}");
    }
}

#[tokio::test]
async fn accounts_outlive_a_restart() {
    let door = Door::open("").await;
    let account = door.register("{\"allowfrom\":[\"127.0.0.0/8\"]}").await;
    assert_eq!(door.update(&account, TXT).await.status, "200 OK");
    let Door { bench, site } = door;
    site.stop.cancel();
    site.served.await.unwrap();
    let Bench { engine, folder, .. } = bench;
    engine.close().await;
    drop(engine);
    let door = Door::serve(Bench::reopen(folder, &section("registration: closed"))).await;
    assert_eq!(door.bench.txt(account.get("fulldomain")), [TXT]);
    assert_eq!(door.update(&account, &"x".repeat(43)).await.status, "200 OK");
    // The key does not stand in the store.
    for file in std::fs::read_dir(door.bench.folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap_or_default();
        assert!(!bytes.windows(40).any(|window| window == account.get("password").as_bytes()));
    }
}

#[tokio::test]
async fn closed_registration_is_no_route() {
    let door = Door::open("registration: closed").await;
    for method in ["GET", "POST"] {
        let reply = door.site.ask(&format!("{method} /register HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")).await;
        assert_eq!(reply.text(), NOT_FOUND);
    }
}

#[tokio::test]
async fn registration_by_token() {
    let folder = tempfile::TempDir::new().unwrap();
    let tokens = folder.path().join("tokens");
    std::fs::write(&tokens, "first-token-of-the-test\nsecond-token-of-the-test\n").unwrap();
    let door = Door::open(&format!("registration: token\ntokens_file: {}\nprefixes: [/, /base]", tokens.display())).await;
    for (path, headers) in [
        ("/register", ""),
        ("/wrong/register", ""),
        ("/register", "Authorization: Bearer wrong\r\n"),
        ("/register", "Authorization: Bearer first-token-of-the-tes\r\n"),
        ("/register", "Authorization: Basic ZmlyczpzZWNvbmQ=\r\n"),
        ("/register", "Authorization: Digest first-token-of-the-test\r\n"),
    ] {
        assert_eq!(door.post(path, headers, "").await.text(), FORBIDDEN, "{path} {headers}");
    }
    let basic = data_encoding::BASE64.encode(b"anybody:second-token-of-the-test");
    for (path, headers) in [
        ("/first-token-of-the-test/register", String::new()),
        ("/base/second-token-of-the-test/register/", String::new()),
        ("/%66irst-token-of-the-test/register", String::new()),
        ("/register", "Authorization: bearer first-token-of-the-test\r\n".to_owned()),
        ("/base/register", format!("Authorization: Basic {basic}\r\n")),
    ] {
        let reply = door.post(path, &headers, "").await;
        assert_eq!(reply.status, "201 Created", "{path} {headers}");
        // Clients have one base URL for all; a token that is withdrawn later must not stop them.
        let account = Account(serde_json::from_str(&reply.body).unwrap());
        for base in ["", "/first-token-of-the-test", "/base/withdrawn"] {
            let reply = door.post(&format!("{base}/update"), &account.headers(), &account.body(TXT)).await;
            assert_eq!(reply.status, "200 OK", "{base}");
        }
    }
    assert_eq!(door.site.ask("GET /second-token-of-the-test/health HTTP/1.1\r\nHost: x\r\n\r\n").await.status, "200 OK");
    assert_eq!(door.post("/a/b/register", "", "").await.text(), NOT_FOUND);
}

#[tokio::test]
async fn allowfrom_sees_through_trusted_proxies_only() {
    let door = Door::open("trusted_proxies: [127.0.0.1/32, 192.0.2.0/24]\nclient_ip_header: X-Forwarded-For").await;
    let account = door.register("{\"allowfrom\":[\"203.0.113.0/24\",\"[2001:db8::]/32\"]}").await;
    for (header, status) in [
        ("", "401 Unauthorized"),
        ("X-Forwarded-For: 203.0.113.9\r\n", "200 OK"),
        ("X-Forwarded-For: 198.51.100.1, ::ffff:203.0.113.9, 192.0.2.7\r\n", "200 OK"),
        ("X-Forwarded-For: 2001:db8::5\r\n", "200 OK"),
        // What the client itself wrote in front is not believed.
        ("X-Forwarded-For: 203.0.113.9, 198.51.100.1\r\n", "401 Unauthorized"),
        ("X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-For: 198.51.100.1\r\n", "401 Unauthorized"),
        ("X-Forwarded-For: 203.0.113.9, nonsense\r\n", "401 Unauthorized"),
        ("X-Real-IP: 203.0.113.9\r\n", "401 Unauthorized"),
    ] {
        let reply = door.post("/update", &format!("{}{header}", account.headers()), &account.body(TXT)).await;
        assert_eq!(reply.status, status, "{header}");
    }
}

#[tokio::test]
async fn browsers_are_told_which_origins_may_call() {
    let door = Door::open("cors_origins: [\"https://panel.example.org\"]").await;
    let preflight = |origin: &str| {
        format!(
            "OPTIONS /update HTTP/1.1\r\nHost: x\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: x-api-user\r\n\r\n"
        )
    };
    let reply = door.site.ask(&preflight("https://panel.example.org")).await;
    assert_eq!(reply.header("access-control-allow-origin"), "https://panel.example.org");
    assert!(reply.header("access-control-allow-headers").contains("x-api-key"), "{reply:?}");
    assert_eq!(door.site.ask(&preflight("https://other.example.org")).await.header("access-control-allow-origin"), "");
    let reply = door.post("/register", "Origin: https://panel.example.org\r\n", "").await;
    assert_eq!((&*reply.status, reply.header("access-control-allow-origin")), ("201 Created", "https://panel.example.org"));
}

#[tokio::test]
async fn large_and_slow_bodies_are_refused_in_json() {
    let door = Door::open("").await;
    let account = door.register("").await;
    let large = "x".repeat(65_537);
    let expected = "413 Payload Too Large\nconnection: close\ncontent-length: 30\ncontent-type: application/json\n\n{\"error\": \"request_too_large\"}";
    assert_eq!(door.post("/register", "", &large).await.text(), expected);
    assert_eq!(door.post("/update", &account.headers(), &large).await.text(), expected);
    // Who is not let in is told so without a look at the body.
    assert_eq!(door.post("/update", "", &large).await.status, "401 Unauthorized");

    let config = door.bench.engine.config.acmedns.clone().unwrap();
    let router = open(&door.bench.engine, &config, &mut prometheus_client::registry::Registry::default()).await.unwrap();
    let site = Site::start(router, Limits { body: std::time::Duration::from_millis(50), ..Limits::default() }, None);
    let reply = site.ask("POST /register HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{").await;
    let expected =
        "408 Request Timeout\nconnection: close\ncontent-length: 28\ncontent-type: application/json\n\n{\"error\": \"request_timeout\"}";
    assert_eq!(reply.text(), expected);
}

#[tokio::test]
async fn a_store_that_fails_is_a_db_error_and_nothing_more() {
    let door = Door::open("").await;
    let account = door.register("").await;
    door.bench.engine.close().await;
    let expected = "500 Internal Server Error\ncontent-length: 21\ncontent-type: application/json\n\n{\"error\": \"db_error\"}";
    assert_eq!(door.update(&account, TXT).await.text(), expected);
    assert_eq!(door.post("/register", "", "").await.text(), expected);
    assert_eq!(door.bench.metrics("acmegate_acmedns_accounts"), ["acmegate_acmedns_accounts 1"]);
}
