//! `stele controller renew`: new certificates for a controller that stays the same one.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use stele_controller::renew::{Found, Renewal};

use crate::exit::Failure;
use crate::server::{failed, log_to_stderr};
use crate::session::Session;
use crate::terminal::time;

#[derive(Args, Debug)]
pub(crate) struct Renew {
    /// The controller's configuration
    #[arg(long, value_name = "FILE", env = "STELE_CONTROLLER_CONFIG")]
    config: PathBuf,
    /// The folder the fleet was founded in, with its root
    #[arg(long, value_name = "DIR")]
    folder: PathBuf,
    /// Only show what would be done
    #[arg(long, conflicts_with = "yes")]
    plan: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

impl Renew {
    pub(crate) fn run(self, session: &Session) -> Result<(), Failure> {
        log_to_stderr("warn");
        let terminal = session.terminal;
        let renewal = Renewal::examine(&self.config, &self.folder).map_err(nothing_done)?;
        if self.plan {
            return terminal.answer(renewal.found(), |found| {
                format!("{}\n\nNothing was done: this was a plan.", told(found))
            });
        }
        terminal.note(&told(renewal.found()))?;
        let question = format!("Renew the certificates of controller {}?", renewal.found().controller);
        Session::ask(&question, self.yes)?;
        let found = renewal.renew().map_err(failed)?;
        terminal.answer(&found, |found| {
            let id = found.controller;
            format!(
                "Renewed: controller {id} has new certificates, and takes them when it starts.\n\
                 Next: restart it, and wait until stele cluster status shows it connected, without lag, and the new \
                 date;\n      \
                 then renew the next controller: followers first, the leader last. Take the root off line again.\n      \
                 Once it runs, {} and {} are used no more.",
                found.replaced[0].display(),
                found.replaced[1].display()
            )
        })
    }
}

fn nothing_done(error: anyhow::Error) -> Failure {
    Failure::Failed(format!("{error:#}\n  nothing was done"))
}

/// By which addresses clients may ask its API over TLS.
fn reached_at(addresses: &[IpAddr]) -> String {
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    [&addresses[..], &["localhost".to_owned()]].concat().join(", ")
}

/// What was found, for the one who must decide.
fn told(found: &Found) -> String {
    let Found { signatures, connections, .. } = found;
    [
        format!("Controller {} of fleet {}:", found.controller, found.fleet),
        format!("  clock here      {}", time(found.clock)),
        format!("  signatures      until {}, renewed until {}", time(signatures.until), time(signatures.renewed_until)),
        format!(
            "  connections     until {}, renewed until {}",
            time(connections.until),
            time(connections.renewed_until)
        ),
        format!("  reached at      {}", reached_at(&found.addresses)),
        format!("  new files       {}", found.certificate.display()),
        format!("                  {}", found.key.display()),
        String::new(),
        "To be done: the same id and signing key under a new certificate, a new key for connections, and both in the\n\
         configuration. Nodes, auditors and people notice nothing."
            .to_owned(),
    ]
    .join("\n")
}
