//! Rounds: something goes wrong for a while, everything heals, and all must be well again.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use stele_testkit::{Interrupted, eventually, interrupted, pause};

use crate::clients::Clients;
use crate::dice::Dice;
use crate::disk::Ailment;
use crate::faults::{self, Kind, RESET};
use crate::fleet::{Fleet, HUB, REGIONS};
use crate::limits::{
    HOLD_MS_MAX, HOLD_MS_MIN, RECOVERY_DEADLINE, SHORT_HOLD_MS_MAX, STOP_DEADLINE, WRITES_PER_ROUND,
};
use crate::relay::Relays;

/// Everything there is.
pub(crate) struct World {
    pub(crate) fleet: Fleet,
    pub(crate) dice: Dice,
    pub(crate) relays: Option<Relays>,
    /// A controller that must stop by itself.
    pub(crate) victim: Option<u64>,
    /// A controller that may, because its disk flips bits.
    pub(crate) flipped: Option<u64>,
    pub(crate) clients: Option<Clients>,
    pub(crate) is_short: bool,
    pub(crate) began: Instant,
}

/// What a round was like.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    pub(crate) kinds: Vec<Kind>,
    /// Writes acknowledged while the fault was there.
    pub(crate) writes: u64,
    pub(crate) held: Duration,
    /// From healing to a leader, equal replicas, acknowledged writes and ready nodes.
    pub(crate) recovery: Duration,
}

impl World {
    /// Tells something, with its time.
    pub(crate) fn say(&self, text: &str) {
        println!("[{:7.1} s] {text}", self.began.elapsed().as_secs_f64());
    }

    fn acknowledged(&self) -> u64 {
        self.clients.as_ref().map_or(0, Clients::acknowledged)
    }

    /// One round; `kinds` are those to draw from.
    pub(crate) fn round(&mut self, number: u32, kinds: &[Kind]) -> anyhow::Result<Round> {
        let most = if self.is_short { SHORT_HOLD_MS_MAX } else { HOLD_MS_MAX };
        let hold = Duration::from_millis(self.dice.between(HOLD_MS_MIN, most));
        let first = *self.dice.pick(kinds).context("no kind of fault is possible here")?;
        let partners: Vec<_> =
            first.partners().iter().copied().filter(|partner| kinds.contains(partner)).collect();
        // One round in three has two faults at once.
        let second = if self.dice.below(3) == 0 { self.dice.pick(&partners).copied() } else { None };
        let round: Vec<Kind> = std::iter::once(first).chain(second).collect();
        let before = self.acknowledged();
        for kind in &round {
            let told = faults::inflict(*kind, self)?;
            self.say(&format!("round {number}: {}: {told}", kind.name()));
        }
        let began = Instant::now();
        self.watch(hold)?;
        self.see_the_victims_end(first)?;
        let held = began.elapsed();
        let writes = self.acknowledged() - before;
        let began = Instant::now();
        self.heal()?;
        let steps =
            self.recover().with_context(|| format!("round {number} ({}) does not heal", first.name()))?;
        let recovery = began.elapsed();
        let leader = self.fleet.leader_now().unwrap_or_default();
        self.say(&format!(
            "round {number}: well again {:.1} s after healing ({steps}); {writes} writes acknowledged in the {:.1} s \
             before; controller {leader} leads",
            recovery.as_secs_f64(),
            held.as_secs_f64(),
        ));
        Ok(Round { kinds: round, writes, held, recovery })
    }

    /// Lets time pass, during which no controller may end for no reason.
    fn watch(&mut self, time: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        while began.elapsed() < time {
            pause(LOOK)?;
            self.fleet.check_that_all_run()?;
        }
        Ok(())
    }

    /// A controller whose disk is broken must have said so and stopped, while the others go on.
    fn see_the_victims_end(&mut self, kind: Kind) -> anyhow::Result<()> {
        if let Some(id) = self.victim.take().filter(|_| kind.stops_its_victim()) {
            let what = format!("controller {id}, whose disk is broken, stops");
            let controller = self.fleet.controller(id)?;
            let process = controller.process.as_mut().context("it was started")?;
            let status = eventually(STOP_DEADLINE, &what, || process.ended())
                .with_context(|| format!("its last words:\n{}", controller.last_words()))?;
            let why = controller.why_it_ended().with_context(|| {
                format!(
                    "controller {id} ended with {status} and did not say why:\n{}",
                    controller.last_words()
                )
            })?;
            ensure!(!status.success(), "controller {id} ended as if all were well: {why}");
            controller.process = None;
            self.say(&format!("         controller {id} stopped: {why}"));
            // A majority is left, and goes on.
            let goal = self.acknowledged() + WRITES_PER_ROUND;
            eventually(RECOVERY_DEADLINE, "the other controllers acknowledge writes", || {
                (self.acknowledged() >= goal).then_some(())
            })?;
        }
        if let Some(id) = self.flipped.take() {
            let controller = self.fleet.controller(id)?;
            let ended = controller.process.as_mut().and_then(stele_testkit::Process::ended);
            let flipped = controller.volume.fuse().map_or(0, |fuse| std::mem::take(&mut fuse.disk().flipped));
            let told = match ended {
                Some(status) => {
                    let why = controller.why_it_ended().with_context(|| {
                        format!("controller {id} ended with {status} and did not say why")
                    })?;
                    controller.process = None;
                    format!("controller {id} stopped after {flipped} flipped bits: {why}")
                }
                None => format!("controller {id} runs on after {flipped} flipped bits"),
            };
            self.say(&format!("         {told}"));
        }
        Ok(())
    }

    /// Everything that was broken is whole again; what has ended is started.
    pub(crate) fn heal(&mut self) -> anyhow::Result<()> {
        self.fleet.net.heal()?;
        if let Some(relays) = self.relays.take() {
            self.fleet.net.slow(false)?;
            drop(relays);
            self.fleet.net.reset_connections()?;
            pause(RESET)?;
            self.fleet.net.heal()?;
        }
        for at in std::iter::once(HUB).chain(REGIONS) {
            self.fleet.start_nats(at)?;
        }
        self.fleet.start_agents()?;
        for id in self.fleet.ids() {
            let controller = self.fleet.controller(id)?;
            let volume = &controller.volume;
            // One that is only slow is well again.
            let was_ailing = volume.fuse().is_some_and(|fuse| {
                let ailment = fuse.disk().ailment;
                Ailment { sync_ms: 0, ..ailment } != Ailment::default()
            });
            volume.set(Ailment::default());
            volume.empty()?;
            if let Some(process) = controller.process.as_mut().filter(|_| controller.is_paused) {
                process.resume()?;
                controller.is_paused = false;
            }
            let has_bad_clock = std::mem::take(&mut controller.clock) != 0;
            if was_ailing || has_bad_clock {
                self.fleet.kill(id)?;
                // What a failing disk had not synced, it never will.
                let controller = self.fleet.controller(id)?;
                if let Some(fuse) = controller.volume.fuse() {
                    fuse.disk().cut_power();
                }
            }
            let controller = self.fleet.controller(id)?;
            controller.may_end = false;
            if controller.process.is_none() {
                self.fleet.start_controller(id)?;
            }
        }
        Ok(())
    }

    /// Waits until all is well: a leader, equal replicas, writes, nodes. Says how long each took.
    pub(crate) fn recover(&mut self) -> anyhow::Result<String> {
        interrupted()?;
        let began = Instant::now();
        self.fleet.leader()?;
        let led = began.elapsed();
        self.fleet.wait_until_level()?;
        let level = began.elapsed();
        let goal = self.acknowledged() + WRITES_PER_ROUND;
        eventually(self.fleet.patience, "writes are acknowledged again", || {
            (self.acknowledged() >= goal).then_some(())
        })?;
        let written = began.elapsed();
        self.fleet.wait_for_nodes()?;
        let ready = began.elapsed();
        self.fleet.check_that_all_run()?;
        let [led, level, written, ready] = [led, level, written, ready].map(|time| time.as_secs_f64());
        Ok(format!("leader {led:.1} s, level {level:.1} s, writes {written:.1} s, nodes {ready:.1} s"))
    }
}

/// Between two looks at whether everything that should run does.
const LOOK: Duration = Duration::from_millis(100);

/// Whether somebody asked to stop.
pub(crate) fn was_interrupted(error: &anyhow::Error) -> bool {
    error.chain().any(<dyn std::error::Error + 'static>::is::<Interrupted>)
}
