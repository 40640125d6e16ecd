//! unbound: a real resolver that starts at a root of ours, follows delegations and CNAMEs, and forgets within the second (it knows no shorter time).

use std::{
    net::{IpAddr, SocketAddr},
    process::Command,
};

use hickory_proto::rr::RecordType;

use crate::{addresses::Address, dns, process::Process, temporary_folder, wait::until, write};

/// A running unbound on port 53 of an address of its own, UDP and TCP.
pub struct Unbound {
    address: Address,
    process: Process,
    _folder: tempfile::TempDir,
}

impl Unbound {
    /// Starts it with the root zone's server at `root`: no query of it leaves loopback. It forgets within the second and validates no DNSSEC.
    ///
    /// # Panics
    /// When it does not start to resolve.
    pub async fn start(address: Address, root: IpAddr) -> Self {
        Self::with(address, root, "").await
    }

    /// The same with more lines in its `server:` clause.
    ///
    /// # Panics
    /// When it does not start to resolve.
    pub async fn with(address: Address, root: IpAddr, lines: &str) -> Self {
        let folder = temporary_folder("unbound");
        let path = folder.path();
        let hints = path.join("root.hints");
        write(&hints, &format!(". 3600 NS ns.\nns. 3600 A {root}\n"));
        let config = path.join("unbound.conf");
        write(
            &config,
            &format!(
                "server:
    interface: {ip}
    port: 53
    do-ip6: no
    access-control: 127.0.0.0/8 allow
    do-not-query-localhost: no
    root-hints: \"{hints}\"
    local-zone: \"test.\" nodefault
    module-config: \"iterator\"
    username: \"\"
    chroot: \"\"
    directory: \"{path}\"
    pidfile: \"\"
    use-syslog: no
    logfile: \"\"
    num-threads: 1
    incoming-num-tcp: 512
    cache-max-ttl: 0
    cache-max-negative-ttl: 0
    infra-host-ttl: 5
    infra-cache-max-rtt: 1000
    unknown-server-time-limit: 50
{lines}
remote-control:
    control-enable: no
",
                ip = address.ip(),
                hints = hints.display(),
                path = path.display(),
            ),
        );
        let mut command = Command::new(crate::program("unbound"));
        command.args(["-d", "-p", "-c"]).arg(&config);
        let process = Process::spawn("unbound", command);
        process.stderr_line("its line \"start of service\"", |line| line.contains("start of service").then_some(())).await;
        let unbound = Self { address, process, _folder: folder };
        let mut query = dns::query(".", RecordType::NS);
        query.metadata.recursion_desired = true;
        let attempt = || async {
            let answer = dns::exchange(unbound.dns(), &query).await?;
            if answer.answers.is_empty() { anyhow::bail!("{:?}", answer.metadata.response_code) } else { Ok(()) }
        };
        until("unbound to find the root's servers", attempt).await;
        unbound
    }

    /// Its process, to be measured.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Where it answers.
    pub fn dns(&self) -> SocketAddr {
        self.address.dns()
    }
}
