//! The clients of Route 53 and of the token service, with the credential that the settings name.

use std::{fmt, path::Path, sync::Arc, time::Duration};

use aws_config::{
    BehaviorVersion, Region, SdkConfig,
    environment::EnvironmentVariableRegionProvider,
    meta::region::RegionProviderChain,
    profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider},
    provider_config::ProviderConfig,
};
use aws_credential_types::provider::{ProvideCredentials, error::CredentialsError, future};
use aws_sdk_route53::config::{
    Credentials, IdentityCache, SharedCredentialsProvider, SharedHttpClient, retry::RetryConfig, timeout::TimeoutConfig,
};
use aws_smithy_http_client::tls;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use secrecy::ExposeSecret;

use super::{
    AssumeRole, Settings, WebIdentity,
    failure::{Failure, of_credential, root},
};
use crate::{
    Error,
    secret::{self, SecretRef, Secrets},
};

const CONNECT: Duration = Duration::from_secs(10);
/// How long one call may take in all.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long a credential may take: two roles one after the other, or an instance's metadata after its retries.
const LOAD: Duration = Duration::from_secs(20);
/// Route 53 has one endpoint for the whole partition; this names the partition, and where requests are signed for.
const REGION: &str = "us-east-1";
const SESSION: &str = "acmegate";

/// The clients of one credential.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) route53: aws_sdk_route53::Client,
    pub(super) sts: aws_sdk_sts::Client,
}

/// A client for HTTPS whose roots are those of a PEM file instead of the system's.
///
/// # Errors
/// A text that says what is wrong with the file.
pub(super) fn https(ca_file: &Path) -> Result<SharedHttpClient, String> {
    let pem = std::fs::read(ca_file).map_err(|error| format!("ca_file: {} cannot be read: {error}", ca_file.display()))?;
    // Checked here, because the SDK's client panics over what is no certificate.
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let added = certificate.ok().and_then(|certificate| roots.add(certificate).ok());
        added.ok_or_else(|| format!("ca_file: {} is not PEM with certificates", ca_file.display()))?;
    }
    if roots.is_empty() {
        return Err(format!("ca_file: {} holds no certificate", ca_file.display()));
    }
    let context = tls::TlsContext::builder().with_trust_store(tls::TrustStore::empty().with_pem_certificate(pem)).build();
    let context = context.map_err(|error| format!("ca_file: {} cannot be used: {error}", ca_file.display()))?;
    let provider = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc);
    Ok(aws_smithy_http_client::Builder::new().tls_provider(provider).tls_context(context).build_https())
}

impl Session {
    /// Reads the environment and the profile files, and makes the clients. Credentials are asked for with the first call.
    pub(super) async fn open(settings: &Settings, http: Option<SharedHttpClient>, secrets: &Arc<dyn Secrets>) -> Self {
        let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT).operation_timeout(DEADLINE).build();
        let mut profile_region = ProfileFileRegionProvider::builder();
        if let Some(profile) = &settings.profile {
            profile_region = profile_region.profile_name(profile);
        }
        // Not the SDK's whole chain: that would ask an instance's metadata, which elsewhere takes seconds to find absent.
        let region = RegionProviderChain::first_try(settings.region.clone().map(Region::new))
            .or_else(EnvironmentVariableRegionProvider::new())
            .or_else(profile_region.build())
            .or_else(Region::from_static(REGION))
            .region()
            .await;
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .region(region.clone())
            .timeout_config(timeouts)
            .identity_cache(IdentityCache::lazy().load_timeout(LOAD).build());
        if let Some(http) = &http {
            loader = loader.http_client(http.clone());
        }
        if let Some(name) = &settings.profile {
            // Not the SDK's chain, in which a key in the environment goes before the profile that is asked for.
            loader = loader.profile_name(name).credentials_provider(Profile { name: name.clone(), region, http });
        }
        if let (Some(id), Some(key)) = (&settings.access_key_id, &settings.secret_access_key) {
            let keys = Keys { id: id.clone(), key: key.clone(), token: settings.session_token.clone(), secrets: Arc::clone(secrets) };
            // A key is read with every call, so that a rotated one is used at once.
            loader = loader.credentials_provider(keys).identity_cache(IdentityCache::no_cache());
        }
        let mut config = loader.load().await;
        if let Some(identity) = &settings.web_identity {
            let role = Role::of_web_identity(sts(&config, settings), identity, secrets);
            config = with(&config, role);
        }
        if let Some(role) = &settings.assume_role {
            let role = Role::of_credential(sts(&config, settings), role);
            config = with(&config, role);
        }
        let mut route53 = aws_sdk_route53::config::Builder::from(&config)
            // The limiter of the account decides about retries, and the caller: only it knows whether a change may be sent twice.
            .retry_config(RetryConfig::disabled());
        if let Some(endpoint) = &settings.endpoint {
            route53 = route53.endpoint_url(endpoint);
        }
        Self { route53: aws_sdk_route53::Client::from_conf(route53.build()), sts: sts(&config, settings) }
    }
}

fn sts(config: &SdkConfig, settings: &Settings) -> aws_sdk_sts::Client {
    let mut sts = aws_sdk_sts::config::Builder::from(config);
    if let Some(endpoint) = &settings.sts_endpoint {
        sts = sts.endpoint_url(endpoint);
    }
    aws_sdk_sts::Client::from_conf(sts.build())
}

/// The same configuration with a role's credentials.
fn with(config: &SdkConfig, role: Role) -> SdkConfig {
    let cache = IdentityCache::lazy().load_timeout(LOAD).build();
    config.clone().into_builder().credentials_provider(SharedCredentialsProvider::new(role)).identity_cache(cache).build()
}

/// A profile, read whenever its credential is needed anew.
struct Profile {
    name: String,
    region: Option<Region>,
    http: Option<SharedHttpClient>,
}

impl Profile {
    async fn read(&self) -> Result<Credentials, CredentialsError> {
        let mut config = ProviderConfig::without_region().with_region(self.region.clone());
        if let Some(http) = &self.http {
            config = config.with_http_client(http.clone());
        }
        let profile = ProfileFileCredentialsProvider::builder().profile_name(&self.name).configure(&config).build();
        match profile.provide_credentials().await {
            Err(error @ (CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_))) => {
                let text = format!("the profile {} gives no credential: {}", self.name, root(&error));
                Err(CredentialsError::provider_error(Error::Auth(text)))
            }
            other => other,
        }
    }
}

impl ProvideCredentials for Profile {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.read())
    }
}

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the profile {}", self.name)
    }
}

/// Access keys from the settings.
struct Keys {
    id: SecretRef,
    key: SecretRef,
    token: Option<SecretRef>,
    secrets: Arc<dyn Secrets>,
}

impl Keys {
    async fn read(&self) -> Result<Credentials, Error> {
        let id = secret::token(&*self.secrets, &self.id).await?;
        let key = secret::token(&*self.secrets, &self.key).await?;
        let token = match &self.token {
            Some(token) => Some(secret::token(&*self.secrets, token).await?.expose_secret().to_owned()),
            None => None,
        };
        Ok(Credentials::new(id.expose_secret(), key.expose_secret(), token, None, "settings"))
    }
}

impl ProvideCredentials for Keys {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async { self.read().await.map_err(CredentialsError::provider_error) })
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "access keys from {} and {}", self.id, self.key)
    }
}

/// A role, taken with another credential or with a web identity's token.
struct Role {
    sts: aws_sdk_sts::Client,
    arn: String,
    session: String,
    from: Source,
}

enum Source {
    Credential { external_id: Option<String> },
    Token { file: SecretRef, secrets: Arc<dyn Secrets> },
}

impl Role {
    fn of_credential(sts: aws_sdk_sts::Client, role: &AssumeRole) -> Self {
        let session = role.session_name.clone().unwrap_or_else(|| SESSION.to_owned());
        Self { sts, arn: role.role_arn.clone(), session, from: Source::Credential { external_id: role.external_id.clone() } }
    }

    fn of_web_identity(sts: aws_sdk_sts::Client, identity: &WebIdentity, secrets: &Arc<dyn Secrets>) -> Self {
        let session = identity.session_name.clone().unwrap_or_else(|| SESSION.to_owned());
        let from = Source::Token { file: SecretRef::File(identity.token_file.clone()), secrets: Arc::clone(secrets) };
        Self { sts, arn: identity.role_arn.clone(), session, from }
    }

    async fn take(&self) -> Result<Credentials, Error> {
        let what = |failure: Failure| of_credential(&format!("the role {} cannot be taken", self.arn), failure.error);
        let taken = match &self.from {
            Source::Credential { external_id } => {
                let request = self.sts.assume_role().role_arn(&self.arn).role_session_name(&self.session);
                let taken = Box::pin(request.set_external_id(external_id.clone()).send()).await;
                taken.map_err(|error| what(Failure::of(&error)))?.credentials
            }
            Source::Token { file, secrets } => {
                let token = secret::token(&**secrets, file).await?;
                let request = self.sts.assume_role_with_web_identity().role_arn(&self.arn).role_session_name(&self.session);
                let taken = Box::pin(request.web_identity_token(token.expose_secret()).send()).await;
                taken.map_err(|error| what(Failure::of(&error)))?.credentials
            }
        };
        let taken = taken.ok_or_else(|| Error::Unsent("the token service gave no credential".to_owned()))?;
        let expiry = std::time::SystemTime::try_from(taken.expiration).ok();
        Ok(Credentials::new(taken.access_key_id, taken.secret_access_key, Some(taken.session_token), expiry, "role"))
    }
}

impl ProvideCredentials for Role {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async { self.take().await.map_err(CredentialsError::provider_error) })
    }
}

impl fmt::Debug for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the role {}", self.arn)
    }
}
