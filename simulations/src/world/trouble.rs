//! Faults: how each begins and ends.

use std::rc::Rc;

use stele_consensus::MembershipChange;
use stele_consensus::memory::{Kind, Rot};
use stele_model::ControllerId;
use stele_model::signature::Purpose;
use stele_model::wire::{Assignment, Signed};

use super::publishing::FeedWeather;
use super::{CALM, Event, REGIONS, Weather, World};
use crate::controller::{Controller, Process};
use crate::fault::{Fault, Scheduled};
use crate::limits::{CONTROLLERS_MAX, VOTERS_MIN};
use crate::setup::key;
use crate::wire::ToNode;

/// How far a clock is ahead that is a day ahead, in microseconds.
const DAY_US: i64 = 86_400_000_000;

impl World {
    fn picked(&self, pick: u64) -> Option<ControllerId> {
        let living = self.living();
        living.get((pick as usize).checked_rem(living.len())?).copied()
    }

    pub(super) fn fault_begins(&mut self, index: usize) {
        if self.healed {
            return;
        }
        let Scheduled { for_ms, fault, .. } = self.faults[index].clone();
        let now = self.now_us;
        self.trace.say(now, || format!("fault {index}: {fault:?}"));
        if for_ms > 0 {
            self.push(now + for_ms * 1000, Event::Ends(index));
        }
        let agents = self.agents.len() as u64;
        let node = |pick: u64| (pick % agents) as usize;
        match fault {
            Fault::PeerWeather { lose, repeat, delay_ms } => {
                self.peer_weather = Weather { lose, repeat, delay_us: delay_ms * 1000 };
            }
            Fault::BusWeather { lose, repeat, delay_ms } => {
                self.bus_weather = Weather { lose, repeat, delay_us: delay_ms * 1000 };
            }
            Fault::Isolate(pick) => {
                let Some(one) = self.picked(pick) else { return };
                for other in self.living() {
                    self.cuts.insert((one, other, index));
                    self.cuts.insert((other, one, index));
                }
            }
            Fault::OneWay(from, to) => {
                if let (Some(from), Some(to)) = (self.picked(from), self.picked(to)) {
                    self.cuts.insert((from, to, index));
                }
            }
            Fault::Split(mask) => {
                let living = self.living();
                for one in &living {
                    for other in &living {
                        if (mask >> (one % 32) ^ mask >> (other % 32)) & 1 == 1 {
                            self.cuts.insert((*one, *other, index));
                        }
                    }
                }
            }
            Fault::Crash(pick) => {
                if let Some(id) = self.picked(pick) {
                    self.hit.insert(index, id);
                    if let Some(controller) = self.controllers.get_mut(&id) {
                        controller.crash();
                    }
                }
            }
            Fault::CrashInside(pick, entries) => {
                if let Some(id) = self.picked(pick) {
                    self.hit.insert(index, id);
                    if let Some(process) = self.controllers.get_mut(&id).and_then(|it| it.process.as_mut()) {
                        process.end_inside(entries);
                    }
                }
            }
            Fault::DiskFull(pick) => {
                if let Some(id) = self.picked(pick) {
                    self.hit.insert(index, id);
                    if let Some(process) = self.controllers.get_mut(&id).and_then(|it| it.process.as_mut()) {
                        process.fill_disk();
                    }
                }
            }
            Fault::Pause(pick) => {
                if let Some(controller) = self.picked(pick).and_then(|id| self.controllers.get_mut(&id)) {
                    controller.paused_until = now + for_ms * 1000;
                }
            }
            Fault::ClockJump(pick, ms) => {
                if let Some(controller) = self.picked(pick).and_then(|id| self.controllers.get_mut(&id)) {
                    controller.clock.jump(now, ms * 1000);
                }
            }
            Fault::BusDown => self.set_bus(false),
            Fault::BusReplay(count) => {
                for _ in 0..count {
                    let at = self.bus_rng.below(self.old.len() as u64) as usize;
                    if let Some((node, said)) = self.old.get(at).cloned() {
                        self.send_to_node(node, &said);
                    }
                }
            }
            Fault::BusForge(pick) => self.forge(pick),
            Fault::AgentCut(pick) => {
                self.agents[node(pick)].connect(now, false);
                self.queue_agent(node(pick));
            }
            Fault::AgentCrash(pick) => self.agents[node(pick)].crash(),
            Fault::HostReboot(pick) => {
                self.agents[node(pick)].crash();
                self.agents[node(pick)].engine.power_off();
            }
            Fault::ContainerDies(pick, which) => self.agents[node(pick)].engine.kill(which),
            Fault::ImagesGone(pick) => self.agents[node(pick)].engine.images.clear(),
            Fault::EngineErrors(pick, permille) => self.agents[node(pick)].engine.failing = permille,
            Fault::AddController => self.add_controller(),
            Fault::RemoveController(pick) => self.remove_controller(pick),
            Fault::Transfer(pick) => {
                let to = self.picked(pick);
                if let (Some(leader), Some(to)) = (self.leader(), to)
                    && let Some(process) =
                        self.controllers.get_mut(&leader).and_then(|it| it.process.as_mut())
                {
                    process.transfer(to);
                }
            }
            Fault::Snapshot(pick) => {
                let id = self.picked(pick);
                if let Some(process) =
                    id.and_then(|id| self.controllers.get_mut(&id)).and_then(|it| it.process.as_mut())
                {
                    // A replica that cannot write says so at its next turn.
                    drop(process.begin_snapshot(now, &mut self.rng));
                }
            }
            Fault::BitFlip(pick, which, bit) => self.spoil(pick, which, Rot::Flip(bit)),
            // The number of the other place is filled in where it is known.
            Fault::Misread(pick, which) => self.spoil(pick, which, Rot::Misdirected(0)),
            Fault::DiskLies(pick) => {
                if let Some(process) = self.bad_disk(pick) {
                    process.driver.disk().lie();
                }
            }
            Fault::SyncFails(pick) => {
                if let Some(id) = self.picked(pick) {
                    self.hit.insert(index, id);
                    if let Some(process) = self.controllers.get_mut(&id).and_then(|it| it.process.as_mut()) {
                        process.fail_syncs();
                    }
                }
            }
            Fault::DiskSlow(pick, ms) => {
                if let Some(controller) = self.picked(pick).and_then(|id| self.controllers.get_mut(&id)) {
                    controller.slow_us = ms * 1000;
                    self.hit.insert(index, controller.id);
                }
            }
            Fault::ClockDrift(pick, ppm) => {
                if let Some(controller) = self.picked(pick).and_then(|id| self.controllers.get_mut(&id)) {
                    controller.clock.drift(now, ppm);
                }
            }
            // Where some say nothing of their clocks, nobody can tell that one is wrong.
            Fault::ClockDayAhead(pick) if self.day_ahead.is_none() && !self.setup.skewed => {
                self.day_ahead = self.picked(pick);
                if let Some(controller) = self.day_ahead.and_then(|id| self.controllers.get_mut(&id)) {
                    controller.clock.jump(now, DAY_US);
                }
            }
            Fault::ClockDayAhead(_) => {}
            Fault::RegionCut(pick) => self.connect_region(pick, false),
            Fault::RegionParts(pick) => {
                self.connect_region(pick, false);
                let is_here = |id: ControllerId| id % REGIONS as u64 == pick % REGIONS as u64;
                let living = self.living();
                for one in &living {
                    for other in living.iter().filter(|other| is_here(**other) != is_here(*one)) {
                        self.cuts.insert((*one, *other, index));
                    }
                }
            }
            Fault::RegionMute(pick) => {
                self.mute.insert((pick as usize % REGIONS, index));
            }
            Fault::RegionDeaf(pick) => {
                self.deaf.insert((pick as usize % REGIONS, index));
            }
            Fault::EngineHangs(pick) => self.agents[node(pick)].engine.hangs = true,
            Fault::EngineLies(pick) => self.agents[node(pick)].engine.lies = true,
            Fault::Contest(_) => self.contest_begins(index),
            Fault::StaleTail => self.stale_tail_begins(index),
            Fault::Sleeper(_) => self.sleeper_begins(index, for_ms),
            Fault::QuorumLost(pick) => self.loss_begins(index, pick, for_ms),
            Fault::FeedWeather { lose, repeat, lose_answers, late_ms } => {
                self.feed_weather = FeedWeather { lose, repeat, lose_answers, late_us: late_ms * 1000 };
            }
            Fault::FeedLost => self.jetstream.lose(),
            Fault::FeedForge(pick) => self.jetstream.forge(now, pick.is_multiple_of(2)),
            Fault::FeedTrim(permille) => self.jetstream.trim(permille),
            Fault::FeedReplay(pick, count) => self.replay_feed(pick, count),
            Fault::FeedRival(pick) => {
                if let Some(controller) = self.picked(pick).and_then(|id| self.controllers.get_mut(&id)) {
                    let until = controller.clock.local_us(now) + for_ms * 1000;
                    if let Some(process) = &mut controller.process {
                        process.feed.rival_until = until;
                    }
                }
            }
            Fault::RollBack(pick) => {
                let count = self.clients.len() as u64;
                let client = (pick % count) as usize;
                self.clients[client].panics = true;
                if self.clients[client].is_idle() {
                    self.clients[client].due_us = now;
                    self.queue_client(client);
                }
            }
        }
    }

    pub(super) fn fault_ends(&mut self, index: usize) {
        let agents = self.agents.len() as u64;
        let node = |pick: u64| (pick % agents) as usize;
        match self.faults[index].fault.clone() {
            Fault::PeerWeather { .. } => self.peer_weather = CALM,
            Fault::BusWeather { .. } => self.bus_weather = CALM,
            Fault::FeedWeather { .. } => self.feed_weather = FeedWeather::default(),
            Fault::Isolate(_) | Fault::OneWay(..) | Fault::Split(_) | Fault::Sleeper(_) => {
                self.hit.remove(&index);
                self.cuts.retain(|(_, _, fault)| *fault != index);
            }
            Fault::StaleTail => {
                self.cuts.retain(|(_, _, fault)| *fault != index);
                if let Some(id) = self.hit.remove(&index) {
                    self.restart_soon(id);
                }
            }
            Fault::RegionCut(pick) => {
                let up = self.bus_up;
                self.connect_region(pick, up);
            }
            Fault::RegionParts(pick) => {
                self.cuts.retain(|(_, _, fault)| *fault != index);
                let up = self.bus_up;
                self.connect_region(pick, up);
            }
            Fault::QuorumLost(_) => self.loss_ends(index),
            Fault::RegionMute(_) => self.mute.retain(|(_, fault)| *fault != index),
            Fault::RegionDeaf(_) => self.deaf.retain(|(_, fault)| *fault != index),
            Fault::EngineHangs(pick) => self.agents[node(pick)].engine.hangs = false,
            Fault::EngineLies(pick) => self.agents[node(pick)].engine.lies = false,
            Fault::DiskSlow(..) => {
                let hit = self.hit.remove(&index);
                if let Some(controller) = hit.and_then(|id| self.controllers.get_mut(&id)) {
                    controller.slow_us = 0;
                }
            }
            Fault::DiskLies(_) => {
                // Power is lost: what was not synced is gone.
                if let Some(id) = self.bad_disk {
                    self.restart_soon(id);
                }
            }
            Fault::Crash(_)
            | Fault::CrashInside(..)
            | Fault::DiskFull(_)
            | Fault::SyncFails(_)
            | Fault::Contest(_) => {
                if let Some(id) = self.hit.remove(&index) {
                    // Whoever looks after it frees its disk and starts it again.
                    if let Some(controller) = self.controllers.get_mut(&id) {
                        controller.crash();
                    }
                    self.start_controller(id);
                }
            }
            Fault::BusDown => self.set_bus(true),
            Fault::AgentCut(pick) => {
                let up = self.bus_up;
                self.agents[node(pick)].connect(self.now_us, up);
                self.queue_agent(node(pick));
            }
            Fault::AgentCrash(pick) => self.start_agent(node(pick)),
            Fault::HostReboot(pick) => {
                self.agents[node(pick)].engine.off = false;
                self.start_agent(node(pick));
            }
            Fault::EngineErrors(pick, _) => self.agents[node(pick)].engine.failing = 0,
            _ => {}
        }
    }

    /// The process of the one controller with a bad disk; whoever is picked first has it.
    fn bad_disk(&mut self, pick: u64) -> Option<&mut Process> {
        let id = self.bad_disk.or_else(|| self.picked(pick))?;
        self.bad_disk = Some(id);
        let controller = self.controllers.get_mut(&id).filter(|it| !it.retired)?;
        controller.bad_disk = true;
        controller.process.as_mut()
    }

    fn spoil(&mut self, pick: u64, which: u64, rot: Rot) {
        let kind = [Kind::Entry, Kind::Record, Kind::Snapshot][(which % 3) as usize];
        if let Some(process) = self.bad_disk(pick) {
            process.spoil(kind, which / 3, rot);
        }
    }

    fn connect_region(&mut self, pick: u64, up: bool) {
        for at in (pick as usize % REGIONS..self.agents.len()).step_by(REGIONS) {
            self.agents[at].connect(self.now_us, up);
            self.queue_agent(at);
        }
    }

    fn start_agent(&mut self, index: usize) {
        self.agents[index].start(self.now_us);
        self.queue_agent(index);
    }

    pub(super) fn set_bus(&mut self, up: bool) {
        if up && !self.bus_up {
            self.bus_count += 1;
            if !self.setup.feed_outlasts {
                self.jetstream.lose();
            }
        }
        self.bus_up = up;
        for index in 0..self.agents.len() {
            self.agents[index].connect(self.now_us, up);
            self.queue_agent(index);
        }
    }

    /// Assignments that nobody should believe.
    fn forge(&mut self, pick: u64) {
        let node = (pick % self.agents.len() as u64) as usize;
        let old = self.old.iter().rev().find_map(|(of, said)| match said {
            ToNode::Assignment(signed) => Some((*of, Rc::clone(signed))),
            _ => None,
        });
        let Some((of, signed)) = old else { return };
        let Ok(mut assignment) = signed.peek::<Assignment>() else { return };
        let stranger = key(self.setup.seed, 77);
        let mut forged = Vec::new();
        // Another node's, as it is.
        if of != node {
            forged.push((node, (*signed).clone()));
        }
        // Emptied and newer, with the signature that was on it.
        assignment.version.seq += 1_000_000;
        assignment.version.digest = stele_model::Digest::EMPTY;
        assignment.instances.clear();
        if let Ok(body) = serde_json::to_string(&assignment) {
            forged.push((of, Signed { body, signature: signed.signature.clone() }));
        }
        // The same, signed by somebody the root never heard of.
        forged.push((of, Signed::new(&stranger, Purpose::Assignment, &assignment)));
        assignment.controller = self.keys.certificate(1, &stranger, &stranger);
        forged.push((of, Signed::new(&stranger, Purpose::Assignment, &assignment)));
        for (node, signed) in forged {
            self.send_to_node(node, &ToNode::Assignment(Rc::new(signed)));
        }
    }

    pub(super) fn add_controller(&mut self) {
        let id = self.next_controller;
        let Some(leader) = self.leader() else { return };
        if self.living().len() >= CONTROLLERS_MAX {
            return;
        }
        let Some(process) = self.controllers.get_mut(&leader).and_then(|it| it.process.as_mut()) else {
            return;
        };
        if process.change_members(MembershipChange::AddLearner(id)) {
            self.next_controller += 1;
            self.controllers.insert(id, Controller::new(id, &[], &self.keys, &self.setup));
            self.start_controller(id);
            self.turn(leader);
        }
    }

    fn remove_controller(&mut self, pick: u64) {
        let Some(leader) = self.leader() else { return };
        let Some(process) = self.controllers.get(&leader).and_then(|it| it.process.as_ref()) else {
            return;
        };
        let mut voters = process.status().conf_state.voters;
        if voters.len() <= VOTERS_MIN {
            return;
        }
        voters.retain(|id| *id != leader);
        let count = voters.len() as u64;
        self.change_members(leader, self.removal(voters[(pick % count) as usize]));
    }
}
