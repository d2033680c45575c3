//! What a request would do: decided and folded on a copy of State, and thrown away.

use crate::command::Request;
use crate::decide::{Context, Decided, decide};
use crate::digest::Digest;
use crate::event::{Event, Record};
use crate::fold::{answer_of, fold};
use crate::header::{Decision, Header};
use crate::ids::Time;
use crate::rejection::Rejection;
use crate::state::{Answer, State};

/// A State that would be, and the records that would lead to it.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The State.
    pub after: State,
    /// The records; none when nothing would have to change.
    pub records: Vec<Record>,
}

impl Trial {
    /// What the caller would be answered.
    pub fn answer(&self) -> Answer {
        answer_of(&self.records)
    }
}

/// Decides a request on a copy of State. It may be tried as often as one likes: its idempotency key is not looked at.
pub fn try_out(state: &State, request: &Request, context: &Context) -> Result<Trial, Rejection> {
    let request = Request { idempotency: None, ..request.clone() };
    let now = Time(context.now.0.max(state.time.0 + 1));
    match decide(state, &request, &Context { now, ..context.clone() })? {
        Decided::Events(events) => Ok(carry_on(state, &request, events, now)),
        Decided::Repeated(_) => Ok(Trial { after: state.clone(), records: Vec::new() }),
    }
}

/// Folds events as if they had been decided on a request.
pub fn carry_on(state: &State, request: &Request, events: Vec<Event>, now: Time) -> Trial {
    let mut after = state.clone();
    let now = now.0.max(state.time.0 + 1);
    let decision = Decision { first: state.seq + 1, count: events.len() as u32 };
    let records = (0_u64..).zip(events).map(|(at, event)| {
        let header = Header {
            seq: decision.first + at,
            time: Time(now + at),
            decision,
            principal: request.principal.clone(),
            cause: request.cause,
            trace: request.trace.clone(),
            idempotency: None,
            kind: event.kind().to_owned(),
            schema: Event::schema_of(event.kind()),
            codec: 1,
            scopes: event.scopes(),
            reason: request.reason.clone(),
            links: request.links.clone(),
            payload: Digest::EMPTY,
        };
        let record = Record { header, event };
        fold(&mut after, &record);
        record
    });
    let records = records.collect();
    Trial { after, records }
}
