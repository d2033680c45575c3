//! What the node last verified, kept on disk so that it stands for ever.

use std::collections::{BTreeMap, BTreeSet};

use stele_bus::sealing;
use stele_model::InstanceId;
use stele_model::release::EnvValue;
use stele_model::value::Value;
use stele_model::wire::{AssignedInstance, Assignment, AssignmentVersion, ImagePolicy, OpenError, Signed};
use stele_reconcile::{Accepted, Pinned, Refusal, Trust, accept};

use crate::clock;
use crate::data_dir::DataDir;
use crate::error::Error;

/// The last verified assignment, as it was signed. Sealed values stay sealed in it.
const ASSIGNMENT: &str = "assignment.json";
/// Its version once more, so that losing the assignment does not let an older one in.
const VERSION: &str = "version.json";
/// Which controllers were removed, as far as the node was told.
const REMOVED: &str = "removed.json";

/// The desired state in force, with what guards it.
#[derive(Debug)]
pub struct Desired {
    data: DataDir,
    trust: Trust,
    sealing_secret: [u8; 32],
    /// No assignment older than this is believed.
    floor: AssignmentVersion,
    assignment: Option<Assignment>,
}

/// What became of an assignment that arrived.
#[derive(Debug)]
pub enum Received {
    /// It is kept and in force now: act on it.
    InForce,
    /// It is what is in force already.
    Known,
    /// It runs what is in force already, and says something new about images.
    NewImagePolicy,
    /// It is not believed.
    Refused(Refusal),
}

impl Desired {
    /// Reads what was last verified, and verifies it again. A damaged file is reported and
    /// leaves nothing in force: containers are then left as they are until sync. Nothing of a
    /// fleet's incarnation before `epoch`, the one that was joined, is ever believed.
    pub fn load(
        data: DataDir,
        pinned: Pinned,
        epoch: u64,
        sealing_secret: [u8; 32],
    ) -> (Self, Option<String>) {
        let mut problem = None;
        let mut or_nothing = |error: Error| {
            problem.get_or_insert_with(|| error.to_string());
        };
        let floor = data.read_json::<AssignmentVersion>(VERSION).map_err(&mut or_nothing).ok().flatten();
        // What is lost of it is told again.
        let removed = data.read_json(REMOVED).map_err(&mut or_nothing).ok().flatten().unwrap_or_default();
        let (assignment, problem) = match read(&data, pinned.clone()) {
            Ok(assignment) => (assignment, problem),
            Err(why) => (None, Some(why)),
        };
        let joined = AssignmentVersion { epoch, ..AssignmentVersion::default() };
        let of_assignment = assignment.as_ref().map(|assignment| assignment.version);
        let floor = floor.unwrap_or(joined).max(joined).max(of_assignment.unwrap_or(joined));
        (Self { data, trust: Trust::new(pinned, removed), sealing_secret, floor, assignment }, problem)
    }

    /// The version in force; the default one when nothing is.
    pub fn version(&self) -> AssignmentVersion {
        self.assignment.as_ref().map(|assignment| assignment.version).unwrap_or_default()
    }

    /// The assignment in force.
    pub fn assignment(&self) -> Option<&Assignment> {
        self.assignment.as_ref()
    }

    /// Whom the node believes.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Believes what is said of removed controllers or says why not. Answers whether it is news.
    ///
    /// An error means that it could not be kept: it counts all the same, until the next start.
    pub fn learn_removed(&mut self, signed: &Signed) -> Result<Result<bool, OpenError>, Error> {
        let news = match self.trust.learn(signed, clock::now()) {
            Ok(news) => news,
            Err(why) => return Ok(Err(why)),
        };
        if news {
            self.data.write_json(REMOVED, self.trust.removed())?;
        }
        Ok(Ok(news))
    }

    /// Believes an assignment or not, and keeps it on disk before it is in force.
    ///
    /// An error means that it could not be kept: what was in force still is.
    pub fn receive(&mut self, signed: &Signed) -> Result<Received, Error> {
        let assignment = match accept(Some(&self.floor), signed, &self.trust, clock::now()) {
            Err(refusal) => return Ok(Received::Refused(refusal)),
            Ok(Accepted::New(assignment)) => assignment,
            Ok(Accepted::Known(assignment)) => match &self.assignment {
                Some(present)
                    if present.version == assignment.version
                        && key_names(present) == key_names(&assignment)
                        && self.opens() =>
                {
                    if !is_newer(assignment.images.as_ref(), present.images.as_ref()) {
                        return Ok(Received::Known);
                    }
                    self.data.write_json(ASSIGNMENT, signed)?;
                    self.assignment = Some(assignment);
                    return Ok(Received::NewImagePolicy);
                }
                // Other keys may open what the present ones do not; and what was lost is welcome, also where only
                // its version was kept in a crash.
                _ => assignment,
            },
        };
        let whole = self.data.json(ASSIGNMENT, signed)?;
        let version = self.data.json(VERSION, &assignment.version)?;
        self.data.write_together(&[(ASSIGNMENT, &whole), (VERSION, &version)])?;
        self.floor = assignment.version;
        self.assignment = Some(assignment);
        Ok(Received::InForce)
    }

    /// What should run, with every sealed value opened, and what could not be opened.
    ///
    /// An instance with a value that cannot be opened stays in the list with the value sealed:
    /// leaving it out would remove its container.
    pub fn opened(&self) -> Option<(Vec<AssignedInstance>, Vec<String>)> {
        self.assignment.as_ref().map(|assignment| open_values(assignment, &self.sealing_secret))
    }

    fn opens(&self) -> bool {
        self.opened().is_some_and(|(_, problems)| problems.is_empty())
    }
}

fn read(data: &DataDir, pinned: Pinned) -> Result<Option<Assignment>, String> {
    let signed: Option<Signed> = data.read_json(ASSIGNMENT).map_err(|error| error.to_string())?;
    let Some(signed) = signed else { return Ok(None) };
    // It was valid when it arrived: neither a certificate that expired since nor that its controller was removed changes
    // what should run.
    match accept(None, &signed, &Trust::new(pinned, BTreeMap::new()), None) {
        Ok(Accepted::New(assignment) | Accepted::Known(assignment)) => Ok(Some(assignment)),
        Err(refusal) => Err(format!("{} is not believed: {refusal}", data.path().join(ASSIGNMENT).display())),
    }
}

/// Whether what is said about images is to be believed in place of what was said before: what is
/// said of an earlier State is old, whoever repeats it.
fn is_newer(told: Option<&ImagePolicy>, present: Option<&ImagePolicy>) -> bool {
    match (told, present) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(told), Some(present)) => told.seq >= present.seq && told.digest() != present.digest(),
    }
}

fn key_names(assignment: &Assignment) -> BTreeSet<(&str, u32)> {
    assignment.keys.iter().map(|key| (key.subject.as_str(), key.key_version)).collect()
}

/// Opens every sealed value with the keys wrapped for this node.
pub fn open_values(assignment: &Assignment, secret: &[u8; 32]) -> (Vec<AssignedInstance>, Vec<String>) {
    let mut keys = BTreeMap::new();
    let mut problems = BTreeSet::new();
    for wrapped in &assignment.keys {
        match sealing::unwrap(wrapped, secret) {
            Ok(key) => {
                keys.insert((wrapped.subject.as_str(), wrapped.key_version), key);
            }
            Err(error) => {
                problems.insert(format!("a key is of no use: {error}"));
            }
        }
    }
    let mut instances = assignment.instances.clone();
    for AssignedInstance { id, spec, .. } in &mut instances {
        let container = &mut spec.container;
        let env = container.env.values_mut();
        let files = container.files.values_mut().map(|file| &mut file.content);
        for value in env.chain(files) {
            if let Err(problem) = open_value(id, value, &keys) {
                problems.insert(problem);
            }
        }
    }
    (instances, problems.into_iter().collect())
}

fn open_value(
    id: &InstanceId,
    value: &mut EnvValue,
    keys: &BTreeMap<(&str, u32), [u8; 32]>,
) -> Result<(), String> {
    let EnvValue::Value(Value::Sealed(sealed)) = value else { return Ok(()) };
    let (subject, version) = (sealed.subject.as_str(), sealed.key_version);
    let Some(key) = keys.get(&(subject, version)) else {
        return Err(format!("{id}: no key {version} of {subject} came with the assignment"));
    };
    let text = sealing::open(sealed, key).map_err(|error| format!("{id}: {error}"))?;
    *value = EnvValue::Value(Value::Plain(text));
    Ok(())
}
