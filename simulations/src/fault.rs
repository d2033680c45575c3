//! The faults of a run, drawn before it begins: a list from which some can be left out, so that a
//! failure is shrunk to what it takes.

use std::fmt;

use crate::rng::Rng;

/// What can go wrong. A `pick` is taken modulo however many there are when it happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Controllers' and clients' messages are lost, repeated (per thousand) and late (milliseconds).
    PeerWeather {
        /// Lost, of a thousand.
        lose: u32,
        /// Repeated, of a thousand.
        repeat: u32,
        /// Latest, in milliseconds.
        delay_ms: u64,
    },
    /// NATS loses, repeats and delays.
    BusWeather {
        /// Lost, of a thousand.
        lose: u32,
        /// Repeated, of a thousand.
        repeat: u32,
        /// Latest, in milliseconds.
        delay_ms: u64,
    },
    /// A controller hears no other and is heard by none.
    Isolate(u64),
    /// One controller does not hear another, which hears it.
    OneWay(u64, u64),
    /// Controllers are parted in two by the bits of a number.
    Split(u64),
    /// A controller's process ends; unsynced writes are lost.
    Crash(u64),
    /// A controller's process ends while it applies, after so many more entries.
    CrashInside(u64, u64),
    /// A controller's disk takes no more writes, so its process ends in the middle of a cycle.
    DiskFull(u64),
    /// A controller's process stands still.
    Pause(u64),
    /// A controller's clock jumps by so many milliseconds, for good.
    ClockJump(u64, i64),
    /// NATS is gone, and comes back empty.
    BusDown,
    /// NATS delivers so many old messages again.
    BusReplay(u64),
    /// Somebody on NATS forges assignments: unsigned, for others, old, or wrongly signed.
    BusForge(u64),
    /// A node is cut off from NATS.
    AgentCut(u64),
    /// An agent's process ends and starts again.
    AgentCrash(u64),
    /// A node's host reboots.
    HostReboot(u64),
    /// One of a node's containers dies.
    ContainerDies(u64, u64),
    /// A node's images are removed.
    ImagesGone(u64),
    /// A node's container engine fails so many of a thousand requests.
    EngineErrors(u64, u32),
    /// A controller joins.
    AddController,
    /// A controller is removed.
    RemoveController(u64),
    /// Leadership is handed over.
    Transfer(u64),
    /// A controller makes a snapshot and forgets the entries that it covers.
    Snapshot(u64),
    /// An operator rolls something back, now.
    RollBack(u64),
    /// The bad disk spoils a bit of what it gives for one place: of a kind, which, which bit. There is
    /// at most one bad disk in a run; whoever is picked first has it.
    BitFlip(u64, u64, u64),
    /// The bad disk gives for one place what stands at another.
    Misread(u64, u64),
    /// The bad disk says that it synced, and did not, until power is lost.
    DiskLies(u64),
    /// A controller's disk fails to sync, so its process ends.
    SyncFails(u64),
    /// A controller's disk takes up to so many milliseconds for a write.
    DiskSlow(u64, u64),
    /// A controller's clocks are quicker or slower by so many millionths, for good.
    ClockDrift(u64, i64),
    /// A controller's clock is a day ahead.
    ClockDayAhead(u64),
    /// The nodes of a region are cut off from NATS.
    RegionCut(u64),
    /// The nodes and controllers of a region are cut off from all others.
    RegionParts(u64),
    /// Nobody hears what the nodes of a region say.
    RegionMute(u64),
    /// The nodes of a region hear nothing, and are heard.
    RegionDeaf(u64),
    /// A node's container engine does not answer.
    EngineHangs(u64),
    /// A node's container engine says of containers what is not so.
    EngineLies(u64),
    /// The leader's process ends; then several stand for election at once, and whoever votes ends and
    /// starts again.
    Contest(u64),
    /// The leader is cut off and goes on appending; the others forget the entries it would need.
    StaleTail,
    /// The leader is cut off and stands still while others lead and decide; clients ask it for what it
    /// believes to be so.
    Sleeper(u64),
    /// Messages to the public feed are lost and repeated, the server's answers are lost (per thousand),
    /// and some of both are late (milliseconds), so that they arrive when nobody waits for them.
    FeedWeather {
        /// Lost, of a thousand.
        lose: u32,
        /// Repeated, of a thousand.
        repeat: u32,
        /// Answers lost, of a thousand.
        lose_answers: u32,
        /// Latest, in milliseconds.
        late_ms: u64,
    },
    /// JetStream loses the whole public feed.
    FeedLost,
    /// A stranger writes to the public feed, plainly or what looks like a record of another log.
    FeedForge(u64),
    /// JetStream drops so many of a thousand of the public feed's messages, the oldest.
    FeedTrim(u64),
    /// So many old messages to the public feed arrive once more, those of deposed leaders, too.
    FeedReplay(u64, u64),
    /// A controller publishes the public feed, whoever leads.
    FeedRival(u64),
    /// All controllers but one are lost with their disks, and the fleet goes on with what that one has. Of odd numbers,
    /// it has not heard of what the others decided last.
    QuorumLost(u64),
}

/// A fault, when, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheduled {
    /// Milliseconds after the founding.
    pub at_ms: u64,
    /// How long it lasts, in milliseconds; nothing for what is over at once.
    pub for_ms: u64,
    /// What.
    pub fault: Fault,
}

impl fmt::Display for Scheduled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>8.1} s  {:?}", self.at_ms as f64 / 1e3, self.fault)?;
        if self.for_ms > 0 {
            write!(f, "  for {:.1} s", self.for_ms as f64 / 1e3)?;
        }
        Ok(())
    }
}

/// Kinds of faults; a seed chooses which there are and how often.
const KINDS: usize = 24;
/// Kinds that came later. They are drawn by themselves, so that they moved none of the others.
const LATER_KINDS: usize = 16;
/// Kinds that go for the public feed, drawn by themselves, too.
const FEED_KINDS: usize = 6;
/// Longest write of a slow disk, in milliseconds.
const SLOW_MS_MAX: u64 = 600;
/// Millionths by which a clock is off at most.
const DRIFT_PPM_MAX: u64 = 20_000;

/// Of a thousand runs, in how many the quorum is lost for good.
const QUORUM_LOST_PERMILLE: u32 = 200;
/// Shortest and longest until the fleet goes on without it, in milliseconds.
const QUORUM_LOST_MS_MIN: u64 = 18_000;
const QUORUM_LOST_MS_MAX: u64 = 40_000;

/// Draws the faults of a seed for a run whose faults last so long.
pub fn draw(seed: u64, minutes: u64) -> Vec<Scheduled> {
    let mut all = draw_kinds(&mut Rng::fork(seed, 1), KINDS, minutes, one);
    all.extend(draw_kinds(&mut Rng::fork(seed, 6), LATER_KINDS, minutes, later));
    all.extend(draw_kinds(&mut Rng::fork(seed, 11), FEED_KINDS, minutes, of_the_feed));
    all.extend(draw_loss(&mut Rng::fork(seed, 13), minutes));
    all.sort_by_key(|scheduled| scheduled.at_ms);
    all
}

/// A fleet loses its quorum for good at most once.
fn draw_loss(rng: &mut Rng, minutes: u64) -> Option<Scheduled> {
    if !rng.chance(QUORUM_LOST_PERMILLE) {
        return None;
    }
    let for_ms = rng.range(QUORUM_LOST_MS_MIN, QUORUM_LOST_MS_MAX);
    // Whoever is left goes on before faults are over.
    let at_ms = rng.below((minutes * 60_000).checked_sub(for_ms)?);
    Some(Scheduled { at_ms, for_ms, fault: Fault::QuorumLost(rng.next() >> 32) })
}

fn draw_kinds(
    rng: &mut Rng,
    kinds: usize,
    minutes: u64,
    one: impl Fn(usize, &mut Rng) -> (Fault, u64),
) -> Vec<Scheduled> {
    // Some runs have few faults, some have all; each kind has a rate of its own.
    let share = *rng.pick(&[150, 400, 700, 1000]).unwrap_or(&400);
    let rates: Vec<u64> =
        (0..kinds).map(|_| if rng.chance(share) { rng.range(1, 3) * minutes } else { 0 }).collect();
    let end_ms = minutes * 60_000;
    let mut all = Vec::new();
    for (kind, rate) in rates.iter().enumerate() {
        for _ in 0..rng.below(rate + 1) {
            let (fault, for_ms) = one(kind, rng);
            let at_ms = rng.below(end_ms);
            all.push(Scheduled { at_ms, for_ms: for_ms.min(end_ms - at_ms), fault });
        }
    }
    all.sort_by_key(|scheduled| scheduled.at_ms);
    all
}

fn later(kind: usize, rng: &mut Rng) -> (Fault, u64) {
    let pick = rng.next() >> 32;
    let other = rng.next() >> 32;
    let short = rng.range(200, 3_000);
    let long = rng.range(1_000, 40_000);
    match kind {
        0 => (Fault::BitFlip(pick, other, rng.next() >> 32), 0),
        1 => (Fault::Misread(pick, other), 0),
        2 => (Fault::DiskLies(pick), long),
        3 => (Fault::SyncFails(pick), short),
        4 => (Fault::DiskSlow(pick, rng.range(5, SLOW_MS_MAX)), long),
        5 => {
            let ppm = rng.range(0, 2 * DRIFT_PPM_MAX).cast_signed() - DRIFT_PPM_MAX.cast_signed();
            (Fault::ClockDrift(pick, ppm), 0)
        }
        6 => (Fault::ClockDayAhead(pick), 0),
        7 => (Fault::RegionCut(pick), long),
        8 => (Fault::RegionParts(pick), long),
        9 => (Fault::RegionMute(pick), long),
        10 => (Fault::RegionDeaf(pick), long),
        11 => (Fault::EngineHangs(pick), long),
        12 => (Fault::EngineLies(pick), long),
        13 => (Fault::Contest(pick), rng.range(2_000, 6_000)),
        14 => (Fault::StaleTail, rng.range(4_000, 12_000)),
        _ => (Fault::Sleeper(pick), rng.range(4_000, 9_000)),
    }
}

fn of_the_feed(kind: usize, rng: &mut Rng) -> (Fault, u64) {
    let pick = rng.next() >> 32;
    let long = rng.range(1_000, 40_000);
    match kind {
        0 => {
            let weather = Fault::FeedWeather {
                lose: rng.below(200) as u32,
                repeat: rng.below(300) as u32,
                lose_answers: rng.below(500) as u32,
                late_ms: rng.range(1, 12_000),
            };
            (weather, long)
        }
        1 => (Fault::FeedLost, 0),
        2 => (Fault::FeedForge(pick), 0),
        3 => (Fault::FeedTrim(rng.range(1, 1_000)), 0),
        4 => (Fault::FeedReplay(pick, rng.range(1, 60)), 0),
        _ => (Fault::FeedRival(pick), long),
    }
}

fn one(kind: usize, rng: &mut Rng) -> (Fault, u64) {
    let pick = rng.next() >> 32;
    let other = rng.next() >> 32;
    let short = rng.range(200, 3_000);
    let long = rng.range(1_000, 40_000);
    match kind {
        0 => {
            let weather = Fault::PeerWeather {
                lose: rng.below(300) as u32,
                repeat: rng.below(200) as u32,
                delay_ms: rng.range(1, 400),
            };
            (weather, long)
        }
        1 => {
            let weather = Fault::BusWeather {
                lose: rng.below(500) as u32,
                repeat: rng.below(300) as u32,
                delay_ms: rng.range(1, 3_000),
            };
            (weather, long)
        }
        2 => (Fault::Isolate(pick), long),
        3 => (Fault::OneWay(pick, other), long),
        4 => (Fault::Split(pick), long),
        5 => (Fault::Crash(pick), short),
        6 => (Fault::CrashInside(pick, rng.below(4)), short),
        7 => (Fault::DiskFull(pick), short),
        8 => (Fault::Pause(pick), rng.range(300, 15_000)),
        9 => (Fault::ClockJump(pick, rng.range(0, 240_000).cast_signed() - 120_000), 0),
        10 => (Fault::BusDown, long),
        11 => (Fault::BusReplay(rng.range(1, 40)), 0),
        12 => (Fault::BusForge(pick), 0),
        13 => (Fault::AgentCut(pick), rng.range(1_000, 80_000)),
        14 => (Fault::AgentCrash(pick), short),
        15 => (Fault::HostReboot(pick), long),
        16 => (Fault::ContainerDies(pick, other), 0),
        17 => (Fault::ImagesGone(pick), 0),
        18 => (Fault::EngineErrors(pick, rng.range(50, 900) as u32), long),
        19 => (Fault::AddController, 0),
        20 => (Fault::RemoveController(pick), 0),
        21 => (Fault::Transfer(pick), 0),
        22 => (Fault::Snapshot(pick), 0),
        _ => (Fault::RollBack(pick), 0),
    }
}
