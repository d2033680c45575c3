//! Loopback ports that nothing listens on.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::Context as _;

use crate::limits::{PORT_ATTEMPTS_MAX, PORTS};

/// Where the next search of this process begins, so that it never finds a port twice in a row.
static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port of 127.0.0.1 that was free a moment ago.
pub fn free() -> anyhow::Result<SocketAddr> {
    free_on(&[IpAddr::V4(Ipv4Addr::LOCALHOST)]).map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

/// A port that was free a moment ago on all of these addresses.
pub fn free_on(addresses: &[IpAddr]) -> anyhow::Result<u16> {
    let count = PORTS.end - PORTS.start;
    // Tests that run side by side must not look at the same ports in the same order.
    let random = RandomState::new().hash_one(std::process::id());
    let _ =
        NEXT.compare_exchange(0, (random % u64::from(count)) as u16, Ordering::Relaxed, Ordering::Relaxed);
    (0..PORT_ATTEMPTS_MAX)
        .map(|_| PORTS.start + NEXT.fetch_add(1, Ordering::Relaxed) % count)
        .find(|port| addresses.iter().all(|address| TcpListener::bind((*address, *port)).is_ok()))
        .context("no free port was found on loopback")
}

/// The first of these addresses on which something already has the port.
pub fn taken_on(addresses: &[IpAddr], port: u16) -> Option<SocketAddr> {
    let taken = |address: &&IpAddr| TcpListener::bind((**address, port)).is_err();
    addresses.iter().find(taken).map(|address| SocketAddr::from((*address, port)))
}
