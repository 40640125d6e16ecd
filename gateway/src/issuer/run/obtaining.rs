//! From a validated order to a checked certificate.

use super::{
    super::{
        acme::{Download, Order, Polled, Problem, Session, Status, Work},
        certificate::{self, CertificateKey},
        error::IssueError,
        event::Event,
        issued::Issued,
    },
    Clock, ISSUANCE, Run,
};

impl Run<'_> {
    /// From an order whose names are proved to the certificate.
    ///
    /// # Errors
    /// [`IssueError`].
    pub(super) async fn obtain(&self, clock: &Clock, session: &Session, order: Order, key: &CertificateKey) -> Result<Issued, IssueError> {
        let order = self.finalize(clock, session, order, key).await?;
        let key = key.pair().await?;
        let downloaded = clock.time("download", session.certificate(&order)).await;
        let downloaded = downloaded.map_err(|error| IssueError::from_acme("the certificate", error))?;
        let Download { url, chain, .. } = self.preferred(session, downloaded).await?;
        let names = self.names.to_strings();
        let checked = certificate::check(&chain, &names, key).map_err(|text| IssueError::BadCertificate { text })?;
        checked.warnings.iter().for_each(|text| self.reporter.warn(text));
        self.reporter.send(Event::Issued);
        Ok(Issued {
            private_key_pem: certificate::key_pem(key),
            certificate_pem: checked.certificate_pem,
            chain_pem: checked.chain_pem,
            fullchain_pem: checked.fullchain_pem,
            names,
            not_before: checked.not_before,
            not_after: checked.not_after,
            url,
            directory: self.directory.url.clone(),
            job: self.journal.job().to_owned(),
            timings: clock.read(session.requests()),
        })
    }

    /// The certificate with the chain that was asked for, or with the CA's own if there is none such: a certificate with another chain is better than none.
    async fn preferred(&self, session: &Session, first: Download) -> Result<Download, IssueError> {
        let Some(wanted) = &self.directory.preferred_chain else { return Ok(first) };
        let mut offered = Vec::new();
        let mut is_it = |download: &Download| {
            let issuer = certificate::last_issuer(&download.chain);
            let found = issuer.as_deref() == Some(wanted);
            offered.extend(issuer);
            found
        };
        if is_it(&first) {
            return Ok(first);
        }
        for url in &first.alternates {
            match session.chain(url.clone()).await {
                Ok(other) if is_it(&other) => return Ok(other),
                Ok(_) => {}
                Err(error) => self.reporter.warn(format!("a chain that the CA offers could not be had: {error}")),
            }
        }
        let offered = if offered.is_empty() { "none whose issuer can be read".to_owned() } else { offered.join(", ") };
        self.reporter.warn(format!("the CA offers no chain that ends with {wanted:?}, but {offered}; its own was taken"));
        Ok(first)
    }

    /// From a validated order to a valid one. One that an earlier run finalized is waited for.
    async fn finalize(&self, clock: &Clock, session: &Session, order: Order, key: &CertificateKey) -> Result<Order, IssueError> {
        let internal = |text: String| IssueError::Internal { text };
        let pair = clock.time("key", key.pair()).await?;
        // The key is on disk before a certificate can be made out for it.
        self.place(key).await?;
        let mut order = if order.status == Status::Ready {
            let request = certificate::signing_request(&self.names.to_strings(), pair).map_err(internal)?;
            let finalized = clock.time("finalize", session.finalize(&order, &request)).await;
            finalized.map_err(|error| IssueError::from_acme("the signing request", error))?
        } else {
            order
        };
        if matches!(order.status, Status::Ready | Status::Processing) {
            let waiting = |status| matches!(status, Status::Ready | Status::Processing);
            let waited = clock.time("issuance", session.wait(&order.url, Work::Issuance, waiting, ISSUANCE)).await;
            order = match waited.map_err(|error| IssueError::from_acme("the order", error))? {
                Polled::Done(order) => *order,
                Polled::TooSlow => return Err(IssueError::TooSlow { action: "the certificate".into(), seconds: ISSUANCE.as_secs() }),
            };
        }
        match order.status {
            Status::Valid => Ok(order),
            _ => {
                let problem = order.error.unwrap_or_else(|| Problem { detail: "the order became invalid".into(), ..Problem::default() });
                Err(IssueError::Refused { action: "the signing request".into(), problem: Box::new(problem) })
            }
        }
    }
}
