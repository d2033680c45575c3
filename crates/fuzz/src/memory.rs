//! What decoding costs in memory, counted at the allocator: a measure that no clock and no
//! other program on the machine disturbs.

use std::alloc::System;

use cap::Cap;

use crate::limits::MEMORY_BYTES_MAX;

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, MEMORY_BYTES_MAX);

/// Runs something, and tells how many bytes were asked for while it ran, given back or not.
/// Only one thread may run something at a time.
pub(crate) fn measured<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = MEMORY.total_allocated();
    let outcome = run();
    (outcome, MEMORY.total_allocated() - before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_counted_though_it_is_given_back() {
        let ((), none) = measured(|| ());
        let (length, some) = measured(|| vec![1_u8; 100_000].len());
        assert_eq!(length, 100_000);
        assert!(none < 100_000 && some >= 100_000, "{none} and {some}");
    }
}
