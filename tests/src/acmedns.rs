//! A client of the acme-dns API that speaks it by the book, for tests whose subject is something else.

use reqwest::{Client, StatusCode};
use serde::Deserialize;

/// What registration gives.
#[derive(Debug, Clone, Deserialize)]
pub struct Account {
    /// `X-Api-User`.
    pub username: String,
    /// `X-Api-Key`.
    pub password: String,
    /// The name of its TXT values.
    pub fulldomain: String,
    /// The first label of that name.
    pub subdomain: String,
    /// The networks that may update; empty for all.
    pub allowfrom: Vec<String>,
}

/// Registers an account at a base URL such as `http://127.0.0.1:8080`.
///
/// # Errors
/// When the door cannot be reached or does not answer 201.
pub async fn register(client: &Client, base: &str) -> anyhow::Result<Account> {
    let response = client.post(format!("{base}/register")).send().await?;
    anyhow::ensure!(response.status() == StatusCode::CREATED, "{base}/register answered {}", response.status());
    Ok(response.json().await?)
}

/// Sets a TXT value: `Ok` means that the door has acknowledged it.
///
/// # Errors
/// When the door cannot be reached or does not answer 200.
pub async fn update(client: &Client, base: &str, account: &Account, txt: &str) -> anyhow::Result<()> {
    let body = serde_json::json!({ "subdomain": account.subdomain, "txt": txt });
    let request = client.post(format!("{base}/update")).header("X-Api-User", &account.username).header("X-Api-Key", &account.password);
    let response = request.json(&body).send().await?;
    anyhow::ensure!(response.status() == StatusCode::OK, "{base}/update answered {}", response.status());
    Ok(())
}

/// A value as ACME makes them, 43 characters of base64url: different for different seeds.
pub fn value(seed: u64) -> String {
    format!("{seed:043}")
}
