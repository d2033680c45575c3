//! Faults that go for leaders: contests, tails that nobody wants, and a leader that sleeps.

use stele_ledger::system_request;
use stele_model::{Command, ControllerId, Value};

use super::{Event, World};
use crate::client::{VARIABLE, app_env, set_variable};
use crate::controller::Process;
use crate::fault::Fault;
use crate::limits::{FAULT_LOOK_US, STALE_ENTRIES};
use crate::wire::Asker;

/// After which nobody feels bound to a leader that is gone, in microseconds: longer than an election's
/// shortest timeout, shorter than its longest.
const LEADERLESS_US: u64 = 1_300_000;
/// Longest until a process that ended for a moment starts again, in microseconds.
const RESTART_US_MAX: u64 = 30_000;

impl World {
    /// A controller's process ends, and starts again at once.
    pub(super) fn restart_soon(&mut self, id: ControllerId) {
        if let Some(controller) = self.controllers.get_mut(&id) {
            controller.crash();
        }
        let at = self.now_us + 1 + self.rng.below(RESTART_US_MAX);
        self.push(at, Event::Restart(id));
    }

    pub(super) fn cut_off(&mut self, one: ControllerId, index: usize) {
        for other in self.living() {
            self.cuts.insert((one, other, index));
            self.cuts.insert((other, one, index));
        }
    }

    /// The next part of a fault that has several.
    pub(super) fn fault_goes_on(&mut self, index: usize) {
        if self.healed {
            return;
        }
        match self.faults[index].fault {
            Fault::Contest(mask) => self.contest_goes_on(index, mask),
            Fault::StaleTail => self.stale_tail_goes_on(index),
            Fault::Sleeper(pick) => self.sleeper_goes_on(index, pick),
            Fault::QuorumLost(pick) => self.loss_goes_on(index, pick),
            _ => {}
        }
    }

    pub(super) fn contest_begins(&mut self, index: usize) {
        let Some(leader) = self.leader() else { return };
        self.hit.insert(index, leader);
        if let Some(controller) = self.controllers.get_mut(&leader) {
            controller.crash();
        }
        self.push(self.now_us + LEADERLESS_US, Event::GoesOn(index));
    }

    /// Several stand for election at once, and whoever votes ends and starts again.
    fn contest_goes_on(&mut self, index: usize, mask: u64) {
        let gone = self.hit.get(&index).copied();
        let there: Vec<_> = self.living().into_iter().filter(|id| Some(*id) != gone).collect();
        for id in &there {
            if let Some(controller) = self.controllers.get_mut(id) {
                controller.jumpy = true;
            }
        }
        for (at, id) in there.iter().enumerate() {
            // Two stand at least.
            if at >= 2 && mask >> at & 1 == 0 {
                continue;
            }
            let stood = self.controllers.get_mut(id).and_then(|it| it.process.as_mut()).map(Process::stand);
            match stood {
                Some(Err(ended)) => self.process_ended(*id, &ended),
                Some(Ok(())) => self.turn(*id),
                None => {}
            }
        }
    }

    /// The leader is cut off and appends what nobody else will hear of.
    pub(super) fn stale_tail_begins(&mut self, index: usize) {
        let Some(leader) = self.leader() else { return };
        self.cut_off(leader, index);
        self.hit.insert(index, leader);
        for number in 0..STALE_ENTRIES {
            let controller = self.controllers.get_mut(&leader);
            let Some(process) = controller.and_then(|it| it.process.as_mut()) else { return };
            let value = Value::Plain(format!("nobody hears this {number}"));
            let command = Command::SetConfig {
                app_env: app_env(0),
                variables: std::iter::once(("UNHEARD".to_owned(), Some(value))).collect(),
            };
            process.submit(Asker::Nobody, system_request(command));
            self.turn(leader);
        }
        self.push(self.now_us + FAULT_LOOK_US, Event::GoesOn(index));
    }

    /// Once others lead, they forget the entries that it would need; then it hears them again.
    fn stale_tail_goes_on(&mut self, index: usize) {
        let Some(old) = self.hit.get(&index).copied() else { return };
        let new = self.leader().filter(|id| *id != old);
        let process = new.and_then(|id| self.controllers.get(&id)?.process.as_ref());
        if !process.is_some_and(|process| process.status().committed_in_term) {
            return self.push(self.now_us + FAULT_LOOK_US, Event::GoesOn(index));
        }
        for id in self.living().into_iter().filter(|id| *id != old) {
            let process = self.controllers.get_mut(&id).and_then(|it| it.process.as_mut());
            if let Some(Err(ended)) = process.map(Process::forget_entries) {
                self.process_ended(id, &ended);
            }
        }
        self.cuts.retain(|(_, _, fault)| *fault != index);
    }

    /// The leader is cut off and stands still for most of the time.
    pub(super) fn sleeper_begins(&mut self, index: usize, for_ms: u64) {
        let (now, Some(leader)) = (self.now_us, self.leader()) else { return };
        self.cut_off(leader, index);
        self.hit.insert(index, leader);
        let wakes = now + for_ms * 900;
        if let Some(controller) = self.controllers.get_mut(&leader) {
            controller.paused_until = wakes;
        }
        // When others lead by now, somebody changes what it knows; and then it is asked.
        self.push(now + for_ms * 600, Event::GoesOn(index));
        self.push(wakes.saturating_sub(FAULT_LOOK_US), Event::GoesOn(index));
    }

    fn sleeper_goes_on(&mut self, index: usize, pick: u64) {
        let Some(sleeper) = self.hit.get(&index).copied() else { return };
        let Some(controller) = self.controllers.get(&sleeper) else { return };
        let now = self.now_us;
        let app_env = app_env(pick % self.setup.apps);
        if controller.paused_until > now + FAULT_LOOK_US {
            let Some(leader) = self.leader().filter(|id| *id != sleeper) else { return };
            let value = Value::Plain(format!("while it slept {now}"));
            self.ask_to_set(0, leader, &app_env, value);
            return;
        }
        let Some(process) = &controller.process else { return };
        let state = process.state();
        let config = state.target.intent.get(&app_env).and_then(|revision| revision.config);
        let bundle = config.and_then(|config| state.history.configs.get(&config));
        let Some(believed) = bundle.and_then(|bundle| bundle.get(VARIABLE)).cloned() else { return };
        for client in 0..self.clients.len() {
            self.ask_to_set(client, sleeper, &app_env, believed.clone());
        }
    }

    /// A client that waits for nothing asks a controller to set an app's one variable.
    fn ask_to_set(&mut self, client: usize, to: ControllerId, app_env: &stele_model::AppEnv, value: Value) {
        let (want, register) = set_variable(app_env.clone(), value);
        if let Some(asked) = self.clients[client].ask(self.now_us, want, register, &self.histories) {
            self.ask(client, to, &asked);
            self.clients_due[client] = u64::MAX;
            self.queue_client(client);
        }
    }
}
