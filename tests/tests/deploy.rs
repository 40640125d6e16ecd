//! Where `acmegate issue` puts certificates and whom it tells, twice each: a certificate and its renewal. OpenSSL, certbot and Java judge.

#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use acmegate_tests::{
    acmegate::{Acmegate, command},
    process::{Output, Process, run},
    program, python, read, temporary_folder,
    wait::LIMIT,
    world::{World, ZONE},
    write,
};
use tempfile::TempDir;

/// A world, a folder for certificates, and the name that they are for: one of acmegate's own zone, which needs no delegation.
struct Place {
    world: World,
    folder: TempDir,
    name: String,
}

impl Place {
    async fn start() -> Self {
        Self { world: World::start().await, folder: temporary_folder("deployed"), name: format!("www.{ZONE}") }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn acmegate(&self) -> &Acmegate {
        &self.world.acmegate
    }

    fn issue_command(&self, arguments: &[&str]) -> Command {
        let mut order = command();
        order.args(["issue", &self.name, "--directory", "testca", "--config"]).arg(self.acmegate().config());
        order.arg("--out").arg(self.folder.path()).args(arguments);
        order
    }

    /// `acmegate issue` with these options, into the folder.
    async fn issue(&self, arguments: &[&str]) -> Output {
        run("acmegate issue", self.issue_command(arguments), LIMIT).await
    }

    /// Asserts, by OpenSSL, that a PEM holds a key and its certificate for the name, of the authority. Gives the certificate's serial number.
    async fn judge(&self, key: &Path, certificates: &Path) -> String {
        let root = temporary_folder("root");
        let root_file = root.path().join("root.pem");
        write(&root_file, &self.world.ca.issuing_root().await);
        let (key, certificates, root_file) = (text(key), text(certificates), text(&root_file));
        let of_key = openssl(&["pkey", "-in", key, "-pubout"]).await;
        let of_certificate = openssl(&["x509", "-in", certificates, "-noout", "-pubkey"]).await;
        assert_eq!(of_key.succeeded().stdout, of_certificate.succeeded().stdout, "the key is the certificate's");
        let chain = ["verify", "-CAfile", root_file, "-untrusted", certificates, "-verify_hostname", &self.name, certificates];
        openssl(&chain).await.succeeded().says("OK");
        openssl(&["x509", "-in", certificates, "-noout", "-serial"]).await.succeeded().stdout.clone()
    }

    /// Orders that the authority was asked for.
    fn orders(&self) -> usize {
        self.world.ca.log().matches("/order-plz").count()
    }
}

async fn openssl(arguments: &[&str]) -> Output {
    let mut openssl = Command::new(program("openssl"));
    openssl.args(arguments);
    run("openssl", openssl, LIMIT).await
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").permissions().mode() & 0o777
}

fn names(folder: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name().into_string().expect("a name in UTF-8");
    let mut names: Vec<_> = fs::read_dir(folder).expect("a folder").map(name).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_folder_of_four_files() {
    let place = Place::start().await;
    let mut serials = Vec::new();
    for _ in 0..2 {
        place.issue(&["--key-mode", "0640"]).await.succeeded();
        serials.push(place.judge(&place.path("privkey.pem"), &place.path("fullchain.pem")).await);
        assert_eq!((mode(&place.path("privkey.pem")), mode(&place.path("fullchain.pem"))), (0o640, 0o644));
    }
    assert_ne!(serials[0], serials[1]);
    // The four names, the one link that they lead through, and the one version that is in use.
    assert_eq!(names(place.folder.path()), ["..acmegate.2", "..data", "cert.pem", "chain.pem", "fullchain.pem", "privkey.pem"]);
}

#[tokio::test]
async fn one_file_for_haproxy() {
    let place = Place::start().await;
    let file = place.path(&format!("{}.pem", place.name));
    let mut serials = Vec::new();
    for _ in 0..2 {
        place.issue(&["--layout", "pem"]).await.succeeded().says(text(&file));
        serials.push(place.judge(&file, &file).await);
        assert_eq!(mode(&file), 0o600);
    }
    assert_ne!(serials[0], serials[1]);
    assert_eq!(names(place.folder.path()).len(), 1);
}

/// The paths are certbot's, each version is swapped in by one link, and certbot itself finds its way.
#[tokio::test]
async fn the_layout_of_certbot() {
    let place = Place::start().await;
    let (live, archive) = (place.path(&format!("live/{}", place.name)), place.path(&format!("archive/{}", place.name)));
    let mut serials = Vec::new();
    for version in 1..=3 {
        place.issue(&["--layout", "live", "--keep", "1"]).await.succeeded();
        serials.push(place.judge(&live.join("privkey.pem"), &live.join("fullchain.pem")).await);
        let target = fs::canonicalize(live.join("privkey.pem")).expect("a link to a file");
        assert_eq!(target, fs::canonicalize(archive.join(format!("privkey{version}.pem"))).expect("a file"));
        assert_eq!(mode(&target), 0o600);
    }
    serials.dedup();
    assert_eq!(serials.len(), 3);
    assert_eq!(names(&archive).len(), 8, "this version and the one before");

    let renewal = format!(
        "version = 5.0.0\narchive_dir = {archive}\ncert = {live}/cert.pem\nprivkey = {live}/privkey.pem\nchain = {live}/chain.pem\n\
         fullchain = {live}/fullchain.pem\n[renewalparams]\nauthenticator = standalone\nkey_type = ecdsa\n",
        archive = archive.display(),
        live = live.display()
    );
    fs::create_dir(place.path("renewal")).expect("a folder");
    write(&place.path(&format!("renewal/{}.conf", place.name)), &renewal);
    let mut certbot = python::certbot();
    certbot.arg("certificates").arg("--config-dir").arg(place.folder.path());
    certbot.arg("--work-dir").arg(place.path("work")).arg("--logs-dir").arg(place.path("logs"));
    let listed = run("certbot", certbot, LIMIT).await;
    listed.succeeded().says(&format!("Certificate Name: {}", place.name)).says("VALID").never_says("invalid");
}

#[tokio::test]
async fn pkcs12_under_a_password() {
    let place = Place::start().await;
    let file = place.path(&format!("{}.p12", place.name));
    let secrets = temporary_folder("password");
    let (password, opened) = (secrets.path().join("password"), secrets.path().join("opened.pem"));
    write(&password, "s3 cret\n");
    let mut serials = Vec::new();
    // The authority's kinds of keys are those of the format, too.
    for kind in ["p256", "rsa2048"] {
        place
            .issue(&["--layout", "pkcs12", "--p12-password-file", text(&password), "--key-type", kind])
            .await
            .succeeded()
            .never_says("s3 cret");
        assert_eq!(mode(&file), 0o600);
        let pass = format!("file:{}", password.display());
        let read = openssl(&["pkcs12", "-in", text(&file), "-passin", &pass, "-nodes", "-out", text(&opened)]).await;
        read.succeeded();
        // OpenSSL writes each certificate of the bag where it stands: the leaf is the first.
        serials.push(place.judge(&opened, &opened).await);
        let info = openssl(&["pkcs12", "-in", text(&file), "-passin", &pass, "-info", "-noout"]).await;
        info.succeeded().says("MAC: sha256").says("PBES2, PBKDF2, AES-256-CBC").says("PRF hmacWithSHA256");
        openssl(&["pkcs12", "-in", text(&file), "-passin", "pass:other", "-noout"]).await.exited(1).says("invalid password");
        java_lists(&file, &password, &place.name).await;
    }
    assert_ne!(serials[0], serials[1]);
    assert_eq!(names(place.folder.path()).len(), 1);

    let orders = place.orders();
    place.issue(&["--layout", "pkcs12"]).await.exited(2).says("give --p12-password-file");
    write(&password, "pässword\n");
    place.issue(&["--layout", "pkcs12", "--p12-password-file", text(&password)]).await.exited(2).says("one line of ASCII");
    assert_eq!(place.orders(), orders, "nothing was ordered");
}

/// Java, where there is one, finds the key by its alias, and its chain.
async fn java_lists(file: &Path, password: &Path, alias: &str) {
    if Command::new("keytool").arg("-help").output().is_err() {
        eprintln!("no keytool here: Java was not asked");
        return;
    }
    let mut keytool = Command::new("keytool");
    keytool.args(["-J-Duser.language=en", "-list", "-v", "-storetype", "PKCS12", "-storepass:file"]).arg(password);
    keytool.arg("-keystore").arg(file).args(["-alias", alias]);
    let listed = run("keytool", keytool, LIMIT).await;
    listed.succeeded().says("Entry type: PrivateKeyEntry").says("Certificate chain length: 2");
}

#[tokio::test]
async fn a_command_is_told_of_the_files() {
    let place = Place::start().await;
    let told = place.path("told");
    let hook = place.path("my hook");
    let script = "#!/bin/sh\nenv > \"$1\"; test \"$2\" = '$HOME' && cmp \"$ACMEGATE_KEY\" \"$RENEWED_LINEAGE/privkey.pem\"\n";
    write(&hook, script);
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).expect("a mode");
    let exec = format!("'{}' {} '$HOME'", hook.display(), told.display());
    place.issue(&["--layout", "live", "--exec", &exec]).await.succeeded().says("ran command");
    let live = place.path(&format!("live/{}", place.name));
    let told = read(&told);
    for line in [
        format!("ACMEGATE_NAMES={}", place.name),
        format!("RENEWED_DOMAINS={}", place.name),
        format!("RENEWED_LINEAGE={}", live.display()),
        format!("ACMEGATE_FULLCHAIN={}", live.join("fullchain.pem").display()),
    ] {
        assert!(told.lines().any(|told| told == line), "{line} is missing:\n{told}");
    }
    assert!(told.contains("ACMEGATE_NOT_AFTER=2"), "{told}");
}

/// Whatever a command does, the certificate is there, and the failure says where.
#[tokio::test]
async fn a_command_that_fails_or_hangs_or_never_stops_talking() {
    let place = Place::start().await;
    let last = place.path("last");
    let also = format!("touch {}", last.display());
    let failed = place.issue(&["--exec", "sh -c 'echo broken pipe dream; exit 3'", "--exec", &also, "--exec", "/no/such/program"]).await;
    let where_it_is = format!("the certificate was issued, and it is in {}", place.folder.path().display());
    failed.exited(1).says("command sh: it ended with exit code 3; it said: broken pipe dream").says(&where_it_is);
    failed.says("command /no/such/program: it cannot be started: No such file");
    assert!(last.exists(), "the others are run nevertheless");
    place.judge(&place.path("privkey.pem"), &place.path("fullchain.pem")).await;

    let hangs = place.issue(&["--exec", "sh -c 'sleep 1000 & wait'", "--exec-timeout", "200ms"]).await;
    hangs.exited(1).says("it was ended because it took longer than 200ms");

    let talks = place.issue(&["--log-level", "info", "--log-format", "text", "--exec", "sh -c 'seq 3000; seq -f line%g 3000 >&2'"]).await;
    // Which lines of the two streams those are is chance.
    let logged = talks.succeeded().stderr.matches(": output program").count();
    assert_eq!(logged, 500, "{talks}");
    talks.says("more output, which is left out");
}

/// An order to stop ends the command, not the certificate.
#[tokio::test]
async fn stopped_while_a_command_runs() {
    let place = Place::start().await;
    let order = Process::spawn(
        "acmegate issue",
        place.issue_command(&["--log-level", "info", "--exec", "sh -c 'echo started; sleep 1000'", "--exec", "true"]),
    );
    order.stderr_line("the command's output", |line| line.contains("started").then_some(())).await;
    order.terminate();
    let output = order.output(LIMIT).await;
    output.exited(1).says("it was ended because acmegate was told to stop").says("command true: not done");
    place.judge(&place.path("privkey.pem"), &place.path("fullchain.pem")).await;
}

#[tokio::test]
async fn a_process_a_unit_and_nobody_are_told() {
    let place = Place::start().await;
    let script = "trap 'echo told' USR1; echo ready; while :; do sleep 1000 & wait $!; done";
    let mut server = Command::new("sh");
    server.args(["-c", script]);
    let server = Process::spawn("server", server);
    server.stdout_line("ready", |line| (line == "ready").then_some(())).await;
    let pid_file = place.path("server.pid");
    write(&pid_file, &format!("{}\n", server.id()));
    // A systemctl of our own, and nothing else but what starts the tests' processes.
    let tools = temporary_folder("tools");
    symlink(program("setpriv"), tools.path().join("setpriv")).expect("a link");
    let systemctl = tools.path().join("systemctl");
    write(&systemctl, "#!/bin/sh\necho \"$@\" >\"${0%/*}/asked\"\n");
    fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).expect("a mode");
    let signal = format!("{}:USR1", pid_file.display());
    let mut order = place.issue_command(&["--signal", &signal, "--systemd-reload", "nginx.service"]);
    order.env("PATH", tools.path());
    run("acmegate issue", order, LIMIT).await.succeeded().says("sent SIGUSR1 to process").says("reloaded nginx.service");
    server.stdout_line("the signal", |line| (line == "told").then_some(())).await;
    assert_eq!(read(&tools.path().join("asked")), "--no-ask-password reload -- nginx.service\n");

    fs::remove_file(systemctl).expect("the file");
    write(&pid_file, "1\n");
    let mut order = place.issue_command(&["--signal", &signal, "--systemd-reload", "nginx.service"]);
    order.env("PATH", tools.path());
    let failed = run("acmegate issue", order, LIMIT).await;
    failed.exited(1).says("says 1, which is no process to be told").says("there is no systemctl on this machine");
}

/// What can be known before is known before: nothing was ordered. What goes wrong later costs no certificate.
#[tokio::test]
async fn a_place_that_cannot_be_written_costs_no_certificate() {
    let place = Place::start().await;
    let orders = place.orders();
    write(&place.path("live"), "in the way");
    place.issue(&["--layout", "live"]).await.exited(1).says("nothing was ordered");
    place.issue(&["--secret", "apps/one"]).await.exited(1).says("there is no cluster").says("nothing was ordered");
    place.issue(&["--layout", "pem", "--keep", "2"]).await.exited(2).says("add --layout live");
    place.issue(&["--owner", "no-such-user"]).await.exited(2).says("give its number");
    assert_eq!(place.orders(), orders, "nothing was ordered");
    let rehearsed = place.path("rehearsed");
    place.issue(&["--dry-run", "--exec", &format!("touch {}", rehearsed.display())]).await.succeeded();
    assert!(!rehearsed.exists(), "nobody is told of a rehearsal");

    // A folder stands where the file has to go, which only the last step finds.
    fs::create_dir(place.path(&format!("{}.pem", place.name))).expect("a folder");
    let refuge = place.acmegate().data().join("undeployed").join(&place.name);
    let failed = place.issue(&["--layout", "pem", "--exec", &format!("touch {}", rehearsed.display())]).await;
    failed.exited(1).says("could not be written").says(&format!("it was put into {} instead", refuge.display()));
    failed.says("command touch: not done, not everything before it was done");
    assert!(!rehearsed.exists());
    place.judge(&refuge.join("privkey.pem"), &refuge.join("fullchain.pem")).await;
    assert_eq!(mode(&refuge.join("privkey.pem")), 0o600);
}
