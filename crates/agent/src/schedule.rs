//! Times that are spread, so that a fleet does not act in step.

/// A random time within a quarter of `ms`, so that a fleet does not act in step.
pub(crate) fn jittered_ms(ms: u64) -> u64 {
    // Without randomness the time is exact: still correct, only not spread.
    getrandom::u64().map_or(ms, |random| ms - ms / 4 + random % (ms / 2 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_a_quarter() {
        for _ in 0..1000 {
            assert!((750..=1250).contains(&jittered_ms(1000)));
        }
        assert_eq!(jittered_ms(0), 0);
    }
}
