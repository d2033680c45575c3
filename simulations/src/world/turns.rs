//! What a controller does when its loop goes round: because something arrived, or a moment passed.

use stele_model::ControllerId;

use super::{Event, World};
use crate::controller::{Ended, Process};
use crate::limits::COMMIT_RIDE_US;
use crate::wire::Packet;

impl World {
    /// Something arrives at a controller.
    pub(super) fn arrive(&mut self, from: ControllerId, to: ControllerId, packet: Packet) {
        let now = self.now_us;
        let Some(controller) = self.controllers.get_mut(&to) else { return };
        if controller.process.is_none() {
            return;
        }
        if controller.paused_until > now {
            controller.held.push((from, packet));
            return;
        }
        self.give(to, from, packet);
        self.turn(to);
    }

    pub(super) fn give(&mut self, id: ControllerId, from: ControllerId, packet: Packet) {
        stele_planted::work_for(id);
        let now = self.now_us;
        let Some(controller) = self.controllers.get_mut(&id) else { return };
        let (clock, local) = (controller.clock.off_us, controller.clock.local_us(now));
        let Some(process) = &mut controller.process else { return };
        process.at(local, clock);
        if let Err(ended) = process.take(from, packet) {
            self.process_ended(id, &ended);
        }
    }

    /// A controller's loop goes round.
    pub(super) fn turn(&mut self, id: ControllerId) {
        stele_planted::work_for(id);
        let (now, connection) = (self.now_us, (self.bus_up, self.bus_count));
        let Some(controller) = self.controllers.get_mut(&id) else { return };
        let (clock, local) = (controller.clock.off_us, controller.clock.local_us(now));
        let signer = controller.signer(self.setup.skewed);
        let Some(process) = &mut controller.process else { return };
        process.at(local, clock);
        let outcome = process.turn(local, &self.setup, &mut self.rng);
        if outcome.is_ok() {
            process.serve_nodes(local, &signer, connection);
        }
        let tells = process.is_to_tell();
        let incarnation = controller.incarnation;
        let unsound = std::mem::take(&mut process.app.restored).then(|| process.check_terms()).flatten();
        let voted = std::mem::take(&mut process.app.voted);
        // Messages that left before the process ended have left.
        let out = std::mem::take(&mut process.app.out);
        if controller.slow_us > 0 && !out.is_empty() {
            self.lag_us = self.rng.below(controller.slow_us);
            controller.paused_until = controller.paused_until.max(now + self.lag_us);
        }
        let restarts = voted && std::mem::take(&mut controller.jumpy);
        for one in out {
            self.send(id, one);
        }
        self.lag_us = 0;
        if tells {
            self.push(now + COMMIT_RIDE_US, Event::Tell(id, incarnation));
        }
        if let Some(why) = unsound {
            self.oracle.borrow_mut().fail("terms-in-a-log-rise", format!("controller {id}: {why}"));
        }
        if let Err(ended) = outcome {
            self.process_ended(id, &ended);
        } else {
            self.publish(id);
            if restarts {
                self.restart_soon(id);
            }
        }
    }

    pub(super) fn process_ended(&mut self, id: ControllerId, ended: &Ended) {
        let now = self.now_us;
        self.trace.say(now, || format!("controller {id} ended: {}", ended.why));
        if ended.is_defect {
            let detail = format!("controller {id}: {}", ended.why);
            self.oracle.borrow_mut().fail("controllers-never-stop-by-themselves", detail);
        }
        if let Some(controller) = self.controllers.get_mut(&id) {
            // Whoever finds its disk damaged is not started again: it is replaced.
            controller.broken |= controller.bad_disk && self.bad_disk == Some(id);
            controller.crash();
        }
    }

    /// A controller tells what it committed, unless it was started anew meanwhile.
    pub(super) fn tell(&mut self, id: ControllerId, incarnation: u64) {
        let now = self.now_us;
        let Some(controller) = self.controllers.get_mut(&id) else { return };
        if controller.incarnation != incarnation {
            return;
        }
        if controller.paused_until > now {
            let paused_until = controller.paused_until;
            return self.push(paused_until, Event::Tell(id, incarnation));
        }
        match controller.process.as_mut().map(Process::tell_commit) {
            None => {}
            Some(Ok(())) => self.turn(id),
            Some(Err(ended)) => self.process_ended(id, &ended),
        }
    }
}
