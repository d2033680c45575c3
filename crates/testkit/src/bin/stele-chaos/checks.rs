//! What must hold in the end, whatever went wrong on the way.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use serde_json::Value;
use stele_api::wire::ShowAnswer;
use stele_linear::{Written, misfits};
use stele_model::event::{ReportedChange, TargetDigest};
use stele_model::wire::{InstanceReport, Phase};
use stele_model::{Event, InstanceId, NodeName, Record, Scope, Seq, State, fold};
use stele_testkit::{VerifiedLog, fetch_log};

use crate::clients::{APP, Acked, History, LABEL};
use crate::fleet::Fleet;
use crate::limits::{BROKEN_SHOWN, PAST_POINTS, TIME_AHEAD_MAX};

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// What held, with numbers.
    pub(crate) held: Vec<String>,
    /// What did not.
    pub(crate) broken: Vec<String>,
}

impl Findings {
    fn check(&mut self, what: String, broken: Vec<String>) {
        if broken.is_empty() {
            self.held.push(what);
        } else {
            let shown = broken.iter().take(BROKEN_SHOWN).map(|it| format!("{what}: not so: {it}"));
            self.broken.extend(shown);
            if broken.len() > BROKEN_SHOWN {
                self.broken.push(format!("{what}: {} more", broken.len() - BROKEN_SHOWN));
            }
        }
    }
}

/// Looks at everything once more: the running fleet first, then, stopped, its disks.
pub(crate) fn check(fleet: &mut Fleet, history: History) -> anyhow::Result<Findings> {
    let mut findings = Findings::default();
    fleet.wait_for_convergence()?;
    findings.held.push("every app has converged".to_owned());
    let last = fleet.wait_until_level()?;
    let mut logs = BTreeMap::new();
    for id in fleet.ids() {
        let log = fetch_log(&fleet.client(id)?, last);
        logs.insert(id, log.with_context(|| format!("the log of controller {id} does not verify"))?);
    }
    findings
        .check(format!("{} replicas have the same {last} records and State", logs.len()), differing(&logs));
    let records = logs.into_values().next().context("there is a controller")?.records;
    findings.check(
        format!(
            "{} acknowledged changes are in the log once, where they were said to be",
            history.acked.len()
        ),
        broken_promises(&history.acked, &records),
    );
    findings.check(
        format!("{} reads and writes fit the log's order", history.operations.len()),
        misfits(&history.operations, &registers(&records)),
    );
    let digests = digests(&records)?;
    findings.check(
        format!("{PAST_POINTS} points of the past are on every controller what they were"),
        past(fleet, &digests)?,
    );
    let (rollbacks, inexact) = rollbacks(&records, &digests);
    findings.check(format!("{rollbacks} rollbacks ended in their digest"), inexact);
    let (healthy, stopped) = containers(&records);
    findings.check(format!("none of {healthy} healthy containers was stopped unasked"), stopped);
    findings.check("no wrong clock took the log's time along".to_owned(), time_ahead(&records));
    findings.check("clients were told nothing impossible".to_owned(), history.wrong);
    fleet.stop_controllers()?;
    let disks = disks(fleet, last)?;
    findings.check(format!("{} data folders replay to the same root and State", fleet.ids().len()), disks);
    Ok(findings)
}

fn differing(logs: &BTreeMap<u64, VerifiedLog>) -> Vec<String> {
    let mut broken = Vec::new();
    let Some((first, wanted)) = logs.iter().next() else { return broken };
    for (id, log) in logs {
        if log.folded != log.told {
            broken.push(format!(
                "controller {id} says its State is {}, its log folds to {}",
                log.told, log.folded
            ));
        }
        if (log.chain, log.folded) != (wanted.chain, wanted.folded) {
            broken.push(format!("controllers {first} and {id} have other histories"));
        }
    }
    broken
}

/// Every acknowledged change is there once, ends where it was said to, and each client's come in order.
fn broken_promises(acked: &[Acked], records: &[Record]) -> Vec<String> {
    let mut broken = Vec::new();
    let mut decided: BTreeMap<&str, Vec<Seq>> = BTreeMap::new();
    for record in records {
        let header = &record.header;
        if let Some(idempotency) = &header.idempotency
            && header.seq == header.decision.last()
        {
            decided.entry(&idempotency.key).or_default().push(header.seq);
        }
    }
    for (key, seqs) in &decided {
        if seqs.len() > 1 {
            broken.push(format!("{key} was decided more than once, at records {seqs:?}"));
        }
    }
    let mut latest: BTreeMap<&str, (u64, Seq)> = BTreeMap::new();
    for Acked { key, seq } in acked {
        if decided.get(key.as_str()).is_none_or(|seqs| !seqs.contains(seq)) {
            let found = decided.get(key.as_str());
            broken.push(format!("{key} was acknowledged at record {seq}; the log has it at {found:?}"));
        }
        let Some((client, count)) = key.split_once('-') else { continue };
        let count = count.parse().unwrap_or_default();
        let (before, at) = latest.insert(client, (count, *seq)).unwrap_or_default();
        if before > count || at > *seq {
            broken.push(format!("{key} is at record {seq}, before {client}-{before}, which is at {at}"));
        }
    }
    broken
}

/// What the log says of each register.
fn registers(records: &[Record]) -> BTreeMap<String, Written> {
    let mut registers: BTreeMap<String, Written> = BTreeMap::new();
    for record in records {
        if let Event::NodeLabelled { node, labels } = &record.event
            && let Some(value) = labels.get(LABEL)
        {
            registers.entry(node.to_string()).or_default().push((record.header.seq, Some(value.clone())));
        }
    }
    registers
}

/// What the app was after each decision.
fn digests(records: &[Record]) -> anyhow::Result<BTreeMap<Seq, TargetDigest>> {
    let scope = APP.parse::<Scope>()?;
    let mut digests = BTreeMap::new();
    let mut state = State::default();
    for record in records {
        fold(&mut state, record);
        if record.header.seq == record.header.decision.last() {
            digests.insert(record.header.seq, state.target_digest(&scope));
        }
    }
    Ok(digests)
}

/// Asks every controller what the app was at some points of the past; answers what is not so.
fn past(fleet: &Fleet, digests: &BTreeMap<Seq, TargetDigest>) -> anyhow::Result<Vec<String>> {
    let mut broken = Vec::new();
    let stride = (digests.len() / PAST_POINTS).max(1);
    for (seq, wanted) in digests.iter().skip(stride / 2).step_by(stride).take(PAST_POINTS) {
        for id in fleet.ids() {
            let path = format!("/v1/show?scope={APP}&at=seq:{seq}&consistency=stale");
            let answer = fleet.client(id)?.get(&path)?;
            let is_so = match answer.status {
                200 => answer.clone().ok::<ShowAnswer>()?.digest == *wanted,
                // Before it was first deployed.
                404 => *wanted == TargetDigest::default(),
                _ => false,
            };
            if !is_so {
                broken.push(format!("controller {id} says of {seq}: {}; it was {wanted:?}", answer.body));
            }
        }
    }
    Ok(broken)
}

/// How many rollbacks there are, and those after which the app was not what it had been.
fn rollbacks(records: &[Record], digests: &BTreeMap<Seq, TargetDigest>) -> (usize, Vec<String>) {
    let (mut count, mut broken) = (0, Vec::new());
    for record in records {
        let Event::RolledBack { seq, after, deviations, .. } = &record.event else { continue };
        count += 1;
        let (wanted, found) = (digests.get(seq), digests.get(&record.header.decision.last()));
        let is_exact = match (wanted, found) {
            // What could not be where it was is listed; all else is the same again.
            (Some(wanted), Some(found)) if deviations.is_empty() => wanted == found && found == after,
            (Some(wanted), Some(found)) => wanted.intent == found.intent && found == after,
            _ => false,
        };
        if !is_exact {
            let at = record.header.seq;
            broken.push(format!("record {at} goes back to {seq}, and gives {found:?} instead of {wanted:?}"));
        }
    }
    (count, broken)
}

/// How many containers were ever healthy, and those that ended although they should have run on.
fn containers(records: &[Record]) -> (usize, Vec<String>) {
    let mut state = State::default();
    let mut healthy: BTreeMap<(NodeName, InstanceId), (u64, InstanceReport)> = BTreeMap::new();
    let (mut count, mut broken) = (0, Vec::new());
    for record in records {
        fold(&mut state, record);
        let Event::NodesReported { reports } = &record.event else { continue };
        for ReportedChange { node, boot, changed, gone, .. } in reports {
            for instance in gone {
                let Some((since, _)) = healthy.remove(&(node.clone(), instance.clone())) else { continue };
                // An agent that starts anew on a simulated engine finds nothing there.
                let is_wanted =
                    state.assigned.get(node).is_some_and(|it| it.instances.contains_key(instance));
                if is_wanted && since == *boot {
                    let at = record.header.seq;
                    broken
                        .push(format!("{instance} of {node} is gone at record {at}, and was assigned then"));
                }
            }
            for report in changed {
                let place = (node.clone(), report.id.clone());
                if let Some((since, before)) = healthy.get(&place)
                    && *since == *boot
                    && is_another_life(before, report)
                {
                    broken.push(format!("{} of {node} ended: {before:?}, then {report:?}", report.id));
                }
                if report.phase == Phase::Healthy && healthy.insert(place, (*boot, report.clone())).is_none()
                {
                    count += 1;
                }
            }
        }
    }
    (count, broken)
}

/// Whether a container ended between two reports.
fn is_another_life(before: &InstanceReport, after: &InstanceReport) -> bool {
    before.container != after.container
        || before.restarts != after.restarts
        || matches!(after.phase, Phase::Failed | Phase::Completed | Phase::Pending | Phase::Pulling)
}

/// How far the log's time is ahead of this machine's clock: a leader whose clock was wrong took it along.
fn time_ahead(records: &[Record]) -> Vec<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let last = records.last().map(|record| Duration::from_micros(record.header.time.0)).unwrap_or_default();
    let ahead = last.saturating_sub(now);
    let is_far = ahead > TIME_AHEAD_MAX;
    is_far.then(|| format!("it is {} s ahead of this machine's clock", ahead.as_secs())).into_iter().collect()
}

/// Replays each disk as a stranger would; answers what differs.
fn disks(fleet: &Fleet, last: Seq) -> anyhow::Result<Vec<String>> {
    let mut broken = Vec::new();
    let mut first: Option<(u64, [Value; 3])> = None;
    for (id, controller) in &fleet.controllers {
        let data = controller.data().display().to_string();
        let to = format!("seq:{last}");
        let printed = match fleet.run_cli(&["replay", "--data", &data, "--to", &to, "--output", "json"]) {
            Ok(printed) => printed,
            Err(error) => {
                broken.push(format!("controller {id}: {error:#}"));
                continue;
            }
        };
        let report: Value = serde_json::from_str(&printed).context("replay prints another form")?;
        let found = ["chain", "root", "state_digest"].map(|field| report[field].clone());
        match &first {
            None => first = Some((*id, found)),
            Some((other, wanted)) if *wanted != found => {
                broken.push(format!("controller {id} has {found:?}, controller {other} {wanted:?}"));
            }
            Some(_) => {}
        }
    }
    Ok(broken)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use stele_model::header::{Header, Idempotency, Links};
    use stele_model::wire::AssignmentVersion;
    use stele_model::{Decision, Digest, PrincipalId, Time};

    use super::*;

    fn record(seq: Seq, key: Option<&str>, event: Event) -> Record {
        let principal: PrincipalId = "admin".parse().unwrap();
        let idempotency = key.map(|key| Idempotency { key: key.to_owned(), request: Digest::EMPTY });
        let header = Header {
            seq,
            time: Time(seq),
            decision: Decision { first: seq, count: 1 },
            principal,
            cause: None,
            trace: None,
            idempotency,
            kind: event.kind().to_owned(),
            schema: 1,
            codec: 1,
            scopes: Vec::new(),
            reason: None,
            links: Links::default(),
            payload: Digest::EMPTY,
        };
        Record { header, event }
    }

    fn write(seq: Seq, key: &str) -> Record {
        let labels = BTreeMap::from([(LABEL.to_owned(), key.to_owned())]);
        record(seq, Some(key), Event::NodeLabelled { node: "eu-1".parse().unwrap(), labels })
    }

    fn acked(key: &str, seq: Seq) -> Acked {
        Acked { key: key.to_owned(), seq }
    }

    #[test]
    fn kept_promises_are_found_kept() {
        let records = [write(1, "w0-1"), write(2, "w0-2"), write(3, "w1-1")];
        assert_eq!(broken_promises(&[acked("w0-1", 1), acked("w0-2", 2)], &records), Vec::<String>::new());
    }

    #[test]
    fn a_lost_a_moved_and_a_repeated_change_are_noticed() {
        let records = [write(1, "w0-1"), write(2, "w0-1")];
        assert_eq!(broken_promises(&[], &records).len(), 1, "twice");
        assert_eq!(broken_promises(&[acked("w1-1", 1)], &records[..1]).len(), 1, "lost");
        assert_eq!(broken_promises(&[acked("w0-1", 2)], &records[..1]).len(), 1, "elsewhere");
        let swapped = [write(1, "w0-2"), write(2, "w0-1")];
        assert_eq!(broken_promises(&[acked("w0-1", 2), acked("w0-2", 1)], &swapped).len(), 1, "out of order");
    }

    fn reported(seq: Seq, phase: Phase, container: &str) -> Record {
        let report = InstanceReport {
            id: "shop/web@prod/web.1-1".parse().unwrap(),
            phase,
            spec_digest: None,
            container: Some(container.into()),
            restarts: 0,
            remarks: None,
        };
        let change = ReportedChange {
            node: "eu-1".parse().unwrap(),
            boot: 1,
            number: seq,
            applied: AssignmentVersion::default(),
            changed: vec![report],
            gone: Vec::new(),
        };
        record(seq, None, Event::NodesReported { reports: vec![change] })
    }

    #[test]
    fn a_container_that_ended_unasked_is_noticed() {
        let same = [reported(1, Phase::Healthy, "a"), reported(2, Phase::Unhealthy, "a")];
        assert_eq!(containers(&same), (1, Vec::new()));
        let failed = [reported(1, Phase::Healthy, "a"), reported(2, Phase::Failed, "a")];
        assert_eq!(containers(&failed).1.len(), 1);
        let replaced = [reported(1, Phase::Healthy, "a"), reported(2, Phase::Healthy, "b")];
        assert_eq!(containers(&replaced).1.len(), 1);
    }
}
