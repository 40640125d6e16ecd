//! BIND: the DNS of somebody else, with zones from text, changed by dynamic updates.

use std::{fs, net::SocketAddr, path::PathBuf, process::Command};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    addresses::Address,
    dns,
    ports::Port,
    process::{Process, run},
    relay::Relay,
    updates::Updates,
    wait::LIMIT,
};

/// A running `named` on port 53 of an address of its own.
pub struct Bind {
    address: Address,
    config: PathBuf,
    process: Process,
    _relay: Relay,
    _port: Port,
    _folder: TempDir,
}

impl Bind {
    /// Starts it with `zones`: names and master file text. Anybody on loopback may update them.
    ///
    /// # Panics
    /// When it does not start to serve all of them.
    pub async fn start(address: Address, zones: &[(&str, String)]) -> Self {
        Self::launch(address, zones, "", "allow-update { 127.0.0.0/8; };").await
    }

    /// Starts it with `zones` that the keys of `updates` alone may change.
    ///
    /// # Panics
    /// When it does not start to serve all of them.
    pub async fn start_signed(address: Address, zones: &[(&str, String)], updates: &Updates) -> Self {
        let keys: String = (updates.known())
            .map(|key| format!("key \"{}\" {{ algorithm {}; secret \"{}\"; }};\n", key.name, key.algorithm, key.secret))
            .collect();
        let per_key = |form: &dyn Fn(&str) -> String| updates.keys.iter().map(|key| form(&key.name)).collect::<String>();
        let rule = match &updates.denied {
            Some(denied) => {
                let deny = per_key(&|key| format!("deny \"{key}\" name {denied} ANY; "));
                format!("update-policy {{ {deny}{} }};", per_key(&|key| format!("grant \"{key}\" zonesub TXT; ")))
            }
            None => format!("allow-update {{ {} }};", per_key(&|key| format!("key \"{key}\"; "))),
        };
        Self::launch(address, zones, &keys, &rule).await
    }

    async fn launch(address: Address, zones: &[(&str, String)], keys: &str, rule: &str) -> Self {
        let folder = crate::temporary_folder("bind");
        let port = Port::reserve();
        let path = folder.path();
        let mut config = format!(
            "options {{ directory \"{}\"; listen-on port {} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; pid-file none; session-keyfile none;
                recursion no; dnssec-validation no; notify no; allow-query {{ 127.0.0.0/8; }}; empty-zones-enable no; }};\ncontrols {{ }};\n",
            path.display(),
            port.address().port()
        );
        config += keys;
        for (number, (name, text)) in zones.iter().enumerate() {
            let file = format!("{number}.zone");
            crate::write(&path.join(&file), text);
            config += &format!("zone \"{name}\" {{ type primary; file \"{file}\"; {rule} }};\n");
        }
        let config_file = path.join("named.conf");
        crate::write(&config_file, &config);
        let mut command = Command::new(crate::program("named"));
        command.args(["-g", "-4", "-n", "1", "-c"]).arg(&config_file);
        let process = Process::spawn("bind", command);
        process.stderr_line("its line \"running\"", |line| line.ends_with(" running").then_some(())).await;
        let relay = Relay::start(address.dns(), port.address());
        let bind = Self { address, config: config_file, process, _relay: relay, _port: port, _folder: folder };
        for (zone, _) in zones {
            dns::serves(bind.dns(), zone).await;
        }
        bind
    }

    /// Where it answers.
    pub fn dns(&self) -> SocketAddr {
        self.address.dns()
    }

    /// Its process, to be measured.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Changes the text of its configuration, and returns when BIND goes by it.
    ///
    /// # Panics
    /// When BIND does not take it.
    pub async fn reconfigure(&self, change: impl FnOnce(&str) -> String) {
        let before = fs::read_to_string(&self.config).unwrap_or_else(|e| panic!("cannot read {}: {e}", self.config.display()));
        let after = change(&before);
        assert_ne!(before, after, "nothing of the configuration would change");
        crate::write(&self.config, &after);
        let is_done = |line: &str| line.ends_with("reloading zones succeeded");
        let mut reloads = self.process.stderr().lines().filter(|line| is_done(line)).count() + 1;
        self.process.signal(Signal::HUP);
        let nth = |line: &str| {
            reloads -= usize::from(is_done(line));
            (reloads == 0).then_some(())
        };
        self.process.stderr_line("its going by a new configuration", nth).await;
    }

    /// Adds a record in master file form, such as `_acme-challenge.a.example.test. 60 CNAME b.example.org.`; returns when it is served.
    ///
    /// # Panics
    /// When BIND refuses it.
    pub async fn add(&self, record: &str) {
        self.update(&[format!("add {record}")]).await;
    }

    /// Deletes an RRset or a record, such as `_acme-challenge.a.example.test. CNAME`.
    ///
    /// # Panics
    /// When BIND refuses it.
    pub async fn delete(&self, record: &str) {
        self.update(&[format!("delete {record}")]).await;
    }

    /// Sends several changes of one zone in one update: lines of nsupdate without the word `update`.
    ///
    /// # Panics
    /// When BIND refuses one of them.
    pub async fn update(&self, changes: &[String]) {
        let script = changes.iter().fold(format!("server {} 53\n", self.address.ip()), |text, line| text + "update " + line + "\n");
        let folder = crate::temporary_folder("nsupdate");
        let file = folder.path().join("script");
        crate::write(&file, &(script + "send\n"));
        let mut command = Command::new(crate::program("nsupdate"));
        command.arg(&file);
        run("nsupdate", command, LIMIT).await.succeeded();
        let _ = fs::remove_file(file);
    }
}

/// The text of a zone whose only server is `address`, to which records can be appended. `name` without a final dot, empty for the root.
pub fn zone(name: &str, address: &Address) -> String {
    let dot = if name.is_empty() { "" } else { "." };
    format!(
        "$TTL 60\n{name}. SOA ns{dot}{name}. hostmaster{dot}{name}. 1 3600 600 86400 1\n{name}. NS ns{dot}{name}.\nns{dot}{name}. A {}\n",
        address.ip()
    )
}
