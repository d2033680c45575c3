//! Which slots are filled and which instances withdrawn next, within each service's budget.

use std::collections::BTreeMap;

use stele_model::State;
use stele_model::event::AssignmentChange;
use stele_model::ids::ServiceName;
use stele_model::release::Order;

use crate::changes::Changes;
use crate::rollout::{Down, Pace, Running, Wanted, excludes};

/// The next step of an app's rollout, in the making.
pub(crate) struct Step<'a, 'b> {
    state: &'a State,
    wanted: &'b [Wanted<'a>],
    pace: Pace,
    changes: Changes<'a>,
}

impl<'a, 'b> Step<'a, 'b> {
    /// One that withdraws what should not be there any more.
    pub(crate) fn new(state: &'a State, wanted: &'b [Wanted<'a>], left: &[Running<'a>], pace: Pace) -> Self {
        let mut changes = Changes::new();
        for running in left {
            if changes.is_full() {
                break;
            }
            changes.withdraw(running);
        }
        Self { state, wanted, pace, changes }
    }

    /// Makes the changes that may be made now.
    pub(crate) fn replace(&mut self, held: Option<&Down<'_>>) {
        let mut services: BTreeMap<&ServiceName, Vec<&'b Wanted<'a>>> = BTreeMap::new();
        for slot in self.wanted {
            services.entry(&slot.slot.service).or_default().push(slot);
        }
        for (service, slots) in services {
            // What does not fit into this command is found again for the next.
            if self.changes.is_full() {
                break;
            }
            let down = held.and_then(|held| held.get(service)).copied().unwrap_or_default();
            self.replace_service(slots, down);
        }
    }

    fn replace_service(&mut self, mut slots: Vec<&'b Wanted<'a>>, down_elsewhere: u32) {
        let mut in_progress = 0;
        for slot in &slots {
            if slot.fresh.is_none() {
                continue;
            }
            if self.pace == Pace::AtOnce || slot.is_good || planted!(NoHealthGate) {
                slot.stale.iter().for_each(|stale| self.changes.withdraw(stale));
            } else {
                // Whatever it stands for, a slot that is not healthy is one that is unavailable.
                in_progress += 1;
            }
        }
        // What serves nobody is replaced first.
        let state = self.state;
        let serves =
            |slot: &Wanted<'_>| slot.stale.iter().any(|stale| state.is_healthy(stale.node, stale.id));
        slots.sort_by_key(|slot| serves(slot));
        for slot in slots {
            if slot.fresh.is_some() {
                continue;
            }
            if self.changes.is_full() {
                break;
            }
            let budget = slot.service.update.max_unavailable + u32::from(planted!(BudgetOffByOne));
            let is_free = match self.pace {
                Pace::AtOnce => true,
                Pace::Rescue => !serves(slot),
                Pace::Careful => slot.stale.is_empty(),
            };
            // What is held down does not come back by being waited for: one slot at a time goes on anyway.
            let elsewhere = down_elsewhere.min(budget.saturating_sub(1));
            if !is_free && in_progress + elsewhere >= budget {
                continue;
            }
            in_progress += u32::from(!slot.stale.is_empty());
            self.start(slot);
        }
    }

    /// Assigns a new instance to a slot; where both cannot run together, in the old one's place.
    fn start(&mut self, slot: &'b Wanted<'a>) {
        let stop_first = slot.service.update.order == Order::StopFirst;
        let rival = slot.stale.iter().find(|stale| {
            stale.node == slot.node
                && (stop_first || slot.service.container.is_exclusive() || excludes(self.state, stale))
        });
        self.changes.assign(slot, rival.map(|rival| rival.id));
        if let Some(rival) = rival {
            self.changes.withdraw(rival);
        }
    }

    /// The changes.
    pub(crate) fn end(self) -> Vec<AssignmentChange> {
        self.changes.into_inner()
    }
}
