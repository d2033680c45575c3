//! A controller's data folder, asked in place of a fleet: of a stopped controller, a copy, or the
//! log that a failed simulation left.

use std::path::{Path, PathBuf};

use stele_api::wire::DiffAnswer;
use stele_codec::{RecordBytes, StoredRecord};
use stele_model::point::PointError;
use stele_model::why::{Evidence, Lack, Subject, Told, Why, why};
use stele_model::{Header, Point, Record, Rejection, Scope, Seq, State, Time, diff, fold};
use stele_store::{Identity, Reader, open_read_only};

use crate::exit::Failure;
use crate::limits::FOLDER_WHY_LOOKUPS_MAX;

/// A log that is only read.
pub(crate) struct Folder {
    /// Whose it is.
    pub(crate) identity: Identity,
    /// Its records.
    pub(crate) reader: Reader,
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::Failed(error.to_string())
}

fn refused(rejection: Rejection) -> Failure {
    Failure::from(stele_api::Problem::from(rejection))
}

impl Folder {
    /// Opens the log in a folder: given itself, or a controller's data folder, or the folder around that.
    pub(crate) fn open(folder: &Path) -> Result<Self, Failure> {
        let candidates = [folder.to_owned(), folder.join("log"), folder.join("data").join("log")];
        let found: Option<PathBuf> = candidates.into_iter().find(|path| stele_store::Store::exists(path));
        let found = found.ok_or_else(|| {
            Failure::Usage(format!(
                "there is no log in {}\n  next: give a controller's data folder, as its controller.json names it",
                folder.display()
            ))
        })?;
        let (identity, reader) = open_read_only(&found).map_err(failed)?;
        Ok(Self { identity, reader })
    }

    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        self.reader.path()
    }

    fn stored(&self, seq: Seq) -> Result<Option<StoredRecord>, Failure> {
        let bytes = self.reader.record(seq).map_err(failed)?;
        let read = bytes.map(|bytes| StoredRecord::from_bytes(&bytes)).transpose();
        Ok(read.map_err(|error| failed(format!("record {seq}: {error}")))?.map(|(stored, _)| stored))
    }

    fn header(&self, seq: Seq) -> Result<Header, Failure> {
        let stored = self.stored(seq)?.ok_or_else(|| failed(format!("record {seq} is not here")))?;
        stored.header().map_err(|error| failed(format!("record {seq}: {error}")))
    }

    fn record(&self, seq: Seq) -> Result<Option<Record>, Failure> {
        let decoded = self.stored(seq)?.map(|stored| stored.decode()).transpose();
        decoded.map_err(|error| failed(format!("record {seq}: {error}")))
    }

    /// State right after a record, folded from the first one: nothing that was derived from records is
    /// believed here.
    pub(crate) fn state_at(&self, seq: Seq) -> Result<State, Failure> {
        let mut state = State::default();
        state.keep_counts();
        while state.seq < seq {
            let next = state.seq + 1;
            let mut malformed = None;
            let read = self.reader.each_record(next..=seq, |at, bytes| {
                match RecordBytes::read(bytes).and_then(|(record, _)| record.decode()) {
                    Ok(record) => fold(&mut state, &record),
                    Err(error) => malformed = Some(failed(format!("record {at}: {error}"))),
                }
                malformed.is_none()
            });
            read.map_err(failed)?;
            if let Some(failure) = malformed {
                return Err(failure);
            }
            if state.seq < next {
                return Err(failed(format!("record {next} is not in {}", self.path().display())));
            }
        }
        Ok(state)
    }

    /// The seq of a point that needs no State: a seq or a time, and never one inside a decision. None
    /// when it is about an app.
    pub(crate) fn seq_of(&self, point: &Point) -> Result<Option<Seq>, Failure> {
        let last = self.reader.last_seq();
        let seq = match point {
            Point::Now => return Ok(Some(last)),
            Point::Seq(seq) if *seq <= last => *seq,
            Point::Seq(seq) => {
                return Err(Failure::Usage(format!(
                    "seq:{seq} is in the future: the log ends at seq:{last}"
                )));
            }
            _ => {
                let now = jiff::Timestamp::now().as_microsecond();
                let time = stele_controller::wall_time(point, u64::try_from(now).unwrap_or_default())
                    .map_err(|rejection| Failure::Usage(rejection.to_string()))?;
                let Some(time) = time else { return Ok(None) };
                self.seq_at(time)?
            }
        };
        if seq == 0 {
            return Ok(Some(0));
        }
        let decision = self.header(seq)?.decision;
        Ok(Some(if decision.last() == seq { seq } else { decision.first - 1 }))
    }

    /// The last record at or before a time.
    fn seq_at(&self, time: Time) -> Result<Seq, Failure> {
        let (mut low, mut high) = (0, self.reader.last_seq());
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if self.header(middle)?.time <= time { low = middle } else { high = middle - 1 }
        }
        Ok(low)
    }

    /// The seq of a written point of a scope, seen from a State.
    fn resolve(&self, state: &State, scope: &Scope, text: &str) -> Result<Seq, Failure> {
        let point: Point = text.parse().map_err(|error: PointError| Failure::Usage(error.to_string()))?;
        match self.seq_of(&point)? {
            Some(seq) => Ok(seq),
            None => state.resolve_point(scope, &point).map_err(refused),
        }
    }

    /// What differs in a scope between two points, as a controller answers it.
    pub(crate) fn diff(&self, scope: &Scope, from: &str, to: Option<&str>) -> Result<DiffAnswer, Failure> {
        let now = self.state_at(self.reader.last_seq())?;
        let before = self.state_at(self.resolve(&now, scope, from)?)?;
        let after = match to {
            None => now,
            Some(to) => self.state_at(self.resolve(&now, scope, to)?)?,
        };
        let differences = diff(&before, &after, scope);
        Ok(DiffAnswer { scope: scope.clone(), from: before.seq, to: after.seq, differences })
    }

    /// Why something is as it is, as a controller answers it.
    pub(crate) fn why(&self, subject: &str, at: Option<&str>) -> Result<Why, Failure> {
        let subject: Subject = subject.parse().map_err(refused)?;
        let mut state = self.state_at(self.reader.last_seq())?;
        if let Some(at) = at {
            state = self.state_at(self.resolve(&state, &subject.scope(), at)?)?;
        }
        let mut evidence = Evidence::default();
        for _ in 0..FOLDER_WHY_LOOKUPS_MAX {
            let lack = match why(&state, &subject, &evidence).map_err(refused)? {
                Told::All(why) => return Ok(*why),
                Told::Lacks(lack) => lack,
            };
            let found = match &lack {
                Lack::Record(seq) => self.record(*seq)?,
                Lack::Newest { kind, scopes, until } => self.newest(kind, scopes, *until)?,
            };
            evidence.known.insert(lack, found);
        }
        Err(failed(format!(
            "{subject} has more causes than FOLDER_WHY_LOOKUPS_MAX, {FOLDER_WHY_LOOKUPS_MAX}"
        )))
    }

    fn newest(&self, kind: &str, scopes: &[String], until: Seq) -> Result<Option<Record>, Failure> {
        for seq in (1..=until).rev() {
            let header = self.header(seq)?;
            if header.kind == kind && scopes.iter().all(|scope| header.scopes.contains(scope)) {
                return self.record(seq);
            }
        }
        Ok(None)
    }
}
