//! acmegate itself: its configuration as a value, its commands, and `serve` as a process that can be stopped, killed and started again.

use std::{
    collections::HashMap,
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use tempfile::TempDir;

use crate::{
    addresses::Address,
    process::{Output, Process, run},
    temporary_folder,
    testca::TestCa,
    wait::LIMIT,
    webhook::EVERYTHING,
    workspace, write,
};

/// What the configuration file will say. Doors that are not asked for are closed.
#[derive(Debug, Clone, Default)]
pub struct Config {
    data: Option<PathBuf>,
    listen: Vec<SocketAddr>,
    zones: Vec<String>,
    propagation: Vec<String>,
    directories: Vec<String>,
    sections: Vec<String>,
}

impl Config {
    /// Nothing but a data folder of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// Uses this data folder, not one of its own.
    #[must_use]
    pub fn data(mut self, folder: &Path) -> Self {
        self.data = Some(folder.into());
        self
    }

    /// Serves DNS here (UDP and TCP); port 0 takes a free one.
    #[must_use]
    pub fn dns(mut self, listen: SocketAddr) -> Self {
        self.listen.push(listen);
        self
    }

    /// Serves `zone`. Its name servers are given by their first label and address, such as `("ns1", ip)` for `ns1.<zone>`.
    #[must_use]
    pub fn zone(self, zone: &str, nameservers: &[(&str, IpAddr)]) -> Self {
        let names: Vec<_> = nameservers.iter().map(|(label, _)| format!("{label}.{zone}")).collect();
        let records: Vec<_> = nameservers.iter().map(|(label, ip)| format!("{label}.{zone}. 3600 A {ip}")).collect();
        self.zone_with(zone, &names.join(", "), &records.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Serves `zone` with these name servers (separated by commas) and these records, each a line in master file form.
    #[must_use]
    pub fn zone_with(mut self, zone: &str, nameservers: &str, records: &[&str]) -> Self {
        let records = records.iter().map(|r| format!("{r:?}")).collect::<Vec<_>>().join(", ");
        self.zones.push(format!("- {{ name: {zone}, nameservers: [{nameservers}], contact: hostmaster.{zone}, records: [{records}] }}"));
        self
    }

    /// Walks delegations through this resolver.
    #[must_use]
    pub fn resolver(self, resolver: SocketAddr) -> Self {
        self.propagation(&format!("resolvers: [\"{resolver}\"]"))
    }

    /// A line of the section `propagation`, such as `timeout: 20s`.
    #[must_use]
    pub fn propagation(mut self, line: &str) -> Self {
        self.propagation.push(line.into());
        self
    }

    /// Opens the acme-dns door on a free port.
    #[must_use]
    pub fn acmedns(self) -> Self {
        self.acmedns_with("")
    }

    /// Opens the acme-dns door on a free port with more lines in its section, such as `values: 2`.
    #[must_use]
    pub fn acmedns_with(self, lines: &str) -> Self {
        self.section("acmedns", &format!("listen: \"127.0.0.1:0\"\n{lines}"))
    }

    /// Opens the webhook door on a free port, for every name.
    #[must_use]
    pub fn webhook(self) -> Self {
        self.section("webhook", &format!("listen: \"127.0.0.1:0\"\ngroup: acme.acmegate.io\nsolver: acmegate\n{EVERYTHING}"))
    }

    /// Opens the metrics door on a free port.
    #[must_use]
    pub fn metrics(self) -> Self {
        self.section("metrics", "listen: \"127.0.0.1:0\"")
    }

    /// Knows this authority under this name.
    #[must_use]
    pub fn directory(mut self, name: &str, ca: &TestCa) -> Self {
        self.directories.push(format!("- {{ name: {name}, url: \"{}\", ca_file: {:?} }}", ca.directory(), ca.ca_file()));
        self
    }

    /// Knows any authority under this name, with more settings in braces' form, such as `profile: shortlived`.
    #[must_use]
    pub fn directory_with(mut self, name: &str, url: &str, ca_file: &Path, more: &str) -> Self {
        self.directories.push(format!("- {{ name: {name}, url: \"{url}\", ca_file: {ca_file:?}, {more} }}"));
        self
    }

    /// Any other section: its lines, unindented.
    #[must_use]
    pub fn section(mut self, name: &str, lines: &str) -> Self {
        self.sections.push(format!("{name}:\n{}", indented(lines)));
        self
    }

    /// The file, for the data folder that is used if none was named.
    pub fn yaml(&self, data: &Path) -> String {
        let mut yaml = format!("version: v1\ndata: {:?}\n", self.data.as_deref().unwrap_or(data));
        if !self.listen.is_empty() {
            let listen = self.listen.iter().map(|a| format!("\"{a}\"")).collect::<Vec<_>>().join(", ");
            let _ = write!(yaml, "dns:\n  listen: [{listen}]\n");
            if !self.zones.is_empty() {
                let _ = write!(yaml, "  zones:\n{}", indented(&indented(&self.zones.join("\n"))));
            }
        }
        if !self.propagation.is_empty() {
            let _ = write!(yaml, "propagation:\n{}", indented(&self.propagation.join("\n")));
        }
        if !self.directories.is_empty() {
            let _ = write!(yaml, "issuer:\n  directories:\n{}", indented(&indented(&self.directories.join("\n"))));
        }
        yaml + &self.sections.concat()
    }
}

fn indented(lines: &str) -> String {
    lines.lines().filter(|line| !line.is_empty()).fold(String::new(), |text, line| text + "  " + line + "\n")
}

/// One installation of acmegate: a configuration file, a data folder, and `serve` while it runs.
pub struct Acmegate {
    folder: TempDir,
    config: PathBuf,
    data: PathBuf,
    running: Option<Running>,
    addresses: Vec<Address>,
}

struct Running {
    process: Process,
    doors: HashMap<String, Vec<String>>,
}

impl Acmegate {
    /// Writes the configuration; nothing runs yet.
    ///
    /// # Panics
    /// When the files cannot be written.
    pub fn new(config: Config) -> Self {
        let folder = temporary_folder("gateway");
        let data = config.data.clone().unwrap_or_else(|| folder.path().join("data"));
        Self::in_folder(folder, data.clone(), &config.yaml(&data))
    }

    /// The same with a configuration that somebody else wrote, for the data folder that it is told.
    ///
    /// # Panics
    /// When the files cannot be written.
    pub fn with_file(text: impl FnOnce(&Path) -> String) -> Self {
        let folder = temporary_folder("gateway");
        let data = folder.path().join("data");
        Self::in_folder(folder, data.clone(), &text(&data))
    }

    fn in_folder(folder: TempDir, data: PathBuf, text: &str) -> Self {
        let file = folder.path().join("acmegate.yaml");
        write(&file, text);
        Self { folder, config: file, data, running: None, addresses: Vec::new() }
    }

    /// Writes the configuration and starts `serve`.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn started(config: Config) -> Self {
        let mut acmegate = Self::new(config);
        acmegate.start().await;
        acmegate
    }

    /// Starts `serve` (again) and waits until it says `ready`.
    ///
    /// # Panics
    /// When it ends before, or runs already.
    pub async fn start(&mut self) {
        assert!(self.running.is_none(), "acmegate serve runs already");
        let process = self.serve();
        process.stdout_line("its line \"ready\"", |line| (line == "ready").then_some(())).await;
        let mut doors: HashMap<String, Vec<String>> = HashMap::new();
        for line in process.stdout().lines() {
            if let Some((door, address)) = line.strip_prefix("listening ").and_then(|rest| rest.split_once(' ')) {
                doors.entry(door.into()).or_default().push(address.into());
            }
        }
        self.running = Some(Running { process, doors });
    }

    /// Starts one more `acmegate serve` with this configuration and waits for nothing: for tests of the start itself.
    ///
    /// # Panics
    /// When the program cannot be started at all.
    pub fn serve(&self) -> Process {
        Process::spawn("acmegate", self.command(&["serve"]))
    }

    /// Sends SIGTERM and gives what `serve` left, once it has ended.
    ///
    /// # Panics
    /// When it does not run, or does not end.
    pub async fn stop(&mut self) -> Output {
        let running = self.running.take().unwrap_or_else(|| panic!("acmegate serve does not run"));
        running.process.terminate();
        running.process.output(LIMIT).await
    }

    /// Ends `serve` by SIGKILL and waits until it is gone.
    pub fn kill(&mut self) {
        self.running = None;
    }

    /// The process of `serve`.
    ///
    /// # Panics
    /// When it does not run.
    pub fn process(&self) -> &Process {
        &self.running().process
    }

    /// The address that a door printed (`dns-udp`, `dns-tcp`, `acmedns`, `webhook`, `metrics`): the first one if it has several.
    ///
    /// # Panics
    /// When `serve` does not run or the door is closed.
    pub fn door(&self, door: &str) -> SocketAddr {
        let text = self.doors(door).first().unwrap_or_else(|| panic!("acmegate printed no `listening {door} …`"));
        text.parse().unwrap_or_else(|e| panic!("`listening {door} {text}` is no socket address: {e}"))
    }

    /// All that a door printed after its name (`admin` prints a path).
    ///
    /// # Panics
    /// When `serve` does not run.
    pub fn doors(&self, door: &str) -> &[String] {
        self.running().doors.get(door).map(Vec::as_slice).unwrap_or_default()
    }

    /// Where it answers DNS over UDP.
    ///
    /// # Panics
    /// When `serve` does not run or the door is closed.
    pub fn dns(&self) -> SocketAddr {
        self.door("dns-udp")
    }

    /// `http://` and the address of a door, with `path` after it.
    ///
    /// # Panics
    /// When `serve` does not run or the door is closed.
    pub fn url(&self, door: &str, path: &str) -> String {
        format!("http://{}{path}", self.door(door))
    }

    /// The data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The configuration file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// A folder for this test's own files, gone with this value.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs `acmegate ARGUMENTS… --config FILE` to its end.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn run(&self, arguments: &[&str]) -> Output {
        run("acmegate", self.command(arguments), LIMIT).await
    }

    /// Starts `acmegate ARGUMENTS… --config FILE` and waits for nothing: for tests of its being stopped.
    ///
    /// # Panics
    /// When the program cannot be started at all.
    pub fn spawn(&self, arguments: &[&str]) -> Process {
        Process::spawn("acmegate", self.command(arguments))
    }

    /// `acmegate issue NAMES…` from the directory `testca`, to be told more and run.
    pub fn issue(&self, names: &[&str]) -> Issue<'_> {
        let mut arguments = vec!["issue".to_owned()];
        arguments.extend(names.iter().map(|&name| name.to_owned()));
        Issue { acmegate: self, arguments, directory: Some("testca".into()) }
    }

    /// Keeps the reservation of an address for as long as this value lives.
    pub fn keep(&mut self, address: Address) {
        self.addresses.push(address);
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command();
        command.args(arguments).arg("--config").arg(&self.config);
        command
    }

    fn running(&self) -> &Running {
        self.running.as_ref().unwrap_or_else(|| panic!("acmegate serve does not run"))
    }
}

/// A certificate to be ordered by `acmegate issue`.
pub struct Issue<'a> {
    acmegate: &'a Acmegate,
    arguments: Vec<String>,
    directory: Option<String>,
}

/// What `acmegate issue` did.
pub struct Issued {
    /// Its output and exit code.
    pub output: Output,
    folder: TempDir,
}

impl Issue<'_> {
    /// Another directory: a name of the configuration, or a URL.
    #[must_use]
    pub fn directory(mut self, directory: &str) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Leaves `--directory` out.
    #[must_use]
    pub fn default_directory(mut self) -> Self {
        self.directory = None;
        self
    }

    /// One more argument, such as `--dry-run`.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Runs it with a new output folder.
    ///
    /// # Panics
    /// When it does not end. Whether it succeeded is in [`Issued::output`].
    pub async fn run(self) -> Issued {
        let folder = temporary_folder("issued");
        Issued { output: run("acmegate issue", self.command(folder.path()), LIMIT).await, folder }
    }

    /// Starts it and waits for nothing: for tests of its being stopped. Its files go to the folder `unfinished` of the installation.
    ///
    /// # Panics
    /// When the program cannot be started at all.
    pub fn spawn(self) -> Process {
        let folder = self.acmegate.folder().join("unfinished");
        Process::spawn("acmegate issue", self.command(&folder))
    }

    fn command(self, out: &Path) -> Command {
        let mut command = command();
        command.args(self.arguments).arg("--config").arg(&self.acmegate.config).arg("--out").arg(out);
        if let Some(directory) = self.directory {
            command.arg("--directory").arg(directory);
        }
        command
    }
}

impl Issued {
    /// Asserts exit code 0.
    ///
    /// # Panics
    /// On any other code, with the output.
    pub fn succeeded(&self) -> &Self {
        self.output.succeeded();
        self
    }

    /// The folder of its files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// The program with no arguments yet and its logs in full.
pub fn command() -> Command {
    let mut command = Command::new(binary());
    command.env("RUST_BACKTRACE", "1");
    for variable in ["RUST_LOG", "ACMEGATE_CONFIG", "ACMEGATE_LOG", "ACMEGATE_LOG_FORMAT"] {
        command.env_remove(variable);
    }
    command
}

/// The program under test: `ACMEGATE_BIN`, or the workspace's own, built once.
///
/// # Panics
/// When it cannot be built.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| std::env::var_os("ACMEGATE_BIN").map_or_else(build, PathBuf::from))
}

/// Builds it with the profile of this very program, in the same target folder (`…/debug/deps/this-program`).
fn build() -> PathBuf {
    let this = std::env::current_exe().unwrap_or_else(|e| panic!("where is this program? {e}"));
    let profile = this.ancestors().find(|folder| folder.file_name().is_some_and(|name| name == "debug" || name == "release"));
    let profile = profile.unwrap_or_else(|| panic!("{} lies in no target folder: set ACMEGATE_BIN", this.display()));
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--workspace", "--bin", "acmegate"]).current_dir(workspace());
    cargo.env("CARGO_TARGET_DIR", profile.parent().unwrap_or(profile));
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo.status().unwrap_or_else(|e| panic!("cannot run cargo: {e}"));
    assert!(status.success(), "acmegate does not build");
    profile.join("acmegate")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_says_what_was_asked_for() {
        let config = Config::new()
            .dns(([127, 0, 0, 1], 0).into())
            .zone_with("auth.example.org", "ns1.auth.example.org", &["ns1.auth.example.org. 3600 A 127.0.0.1"])
            .resolver(([127, 0, 0, 1], 53).into())
            .propagation("timeout: 20s")
            .acmedns_with("values: 2");
        let expected = r#"version: v1
data: "/somewhere"
dns:
  listen: ["127.0.0.1:0"]
  zones:
    - { name: auth.example.org, nameservers: [ns1.auth.example.org], contact: hostmaster.auth.example.org, records: ["ns1.auth.example.org. 3600 A 127.0.0.1"] }
propagation:
  resolvers: ["127.0.0.1:53"]
  timeout: 20s
acmedns:
  listen: "127.0.0.1:0"
  values: 2
"#;
        assert_eq!(config.yaml(Path::new("/somewhere")), expected);
    }
}
