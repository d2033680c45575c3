//! One file that proves a part of the log to whoever has only the fleet's root key.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde::Serialize;
use stele_model::{Digest, Scope};
use stele_proof::pack::{Trust as PackTrust, verify};

use super::pack::{digest, file_name, make};
use super::population::{say_warning, warnings};
use super::range::Between;
use super::verdict::Proven;
use crate::commands::checkpoint::Trust;
use crate::exit::Failure;
use crate::files::{leads_to_standard_output, write_over};
use crate::session::{Session, count};

/// Write an evidence pack: one file that proves a range of the log to strangers, offline
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele audit export fleet --between 2026-01-01T00:00:00Z 2026-04-01T00:00:00Z --out q1.stelepack\n  stele audit export shop/web@prod --between seq:1200 deploy:1311 --out change.stelepack\n\nThe pack holds the header of every record in the range, so that omission shows; the payload of every record that\ntouches the scope; what every controller signed, with cosignatures; and the hashes that lead from the one to the\nother. It needs nothing else to be verified: `stele audit verify`, or docs/verify/stele_verify.py, a program in plain\nPython that shares no code with this one. It is verified here before it is written.\n\nSecrets in it are ciphertext. Values in clear are in clear: keep it as you would keep those."
)]
pub(crate) struct Export {
    /// Of what
    scope: Scope,
    #[command(flatten)]
    between: Between,
    /// Where to write it; named after what is in it unless given
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write over a file that is there; a device or a pipe is written to, and a link followed
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    trust: Trust,
}

#[derive(Serialize)]
struct Written {
    file: PathBuf,
    bytes: usize,
    sha256: Digest,
    #[serde(flatten)]
    proven: Proven,
}

impl Export {
    pub(crate) fn run(self, session: &Session) -> Result<(), Failure> {
        // Better now than after an hour.
        if let Some(path) = &self.out {
            self.refuse_existing(path)?;
        }
        let made = make(session, &self.between, &self.scope, &self.trust)?;
        let root = made.checkpoint.root_key.clone();
        let trust = PackTrust { root: root.clone(), witnesses: self.trust.witnesses.clone() };
        let verified = verify(&made.bytes, &trust).map_err(|error| {
            Failure::Failed(format!(
                "what the controllers answered does not prove itself, and nothing was written: {error}\n  next: stele \
                 replay"
            ))
        })?;
        let path = self.out.clone().unwrap_or_else(|| PathBuf::from(file_name(&made, &self.scope)));
        self.write(&path, &made.bytes)?;
        let written = Written {
            bytes: made.bytes.len(),
            sha256: digest(&made.bytes),
            proven: verified.into(),
            file: path,
        };
        let terminal = session.terminal;
        let told = |it: &Written| {
            let mut lines = vec![
                format!(
                    "{}: {}, records {} to {} of fleet {}, {} with payload ({})",
                    it.file.display(),
                    count(it.bytes, "byte"),
                    it.proven.first,
                    it.proven.last,
                    it.proven.fleet,
                    it.proven.payloads,
                    it.proven.scope
                ),
                it.sha256.to_string(),
            ];
            lines.extend(it.proven.lines(terminal));
            lines.push(format!("verify it with: stele audit verify {} --key {root}", it.file.display()));
            lines.join("\n")
        };
        if leads_to_standard_output(&written.file) {
            // The pack is what stands there, and nothing else.
            eprintln!("{}", told(&written));
        } else {
            terminal.answer(&written, told)?;
        }
        for line in warnings(&made.checkpoint).iter().chain(&made.left_out) {
            say_warning(terminal, line);
        }
        Ok(())
    }

    fn refuse_existing(&self, path: &Path) -> Result<(), Failure> {
        if self.force || !path.exists() { Ok(()) } else { Err(exists(path)) }
    }

    /// All or nothing, and never over another file unless that was asked for.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), Failure> {
        let fail = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::BrokenPipe => Failure::Closed,
            _ => Failure::Failed(format!("cannot write {}: {error}", path.display())),
        };
        if !self.force {
            // The name is taken first: whoever else would take it now finds it taken.
            File::create_new(path).map_err(|error| match error.kind() {
                std::io::ErrorKind::AlreadyExists => exists(path),
                _ => fail(error),
            })?;
        }
        write_over(path, bytes).map_err(|error| {
            // What could not be written is not left behind as if it were evidence.
            if !self.force {
                drop(std::fs::remove_file(path));
            }
            fail(error)
        })
    }
}

fn exists(path: &Path) -> Failure {
    Failure::Usage(format!(
        "{} is there already, and evidence is not written over by accident\n  next: name another file with --out, or \
         repeat with --force",
        path.display()
    ))
}
