//! The programs of a control plane with all that they are told, and the ports and addresses that they have.

use std::{
    net::{IpAddr, Ipv4Addr, TcpListener},
    path::Path,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use super::pki::{FRONT_PROXY, Pki};
use crate::{peers::peer, ports::Port};

/// The ports of one control plane.
pub(super) struct Ports {
    etcd: Port,
    etcd_peers: Port,
    pub(super) api: Port,
    controllers: Port,
}

impl Ports {
    pub(super) fn reserve() -> Self {
        Self { etcd: Port::reserve(), etcd_peers: Port::reserve(), api: Port::reserve(), controllers: Port::reserve() }
    }
}

/// The controllers that make a cluster without pods behave: namespaces go, with claims of volumes in them, owned objects go, and each namespace has its
/// ServiceAccount.
const CONTROLLERS: &str = "namespace-controller,garbage-collector-controller,serviceaccount-controller,serviceaccount-token-controller,\
                           root-ca-certificate-publisher-controller,clusterrole-aggregation-controller,persistentvolumeclaim-protection-controller";

/// etcd, with its data in this folder.
pub(super) fn etcd(ports: &Ports, folder: &Path) -> Command {
    let (clients, peers) = (format!("http://{}", ports.etcd.address()), format!("http://{}", ports.etcd_peers.address()));
    let mut command = kubelab("etcd");
    command.args(["--name=test", &format!("--initial-cluster=test={peers}"), "--log-level=warn"]);
    // What survives a killed process is enough here; a killed machine takes the test along.
    command.arg("--unsafe-no-fsync").arg("--data-dir").arg(folder);
    command.args([format!("--listen-client-urls={clients}"), format!("--advertise-client-urls={clients}")]);
    command.args([format!("--listen-peer-urls={peers}"), format!("--initial-advertise-peer-urls={peers}")]);
    command
}

/// The API server of these ports, for Services of these addresses.
pub(super) fn api_server(ports: &Ports, services: &Services, pki: &Pki) -> Command {
    let file = |name: &str| pki.folder().join(name).display().to_string();
    let mut command = kubelab("kube-apiserver");
    let flags = [
        ("etcd-servers", format!("http://{}", ports.etcd.address())),
        ("bind-address", "127.0.0.1".into()),
        ("advertise-address", "127.0.0.1".into()),
        ("secure-port", ports.api.address().port().to_string()),
        // An endpoint on loopback would be refused.
        ("endpoint-reconciler-type", "none".into()),
        ("service-cluster-ip-range", services.range()),
        ("authorization-mode", "RBAC".into()),
        ("client-ca-file", file("ca.crt")),
        ("tls-cert-file", file("apiserver.crt")),
        ("tls-private-key-file", file("apiserver.key")),
        ("service-account-issuer", "https://kubernetes.default.svc.cluster.local".into()),
        ("service-account-key-file", file("service-accounts.pub")),
        ("service-account-signing-key-file", file("service-accounts.key")),
        ("requestheader-client-ca-file", file("front-proxy-ca.crt")),
        ("requestheader-allowed-names", FRONT_PROXY.into()),
        ("requestheader-username-headers", "X-Remote-User".into()),
        ("requestheader-group-headers", "X-Remote-Group".into()),
        ("requestheader-extra-headers-prefix", "X-Remote-Extra-".into()),
        ("proxy-client-cert-file", file(&format!("{FRONT_PROXY}.crt"))),
        ("proxy-client-key-file", file(&format!("{FRONT_PROXY}.key"))),
    ];
    command.args(flags.map(|(flag, value)| format!("--{flag}={value}")));
    command
}

/// The controller manager, as whoever this kubeconfig names.
pub(super) fn controllers(ports: &Ports, pki: &Pki, kubeconfig: &Path) -> Command {
    let mut command = kubelab("kube-controller-manager");
    for flag in ["--kubeconfig", "--authentication-kubeconfig", "--authorization-kubeconfig"] {
        command.arg(flag).arg(kubeconfig);
    }
    command.args(["--leader-elect=false", "--use-service-account-credentials", "--bind-address=127.0.0.1"]);
    command.args(["--controllers", CONTROLLERS, "--secure-port", &ports.controllers.address().port().to_string()]);
    command.arg("--service-account-private-key-file").arg(pki.folder().join("service-accounts.key"));
    command.arg("--root-ca-file").arg(pki.folder().join("ca.crt"));
    command
}

/// The peer that is all three programs.
fn kubelab(program: &str) -> Command {
    let mut command = Command::new(peer("kubelab"));
    command.arg(program);
    command
}

/// The addresses of a cluster's Services, 127.96.N.0/24, which no other cluster has for as long as this value lives.
pub(super) struct Services {
    network: u8,
    _reservation: TcpListener,
}

/// The port whose listener reserves a range, as that of [`crate::addresses`] reserves an address.
const RESERVATION: u16 = 15353;

impl Services {
    pub(super) fn reserve() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let start = std::process::id().wrapping_mul(7919);
        for _ in 0..=u8::MAX {
            let [network, ..] = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)).to_le_bytes();
            if let Ok(reservation) = TcpListener::bind((Ipv4Addr::new(127, 96, network, 0), RESERVATION)) {
                return Self { network, _reservation: reservation };
            }
        }
        panic!("no range of 127.96.0.0/16 is free");
    }

    pub(super) fn address(&self, host: u8) -> IpAddr {
        Ipv4Addr::new(127, 96, self.network, host).into()
    }

    fn range(&self) -> String {
        format!("{}/24", self.address(0))
    }
}
