//! Equal requests that are under way at the same time, of which one computes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::CacheKey;
use crate::{Answer, ServeError};

type Landed = Result<Arc<Answer>, ServeError>;

/// Computations that are under way, by what they compute.
#[derive(Clone, Default)]
pub(super) struct Flights {
    under_way: Arc<Mutex<HashMap<CacheKey, watch::Receiver<Option<Landed>>>>>,
}

/// What a request has to do.
pub(super) enum Role {
    /// Compute, for itself and for those that join.
    Flies(Flight),
    /// Wait for the one that computes.
    Waits(Landing),
}

/// A computation that others may wait for. Where it is dropped, they hear that there is no result.
pub(super) struct Flight {
    flights: Flights,
    key: CacheKey,
    sender: watch::Sender<Option<Landed>>,
}

/// The result of somebody else's computation.
pub(super) struct Landing(watch::Receiver<Option<Landed>>);

impl Flights {
    /// Joins the flight for `key`, or sets out.
    pub(super) fn join(&self, key: CacheKey) -> Role {
        match self.lock().entry(key) {
            Entry::Occupied(entry) => Role::Waits(Landing(entry.get().clone())),
            Entry::Vacant(entry) => {
                let (sender, receiver) = watch::channel(None);
                entry.insert(receiver);
                Role::Flies(Flight { flights: self.clone(), key, sender })
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CacheKey, watch::Receiver<Option<Landed>>>> {
        // The map is whole after every statement.
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flight {
    /// Tells those that wait.
    pub(super) fn land(self, result: Landed) {
        self.sender.send_replace(Some(result));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        // Before the sender goes, so that who hears of the end finds no flight that has ended.
        self.flights.lock().remove(&self.key);
    }
}

impl Landing {
    /// The result; `None` where the computation was given up.
    pub(super) async fn result(mut self) -> Option<Landed> {
        self.0.wait_for(Option::is_some).await.ok()?.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{answer, key};
    use super::*;

    fn flies(flights: &Flights, seed: u64) -> Flight {
        match flights.join(key(seed)) {
            Role::Flies(flight) => flight,
            Role::Waits(_) => panic!("somebody else flies"),
        }
    }

    fn waits(flights: &Flights, seed: u64) -> Landing {
        match flights.join(key(seed)) {
            Role::Waits(landing) => landing,
            Role::Flies(_) => panic!("nobody flies"),
        }
    }

    #[tokio::test]
    async fn those_that_wait_get_the_result_of_the_one_that_flies() {
        let flights = Flights::default();
        let flight = flies(&flights, 1);
        let landing = waits(&flights, 1);
        let other = flies(&flights, 2);
        flight.land(Ok(Arc::new(answer(&[4.0]))));
        assert_eq!(landing.result().await.unwrap().unwrap().outputs, answer(&[4.0]).outputs);
        drop(other);
        assert!(flights.lock().is_empty());
    }

    #[tokio::test]
    async fn where_a_flight_is_given_up_the_next_one_flies() {
        let flights = Flights::default();
        let flight = flies(&flights, 1);
        let (one, two) = (waits(&flights, 1), waits(&flights, 1));
        drop(flight);
        assert!(one.result().await.is_none());
        let flight = flies(&flights, 1);
        assert!(two.result().await.is_none());
        let landing = waits(&flights, 1);
        flight.land(Err(ServeError::Runtime("no".to_owned())));
        assert!(landing.result().await.unwrap().is_err());
    }
}
