//! What tells a repeated request from another one under the same idempotency key, and tells nobody anything later.
//!
//! A record's header keeps a digest of the request for ever, and a request may hold a secret, or a reason that is to be
//! erased. So the digest is made under a random key, which controllers keep beside the log, as they do data keys, and
//! no other key leads to. There is a new one every few hours, and each is destroyed once no repetition counts any more
//! that it could tell: from then on, the digest says nothing to anybody, whatever else he has.
//!
//! The digest begins with the number of its key, so that every controller tells a repetition by the key that the first
//! request was told by, whatever its own clock says.

use stele_model::limits::IDEMPOTENCY_WINDOW_US;
use stele_model::{Digest, Time};
use tokio::time::sleep;

use crate::handle::Handle;
use crate::keyring::KeyringError;
use crate::limits::{KEYS_RETRY_INTERVAL, REQUEST_KEY_LIFE, REQUEST_KEYS_INTERVAL};

/// For whom these keys are kept, beside the subjects of data keys: none of those has a control character.
pub(crate) const REQUESTS: &str = "requests\u{0}";

/// How many keys stay behind the one in use: those under which a request may have come that may be repeated yet, and one
/// more for clocks that differ.
const KEPT_BEHIND: u32 = IDEMPOTENCY_WINDOW_US.div_ceil(REQUEST_KEY_LIFE.as_micros() as u64) as u32 + 1;

/// Bytes of a digest that name its key.
const NUMBER_BYTES: usize = 4;

/// The number of the key in use.
fn number_at(now: Time) -> u32 {
    (now.0 / REQUEST_KEY_LIFE.as_micros() as u64) as u32
}

fn number_of(digest: &Digest) -> u32 {
    digest.0.first_chunk::<NUMBER_BYTES>().map_or(0, |number| u32::from_be_bytes(*number))
}

/// Keys up to this one are destroyed.
fn destroyed_at(now: Time) -> u32 {
    number_at(now).saturating_sub(KEPT_BEHIND + 1)
}

/// Whether there may be such a key: what an earlier version wrote begins with any number.
fn may_be(number: u32, now: Time) -> bool {
    (destroyed_at(now) + 1..=number_at(now) + KEPT_BEHIND).contains(&number)
}

fn digest_under(number: u32, key: &[u8; 32], parts: &[&[u8]]) -> Digest {
    // NMAC, under a key that is used for nothing else.
    let subkey = Digest::of(&[b"stele-request-v2", key]).0;
    let inner: Vec<&[u8]> = std::iter::once(&subkey[..]).chain(parts.iter().copied()).collect();
    let mut digest = Digest::of(&[&subkey, &Digest::of(&inner).0]);
    digest.0[..NUMBER_BYTES].copy_from_slice(&number.to_be_bytes());
    digest
}

impl Handle {
    /// Which time it is for these keys: a controller whose clock is far behind goes by the log's.
    fn time_of_requests(&self) -> Time {
        self.now().max(self.0.published.borrow().state.time)
    }

    /// The digest of a request, under the key in use.
    pub(crate) async fn request_digest(&self, parts: &[&[u8]]) -> Result<Digest, KeyringError> {
        let number = number_at(self.time_of_requests());
        let key = self.ensured_key(REQUESTS, number).await?;
        Ok(digest_under(number, &key, parts))
    }

    /// Whether a digest made before is of this request. Of none, once its key is destroyed.
    pub(crate) async fn is_request(&self, digest: &Digest, parts: &[&[u8]]) -> Result<bool, KeyringError> {
        let number = number_of(digest);
        if !may_be(number, self.time_of_requests()) {
            return Ok(false);
        }
        let key = self.key(REQUESTS, number).await?;
        Ok(key.is_some_and(|key| digest_under(number, &key, parts) == *digest))
    }
}

/// Has the keys in use and to be used next here, so that no request waits for one, and destroys those of before.
pub(crate) async fn run(handle: Handle) {
    loop {
        let now = handle.time_of_requests();
        let mut is_done = destroy(&handle, destroyed_at(now)).await;
        // Before the log says who votes, this controller cannot tell a majority.
        if handle.published().state.control.voters.is_empty() {
            is_done = false;
        } else {
            for number in [number_at(now), number_at(now) + 1] {
                if let Err(error) = handle.ensured_key(REQUESTS, number).await {
                    tracing::debug!(number, %error, "the key of requests is not here yet");
                    is_done = false;
                }
            }
        }
        sleep(if is_done { REQUEST_KEYS_INTERVAL } else { KEYS_RETRY_INTERVAL }).await;
    }
}

async fn destroy(handle: &Handle, through: u32) -> bool {
    let keys = handle.clone();
    let destroyed = tokio::task::spawn_blocking(move || keys.keyring().destroy_aged(REQUESTS, through)).await;
    match destroyed {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::error!(%error, "the keys of earlier requests could not be destroyed, which is tried again");
            false
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use stele_model::is_subject;

    use super::*;
    use crate::keyring::Keyring;

    fn after(time: Time, longer: Duration) -> Time {
        Time(time.0 + longer.as_micros() as u64)
    }

    #[test]
    fn a_key_outlasts_the_window_of_its_last_request_and_not_two_days() {
        let window = Duration::from_micros(IDEMPOTENCY_WINDOW_US);
        let received = Time(1_800_000_000_000_000);
        // Whenever within the key's life it came.
        for part in 0..8 {
            let received = after(received, REQUEST_KEY_LIFE * part / 8);
            let number = number_at(received);
            assert!(destroyed_at(after(received, window)) < number);
            assert!(may_be(number, after(received, window)));
            assert!(destroyed_at(after(received, window * 2)) >= number);
            assert!(!may_be(number, after(received, window * 2)));
        }
    }

    #[test]
    fn a_digest_names_its_key_and_is_worthless_without_it() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Keyring::open(folder.path().to_owned(), [7; 32]).unwrap();
        let keyring = open();
        for number in [40, 41] {
            keyring.keep(&keyring.make(REQUESTS, number).unwrap()).unwrap();
        }
        keyring.keep(&keyring.make("shop/web@prod", 1).unwrap()).unwrap();
        let key = |keyring: &Keyring, number| keyring.key(REQUESTS, number).unwrap();
        let parts: [&[u8]; 2] = [b"post", b"{\"value\":\"hunter2\"}"];
        let digest = digest_under(40, &key(&keyring, 40).unwrap(), &parts);
        assert_eq!(number_of(&digest), 40);
        // After a restart, or at another controller, which has the same keys.
        assert_eq!(digest_under(40, &key(&open(), 40).unwrap(), &parts), digest);
        assert_ne!(digest_under(41, &key(&keyring, 41).unwrap(), &parts).0[4..], digest.0[4..]);
        assert_ne!(digest_under(40, &key(&keyring, 40).unwrap(), &[b"post", b"{}"]), digest);

        let copy = keyring.kept(REQUESTS, 40).unwrap().unwrap();
        keyring.destroy_aged(REQUESTS, 40).unwrap();
        assert_eq!(key(&keyring, 40), None);
        assert_eq!(key(&open(), 40), None, "not on the disk either");
        assert!(keyring.keep(&copy).is_err(), "nor does it come back");
        assert!(key(&keyring, 41).is_some());
        assert!(keyring.key("shop/web@prod", 1).unwrap().is_some());
    }

    #[test]
    fn nobody_can_seal_for_requests_or_erase_them() {
        assert!(!is_subject(REQUESTS));
    }
}
