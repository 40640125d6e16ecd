//! PowerDNS Authoritative Server on SQLite: dynamic updates, and its HTTP API.

use std::{net::SocketAddr, path::PathBuf, process::Command};

use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::{
    addresses::Address,
    dns,
    process::{Process, run},
    temporary_folder,
    updates::Updates,
    wait::LIMIT,
    write,
};

/// The key of the API, as the server starts with it.
pub const API_KEY: &str = "pdns-api-key-of-the-tests";
/// The port of the API.
const API: u16 = 8081;

/// A running `pdns_server` on port 53 of an address of its own, its API on port 8081.
///
/// It keeps nothing in memory, so what a stranger writes into its database is served at once.
pub struct Pdns {
    address: Address,
    process: Mutex<Process>,
    zones: Vec<String>,
    /// What may update the zones.
    keys: Vec<String>,
    folder: TempDir,
}

/// A TXT record as it stands in the database.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PdnsRecord {
    /// In presentation format, as the server writes it.
    pub content: String,
    /// Seconds.
    pub ttl: u32,
    /// True if it is not served.
    pub disabled: bool,
}

impl Pdns {
    /// Starts it with `zones` (names and master file text), which the keys of `updates` may change by dynamic update.
    ///
    /// # Panics
    /// When it does not start to serve all of them.
    pub async fn start(address: Address, zones: &[(&str, String)], updates: &Updates) -> Self {
        let folder = temporary_folder("pdns");
        let path = folder.path();
        let config = format!(
            "launch=gsqlite3\ngsqlite3-database={path}/pdns.sqlite3\nsocket-dir={path}\nsetuid=\nsetgid=\n\
             local-address={ip}\nlocal-port=53\ndaemon=no\nguardian=no\nreceiver-threads=1\ndistributor-threads=1\nquery-logging=no\n\
             dnsupdate=yes\nallow-dnsupdate-from=127.0.0.0/8\nversion-string=anonymous\nprimary=yes\n\
             zone-cache-refresh-interval=0\ncache-ttl=0\nquery-cache-ttl=0\nnegquery-cache-ttl=0\n\
             api=yes\napi-key={API_KEY}\nwebserver=yes\nwebserver-address={ip}\nwebserver-port={API}\nwebserver-allow-from=127.0.0.0/8\n\
             loglevel=6\nlog-dns-details=yes\n",
            path = path.display(),
            ip = address.ip(),
        );
        write(&path.join("pdns.conf"), &config);
        let mut command = Command::new(crate::program("sqlite3"));
        command.arg(path.join("pdns.sqlite3")).arg(".read /usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql");
        run("sqlite3", command, LIMIT).await.succeeded();
        for (name, text) in zones {
            write(&path.join(format!("{name}.zone")), text);
        }
        let zones: Vec<String> = zones.iter().map(|(name, _)| (*name).to_owned()).collect();
        for key in updates.known() {
            util(&folder, &["import-tsig-key", &key.name, &key.algorithm, &key.secret]).await;
        }
        let keys: Vec<String> = updates.keys.iter().map(|key| key.name.clone()).collect();
        for zone in &zones {
            load(&folder, zone, &keys).await;
        }
        let process = Mutex::new(spawn(&folder));
        let pdns = Self { address, process, zones, keys, folder };
        pdns.is_serving().await;
        pdns
    }

    /// Where it answers.
    pub fn dns(&self) -> SocketAddr {
        self.address.dns()
    }

    /// The base of its API, such as `http://127.53.0.1:8081`.
    pub fn api(&self) -> String {
        format!("http://{}", self.address.port(API))
    }

    /// The TXT records at a name as they stand in the database, in order.
    ///
    /// # Panics
    /// When the database cannot be read.
    pub async fn records(&self, owner: &str) -> Vec<PdnsRecord> {
        let select = format!(
            "select json_group_array(json_array(content, ttl, disabled)) from records where type = 'TXT' and name = {}",
            quoted(owner)
        );
        let rows: Vec<(String, u32, u8)> =
            serde_json::from_str(&self.sql(&select).await).unwrap_or_else(|e| panic!("sqlite3 gives no JSON: {e}"));
        let mut records: Vec<_> =
            rows.into_iter().map(|(content, ttl, disabled)| PdnsRecord { content, ttl, disabled: disabled != 0 }).collect();
        records.sort();
        records
    }

    /// Writes a record past the API, as a stranger with the database does; `content` is what a master file says.
    ///
    /// # Panics
    /// When the database does not take it.
    pub async fn insert(&self, zone: &str, owner: &str, kind: &str, record: &PdnsRecord) {
        let (owner, kind, content) = (quoted(owner), quoted(kind), quoted(&record.content));
        let (ttl, disabled, zone) = (record.ttl, u8::from(record.disabled), quoted(zone));
        self.sql(&format!(
            "insert into records (domain_id, name, type, content, ttl, disabled, auth) \
             select id, {owner}, {kind}, {content}, {ttl}, {disabled}, 1 from domains where name = {zone}"
        ))
        .await;
    }

    /// Removes a TXT record past the API.
    ///
    /// # Panics
    /// When the database does not take it.
    pub async fn remove(&self, owner: &str, content: &str) {
        self.sql(&format!("delete from records where type = 'TXT' and name = {} and content = {}", quoted(owner), quoted(content))).await;
    }

    /// Comments on the TXT RRset at a name.
    ///
    /// # Panics
    /// When the database does not take it.
    pub async fn comment(&self, zone: &str, owner: &str, text: &str) {
        let (owner, text, zone) = (quoted(owner), quoted(text), quoted(zone));
        self.sql(&format!(
            "insert into comments (domain_id, name, type, modified_at, account, comment) \
             select id, {owner}, 'TXT', 1700000000, 'somebody', {text} from domains where name = {zone}"
        ))
        .await;
    }

    /// The comments at a name.
    ///
    /// # Panics
    /// When the database cannot be read.
    pub async fn comments(&self, owner: &str) -> Vec<String> {
        let text = self.sql(&format!("select modified_at, account, comment from comments where name = {}", quoted(owner))).await;
        text.lines().map(str::to_owned).collect()
    }

    /// Has secondaries of a zone notified at an address, when it changes.
    ///
    /// # Panics
    /// When the server does not take that.
    pub async fn notifies(&self, zone: &str, secondary: SocketAddr) {
        util(&self.folder, &["set-kind", zone, "primary"]).await;
        util(&self.folder, &["set-meta", zone, "ALSO-NOTIFY", &secondary.to_string()]).await;
    }

    /// Removes a zone with its records.
    ///
    /// # Panics
    /// When the server does not do it.
    pub async fn drop_zone(&self, zone: &str) {
        util(&self.folder, &["delete-zone", zone]).await;
    }

    /// Makes a zone anew as it was at the start.
    ///
    /// # Panics
    /// When the server does not do it.
    pub async fn restore_zone(&self, zone: &str) {
        load(&self.folder, zone, &self.keys).await;
        dns::serves(self.dns(), zone).await;
    }

    /// Starts it again with another key of the API.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn set_api_key(&self, key: &str) {
        let file = self.folder.path().join("pdns.conf");
        let lines = crate::read(&file);
        let changed = lines.lines().map(|line| if line.starts_with("api-key=") { format!("api-key={key}\n") } else { format!("{line}\n") });
        write(&file, &changed.collect::<String>());
        let mut process = self.process.lock().await;
        process.terminate();
        process.ended().await;
        *process = spawn(&self.folder);
        drop(process);
        self.is_serving().await;
    }

    /// Gives a TSIG key that is known another secret, in base64.
    ///
    /// # Panics
    /// When the server does not take it.
    pub async fn set_tsig_key(&self, name: &str, algorithm: &str, secret: &str) {
        util(&self.folder, &["delete-tsig-key", name]).await;
        util(&self.folder, &["import-tsig-key", name, algorithm, secret]).await;
    }

    async fn is_serving(&self) {
        let process = self.process.lock().await;
        process.stderr_line("its listening", |line| line.contains("Only asked for 1 backend thread").then_some(())).await;
        drop(process);
        for zone in &self.zones {
            dns::serves(self.dns(), zone).await;
        }
    }

    async fn sql(&self, statement: &str) -> String {
        let database: PathBuf = self.folder.path().join("pdns.sqlite3");
        let mut command = Command::new(crate::program("sqlite3"));
        command.args(["-cmd", ".timeout 10000"]).arg(database).arg(statement);
        let output = run("sqlite3", command, LIMIT).await;
        output.succeeded();
        output.stdout
    }
}

fn spawn(folder: &TempDir) -> Process {
    let mut command = Command::new(crate::program("pdns_server"));
    command.arg(format!("--config-dir={}", folder.path().display()));
    Process::spawn("pdns", command)
}

async fn load(folder: &TempDir, zone: &str, keys: &[String]) {
    util(folder, &["load-zone", zone, &folder.path().join(format!("{zone}.zone")).to_string_lossy()]).await;
    util(folder, &["set-meta", zone, "SOA-EDIT-API", "INCREASE"]).await;
    if !keys.is_empty() {
        util(folder, &["set-meta", zone, "TSIG-ALLOW-DNSUPDATE"].into_iter().chain(keys.iter().map(String::as_str)).collect::<Vec<_>>())
            .await;
    }
}

async fn util(folder: &TempDir, arguments: &[&str]) {
    let mut command = Command::new(crate::program("pdnsutil"));
    command.arg(format!("--config-dir={}", folder.path().display())).args(arguments);
    run("pdnsutil", command, LIMIT).await.succeeded();
}

/// A text of SQL.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
