//! Points in time: `seq:N`, RFC 3339, `2h ago`, `v12`, `deploy:ID`, `prev`, `prev:2`, `last-good`.
//!
//! Reading a time needs a calendar and the records between two points; so the
//! pure part turns a text into a [`Point`], resolves what State alone knows, and
//! leaves times to the caller, who has the log.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{DeploymentKind, Outcome, Pin};
use crate::ids::{AppEnv, Place, Seq};
use crate::limits::{CHANGES_PER_APP_MAX, DEPLOYMENTS_PER_APP_MAX};
use crate::rejection::{Rejection, RejectionKind};
use crate::release::Revision;
use crate::scope::Scope;
use crate::state::State;

/// A point as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Point {
    /// Now.
    Now,
    /// After the record of this seq.
    Seq(Seq),
    /// So many microseconds before now.
    Ago(u64),
    /// A time, as written (RFC 3339).
    Time(String),
    /// The last moment this release was in force.
    Release(u32),
    /// The moment this deployment ended, or now while it runs.
    Deployment(Seq),
    /// So many changes of target before the current one; at least 1.
    Previous(u32),
    /// The newest earlier point that was converged and healthy.
    LastGood,
}

/// A point cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a point in time: write seq:N, a time such as 2026-01-31T12:00:00Z, \"2h ago\", v12, deploy:N, \
     prev, prev:N, last-good or now"
)]
pub struct PointError(String);

/// A text says nothing of since when.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither how long ago, such as 10m or \"2h ago\", nor a time, such as 2026-01-31T12:00:00Z")]
pub struct SinceError(String);

impl Point {
    /// Since when something is asked for, where there is no log to find other points in: [`Self::Ago`], for which the
    /// span alone will do, or [`Self::Time`].
    pub fn since(text: &str) -> Result<Self, SinceError> {
        match (parse_span(text), text.parse()) {
            (Some(micros), _) => Ok(Self::Ago(micros)),
            (None, Ok(point @ (Self::Ago(_) | Self::Time(_)))) => Ok(point),
            (None, _) => Err(SinceError(text.to_owned())),
        }
    }

    /// A point's text as one word of a command to copy.
    pub fn quoted(text: &str) -> Cow<'_, str> {
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || ":.+-_".contains(letter);
        if !text.is_empty() && text.chars().all(is_plain) {
            return text.into();
        }
        // A point has no quotes of its own: what cannot be read is refused before.
        format!("\"{}\"", text.replace('"', "")).into()
    }
}

impl FromStr for Point {
    type Err = PointError;

    fn from_str(text: &str) -> Result<Self, PointError> {
        let error = || PointError(text.to_owned());
        let number = |digits: &str| digits.parse::<u64>().map_err(|_| error());
        let text = text.trim();
        Ok(match text {
            "now" => Self::Now,
            "prev" => Self::Previous(1),
            "last-good" => Self::LastGood,
            _ => {
                if let Some(seq) = text.strip_prefix("seq:") {
                    Self::Seq(number(seq)?)
                } else if let Some(seq) = text.strip_prefix("deploy:") {
                    Self::Deployment(number(seq)?)
                } else if let Some(steps) = text.strip_prefix("prev:") {
                    match steps.parse() {
                        Ok(steps) if steps >= 1 => Self::Previous(steps),
                        _ => return Err(error()),
                    }
                } else if let Some(version) = text.strip_prefix('v') {
                    Self::Release(version.parse().map_err(|_| error())?)
                } else if let Some(span) = text.strip_suffix("ago") {
                    Self::Ago(parse_span(span.trim()).ok_or_else(error)?)
                } else if text.len() >= 10 && text.as_bytes()[4] == b'-' {
                    Self::Time(text.to_owned())
                } else {
                    return Err(error());
                }
            }
        })
    }
}

/// `2h`, `90m`, `1d 12h` in microseconds.
fn parse_span(text: &str) -> Option<u64> {
    let mut total: u64 = 0;
    let mut digits = String::new();
    let mut any = false;
    for character in text.chars().filter(|character| !character.is_whitespace()) {
        if character.is_ascii_digit() {
            digits.push(character);
            continue;
        }
        let seconds = match character {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 24 * 3600,
            'w' => 7 * 24 * 3600,
            _ => return None,
        };
        let count: u64 = digits.parse().ok()?;
        total = total.checked_add(count.checked_mul(seconds)?.checked_mul(1_000_000)?)?;
        digits.clear();
        any = true;
    }
    (any && digits.is_empty()).then_some(total)
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now => f.write_str("now"),
            Self::Seq(seq) => write!(f, "seq:{seq}"),
            Self::Ago(micros) => write!(f, "{}s ago", micros / 1_000_000),
            Self::Time(text) => f.write_str(text),
            Self::Release(number) => write!(f, "v{number}"),
            Self::Deployment(seq) => write!(f, "deploy:{seq}"),
            Self::Previous(steps) => write!(f, "prev:{steps}"),
            Self::LastGood => f.write_str("last-good"),
        }
    }
}

/// One change of an app's intent, and until when it was in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    /// The seq that brought it into force.
    pub from: Seq,
    /// The last seq at which it was in force.
    pub until: Seq,
    /// Release number; absent when the app was removed.
    pub release: Option<u32>,
    /// Whether a deployment of it succeeded while it was in force.
    pub good: bool,
    /// Seq of the first such success, or else `until`.
    pub settled: Seq,
}

/// How an earlier state looks from now. What is worse is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is as it was.
    Same,
    /// It was otherwise, and healthy.
    Good,
    /// It was left by a rollback, or is latched.
    Rejected,
    /// It never was healthy, as far as is known.
    Unhealthy,
    /// Somebody marked it bad.
    MarkedBad,
}

/// An earlier point, as it looks from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Earlier {
    /// The last moment of something that was in force.
    pub point: Seq,
    /// The worst that is to be said of anything there.
    pub verdict: Verdict,
    /// Whether nothing that was forgotten could make that another.
    pub is_certain: bool,
}

fn in_force_at(entries: &[InForce], point: Seq) -> Option<&InForce> {
    entries.iter().find(|entry| entry.from <= point)
}

impl State {
    /// What was in force in an app and environment, newest first.
    pub fn timeline(&self, app_env: &AppEnv) -> Vec<InForce> {
        let range = (app_env.clone(), 0)..=(app_env.clone(), u64::MAX);
        let mut entries: Vec<InForce> = Vec::new();
        let (mut until, mut newer) = (self.seq, None);
        let changes: Vec<_> = self.history.changes.range(range).collect();
        for ((_, from), change) in changes.into_iter().rev() {
            let success = self
                .deployments_of(app_env, change.first..=until)
                // A place that went back well says nothing of what is in force elsewhere.
                .filter(|(seq, deployment)| !self.is_of_places(*seq, deployment))
                .filter_map(|(_, deployment)| match &deployment.finished {
                    Some((_, seq, Outcome::Succeeded)) if *seq <= until => Some(*seq),
                    _ => None,
                })
                // From the first on: that it was deployed again later takes nothing from before.
                .min();
            let release = change.revision.as_ref();
            let entry = InForce {
                from: *from,
                until,
                release: release.and_then(|revision| self.release_number(&revision.release)),
                good: success.is_some(),
                settled: success.unwrap_or(until),
            };
            until = change.first - 1;
            match entries.last_mut() {
                // It was decided on again and stayed what it was.
                Some(later) if newer == Some(release) => {
                    later.from = entry.from;
                    if entry.good {
                        (later.good, later.settled) = (true, entry.settled);
                    }
                }
                _ => entries.push(entry),
            }
            newer = Some(release);
        }
        entries
    }

    /// Whether changes of an app were forgotten, so that its timeline may have begun earlier.
    pub fn has_forgotten_changes(&self, app_env: &AppEnv) -> bool {
        self.changes_of(app_env) >= CHANGES_PER_APP_MAX
    }

    /// The first record of the decision that changed an app's intent at a seq, as far as State remembers.
    pub fn first_of_change(&self, app_env: &AppEnv, from: Seq) -> Option<Seq> {
        self.history.changes.get(&(app_env.clone(), from)).map(|change| change.first)
    }

    /// The seq a point stands for, as far as State alone knows.
    ///
    /// `Ago` and `Time` are for the caller, who has the log's times.
    pub fn resolve_point(&self, scope: &Scope, point: &Point) -> Result<Seq, Rejection> {
        let not_found = |message: String| Rejection::new(RejectionKind::NotFound, message);
        let one = || {
            scope.as_app_env().ok_or_else(|| {
                Rejection::new(
                    RejectionKind::Invalid,
                    format!(
                        "{point} needs one app in one environment, and {scope} is more or less than that"
                    ),
                )
                .with_next("write seq:N or a time instead, or name PROJECT/APP@ENV")
            })
        };
        match point {
            Point::Now => Ok(self.seq),
            Point::Seq(seq) if *seq <= self.seq => Ok(*seq),
            Point::Seq(seq) => {
                Err(not_found(format!("seq:{seq} is in the future: the log ends at seq:{}", self.seq)))
            }
            Point::Ago(_) | Point::Time(_) => {
                Err(Rejection::new(RejectionKind::Invalid, "a time is resolved where the log is"))
            }
            Point::Release(number) => {
                let app_env = one()?;
                let entries = self.timeline(&app_env);
                entries
                    .iter()
                    .find(|entry| entry.release == Some(*number))
                    .map(|entry| entry.until)
                    .ok_or_else(|| {
                        not_found(format!("v{number} was never in force in {app_env}"))
                            .with_next(format!("stele history {app_env}"))
                    })
            }
            Point::Deployment(seq) => {
                let deployment = self.history.deployments.get(seq).ok_or_else(|| {
                    not_found(format!("there is no deployment {seq}"))
                        .with_next(format!("stele history {scope}"))
                })?;
                Ok(deployment.finished.as_ref().map_or(self.seq, |(_, seq, _)| *seq))
            }
            Point::Previous(steps) => {
                let app_env = one()?;
                let entries = self.timeline(&app_env);
                entries.get(*steps as usize).map(|entry| entry.until).ok_or_else(|| {
                    not_found(format!(
                        "{app_env} has only {} earlier states",
                        entries.len().saturating_sub(1)
                    ))
                    .with_next(format!("stele history {app_env}"))
                })
            }
            Point::LastGood => self.last_good(scope, self.remembers_since(scope)).ok_or_else(|| {
                not_found(format!("{scope} has no earlier state that was healthy and differs from now"))
                    .with_next(format!("stele history {scope}"))
            }),
        }
    }

    /// From which seq on all changes and deployments in a scope are remembered; zero when none was forgotten.
    pub fn remembers_since(&self, scope: &Scope) -> Seq {
        let apps: BTreeSet<&AppEnv> =
            self.history.last_changed.keys().filter(|app_env| scope.covers_app_env(app_env)).collect();
        let oldest = apps.into_iter().map(|app_env| {
            let all = (app_env.clone(), 0)..=(app_env.clone(), Seq::MAX);
            let change = (self.changes_of(app_env) >= CHANGES_PER_APP_MAX)
                .then(|| self.history.changes.range(all).next().map(|((_, seq), _)| *seq));
            let deployment = (self.finished_of(app_env) >= DEPLOYMENTS_PER_APP_MAX)
                .then(|| self.deployments_of(app_env, 0..=Seq::MAX).next().map(|(seq, _)| seq));
            change.flatten().max(deployment.flatten()).unwrap_or(0)
        });
        oldest.max().unwrap_or(0)
    }

    /// Earlier points at which something in a scope was otherwise than now, newest first. All changes and deployments
    /// there are remembered from `since` on.
    pub fn earlier(&self, scope: &Scope, since: Seq) -> impl Iterator<Item = Earlier> {
        let apps: BTreeSet<&AppEnv> =
            self.history.last_changed.keys().filter(|app_env| scope.covers_app_env(app_env)).collect();
        let timelines: Vec<_> = apps.into_iter().map(|app_env| (app_env, self.timeline(app_env))).collect();
        let mut points: Vec<Seq> = timelines
            .iter()
            .flat_map(|(_, entries)| entries.iter().skip(1).map(|entry| entry.until))
            .collect();
        points.sort_unstable_by(|left, right| right.cmp(left));
        points.dedup();
        points.into_iter().filter_map(move |point| {
            let verdict = timelines
                .iter()
                .map(|(app_env, entries)| self.verdict(scope, app_env, entries, point, since))
                .max()?;
            // A success may be forgotten of what was in force before that.
            let mut in_force = timelines.iter().filter_map(|(_, entries)| in_force_at(entries, point));
            let is_certain = point >= since
                && (verdict != Verdict::Unhealthy || in_force.all(|entry| entry.from >= since));
            (verdict != Verdict::Same).then_some(Earlier { point, verdict, is_certain })
        })
    }

    /// The newest earlier point at which everything in a scope that was otherwise than now was healthy.
    ///
    /// Asked again after a rollback, it steps further back: what a rollback left is
    /// never offered again, and neither is what is latched or marked bad.
    /// Nothing where what was forgotten might be newer than what is found.
    pub fn last_good(&self, scope: &Scope, since: Seq) -> Option<Seq> {
        let mut certain = self.earlier(scope, since).take_while(|earlier| earlier.is_certain);
        certain.find(|earlier| earlier.verdict == Verdict::Good).map(|earlier| earlier.point)
    }

    /// How an app was at a point, seen from now.
    fn verdict(
        &self,
        scope: &Scope,
        app_env: &AppEnv,
        entries: &[InForce],
        point: Seq,
        since: Seq,
    ) -> Verdict {
        let Some(entry) = in_force_at(entries, point) else {
            // It was not there yet, unless so much happened since that this is forgotten.
            let is_known = point >= since;
            return match self.in_force_now(scope, app_env) {
                None if is_known => Verdict::Same,
                Some(_) if is_known => Verdict::Good,
                _ => Verdict::Unhealthy,
            };
        };
        let revision_of = |entry: &InForce| {
            let change = self.history.changes.get(&(app_env.clone(), entry.from));
            change.and_then(|change| change.revision.as_deref())
        };
        let revision = revision_of(entry);
        if revision == self.in_force_now(scope, app_env) {
            return Verdict::Same;
        }
        // What is bad stays so whenever else it was in force.
        let of_app = self.control.marked_bad.iter().filter(|(scope, _)| scope.covers_app_env(app_env));
        let marked = of_app.filter_map(|(_, seq)| entries.iter().find(|entry| entry.from <= *seq));
        let is_same = |marked: &InForce| revision.is_some() && revision_of(marked) == revision;
        if marked.into_iter().any(|marked| marked.from == entry.from || is_same(marked)) {
            return Verdict::MarkedBad;
        }
        // Being away was never unhealthy.
        let Some(revision) = revision else { return Verdict::Good };
        let latched = self.control.latches.get(app_env);
        let rejected = latched.is_some_and(|releases| releases.contains(&revision.release));
        // What a later rollback left is not gone back to by itself, whatever the latch says.
        let left = self.deployments_of(app_env, entry.until + 1..=Seq::MAX).any(|(_, deployment)| {
            deployment.kind == DeploymentKind::Rollback
                && deployment.from != deployment.to
                && deployment.from.as_ref() == Some(revision)
        });
        if !entry.good || entry.settled > point {
            Verdict::Unhealthy
        } else if rejected || left {
            Verdict::Rejected
        } else {
            Verdict::Good
        }
    }

    /// What is in force in an app as far as a scope goes.
    fn in_force_now(&self, scope: &Scope, app_env: &AppEnv) -> Option<&Revision> {
        let place = match (&scope.node, &scope.region) {
            (Some(node), _) => return self.revision_at(app_env, node),
            (None, Some(region)) => Some(Place::Region(region.clone())),
            (None, None) => None,
        };
        let pin = place.and_then(|place| self.target.pins.get(&(app_env.clone(), place)));
        match pin.map(AsRef::as_ref) {
            Some(Pin::Revision(revision)) => Some(revision),
            Some(Pin::Absent) => None,
            None => self.target.intent.get(app_env).map(AsRef::as_ref),
        }
    }

    /// Whether a change in an app and environment was a rollback, for lists.
    pub fn deployment_kind(&self, seq: Seq) -> Option<DeploymentKind> {
        self.history.deployments.get(&seq).map(|deployment| deployment.kind)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn points_are_read() {
        let point = |text: &str| text.parse::<Point>();
        assert_eq!(point("seq:12").unwrap(), Point::Seq(12));
        assert_eq!(point("2h ago").unwrap(), Point::Ago(7_200_000_000));
        assert_eq!(point("1d 2h ago").unwrap(), Point::Ago(26 * 3_600_000_000));
        assert_eq!(point("v12").unwrap(), Point::Release(12));
        assert_eq!(point("prev").unwrap(), Point::Previous(1));
        assert_eq!(point("last-good").unwrap(), Point::LastGood);
        assert!(matches!(point("2026-01-31T12:00:00Z").unwrap(), Point::Time(_)));
        for bad in ["", "12", "v", "vx", "prev:0", "2 ago", "5x ago", "seq:-1"] {
            assert!(point(bad).is_err(), "{bad:?}");
        }
    }
    #[test]
    fn since_when_is_a_span_or_a_time() {
        assert_eq!(Point::since("10m").unwrap(), Point::Ago(600_000_000));
        assert_eq!(Point::since("2h ago").unwrap(), Point::Ago(7_200_000_000));
        assert!(matches!(Point::since("2026-01-31T12:00:00Z").unwrap(), Point::Time(_)));
        for bad in ["", "10", "now", "seq:12", "v3", "prev", "last-good", "yesterday"] {
            assert!(Point::since(bad).is_err(), "{bad:?}");
        }
    }
}
