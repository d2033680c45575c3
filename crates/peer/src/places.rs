//! Places for connections, of which strangers take none from those who are known.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

/// Bits of an IPv6 address that tell one network from another: whoever has one such network has all addresses in it.
const NETWORK_BITS_V6: u32 = 64;

/// Where connections come from, as far as somebody must own it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Origin(IpAddr);

impl Origin {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = u128::from(address) >> NETWORK_BITS_V6 << NETWORK_BITS_V6;
                Self(IpAddr::V6(Ipv6Addr::from(network)))
            }
            address @ IpAddr::V4(_) => Self(address),
        }
    }
}

/// What the order of arrival is told by.
type Turn = u64;

struct Held<T> {
    origin: Origin,
    /// Since when the other side is a stranger, or idle; absent while it is known and at work.
    waits_since: Option<Turn>,
    holder: T,
}

/// A bounded number of places. Where all are taken, a newcomer has that of the stranger who waits longest, of those
/// whose origin has most: so whoever fills them takes them from himself. Who is known keeps his.
pub struct Places<T> {
    most: usize,
    turn: Turn,
    held: BTreeMap<Turn, Held<T>>,
    waiting: BTreeMap<Origin, BTreeMap<Turn, Turn>>,
}

impl<T> Places<T> {
    /// So many places.
    pub fn new(most: usize) -> Self {
        Self { most, turn: 0, held: BTreeMap::new(), waiting: BTreeMap::new() }
    }

    /// Gives a place to a stranger, and says who lost it, if that was somebody. Where all places are of those who are
    /// known, there is none, and the newcomer is given back.
    pub fn enter(&mut self, from: IpAddr, holder: T) -> Result<(u64, Option<T>), T> {
        let evicted = if self.held.len() < self.most {
            None
        } else {
            match self.next_to_go() {
                Some(place) => self.leave(place),
                None => return Err(holder),
            }
        };
        let (place, origin) = (self.next_turn(), Origin::of(from));
        self.held.insert(place, Held { origin, waits_since: Some(place), holder });
        self.waiting.entry(origin).or_default().insert(place, place);
        Ok((place, evicted))
    }

    /// Who has a place is known, and at work: the place is kept.
    pub fn keep(&mut self, place: u64) {
        let Some(held) = self.held.get_mut(&place) else { return };
        if let Some(since) = held.waits_since.take() {
            let origin = held.origin;
            self.forget_waiting(origin, since);
        }
    }

    /// Who has a place is idle: others may have it.
    pub fn release(&mut self, place: u64) {
        let since = self.next_turn();
        let Some(held) = self.held.get_mut(&place) else { return };
        if held.waits_since.is_none() {
            held.waits_since = Some(since);
            self.waiting.entry(held.origin).or_default().insert(since, place);
        }
    }

    /// A place is left.
    pub fn leave(&mut self, place: u64) -> Option<T> {
        let held = self.held.remove(&place)?;
        if let Some(since) = held.waits_since {
            self.forget_waiting(held.origin, since);
        }
        Some(held.holder)
    }

    fn next_turn(&mut self) -> Turn {
        self.turn += 1;
        self.turn
    }

    fn forget_waiting(&mut self, origin: Origin, since: Turn) {
        if let Some(places) = self.waiting.get_mut(&origin) {
            places.remove(&since);
            if places.is_empty() {
                self.waiting.remove(&origin);
            }
        }
    }

    fn next_to_go(&self) -> Option<u64> {
        let oldest = |places: &BTreeMap<Turn, Turn>| {
            let (since, place) = places.first_key_value()?;
            Some((places.len(), std::cmp::Reverse(*since), *place))
        };
        self.waiting.values().filter_map(oldest).max().map(|(_, _, place)| place)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn who_fills_the_places_takes_them_from_himself() {
        let mut places = Places::new(3);
        let (member, stranger) = (address("10.0.0.1"), address("203.0.113.9"));
        places.enter(member, "member").unwrap();
        places.enter(stranger, "first").unwrap();
        places.enter(stranger, "second").unwrap();
        for (newcomer, expected) in [("third", "first"), ("fourth", "second"), ("fifth", "third")] {
            assert_eq!(places.enter(stranger, newcomer).unwrap().1, Some(expected));
        }
        // A third origin has a place of the one with most, too.
        assert_eq!(places.enter(address("10.0.0.2"), "other member").unwrap().1, Some("fourth"));
        // Where none has more than others, who came first goes.
        assert_eq!(places.enter(address("10.0.0.3"), "third member").unwrap().1, Some("member"));
    }

    #[test]
    fn who_is_known_keeps_his_place_until_he_is_idle() {
        let mut places = Places::new(2);
        let from = address("203.0.113.9");
        let (one, _) = places.enter(from, "one").unwrap();
        let (two, _) = places.enter(from, "two").unwrap();
        places.keep(one);
        let (three, evicted) = places.enter(from, "three").unwrap();
        assert_eq!(evicted, Some("two"));
        assert_eq!(places.leave(two), None, "it lost its place before");
        places.keep(three);
        assert_eq!(places.enter(from, "four"), Err("four"));
        places.release(three);
        places.release(one);
        // Idle last, so it goes last.
        assert_eq!(places.enter(from, "five").unwrap().1, Some("three"));
        assert_eq!(places.enter(from, "six").unwrap().1, Some("one"));
    }

    #[test]
    fn a_network_is_one_origin() {
        let mut places = Places::new(3);
        places.enter(address("2001:db8:1::1"), "a").unwrap();
        places.enter(address("2001:db8:2::1"), "b1").unwrap();
        places.enter(address("2001:db8:2::2"), "b2").unwrap();
        assert_eq!(places.enter(address("2001:db8:3::1"), "c").unwrap().1, Some("b1"));
        assert_eq!(Origin::of(address("::ffff:10.0.0.1")), Origin::of(address("10.0.0.1")));
    }

    #[test]
    fn places_that_are_left_are_free() {
        let mut places = Places::new(1);
        let from = address("10.0.0.1");
        let (one, _) = places.enter(from, "one").unwrap();
        places.keep(one);
        assert_eq!(places.leave(one), Some("one"));
        assert_eq!(places.enter(from, "two").unwrap().1, None);
        assert_eq!(places.waiting.len(), 1);
    }
}
