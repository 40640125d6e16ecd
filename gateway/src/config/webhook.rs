//! The sections `webhook:` and `kubernetes:`: from what is written to what is valid.

use std::net::SocketAddr;

use super::{
    Callers, Kubernetes, Service, Webhook,
    parse::{Parser, flat},
    spec::{BackendSpec, CallersSpec, KubernetesSpec, WebhookSpec},
};

impl Parser<'_> {
    fn callers(&mut self, spec: &CallersSpec) -> Option<Callers> {
        match (spec.cluster, &spec.ca_file) {
            (true, None) => {
                if !spec.names.is_empty() {
                    self.wrong("webhook.callers.names", "goes with ca_file; the cluster itself knows its callers' names");
                }
                Some(Callers::Cluster)
            }
            (false, Some(ca_file)) => {
                self.readable(ca_file, "webhook.callers.ca_file");
                if spec.names.is_empty() {
                    self.wrong("webhook.callers.names", "is empty: list the common names of the certificates that may call");
                }
                Some(Callers::Certificates { ca_file: ca_file.clone(), names: spec.names.clone() })
            }
            _ => {
                self.wrong("webhook.callers", "wants one of `cluster: true` and `ca_file: FILE`");
                None
            }
        }
    }

    pub(super) fn kubernetes(&mut self, spec: &KubernetesSpec) -> Kubernetes {
        if let Some(kubeconfig) = &spec.kubeconfig {
            self.readable(kubeconfig, "kubernetes.kubeconfig");
        }
        Kubernetes { kubeconfig: spec.kubeconfig.clone() }
    }

    pub(super) fn webhook(&mut self, spec: &WebhookSpec, backends: &[BackendSpec]) -> Option<Webhook> {
        let listen = self.listen(&spec.listen, "webhook.listen");
        let elsewhere = |address: &str| address.parse::<SocketAddr>().is_ok_and(|address| !address.ip().is_loopback());
        for (suffix, address) in spec.listen.entries().into_iter().filter(|(_, address)| spec.callers.is_none() && elsewhere(address)) {
            let message = format!(
                "{address} is not a loopback address, and nobody is asked who they are: say who may call, such as callers: {{cluster: true}}, or listen on 127.0.0.1 or [::1]"
            );
            self.wrong(&format!("webhook.listen{suffix}"), message);
        }
        let tls = spec.tls.as_ref().map(|tls| self.tls(tls, "webhook.tls"));
        // Kubernetes wants a DNS subdomain as API group and a DNS label as resource name.
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if spec.group.len() > 253 || !spec.group.contains('.') || !spec.group.split('.').all(label) {
            self.wrong("webhook.group", format!("{:?} is not an API group such as acme.example.org (lower case)", spec.group));
        }
        if !label(&spec.solver) {
            self.wrong(
                "webhook.solver",
                format!("{:?} is not a solver name such as acmegate (lower-case letters, digits and -)", spec.solver),
            );
        }
        let policy = self.policy(&spec.policy, backends);
        let callers = spec.callers.as_ref().map(|callers| self.callers(callers));
        if let Some(service) = &spec.service {
            for (key, given) in [("name", &service.name), ("namespace", &service.namespace)] {
                if !label(given) {
                    self.wrong(
                        &format!("webhook.service.{key}"),
                        format!("{given:?} is no name of a Kubernetes object (lower-case letters, digits and -)"),
                    );
                }
            }
            if spec.tls.is_some() {
                self.wrong(
                    "webhook.service",
                    "goes without `tls`: who brings the certificate's files sees to the APIService's caBundle, too",
                );
            }
        }
        let service = spec.service.as_ref().map(|service| Service { name: service.name.clone(), namespace: service.namespace.clone() });
        Some(Webhook {
            listen: listen?,
            tls: flat(tls)?,
            group: spec.group.clone(),
            solver: spec.solver.clone(),
            service,
            callers: flat(callers)?,
            policy: policy?,
        })
    }
}
