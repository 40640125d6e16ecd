//! Orders of earlier runs.

use super::{AcmeError, Order, Status, client::Session};

impl Session {
    /// The order at a URL that an earlier run wrote down, if something can come of it yet: it is for exactly these names, and the CA has not given it up. One that is
    /// being issued or was issued is of use only to who has its key.
    ///
    /// # Errors
    /// [`AcmeError`], if the CA cannot say.
    pub(in crate::issuer) async fn take_up(&self, url: &str, names: &[String], has_key: bool) -> Result<Option<Order>, AcmeError> {
        let order = match self.order(url).await {
            Ok(order) => order,
            // Forgotten, or another account's, since this one was registered anew.
            Err(AcmeError::Problem { problem, .. }) if (400..500).contains(&problem.status) && !problem.is_later() => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut wanted = names.to_vec();
        wanted.sort();
        let of_use = match order.status {
            Status::Pending | Status::Ready => true,
            Status::Processing | Status::Valid => has_key,
            _ => false,
        };
        if !of_use || order.names() != wanted {
            return Ok(None);
        }
        self.taken(&order.url);
        Ok(Some(order))
    }

    /// Remembers an order as one of this run's.
    pub(super) fn taken(&self, url: &str) {
        self.orders.lock().push(url.to_owned());
        self.client.orders.lock().insert(url.to_owned());
    }
}
