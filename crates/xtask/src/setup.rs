//! `cargo xtask setup`: from a bare machine to one where every test can run.
//!
//! It looks first and changes only what is missing, so a second run takes a moment.
//! Other tasks call [`ensure`] and get an [`Environment`] to work in.

mod docker;
mod http;
mod images;
mod packages;
mod process;
mod registry;
mod tools;

use std::fs;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

pub(crate) use images::Image;
pub(crate) use process::{Running, Service};

use crate::cargo;
use crate::limits::STOP_DEADLINE;
use crate::progress::{bold, say};

/// Prepare this machine: packages, cargo tools, Docker, a registry, test images
///
/// Looks at what is there and adds what is missing: Debian packages with apt, two cargo
/// subcommands from crates.io, a Docker daemon if none answers, an image registry on
/// 127.0.0.1, and small test images in it. Nothing is done twice; once all is there it
/// only takes a moment.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Install nothing: list what is missing, with the commands to copy, and fail
    #[arg(long, conflicts_with = "stop")]
    no_install: bool,
    /// Don't ask before installing
    #[arg(long, short, conflicts_with = "no_install")]
    yes: bool,
    /// Also what `cargo xtask bench` compares Stele with (etcd)
    #[arg(long)]
    bench: bool,
    /// End the services that an earlier setup started here, and only those
    #[arg(long)]
    stop: bool,
}

impl Args {
    /// Runs the task.
    pub(crate) fn run(self) -> Result<ExitCode> {
        if self.stop {
            return stop();
        }
        let environment = ensure(&Options {
            consent: match (self.no_install, self.yes) {
                (true, _) => Consent::Refuse,
                (false, true) => Consent::Given,
                (false, false) => Consent::Ask,
            },
            bench: self.bench,
        })?;
        say!("\nReady. Builds go to {}. Images to try things with:", environment.target_dir.display());
        for image in &environment.images {
            say!("    {}  ({})", image.reference, image.digest);
        }
        say!(
            "Next: {}    Later, to end what was started: {}",
            bold("cargo xtask test"),
            bold("cargo xtask setup --stop")
        );
        Ok(ExitCode::SUCCESS)
    }
}

/// Whether setup may install software.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consent {
    /// Ask on a terminal; go on where nobody could answer, as in CI.
    Ask,
    /// Go on.
    Given,
    /// Say what is missing and fail.
    Refuse,
}

/// What a caller wants prepared.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Whether software may be installed.
    pub(crate) consent: Consent,
    /// Whether the programs only benchmarks use are wanted too.
    pub(crate) bench: bool,
}

/// A machine on which tests, the demo and benchmarks can run.
#[derive(Debug, Clone)]
pub(crate) struct Environment {
    /// Where builds go.
    pub(crate) target_dir: PathBuf,
    /// `host:port` of a registry on the loopback interface, speaking plain HTTP.
    pub(crate) registry_addr: String,
    /// Small images in that registry; the first is the oldest version.
    pub(crate) images: Vec<Image>,
}

/// Makes this machine ready, changing only what is missing.
pub(crate) fn ensure(options: &Options) -> Result<Environment> {
    let target_dir = cargo::target_dir()?;
    let run_dir = target_dir.join("run");
    fs::create_dir_all(&run_dir).with_context(|| format!("cannot create {}", run_dir.display()))?;
    // Two terminals may start two setups; the second waits and then finds all done.
    let lock_path = run_dir.join("setup.lock");
    let lock =
        fs::File::create(&lock_path).with_context(|| format!("cannot create {}", lock_path.display()))?;
    if lock.try_lock().is_err() {
        say!("setup: another setup is running; waiting for it to end");
        lock.lock().with_context(|| format!("cannot lock {}", lock_path.display()))?;
    }

    install(options)?;
    let registry_addr = registry::address();
    let fresh_docker = docker::ensure(&run_dir)?;
    registry::ensure(&registry_addr, &target_dir, &run_dir)?;
    let (images, fresh_images) = images::ensure(&registry_addr, &target_dir)?;
    if (fresh_docker || fresh_images)
        && let Some(image) = images.first()
    {
        docker::prove_a_container_runs(&run_dir, &image.reference)?;
    }
    Ok(Environment { target_dir, registry_addr, images })
}

fn install(options: &Options) -> Result<()> {
    let packages = packages::missing(options.bench)?;
    let tools = tools::missing()?;
    if packages.is_empty() && tools.is_empty() {
        report("software", "all there");
        return Ok(());
    }
    say!("{}", bold("Stele needs some software this machine lacks."));
    packages::describe(&packages);
    tools::describe(&tools);
    match options.consent {
        Consent::Refuse => bail!(
            "software is missing and --no-install was given; run the commands above, \
             or let `cargo xtask setup` run them"
        ),
        Consent::Ask if std::io::stdin().is_terminal() => {
            if !confirmed("Install it now?")? {
                bail!("nothing was installed; run the commands above whenever you like");
            }
        }
        Consent::Ask | Consent::Given => {}
    }
    if !packages.is_empty() {
        packages::install(&packages)?;
    }
    tools::install(&tools)
}

fn confirmed(question: &str) -> Result<bool> {
    print!("{question} [Y/n] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer)?;
    // An ended input is nobody agreeing; an empty line is the default.
    Ok(read > 0 && matches!(answer.trim().to_lowercase().as_str(), "" | "y" | "yes"))
}

fn stop() -> Result<ExitCode> {
    let run_dir = cargo::target_dir()?.join("run");
    let mut any = false;
    for service in Service::recorded(&run_dir)? {
        match process::stop(&run_dir, &service, STOP_DEADLINE)? {
            Running::Stopped(pid) => {
                any = true;
                report(service.name(), &format!("stopped (process {pid})"));
            }
            Running::Gone(pid) => {
                report(service.name(), &format!("had already ended (process {pid})"));
            }
            Running::NeverStarted => {}
        }
    }
    if !any {
        say!("Nothing to stop: no service started by setup is running.");
    }
    Ok(ExitCode::SUCCESS)
}

/// One line for each thing looked at: what it is, and how it is.
pub(crate) fn report(what: &str, how: &str) {
    say!("setup: {what:<10} {how}");
}
