//! Making a failing input smaller while it still fails.

use crate::limits::MINIMISE_ATTEMPTS_MAX;

/// The smallest input found for which `fails` still says so. Cuts out ever smaller pieces, then makes single
/// bytes plain.
pub fn minimise(input: &[u8], mut fails: impl FnMut(&[u8]) -> bool) -> Vec<u8> {
    let mut smallest = input.to_vec();
    let mut attempts = 0;
    let mut piece = smallest.len() / 2;
    while piece > 0 && attempts < MINIMISE_ATTEMPTS_MAX {
        let before = smallest.len();
        let mut at = 0;
        while at < smallest.len() && attempts < MINIMISE_ATTEMPTS_MAX {
            let end = (at + piece).min(smallest.len());
            let shorter = [&smallest[..at], &smallest[end..]].concat();
            attempts += 1;
            if fails(&shorter) {
                smallest = shorter;
            } else {
                at = end;
            }
        }
        if smallest.len() == before || piece > smallest.len() {
            piece /= 2;
        }
    }
    for at in 0..smallest.len() {
        for plain in [0, b'0', b'a'] {
            if attempts >= MINIMISE_ATTEMPTS_MAX || smallest[at] == plain {
                break;
            }
            let mut plainer = smallest.clone();
            plainer[at] = plain;
            attempts += 1;
            if fails(&plainer) {
                smallest = plainer;
                break;
            }
        }
    }
    smallest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_matter_is_cut_away() {
        let input: Vec<u8> = (0..=255).chain(0..=255).collect();
        let fails = |bytes: &[u8]| bytes.contains(&200) && bytes.contains(&7);
        let mut smallest = minimise(&input, fails);
        smallest.sort_unstable();
        assert_eq!(smallest, [7, 200]);
        assert_eq!(minimise(b"", |_| true), b"");
    }
}
