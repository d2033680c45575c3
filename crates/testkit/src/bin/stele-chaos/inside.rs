//! The process inside the run's own namespaces: the run itself.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::ensure;
use stele_testkit::interrupt;
use tokio::signal::unix::{SignalKind, signal};

use crate::clients::Clients;
use crate::dice::Dice;
use crate::faults::{self, Kind};
use crate::fleet::{Fleet, Plan};
use crate::limits::LIED_DEADLINE;
use crate::probe::{Able, look};
use crate::volume::Kind as DiskKind;
use crate::world::{World, was_interrupted};
use crate::{Cli, EXIT_UNABLE, checks, report};

/// What shells answer for a program that Ctrl-C ended.
const EXIT_INTERRUPTED: u8 = 130;

/// Faults that were asked for and that this machine cannot do.
#[derive(Debug)]
struct NotHere(String);

impl std::fmt::Display for NotHere {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "not possible here: {}", self.0)
    }
}

impl std::error::Error for NotHere {}

/// Runs all of it.
pub(crate) fn run(cli: &Cli, dir: &Path) -> ExitCode {
    match listen_for_signals().and_then(|()| attempt(cli, dir)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if was_interrupted(&error) => {
            eprintln!("stopped, as asked");
            ExitCode::from(EXIT_INTERRUPTED)
        }
        Err(error) if error.is::<NotHere>() => {
            eprintln!("{error}");
            ExitCode::from(EXIT_UNABLE)
        }
        Err(error) => {
            eprintln!("\nerror: {error:#}\nThe same again: cargo xtask chaos --seed {} --keep", cli.seed);
            ExitCode::FAILURE
        }
    }
}

/// A polite kill ends every wait, and so the run.
fn listen_for_signals() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut asked, mut terminated) = {
        let _guard = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = asked.recv() => {}
                    _ = terminated.recv() => {}
                }
                interrupt();
            }
        });
    });
    Ok(())
}

/// Disks of all controllers: of our own making for two of three, where there is FUSE.
fn disks(able: &Able, controllers: u64, all_lie: bool) -> Vec<DiskKind> {
    let plain = if able.loops { DiskKind::Loop } else { DiskKind::Memory };
    let kind = |id: u64| if able.fuse && (all_lie || !id.is_multiple_of(3)) { DiskKind::Fuse } else { plain };
    (1..=controllers).map(kind).collect()
}

fn attempt(cli: &Cli, dir: &Path) -> anyhow::Result<()> {
    let began = Instant::now();
    // libfaketime keeps something there for each process, and a killed one cannot take it away.
    crate::net::run("mount -t tmpfs stele-chaos /dev/shm")?;
    let able = look(dir).map_err(|error| NotHere(format!("machines of one's own: {error:#}")))?;
    for lack in &able.lacking {
        println!("not here: {lack}");
    }
    let possible = faults::possible(&able);
    let impossible: Vec<_> = cli.only.iter().filter(|kind| !possible.contains(kind)).collect();
    if !impossible.is_empty() {
        let names: Vec<_> = impossible.iter().map(|kind| kind.name()).collect();
        return Err(NotHere(names.join(", ")).into());
    }
    let kinds = match (cli.lying_disks, cli.only.is_empty()) {
        (true, _) => vec![Kind::PowerCutAll],
        (false, true) => possible,
        (false, false) => cli.only.clone(),
    };
    let mut dice = Dice::new(cli.seed);
    let plan = Plan {
        controllers: cli.controllers,
        nodes_per_region: if cli.short { 1 } else { 2 },
        disks: disks(&able, cli.controllers, cli.lying_disks),
    };
    let disks = plan.disks.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
    println!(
        "seed {}: {} rounds, {} controllers (disks: {disks}), {} regions with {} nodes and a NATS leaf each",
        cli.seed,
        cli.rounds,
        plan.controllers,
        crate::fleet::REGIONS.len(),
        plan.nodes_per_region
    );
    let fleet = Fleet::start(dir, &plan, &mut dice)?;
    let clients = fleet.ids().into_iter().map(|id| fleet.client(id)).collect::<Result<_, _>>()?;
    let clients = Clients::start(clients, fleet.nodes(), &mut dice);
    let mut world = World {
        fleet,
        dice,
        relays: None,
        victim: None,
        flipped: None,
        clients: Some(clients),
        is_short: cli.short,
        began,
    };
    world.recover()?;
    world.say("the fleet is there");
    if cli.lying_disks {
        for controller in world.fleet.controllers.values() {
            let lying = || NotHere("disks that lie, without FUSE".to_owned());
            let fuse = controller.volume.fuse().ok_or_else(lying)?;
            fuse.disk().lies = true;
        }
        // There must be something to lose.
        world.recover()?;
        // Nobody expects this fleet to be well again.
        world.fleet.patience = LIED_DEADLINE;
    }
    let mut rounds = Vec::new();
    for number in 1..=cli.rounds {
        rounds.push(world.round(number, &kinds)?);
    }
    let history = world.clients.take().map(Clients::stop).unwrap_or_default();
    let operator = report::operator(&history);
    let findings = checks::check(&mut world.fleet, history)?;
    println!("\n{}\n\n{operator}\n{}", report::table(&rounds), report::findings(&findings));
    ensure!(findings.broken.is_empty(), "promises were broken");
    println!("\nseed {}: everything held, in {:.0} s", cli.seed, began.elapsed().as_secs_f64());
    Ok(())
}
