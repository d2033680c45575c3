//! The verifier in another language, written from `docs/log-format.md`, comes to the same.

use std::fmt::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use stele_codec::Chain;
use stele_model::signature::public_key;
use stele_proof::pack::{Witnessed, verify};

use crate::evidence::{Kept, root, small, trust};
use crate::parts::{Parts, resealed};
use crate::tamper::changed;

/// What a closed pipe ends a program with.
const SIGPIPE: i32 = 13;

fn stranger(arguments: &[&str]) -> Output {
    let program = Path::new("../../docs/verify/stele_verify.py");
    Command::new("python3")
        .arg("-B")
        .arg(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("this test needs python3 (apt-get install python3-minimal): {error}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Where packs are put for it.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn verify(&self, pack: &[u8], more: &[&str]) -> Output {
        let path = self.file("a.stelepack", pack);
        let (key, witness) = (public_key(&root()).to_string(), trust().witnesses[0].to_string());
        let arguments = [path.to_str().unwrap(), "--key", &key, "--witness", &witness];
        stranger(&[&arguments[..], more].concat())
    }

    /// Both verifiers refuse, for something in the same section and at the same record.
    fn both_refuse(&self, pack: &[u8], what: &str) {
        let output = self.verify(pack, &[]);
        let said = text(&output.stderr);
        match verify(pack, &trust()) {
            Err(error) => {
                assert_eq!(
                    output.status.code(),
                    Some(1),
                    "{what}: {error}; the stranger: {said}{}",
                    text(&output.stdout)
                );
                let place = error.to_string().split(": ").next().unwrap().to_owned();
                assert!(
                    said.starts_with(&format!("refused: {place}: ")),
                    "{what}: {error}; the stranger: {said}"
                );
            }
            Ok(seen) => {
                assert_ne!(seen.witnessed, Witnessed::Whole, "{what}");
                assert_eq!(output.status.code(), Some(7), "{what}: {said}");
            }
        }
    }
}

#[test]
fn a_stranger_verifies_what_we_verify() {
    let folder = Folder::new();
    let (_, pack) = small();
    let output = folder.verify(&pack, &["--report"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.contains("\nVERIFIED\n"), "{said}");
    let report = verify(&pack, &trust()).unwrap().report;
    assert!(report.contains('\u{7f}'), "somebody wrote what a terminal might obey");
    assert!(said.contains(&report.replace('\u{7f}', "\\x7f")), "{said}");
    let other = folder.file("b.stelepack", &pack);
    let key = public_key(&root()).to_string();
    let output = stranger(&[other.to_str().unwrap(), "--key", &key]);
    assert_eq!(output.status.code(), Some(7));
    assert!(text(&output.stdout).contains("unwitnessed: a forked log is possible"));
    let output = stranger(&[other.to_str().unwrap(), "--key", &"ab".repeat(32)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("root key"), "{}", text(&output.stderr));
}

/// A controller keeps its key when its certificate is renewed: what it signed before is believed, and what it signs
/// after the old one's end, too.
#[test]
fn both_believe_what_was_signed_before_and_after_a_renewal() {
    let folder = Folder::new();
    let half = Kept::busy().records.len() / 2;
    let pack = |kept: &Kept, later: usize| {
        let checkpoints = vec![kept.signed(half, 1), kept.cosigned(later, 1)];
        kept.pack(&kept.contents("fleet", (half - 5, half + 5), checkpoints))
    };
    let middle = Kept::busy().headers[half - 1].time;
    // While the old one counts, both do.
    for until in [middle, stele_model::Time(u64::MAX)] {
        let renewed = Kept::busy().ending(until, 1);
        let pack = pack(&renewed, renewed.records.len());
        assert_eq!(verify(&pack, &trust()).unwrap().witnessed, Witnessed::Whole);
        let output = folder.verify(&pack, &[]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    }
    // Another one's renewal helps nobody, and neither does one that the checkpoint does not include.
    let other = Kept::busy().ending(middle, 2);
    folder.both_refuse(&pack(&other, other.records.len()), "it was not renewed");
    let late = Kept::busy().ending(middle, 1);
    folder.both_refuse(&pack(&late, late.records.len() - 1), "it was renewed later");
}

#[test]
fn a_stranger_is_asked_as_we_are() {
    let folder = Folder::new();
    let (_, pack) = small();
    let pack = folder.file("a.stelepack", &pack);
    let pack = pack.to_str().unwrap();
    let (key, witness) = (public_key(&root()).to_string(), trust().witnesses[0].to_string());
    let both = format!("{witness},{witness}");
    let output = stranger(&[pack, "--key", &key, "--witness", &both]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let output = stranger(&["no-such.stelepack", "--key", &key]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert!(text(&output.stderr).starts_with("cannot read it: "), "{}", text(&output.stderr));
    for page in [
        "{",
        "{\"records\": [",
        "{\"last\": 1}",
        "{\"records\": [{\"leaf\": 1}]}",
        "{\"records\": 1}",
        "{}[]",
    ] {
        let log = folder.file("log.json", page.as_bytes());
        let output = stranger(&["--log", log.to_str().unwrap(), "--key", &key]);
        assert_eq!(output.status.code(), Some(1), "{page}: {}", text(&output.stderr));
        assert!(text(&output.stderr).starts_with("refused: record 1: "), "{page}: {}", text(&output.stderr));
    }

    let mut reads_nothing = Command::new("python3");
    reads_nothing.args(["-B", "../../docs/verify/stele_verify.py", pack, "--key", &key, "--report"]);
    let mut running = reads_nothing.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(running.stdout.take());
    let output = running.wait_with_output().unwrap();
    assert_eq!((output.status.signal(), text(&output.stderr).as_str()), (Some(SIGPIPE), ""));
}

#[test]
fn a_stranger_verifies_packs_of_every_scope() {
    let folder = Folder::new();
    let mut kept = Kept::busy();
    kept.make_unknown("refused");
    let count = kept.records.len();
    for (at, scope) in
        ["fleet", "project:shop", "env:prod", "blog/site@prod", "region:eu", "node:us-1"].iter().enumerate()
    {
        let checkpoints = vec![kept.signed(7 + at, 1), kept.cosigned(count - at, 2)];
        let pack = kept.pack(&kept.contents(scope, (12 + 3 * at, 40), checkpoints));
        assert_eq!(verify(&pack, &trust()).unwrap().witnessed, Witnessed::Whole);
        let output = folder.verify(&pack, &[]);
        assert!(output.status.success(), "{scope}: {}", text(&output.stderr));
    }
}

#[test]
fn a_stranger_refuses_what_we_refuse_at_the_same_place() {
    let folder = Folder::new();
    for (what, pack) in changed() {
        folder.both_refuse(&pack, &what);
    }
    let (_, good) = small();
    let parts = Parts::of(&good);
    for at in (0..good.len()).step_by(good.len() / 60) {
        let mut damaged = good.clone();
        damaged[at] ^= 1 << (at % 8);
        let what = format!("byte {at} of the {} is changed", parts.section(at));
        folder.both_refuse(&damaged, &what);
        if parts.section(at) != "checksum" {
            folder.both_refuse(&resealed(&damaged), &what);
        }
    }
    for end in (0..good.len()).step_by(good.len() / 12) {
        folder.both_refuse(&good[..end], "it is cut off");
    }
}

#[test]
fn a_stranger_shows_no_terminal_what_is_to_be_obeyed() {
    let folder = Folder::new();
    let (_, good) = small();
    // The points asked for stand in a pack as they were written.
    let at = good.windows(4).position(|window| window == b"seq:").unwrap() + 5;
    let mut changed = good.clone();
    changed[at] = 0x1b;
    let output = folder.verify(&resealed(&changed), &[]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("\\x1b") && !said.contains('\u{1b}'), "{said:?}");
}

#[test]
fn a_stranger_tells_the_history_of_an_app() {
    let folder = Folder::new();
    let kept = Kept::busy();
    let count = kept.records.len();
    let pack = kept.pack(&kept.contents("shop/web@prod", (1, count), vec![kept.cosigned(count, 1)]));
    let output = folder.verify(&pack, &["--history", "shop/web@prod"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    let lines: Vec<_> =
        said.lines().skip_while(|line| !line.starts_with("releases of shop/web@prod")).skip(1).collect();
    let changes: Vec<_> = kept
        .headers
        .iter()
        .filter(|it| it.kind == "target_changed" && it.scopes == ["shop/web@prod"])
        .collect();
    assert_eq!(lines.len(), changes.len() + 1, "{said}");
    for (line, header) in lines.iter().zip(changes) {
        assert!(line.starts_with(&format!("{} ", header.seq)), "{line}");
        assert!(line.contains(" v") && line.contains(" by "), "{line}");
    }
    let output = folder.verify(&pack, &["--history", "blog/site@prod"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
}

#[test]
fn a_stranger_verifies_a_whole_log() {
    let folder = Folder::new();
    let kept = Kept::busy();
    let mut chain = Chain::GENESIS;
    let mut lines = String::new();
    for stored in &kept.records {
        chain = chain.link(&stored.leaf);
        writeln!(lines, "{}", hex(&stored.to_bytes(chain))).unwrap();
    }
    let log = folder.file("log.hex", lines.as_bytes());
    let note = folder.file("checkpoint", kept.cosigned(40, 1).to_string().as_bytes());
    let end = folder.file("end", kept.cosigned(kept.records.len(), 2).to_string().as_bytes());
    let (key, witness) = (public_key(&root()).to_string(), trust().witnesses[0].to_string());
    let (log, note, end) = (log.to_str().unwrap(), note.to_str().unwrap(), end.to_str().unwrap());
    let basic = ["--log", log, "--key", &key, "--witness", &witness, "--checkpoint", note];
    let output = stranger(&basic);
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("possible after record 40"), "{}", text(&output.stdout));
    let output = stranger(&[&basic[..], &["--checkpoint", end, "--history", "shop/web@prod"]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let missing: Vec<_> =
        lines.lines().enumerate().filter(|(at, _)| *at != 20).map(|(_, line)| line).collect();
    let missing = missing.join("\n");
    let log = folder.file("less.hex", missing.as_bytes());
    let output = stranger(&["--log", log.to_str().unwrap(), "--key", &key]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("refused: record 21: "), "{}", text(&output.stderr));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
