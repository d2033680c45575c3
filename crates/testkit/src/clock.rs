//! Programs whose wall clock is wrong. No kernel has namespaces for it, hence libfaketime.

use std::path::Path;

/// Where Debian's package `libfaketime` puts the library, for each kind of machine.
const FAKETIME: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
];

/// What to begin a command line with, so that its program's wall clock is ahead by so many seconds, or
/// behind; its monotonic clock is as it is. Nothing where the library is not installed.
pub fn with_clock_off(seconds: i64) -> Option<Vec<String>> {
    let library = FAKETIME.into_iter().find(|path| Path::new(path).exists())?;
    Some(vec![
        "env".to_owned(),
        format!("LD_PRELOAD={library}"),
        format!("FAKETIME={seconds:+}s"),
        "DONT_FAKE_MONOTONIC=1".to_owned(),
    ])
}
