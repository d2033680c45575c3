//! What is committed, told to the work beside at a pace that spares the commits.

use tokio::sync::watch;

use crate::app::Published;
use crate::limits::FOLLOW_INTERVAL;

/// Tells of the first change at once, and of those that follow it together. Ends when nobody publishes.
pub(crate) async fn relay(mut published: watch::Receiver<Published>, pace: watch::Sender<Published>) {
    while published.changed().await.is_ok() {
        pace.send_replace(published.borrow_and_update().clone());
        tokio::time::sleep(FOLLOW_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stele_model::State;

    fn of(seq: u64) -> Published {
        let mut state = State::default();
        state.seq = seq;
        Published { state, leads: true, leader: Some(1), term: 1, assigns_more: false }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_change_is_told_at_once_and_the_last_of_many_is_not_missed() {
        let (publish, published) = watch::channel(of(0));
        let (pace, mut paced) = watch::channel(of(0));
        let relaying = tokio::spawn(relay(published, pace));
        let began = tokio::time::Instant::now();
        publish.send_replace(of(1));
        paced.changed().await.unwrap();
        assert_eq!((paced.borrow_and_update().state.seq, began.elapsed().as_millis()), (1, 0));
        for seq in 2..=9 {
            publish.send_replace(of(seq));
        }
        paced.changed().await.unwrap();
        assert_eq!(paced.borrow_and_update().state.seq, 9, "they are told together");
        assert!(began.elapsed() >= FOLLOW_INTERVAL);
        drop(publish);
        relaying.await.unwrap();
        assert!(paced.changed().await.is_err(), "who follows hears of the end");
    }
}
