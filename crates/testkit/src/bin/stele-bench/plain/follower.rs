//! Appends what the leader sends, and says how much it has.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};

use super::LISTENS;
use super::log::{Log, complete};

/// Bytes read at a time, at most.
const READ_BYTES: usize = 1024 * 1024;

pub(super) fn run(listen: SocketAddr, mut log: Log) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen)?;
    println!("{LISTENS}");
    let (mut leader, _) = listener.accept()?;
    leader.set_nodelay(true)?;
    let (mut chunk, mut read) = (vec![0; READ_BYTES], Vec::new());
    loop {
        let length = leader.read(&mut chunk)?;
        if length == 0 {
            return Ok(());
        }
        read.extend_from_slice(&chunk[..length]);
        let whole = complete(&read);
        if whole > 0 {
            log.append(&read[..whole])?;
            read.drain(..whole);
            leader.write_all(&log.length.to_be_bytes())?;
        }
    }
}
