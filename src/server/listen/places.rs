//! How many sockets are open, in all and from each address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::server::registry::network;

/// The counts of one listener.
#[derive(Debug)]
pub(super) struct Places {
    in_all_max: usize,
    per_address_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    in_all: usize,
    /// Only kept where there is a limit for each address.
    by_address: HashMap<IpAddr, usize, foldhash::fast::RandomState>,
}

/// One socket's place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

impl Places {
    pub(super) fn new(in_all_max: usize, per_address_max: usize) -> Arc<Self> {
        Arc::new(Self { in_all_max, per_address_max, taken: Mutex::default() })
    }

    /// Takes a place for a socket from `address`; `None` where there is no more.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = network(address);
        let mut taken = self.taken();
        if taken.in_all >= self.in_all_max {
            return None;
        }
        if self.per_address_max > 0 {
            let count = taken.by_address.entry(address).or_default();
            if *count >= self.per_address_max {
                return None;
            }
            *count += 1;
        }
        taken.in_all += 1;
        Some(Place { places: Arc::clone(self), address })
    }

    fn taken(&self) -> std::sync::MutexGuard<'_, Taken> {
        // Counts are whole at every moment, also after a panic.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.in_all -= 1;
        if let Some(count) = taken.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_all_and_by_address_and_given_back() {
        let at = |text: &str| text.parse::<IpAddr>().expect("an address");
        let places = Places::new(4, 2);
        let mut held: Vec<Option<Place>> = Vec::new();
        for (address, free) in [
            ("10.0.0.1", true),
            ("::ffff:10.0.0.1", true),
            ("10.0.0.1", false),
            ("2001:db8:0:1::1", true),
            ("2001:db8:0:1:ffff::2", true),
            ("2001:db8:0:2::1", false), // four are open in all
        ] {
            let place = places.take(at(address));
            assert_eq!(place.is_some(), free, "{address}");
            held.push(place);
        }
        held.clear();
        assert!(places.taken().by_address.is_empty() && places.taken().in_all == 0);
        let unbounded = Places::new(100, 0);
        let many: Vec<_> = (0..100).map(|_| unbounded.take(at("10.0.0.1")).expect("a place")).collect();
        assert!(unbounded.taken().by_address.is_empty());
        drop(many);
    }
}
