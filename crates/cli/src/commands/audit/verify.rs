//! Verifying evidence: from a file, an address, or a fleet itself.

use std::path::{Path, PathBuf};

use stele_model::Scope;
use stele_model::signature::PublicKey;
use stele_proof::VerifierKey;
use stele_proof::pack::{Trust as PackTrust, verify};

use super::pack::make;
use super::population::say_warning;
use super::range::Between;
use super::verdict::Proven;
use crate::client::Client;
use crate::commands::checkpoint::{Trust, root_key};
use crate::context::Context;
use crate::exit::Failure;
use crate::files::read_at_most;
use crate::limits::{PACK_BYTES_MAX, PACK_FETCH_TIMEOUT};
use crate::options::Globals;
use crate::session::Session;
use crate::terminal::visible;

/// Verify an evidence pack, offline, trusting nothing but the keys you give
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele audit verify q1.stelepack --key 5be4...\n  stele audit verify q1.stelepack --key 5be4... --witness w.example/1+5f2a91c3+BHn...\n  stele audit verify https://evidence.example.com/q1.stelepack --key 5be4...\n  stele audit verify https://stele.example.com --key 5be4...     # a fleet: its whole log, fetched now\n\nIt prints the pack's report, who signed, and one of:\n  VERIFIED                              exit code 0: a witness you named vouches for all of it\n  unwitnessed: a forked log is possible exit code 8: it holds together, but is the fleet's own word\n  refused, with section, record and byte   exit code 1\n\nGive a key that you did not get from whoever gave you the pack."
)]
pub(crate) struct Verify {
    /// A pack's file or address, or a fleet's address
    #[arg(value_name = "PACK|URL")]
    pack: String,
    /// The fleet root's public key
    #[arg(long, value_name = "HEX", env = "STELE_ROOT", value_parser = root_key)]
    key: PublicKey,
    /// A witness to believe; repeat it for several
    #[arg(long = "witness", value_name = "VKEY", env = "STELE_WITNESSES", value_delimiter = ',')]
    witnesses: Vec<VerifierKey>,
}

/// Where evidence is.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    File(PathBuf),
    /// A pack on a web server: where it listens, and the path there.
    Pack(String, String),
    /// A fleet's controller.
    Fleet(String),
}

impl Place {
    fn of(text: &str) -> Self {
        let Some(scheme) = ["http://", "https://"].into_iter().find(|scheme| text.starts_with(scheme)) else {
            return Self::File(PathBuf::from(text));
        };
        // The API is at the top of its address, a file is not.
        match text[scheme.len()..].find('/').map(|at| text.split_at(scheme.len() + at)) {
            Some((origin, path)) if path != "/" => Self::Pack(origin.to_owned(), path.to_owned()),
            Some((origin, _)) => Self::Fleet(origin.to_owned()),
            None => Self::Fleet(text.to_owned()),
        }
    }
}

impl Verify {
    pub(crate) fn run(self, session: &Session) -> Result<(), Failure> {
        let mut noticed = Vec::new();
        let bytes = match Place::of(&self.pack) {
            Place::File(path) => read(&path)?,
            Place::Pack(origin, path) => fetch(&origin, &path)?,
            Place::Fleet(url) => {
                let globals = Globals { addr: vec![url], context: None, ..session.globals().clone() };
                let trust = Trust { root: Some(self.key.clone()), witnesses: self.witnesses.clone() };
                let made = make(&Session::new(globals), &Between::everything(), &Scope::fleet(), &trust)?;
                noticed.extend(made.checkpoint.differing);
                noticed.extend(made.left_out);
                made.bytes
            }
        };
        let trust = PackTrust { root: self.key, witnesses: self.witnesses };
        let verified = verify(&bytes, &trust).map_err(|error| {
            Failure::Failed(format!(
                "refused: {error}\n  next: get {} again from where it came; if that is refused too, it was changed or \
                 is of another fleet",
                self.pack
            ))
        })?;
        let proven = Proven::from(verified);
        let terminal = session.terminal;
        terminal.answer(&proven, |proven| {
            format!("{}\n{}", visible(proven.report()), proven.lines(terminal).join("\n"))
        })?;
        for line in noticed {
            say_warning(terminal, &line);
        }
        if proven.is_witnessed() {
            return Ok(());
        }
        if trust.witnesses.is_empty() {
            say_warning(terminal, "next: name the witnesses you trust: --witness VKEY");
        }
        Err(Failure::Unwitnessed)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    read_at_most(path, "PACK_BYTES_MAX", PACK_BYTES_MAX).map_err(|why| {
        Failure::Usage(format!(
            "cannot read {}: {why}\n  next: give a pack that stele audit export wrote, or an http(s) address",
            path.display()
        ))
    })
}

/// Nobody's token goes to a web server.
fn fetch(origin: &str, path: &str) -> Result<Vec<u8>, Failure> {
    let nobody = Context { addresses: vec![origin.to_owned()], token: None, tls_root: None, root: None };
    Client::new(&nobody)?.bytes(path, PACK_BYTES_MAX, PACK_FETCH_TIMEOUT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_packs_and_fleets_are_told_apart() {
        let pack = |origin: &str, path: &str| Place::Pack(origin.to_owned(), path.to_owned());
        let fleet = |url: &str| Place::Fleet(url.to_owned());
        assert_eq!(Place::of("q1.stelepack"), Place::File("q1.stelepack".into()));
        assert_eq!(Place::of("http/x"), Place::File("http/x".into()));
        assert_eq!(Place::of("https://a.example/q1.stelepack"), pack("https://a.example", "/q1.stelepack"));
        assert_eq!(Place::of("http://10.0.0.2:7400"), fleet("http://10.0.0.2:7400"));
        assert_eq!(Place::of("http://10.0.0.2:7400/"), fleet("http://10.0.0.2:7400"));
    }
}
