//! Who acmegate is at Microsoft Entra: the forms of a credential as they stand in the configuration, and what is taken from the environment.

use std::{path::PathBuf, sync::Arc};

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Deserialize;

use crate::{
    Error,
    secret::{SecretRef, Secrets, token},
};

/// The credential. Exactly one form is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[schemars(inline)]
pub(crate) enum Credential {
    /// What the environment holds, the first of these that is there: `AZURE_CLIENT_SECRET`, or `AZURE_CLIENT_CERTIFICATE_PATH`, or
    /// `AZURE_FEDERATED_TOKEN_FILE` (each with `AZURE_TENANT_ID` and `AZURE_CLIENT_ID`); otherwise the managed identity of the machine
    /// (with `AZURE_CLIENT_ID`, the user-assigned one of that id).
    #[default]
    Environment,
    /// A service principal with a client secret.
    ClientSecret(ClientSecret),
    /// A service principal with a certificate.
    ClientCertificate(ClientCertificate),
    /// A token of another issuer that Entra trusts, such as the service account token of a Kubernetes pod.
    WorkloadIdentity(WorkloadIdentity),
    /// The identity that Azure gives to a virtual machine, an App Service or a Container App.
    ManagedIdentity(ManagedIdentity),
}

/// A service principal with a client secret.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(crate) struct ClientSecret {
    /// The tenant (directory): its id, or one of its domain names.
    pub tenant: String,
    /// The application (client) id.
    pub client_id: String,
    /// The client secret: its value, not its id.
    pub secret: SecretRef,
}

/// A service principal with a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(crate) struct ClientCertificate {
    /// The tenant (directory): its id, or one of its domain names.
    pub tenant: String,
    /// The application (client) id.
    pub client_id: String,
    /// PEM with the RSA private key (not encrypted) and the certificate, and its chain where there is one.
    pub certificate: SecretRef,
    /// Sends the chain along: needed where the application trusts a subject name and an issuer instead of one certificate.
    #[serde(default)]
    pub send_chain: bool,
}

/// A token of another issuer that Entra trusts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(crate) struct WorkloadIdentity {
    /// The tenant (directory); by default `AZURE_TENANT_ID`.
    #[serde(default)]
    pub tenant: Option<String>,
    /// The application (client) id; by default `AZURE_CLIENT_ID`.
    #[serde(default)]
    pub client_id: Option<String>,
    /// The file that holds the token; by default `AZURE_FEDERATED_TOKEN_FILE`. Read again whenever it is needed.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
}

/// The identity that Azure gives to a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(crate) struct ManagedIdentity {
    /// The client id of a user-assigned identity; by default the system-assigned one.
    #[serde(default)]
    pub client_id: Option<String>,
    /// The metadata service; by default `http://169.254.169.254`, or what `IDENTITY_ENDPOINT` and `IDENTITY_HEADER` say where App Service and
    /// Container Apps set them. Only that address, or one of loopback.
    #[serde(default)]
    pub endpoint: Option<String>,
}

/// Gives environment variables; tests have their own.
pub(super) type Variables = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// What a token is asked for with, complete.
pub(super) enum Identity {
    Secret {
        tenant: String,
        client_id: String,
        secret: SecretString,
    },
    Certificate {
        tenant: String,
        client_id: String,
        pem: SecretString,
        send_chain: bool,
    },
    Assertion {
        tenant: String,
        client_id: String,
        assertion: SecretString,
    },
    /// The metadata service of a virtual machine; `endpoint` as in [`ManagedIdentity::endpoint`].
    Metadata {
        client_id: Option<String>,
        endpoint: Option<String>,
    },
    /// The one of App Service and Container Apps; the header proves that the caller runs there.
    AppService {
        client_id: Option<String>,
        endpoint: String,
        header: SecretString,
    },
}

impl Credential {
    /// What is wrong with it, as far as that can be seen without asking anybody.
    pub(super) fn check(&self) -> Result<(), String> {
        let (tenant, client_id) = match self {
            Self::Environment => (None, None),
            Self::ClientSecret(form) => (Some(&form.tenant), Some(&form.client_id)),
            Self::ClientCertificate(form) => (Some(&form.tenant), Some(&form.client_id)),
            Self::WorkloadIdentity(form) => (form.tenant.as_ref(), form.client_id.as_ref()),
            Self::ManagedIdentity(form) => {
                if let Some(endpoint) = &form.endpoint {
                    super::metadata::service(endpoint)?;
                }
                (None, form.client_id.as_ref())
            }
        };
        if let Some(tenant) = tenant {
            checked_tenant(tenant)?;
        }
        match client_id {
            Some(id) if id.trim().is_empty() => Err("credential: client_id is empty: write the application (client) id there".to_owned()),
            _ => Ok(()),
        }
    }

    /// What people call it, for messages: never a secret.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Environment => "the credential of the environment".to_owned(),
            Self::ClientSecret(form) => format!("the application {} (client secret)", form.client_id),
            Self::ClientCertificate(form) => format!("the application {} (certificate)", form.client_id),
            Self::WorkloadIdentity(form) => match &form.client_id {
                Some(id) => format!("the application {id} (workload identity)"),
                None => "the workload identity of the environment".to_owned(),
            },
            Self::ManagedIdentity(form) => match &form.client_id {
                Some(id) => format!("the managed identity {id}"),
                None => "the managed identity of this machine".to_owned(),
            },
        }
    }

    /// Reads whatever it needs, as it is now.
    pub(super) async fn resolve(&self, variables: &Variables, secrets: &dyn Secrets) -> Result<Identity, Error> {
        match self {
            Self::Environment => environment(variables, secrets).await,
            Self::ClientSecret(form) => Ok(Identity::Secret {
                tenant: form.tenant.clone(),
                client_id: form.client_id.clone(),
                secret: token(secrets, &form.secret).await?,
            }),
            Self::ClientCertificate(form) => Ok(Identity::Certificate {
                tenant: form.tenant.clone(),
                client_id: form.client_id.clone(),
                pem: secrets.read(&form.certificate).await?,
                send_chain: form.send_chain,
            }),
            Self::WorkloadIdentity(form) => workload(form, variables, secrets).await,
            Self::ManagedIdentity(form) => Ok(managed(form, variables)),
        }
    }
}

/// The chain that Microsoft's own libraries follow.
async fn environment(variables: &Variables, secrets: &dyn Secrets) -> Result<Identity, Error> {
    let value = |name: &str| variables(name).filter(|value| !value.is_empty());
    if let (Some(tenant), Some(client_id)) = (value("AZURE_TENANT_ID"), value("AZURE_CLIENT_ID")) {
        checked_tenant(&tenant).map_err(Error::Auth)?;
        if let Some(secret) = value("AZURE_CLIENT_SECRET") {
            return Ok(Identity::Secret { tenant, client_id, secret: secret.into() });
        }
        if let Some(path) = value("AZURE_CLIENT_CERTIFICATE_PATH") {
            let pem = secrets.read(&SecretRef::File(path.into())).await?;
            let send_chain =
                value("AZURE_CLIENT_SEND_CERTIFICATE_CHAIN").is_some_and(|text| text == "1" || text.eq_ignore_ascii_case("true"));
            return Ok(Identity::Certificate { tenant, client_id, pem, send_chain });
        }
        if value("AZURE_FEDERATED_TOKEN_FILE").is_some() {
            return workload(&WorkloadIdentity::default(), variables, secrets).await;
        }
    }
    Ok(managed(&ManagedIdentity { client_id: value("AZURE_CLIENT_ID"), endpoint: None }, variables))
}

async fn workload(form: &WorkloadIdentity, variables: &Variables, secrets: &dyn Secrets) -> Result<Identity, Error> {
    let given = |setting: &Option<String>, key: &str, name: &str| {
        let value = setting.clone().or_else(|| variables(name)).filter(|value| !value.is_empty());
        value.ok_or_else(|| {
            Error::Auth(format!("workload identity: {key} is not set, and neither is the environment variable {name}: does the pod carry the label azure.workload.identity/use?"))
        })
    };
    let tenant = given(&form.tenant, "tenant", "AZURE_TENANT_ID")?;
    checked_tenant(&tenant).map_err(Error::Auth)?;
    let client_id = given(&form.client_id, "client_id", "AZURE_CLIENT_ID")?;
    let file = form.token_file.as_ref().map(|path| path.to_string_lossy().into_owned());
    let file = given(&file, "token_file", "AZURE_FEDERATED_TOKEN_FILE")?;
    let assertion = token(secrets, &SecretRef::File(file.into())).await?;
    Ok(Identity::Assertion { tenant, client_id, assertion })
}

fn managed(form: &ManagedIdentity, variables: &Variables) -> Identity {
    let value = |name: &str| variables(name).filter(|value| !value.is_empty());
    let client_id = form.client_id.clone();
    match (&form.endpoint, value("IDENTITY_ENDPOINT"), value("IDENTITY_HEADER")) {
        (None, Some(endpoint), Some(header)) => Identity::AppService { client_id, endpoint, header: header.into() },
        (endpoint, ..) => Identity::Metadata { client_id, endpoint: endpoint.clone() },
    }
}

/// A tenant becomes part of a path: nothing in it may lead elsewhere.
fn checked_tenant(tenant: &str) -> Result<(), String> {
    let fits =
        !tenant.is_empty() && tenant.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.')) && tenant != "..";
    fits.then_some(()).ok_or_else(|| format!("credential: {tenant:?} is no tenant: write its id or one of its domain names"))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;
    use crate::secret::LocalSecrets;

    async fn chosen(variables: &[(&'static str, String)]) -> Result<String, Error> {
        let variables: Vec<_> = variables.to_vec();
        let lookup: Variables = Arc::new(move |name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone()));
        Ok(match Credential::Environment.resolve(&lookup, &LocalSecrets).await? {
            Identity::Secret { secret, .. } => format!("secret {}", secret.expose_secret()),
            Identity::Certificate { pem, send_chain, .. } => format!("certificate {} {send_chain}", pem.expose_secret()),
            Identity::Assertion { tenant, client_id, assertion } => format!("assertion {tenant} {client_id} {}", assertion.expose_secret()),
            Identity::Metadata { client_id, .. } => format!("metadata {client_id:?}"),
            Identity::AppService { endpoint, header, .. } => format!("app service {endpoint} {}", header.expose_secret()),
        })
    }

    #[tokio::test]
    async fn the_environment_is_read_in_the_order_of_microsofts_libraries() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        std::fs::write(&file, "text\n").expect("written");
        let path = file.to_string_lossy().into_owned();
        let principal = [("AZURE_TENANT_ID", "t".to_owned()), ("AZURE_CLIENT_ID", "c".to_owned())];
        let with = |more: &[(&'static str, &str)]| {
            principal.iter().cloned().chain(more.iter().map(|(name, value)| (*name, (*value).to_owned()))).collect::<Vec<_>>()
        };
        let all = [("AZURE_CLIENT_SECRET", "s"), ("AZURE_CLIENT_CERTIFICATE_PATH", &*path), ("AZURE_FEDERATED_TOKEN_FILE", &*path)];
        assert_eq!(chosen(&with(&all)).await.as_deref(), Ok("secret s"));
        assert_eq!(chosen(&with(&all[1..])).await.as_deref(), Ok("certificate text\n false"));
        assert_eq!(chosen(&with(&all[2..])).await.as_deref(), Ok("assertion t c text"));
        assert_eq!(chosen(&with(&[])).await.as_deref(), Ok("metadata Some(\"c\")"));
        assert_eq!(chosen(&[("AZURE_CLIENT_SECRET", "alone".to_owned())]).await.as_deref(), Ok("metadata None"));
        let identity = [("IDENTITY_ENDPOINT", "http://127.0.0.1:1/msi".to_owned()), ("IDENTITY_HEADER", "h".to_owned())];
        assert_eq!(chosen(&identity).await.as_deref(), Ok("app service http://127.0.0.1:1/msi h"));
        let elsewhere = with(&[("AZURE_CLIENT_SECRET", "s")]).into_iter().map(|(name, value)| match name {
            "AZURE_TENANT_ID" => (name, "../other".to_owned()),
            _ => (name, value),
        });
        assert!(matches!(chosen(&elsewhere.collect::<Vec<_>>()).await, Err(Error::Auth(_))));
    }

    #[test]
    fn the_forms_are_maps_of_one_key_or_the_word_environment() {
        let parsed: Credential = serde_json::from_str(r#""environment""#).expect("the word");
        assert_eq!(parsed, Credential::Environment);
        let parsed: Credential = serde_json::from_str(r#"{"managed_identity": {}}"#).expect("a map");
        assert_eq!(parsed, Credential::ManagedIdentity(ManagedIdentity::default()));
        let two = r#"{"managed_identity": {}, "workload_identity": {}}"#;
        assert!(serde_json::from_str::<Credential>(two).is_err(), "one form only");
        assert!(serde_json::from_str::<Credential>(r#"{"client_secret": {"tenant": "t", "client_id": "c", "secret": "plain"}}"#).is_err());
    }
}
