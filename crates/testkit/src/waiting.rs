//! Waiting for things to come about, and being told to stop waiting.

use std::fmt;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::limits::POLL_INTERVAL;

static INTERRUPTED: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

/// Somebody pressed Ctrl-C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Ends every wait in this process, now and from now on.
pub fn interrupt() {
    *INTERRUPTED.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
    INTERRUPTED.1.notify_all();
}

/// Whether [`interrupt`] was called.
pub fn interrupted() -> Result<(), Interrupted> {
    if *INTERRUPTED.0.lock().unwrap_or_else(PoisonError::into_inner) { Err(Interrupted) } else { Ok(()) }
}

/// Lets time pass. For load and polling only: waiting for a condition is [`eventually`].
pub fn pause(time: Duration) -> Result<(), Interrupted> {
    let flag = INTERRUPTED.0.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = INTERRUPTED.1.wait_timeout_while(flag, time, |interrupted| !*interrupted);
    let (flag, _) = waited.unwrap_or_else(PoisonError::into_inner);
    if *flag { Err(Interrupted) } else { Ok(()) }
}

/// Asks again and again until there is an answer.
///
/// # Errors
/// There was none within the deadline, or the process was interrupted.
pub fn eventually<T>(
    deadline: Duration,
    what: &str,
    mut probe: impl FnMut() -> Option<T>,
) -> anyhow::Result<T> {
    let started = Instant::now();
    loop {
        interrupted()?;
        if let Some(answer) = probe() {
            return Ok(answer);
        }
        anyhow::ensure!(
            started.elapsed() < deadline,
            "waited {} s in vain until {what}",
            started.elapsed().as_secs()
        );
        pause(POLL_INTERVAL)?;
    }
}
