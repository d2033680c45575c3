//! What goes wrong: each kind, how it is drawn, done, and told.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;

use crate::dice::Dice;
use crate::disk::Ailment;
use crate::fleet::{HUB, REGIONS, machine};
use crate::limits::{CLOCK_OFFSET_SECONDS_MAX, CRASH_AFTER_MS_MAX, CRASHES_MAX, SLOW_SYNC_MS_MAX};
use crate::probe::Able;
use crate::relay::{Delays, Relays};
use crate::volume::Kind as DiskKind;
use crate::world::World;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Kind {
    /// The leader hears no other controller, nor they it.
    IsolateLeader,
    /// The controllers are in two groups that do not hear each other.
    Split,
    /// One direction between controllers is cut.
    OneWay,
    /// Two controllers do not hear each other; the others hear both.
    BrokenLink,
    /// A region hears nobody outside.
    RegionCutOff,
    /// No controller reaches NATS.
    HubCutOff,
    /// Controllers and regions are as far apart as Europe, America and Asia.
    Delays,
    /// `kill -9` of a controller.
    Kill,
    /// `kill -9` of all controllers at once.
    KillAll,
    /// A controller stands still (SIGSTOP), and goes on as if nothing had been.
    Pause,
    /// A controller is killed and started again and again, each time after a moment.
    CrashLoop,
    /// An agent is killed and started again; its containers, in its memory, are lost.
    AgentKill,
    /// The NATS of the hub is killed and started again.
    NatsRestart,
    /// The same, and everything it kept is gone.
    NatsWipe,
    /// A region's own NATS is killed and started again.
    LeafRestart,
    /// A controller's disk is full.
    DiskFull,
    /// The power of one controller is cut: what it had not synced is lost or torn.
    PowerCut,
    /// The power of all controllers is cut at once.
    PowerCutAll,
    /// A controller's disk takes its time to sync.
    SlowDisk,
    /// A controller's disk fails to sync.
    SyncError,
    /// A controller's disk fails to write.
    WriteError,
    /// A controller starts on a disk that flips bits on their way.
    BitFlips,
    /// A controller's clock is wrong.
    Clock,
}

/// All kinds that this machine can do.
pub(crate) fn possible(able: &Able) -> Vec<Kind> {
    Kind::value_variants().iter().copied().filter(|kind| kind.is_possible(able)).collect()
}

impl Kind {
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    pub(crate) fn help(self) -> String {
        let help = self.to_possible_value().and_then(|value| value.get_help().map(ToString::to_string));
        help.unwrap_or_default()
    }

    fn is_possible(self, able: &Able) -> bool {
        match self {
            Self::Delays => able.redirects,
            Self::PowerCut
            | Self::PowerCutAll
            | Self::SlowDisk
            | Self::SyncError
            | Self::WriteError
            | Self::BitFlips => able.fuse,
            Self::Clock => able.faketime,
            _ => true,
        }
    }

    /// Whether it lasts until the controller it hits has stopped by itself.
    pub(crate) fn stops_its_victim(self) -> bool {
        matches!(self, Self::DiskFull | Self::SyncError | Self::WriteError)
    }

    /// What may go wrong beside it: faults of the network go with those of programs.
    pub(crate) fn partners(self) -> &'static [Self] {
        match self {
            Self::IsolateLeader
            | Self::Split
            | Self::OneWay
            | Self::BrokenLink
            | Self::RegionCutOff
            | Self::HubCutOff
            | Self::SlowDisk
            | Self::Delays => &[Self::Kill, Self::Pause, Self::NatsWipe, Self::LeafRestart, Self::KillAll],
            // Whoever has the wrong clock should come to lead.
            Self::Clock => &[Self::IsolateLeader, Self::Pause],
            _ => &[],
        }
    }
}

/// Does it to the world; says what was done to whom.
pub(crate) fn inflict(kind: Kind, world: &mut World) -> anyhow::Result<String> {
    match kind {
        Kind::IsolateLeader => isolate_leader(world),
        Kind::Split => split(world),
        Kind::OneWay => one_way(world),
        Kind::BrokenLink => broken_link(world),
        Kind::RegionCutOff => region_cut_off(world),
        Kind::HubCutOff => hub_cut_off(world),
        Kind::Delays => delays(world),
        Kind::Kill => kill(world),
        Kind::KillAll => kill_all(world),
        Kind::Pause => pause(world),
        Kind::CrashLoop => crash_loop(world),
        Kind::AgentKill => agent_kill(world),
        Kind::NatsRestart => nats(world, HUB, false),
        Kind::NatsWipe => nats(world, HUB, true),
        Kind::LeafRestart => {
            let region = *world.dice.pick(&REGIONS).context("there are regions")?;
            nats(world, region, false)
        }
        Kind::DiskFull => disk_full(world),
        Kind::PowerCut => power_cut(world, false),
        Kind::PowerCutAll => power_cut(world, true),
        Kind::SlowDisk => slow_disk(world),
        Kind::SyncError => {
            ailing(world, Ailment { fails_syncs: true, ..Ailment::default() }, "fails to sync")
        }
        Kind::WriteError => {
            ailing(world, Ailment { fails_writes: true, ..Ailment::default() }, "fails to write")
        }
        Kind::BitFlips => bit_flips(world),
        Kind::Clock => clock(world),
    }
}

fn names(ids: &[u64]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn isolate_leader(world: &mut World) -> anyhow::Result<String> {
    let leader = world.fleet.leader()?;
    for other in world.fleet.ids().into_iter().filter(|id| *id != leader) {
        world.fleet.net.part(&machine(leader), &machine(other))?;
    }
    Ok(format!("controller {leader}, the leader, is alone"))
}

fn split(world: &mut World) -> anyhow::Result<String> {
    let ids = world.fleet.ids();
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for id in &ids {
        if world.dice.below(2) == 0 { left.push(*id) } else { right.push(*id) }
    }
    if left.is_empty() || right.is_empty() {
        (left, right) = (ids[..1].to_vec(), ids[1..].to_vec());
    }
    for one in &left {
        for other in &right {
            world.fleet.net.part(&machine(*one), &machine(*other))?;
        }
    }
    Ok(format!("controllers {} and {} do not hear each other", names(&left), names(&right)))
}

fn one_way(world: &mut World) -> anyhow::Result<String> {
    let leader = world.fleet.leader()?;
    let others: Vec<_> = world.fleet.ids().into_iter().filter(|id| *id != leader).collect();
    let (machine_of_leader, shape) = (machine(leader), world.dice.below(3));
    if shape == 2 {
        let other = *world.dice.pick(&others).context("there are other controllers")?;
        world.fleet.net.cut(&machine_of_leader, &machine(other))?;
        return Ok(format!("controller {other} does not hear controller {leader}, which leads and hears it"));
    }
    for other in &others {
        let ends = [machine_of_leader.clone(), machine(*other)];
        let (from, to) = if shape == 0 { (&ends[0], &ends[1]) } else { (&ends[1], &ends[0]) };
        world.fleet.net.cut(from, to)?;
    }
    let what = if shape == 0 { "is not heard and hears" } else { "hears nobody and is heard" };
    Ok(format!("controller {leader}, the leader, {what}"))
}

fn broken_link(world: &mut World) -> anyhow::Result<String> {
    let mut ids = world.fleet.ids();
    let one = ids.remove(world.dice.below(ids.len() as u64) as usize);
    let other = *world.dice.pick(&ids).context("there are other controllers")?;
    world.fleet.net.part(&machine(one), &machine(other))?;
    Ok(format!("controllers {one} and {other} do not hear each other; others hear both"))
}

fn region_cut_off(world: &mut World) -> anyhow::Result<String> {
    let region = *world.dice.pick(&REGIONS).context("there are regions")?;
    world.fleet.net.part(region, HUB)?;
    for id in world.fleet.ids() {
        world.fleet.net.part(region, &machine(id))?;
    }
    Ok(format!("region {region} hears nobody outside"))
}

fn hub_cut_off(world: &mut World) -> anyhow::Result<String> {
    for id in world.fleet.ids() {
        world.fleet.net.part(HUB, &machine(id))?;
    }
    Ok("no controller reaches NATS".to_owned())
}

/// One way between continents, in milliseconds: about what light in cables takes.
const WAYS: [(&str, &str, u64); 3] = [("eu", "us", 45), ("us", "ap", 80), ("eu", "ap", 115)];

fn delays(world: &mut World) -> anyhow::Result<String> {
    if world.relays.is_some() {
        return Ok("delays are there already".to_owned());
    }
    // Some days are worse than others.
    let percent = world.dice.between(50, 150);
    let mut places = BTreeMap::from([(HUB.to_owned(), REGIONS[0])]);
    places.extend(REGIONS.map(|region| (region.to_owned(), region)));
    places.extend(
        world
            .fleet
            .ids()
            .into_iter()
            .zip(REGIONS.into_iter().cycle())
            .map(|(id, region)| (machine(id), region)),
    );
    let way = |from: &str, to: &str| {
        let is_it = |it: &&(&str, &str, u64)| (it.0, it.1) == (from, to) || (it.1, it.0) == (from, to);
        let ms = WAYS.iter().find(is_it).map_or(0, |it| it.2);
        Duration::from_millis(ms * percent / 100)
    };
    let mut machines = BTreeMap::new();
    for (name, from) in &places {
        let mut delays = Delays::new();
        for (other, to) in &places {
            delays.insert(world.fleet.net.address(other)?, way(from, to));
        }
        machines.insert(name.clone(), delays);
    }
    world.relays = Some(Relays::start(machines)?);
    world.fleet.net.slow(true)?;
    // Connections that are open go on as they were; those are ended.
    world.fleet.net.reset_connections()?;
    stele_testkit::pause(RESET)?;
    world.fleet.net.heal()?;
    let told = WAYS.map(|(from, to, ms)| format!("{from}-{to} {} ms", ms * percent / 100));
    Ok(format!("one way takes {}", told.join(", ")))
}

/// How long connections are reset: each end says something within that time.
pub(crate) const RESET: Duration = Duration::from_secs(2);

fn some_controllers(dice: &mut Dice, ids: &[u64], most: usize) -> Vec<u64> {
    let count = dice.between(1, most.max(1) as u64) as usize;
    let mut left = ids.to_vec();
    let mut chosen = Vec::new();
    while chosen.len() < count && !left.is_empty() {
        chosen.push(left.remove(dice.below(left.len() as u64) as usize));
    }
    chosen.sort_unstable();
    chosen
}

fn kill(world: &mut World) -> anyhow::Result<String> {
    let ids = world.fleet.ids();
    // Mostly the leader or a few; sometimes more than a quorum survives.
    let victims = if world.dice.below(2) == 0 {
        vec![world.fleet.leader_now().unwrap_or(ids[0])]
    } else {
        some_controllers(&mut world.dice, &ids, ids.len() - 1)
    };
    for id in &victims {
        world.fleet.kill(*id)?;
    }
    Ok(format!("kill -9 of controller {}", names(&victims)))
}

fn kill_all(world: &mut World) -> anyhow::Result<String> {
    let ids = world.fleet.ids();
    for id in &ids {
        world.fleet.kill(*id)?;
    }
    for id in &ids {
        world.fleet.start_controller(*id)?;
    }
    Ok("kill -9 of all controllers, which are started again at once".to_owned())
}

fn pause(world: &mut World) -> anyhow::Result<String> {
    let ids = world.fleet.ids();
    let victims = if world.dice.below(2) == 0 {
        vec![world.fleet.leader_now().unwrap_or(ids[0])]
    } else {
        some_controllers(&mut world.dice, &ids, ids.len())
    };
    for id in &victims {
        let controller = world.fleet.controller(*id)?;
        if let Some(process) = &controller.process {
            process.pause()?;
            controller.is_paused = true;
        }
    }
    Ok(format!("controller {} stands still", names(&victims)))
}

fn crash_loop(world: &mut World) -> anyhow::Result<String> {
    let ids = world.fleet.ids();
    let id = *world.dice.pick(&ids).context("there are controllers")?;
    let crashes = world.dice.between(2, CRASHES_MAX);
    let mut lost = 0;
    for _ in 0..crashes {
        world.fleet.kill(id)?;
        if let Some(fuse) = world.fleet.controller(id)?.volume.fuse() {
            lost += fuse.disk().cut_power().changes;
        }
        world.fleet.start_controller(id)?;
        let life = world.dice.below(CRASH_AFTER_MS_MAX);
        stele_testkit::pause(Duration::from_millis(life))?;
        world.fleet.check_that_all_run()?;
    }
    Ok(format!("controller {id} was killed {crashes} times, and lost {lost} unsynced changes"))
}

fn agent_kill(world: &mut World) -> anyhow::Result<String> {
    let nodes = world.fleet.nodes();
    let node = world.dice.pick(&nodes).context("there are nodes")?.clone();
    world.fleet.kill_agent(&node)?;
    Ok(format!("the agent of {node} is killed"))
}

fn slow_disk(world: &mut World) -> anyhow::Result<String> {
    let id = with_disk(world, &[DiskKind::Fuse])?;
    let sync_ms = world.dice.between(20, SLOW_SYNC_MS_MAX);
    world.fleet.controller(id)?.volume.set(Ailment { sync_ms, ..Ailment::default() });
    Ok(format!("the disk of controller {id} takes {sync_ms} ms to sync"))
}

fn nats(world: &mut World, at: &str, wipe: bool) -> anyhow::Result<String> {
    world.fleet.kill_nats(at, wipe)?;
    Ok(format!("NATS of {at} is killed{}", if wipe { ", and all it kept is gone" } else { "" }))
}

/// A controller whose disk is one of these kinds.
fn with_disk(world: &mut World, kinds: &[DiskKind]) -> anyhow::Result<u64> {
    let fit = |id: &u64| world.fleet.controllers.get(id).is_some_and(|it| kinds.contains(&it.volume.kind));
    let ids: Vec<_> = world.fleet.ids().into_iter().filter(fit).collect();
    world.dice.pick(&ids).copied().context("no controller has such a disk")
}

fn disk_full(world: &mut World) -> anyhow::Result<String> {
    let id = with_disk(world, &[DiskKind::Loop, DiskKind::Memory, DiskKind::Fuse])?;
    let controller = world.fleet.controller(id)?;
    controller.may_end = true;
    let bytes = controller.volume.fill()?;
    let kind = controller.volume.kind.name();
    world.victim = Some(id);
    Ok(format!("the disk of controller {id} ({kind}) is full after {} MB more", bytes / 1_000_000))
}

fn power_cut(world: &mut World, all: bool) -> anyhow::Result<String> {
    let ids = if all { world.fleet.ids() } else { vec![with_disk(world, &[DiskKind::Fuse])?] };
    for id in &ids {
        world.fleet.kill(*id)?;
    }
    let mut told = Vec::new();
    for id in &ids {
        let controller = world.fleet.controller(*id)?;
        if let Some(fuse) = controller.volume.fuse() {
            let lost = fuse.disk().cut_power();
            told.push(format!(
                "controller {id} lost {} unsynced changes in {} files, {} torn",
                lost.changes, lost.files, lost.torn
            ));
        }
    }
    if all {
        for id in &ids {
            world.fleet.start_controller(*id)?;
        }
    }
    Ok(format!("the power of controller {} is cut: {}", names(&ids), told.join("; ")))
}

fn ailing(world: &mut World, ailment: Ailment, what: &str) -> anyhow::Result<String> {
    let id = with_disk(world, &[DiskKind::Fuse])?;
    let controller = world.fleet.controller(id)?;
    controller.may_end = true;
    controller.volume.set(ailment);
    world.victim = Some(id);
    Ok(format!("the disk of controller {id} {what}"))
}

fn bit_flips(world: &mut World) -> anyhow::Result<String> {
    let id = with_disk(world, &[DiskKind::Fuse])?;
    let flips_per_mille = world.dice.between(5, 300);
    world.fleet.kill(id)?;
    let controller = world.fleet.controller(id)?;
    controller.may_end = true;
    controller.volume.set(Ailment { flips_per_mille, ..Ailment::default() });
    world.fleet.start_controller(id)?;
    world.flipped = Some(id);
    Ok(format!("controller {id} starts on a disk that flips a bit in {flips_per_mille} of 1000 reads"))
}

fn clock(world: &mut World) -> anyhow::Result<String> {
    let ids = world.fleet.ids();
    let id = *world.dice.pick(&ids).context("there are controllers")?;
    let seconds = i64::try_from(world.dice.between(2, CLOCK_OFFSET_SECONDS_MAX))?;
    let offset = if world.dice.below(2) == 0 { seconds } else { -seconds };
    world.fleet.kill(id)?;
    world.fleet.controller(id)?.clock = offset;
    world.fleet.start_controller(id)?;
    // A wrong clock does the most harm where it could be the log's, so leadership is offered to it. It must
    // hand it on, and whoever asked may well be told that it did not lead in time.
    world.fleet.wait_until_level()?;
    let offered = world.fleet.run_cli(&["cluster", "transfer-leader", &id.to_string()]);
    let how = if offered.is_ok() { "took" } else { "was offered" };
    Ok(format!("the clock of controller {id} is {offset:+} s off, and it {how} leadership"))
}
