//! What is done next to keep the public event feed equal to the log.
//!
//! It owns the decisions: when to look at the stream, what of it to compare with the log, when to
//! make it again, what to publish, and what an answer means, or none. The stream is written from
//! its beginning, so a record's seq is its sequence number there; the server checks at each
//! message that it follows the one before ([`guards`]), and so there can be no gap and no
//! reordering, even when two controllers publish at once or a connection breaks half-way.
//!
//! It must never do anything itself: no clock, no socket. The shell carries out one [`Step`] after
//! another and says what came of it.
//!
//! ```
//! use stele_feed::{Answer, Keeper, Rest, Seen, Step};
//!
//! let mut keeper = Keeper::default();
//! let committed = 1;
//! assert_eq!(keeper.next(true, committed), Step::Find);
//! keeper.found(None, committed);
//! assert_eq!(keeper.next(true, committed), Step::Create);
//! keeper.found(Some(Seen { made: 1, first: 1, last: 0 }), committed);
//! assert!(matches!(keeper.next(true, committed), Step::Publish { after: 0, .. }));
//! keeper.read([1])?;
//! assert!(keeper.answered(Answer::Stored { at: 1, repeated: false }));
//! assert_eq!(keeper.next(true, committed), Step::Rest(Rest::Done));
//! # Ok::<(), stele_feed::Gap>(())
//! ```

/// Whether a bug is planted here: never, unless the simulator's own run asks for the feature.
macro_rules! planted {
    ($bug:ident) => {{
        #[cfg(feature = "planted")]
        {
            stele_planted::is_planted(stele_planted::Bug::$bug)
        }
        #[cfg(not(feature = "planted"))]
        {
            false
        }
    }};
}

mod keeper;
#[cfg(test)]
mod keeper_tests;
pub mod limits;

pub use keeper::{Answer, Gap, Guards, Keeper, Rest, Seen, Step, Woken, guards};
