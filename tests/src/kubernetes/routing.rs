//! How the API server finds an aggregated one: by an APIService that names a Service.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::Method;
use serde_json::json;

use super::{Cluster, condition};
use crate::wait::until;

impl Cluster {
    /// Routes an API group to whoever listens at `address` of 127.0.0.1, and waits until it is available. The process shows a certificate of `authority` (PEM)
    /// for `NAME.NAMESPACE.svc`, where `service` is `(namespace, name)`.
    ///
    /// # Panics
    /// When it never becomes available.
    pub async fn route(&self, group: &str, service: (&str, &str), address: SocketAddr, authority: &str) {
        let (namespace, name) = service;
        assert_eq!(address.ip(), IpAddr::V4(Ipv4Addr::LOCALHOST), "`localhost` of the API server");
        self.namespace(namespace).await;
        let target = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
            "spec": {"type": "ExternalName", "externalName": "localhost"},
        });
        self.apply(&target.to_string()).await;
        self.register(group, service, address.port(), authority).await;
    }

    /// Tells the cluster that a Service (namespace and name), at this port, serves version `v1alpha1` of a group, and waits until it is available.
    ///
    /// # Panics
    /// When it never becomes available.
    pub async fn register(&self, group: &str, service: (&str, &str), port: u16, authority: &str) {
        let (namespace, name) = service;
        let api_service = json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": format!("v1alpha1.{group}")},
            "spec": {
                "group": group, "version": "v1alpha1", "groupPriorityMinimum": 1000, "versionPriority": 15,
                "caBundle": STANDARD.encode(authority),
                "service": {"namespace": namespace, "name": name, "port": port},
            },
        });
        self.apply(&api_service.to_string()).await;
        self.available(group).await;
    }

    /// Waits until the API server has found the group's server there. It looks again every 30 s, and sooner when something has changed.
    ///
    /// # Panics
    /// When it never does.
    pub async fn available(&self, group: &str) {
        let path = format!("/apis/apiregistration.k8s.io/v1/apiservices/v1alpha1.{group}");
        let api = self.api();
        let attempt = || async {
            let found = api.ask(Method::GET, &path, None).await?;
            let available = condition(&found.body, "Available");
            if available["status"] == "True" { Ok(()) } else { Err(anyhow::anyhow!("{available}")) }
        };
        until(&format!("the APIService of {group} to be available"), attempt).await;
    }

    /// Where a process has to listen to be the Service of this namespace and name, which is there already (a chart made it): the Service's own address and
    /// first port. It gets an EndpointSlice, as a ready pod would give it one.
    ///
    /// # Panics
    /// When the Service is not there.
    pub async fn service_address(&self, namespace: &str, name: &str) -> SocketAddr {
        let service = self.api().get(&format!("/api/v1/namespaces/{namespace}/services/{name}")).await;
        let port = &service["spec"]["ports"][0];
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": format!("{name}-test"), "namespace": namespace, "labels": {"kubernetes.io/service-name": name}},
            // No address of this machine may stand in one. Nobody is ever sent to it: the API server goes to the Service's address.
            "addressType": "IPv4", "endpoints": [{"addresses": ["192.0.2.254"], "conditions": {"ready": true}}],
            "ports": [{"name": port["name"].as_str().unwrap_or_default(), "port": port["port"], "protocol": "TCP"}],
        });
        self.apply(&slice.to_string()).await;
        let address = service["spec"]["clusterIP"].as_str().and_then(|ip| ip.parse::<IpAddr>().ok());
        let number = port["port"].as_u64().and_then(|number| u16::try_from(number).ok());
        let (Some(address), Some(number)) = (address, number) else { panic!("{namespace}/{name} has no address and port: {service}") };
        assert!(address.is_loopback(), "{address} is no address of this machine");
        SocketAddr::new(address, number)
    }

    /// An address of the cluster's range that a manifest can ask for as `clusterIP`; `number` is 2 or more.
    pub fn cluster_ip(&self, number: u8) -> IpAddr {
        self.services.address(number)
    }
}
