//! What a command would do: decided and folded on a copy of State, and thrown away.

use stele_model::decide::Decided;
use stele_model::{
    Answer, Context, Decision, Digest, Event, Header, Links, Record, Request, State, Time, answer_of, decide,
    fold,
};

use super::failure::Failure;
use crate::handle::Handle;

/// A State that would be, and the answer that would be given.
pub(super) struct Planned {
    pub(super) after: State,
    pub(super) answer: Answer,
}

/// Decides a request without asking for it.
pub(super) fn plan(
    handle: &Handle,
    state: &State,
    request: &Request,
    past: Option<State>,
) -> Result<Planned, Failure> {
    let now = Time(handle.now().0.max(state.time.0 + 1));
    // A plan is asked as often as one likes.
    let request = Request { idempotency: None, ..request.clone() };
    let events = match decide(state, &request, &Context { now, past })? {
        Decided::Events(events) => events,
        Decided::Repeated(answer) => return Ok(Planned { after: state.clone(), answer }),
    };
    let mut after = state.clone();
    let decision = Decision { first: state.seq + 1, count: events.len() as u32 };
    let mut records = Vec::with_capacity(events.len());
    for (at, event) in events.into_iter().enumerate() {
        let record = record(&request, event, decision, at as u64, now);
        fold(&mut after, &record);
        records.push(record);
    }
    Ok(Planned { after, answer: answer_of(&records) })
}

fn record(request: &Request, event: Event, decision: Decision, at: u64, now: Time) -> Record {
    let header = Header {
        seq: decision.first + at,
        time: Time(now.0 + at),
        decision,
        principal: request.principal.clone(),
        cause: None,
        trace: None,
        idempotency: None,
        kind: event.kind().to_owned(),
        schema: 1,
        codec: 1,
        scopes: event.scopes(),
        reason: None,
        links: Links::default(),
        payload: Digest::EMPTY,
    };
    Record { header, event }
}
