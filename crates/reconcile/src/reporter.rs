//! Which report to send when. Knows no clock and no wire.
//!
//! A report is the last value of everything on the node. One is under way at a time; what
//! changes meanwhile goes into the next. One that was not acknowledged is sent again with its
//! number, or replaced by a newer one if there is something newer to tell.
//!
//! What a rollout waits for is told at once; that an instance is well waits a moment for the one before it, which was
//! stopped, to be gone, and where many are on their way, those that are well soon after others share a report. What
//! is only on its way has a while to come to something first: most changes are over by then, and one report tells all
//! of them.

use std::collections::BTreeMap;

use stele_model::ids::{FleetName, NodeName};
use stele_model::limits::UNORDERED_BOOT_MIN;
use stele_model::wire::{AssignmentVersion, InstanceReport, Phase, Report};

use crate::limits::{
    REASON_BYTES_MAX, REPORT_BODY_BYTES_MAX, REPORT_BURST, REPORT_BUSY_ROUND_TRIPS, REPORT_LEAVING_MS,
    REPORT_LEAVING_MS_MAX, REPORT_MS, REPORT_MS_MIN, REPORT_PARTIAL_MS, REPORT_PARTIAL_MS_MAX,
    REPORT_PROGRESS_MS, REPORT_PROGRESS_MS_MAX, REPORT_REFRESH_MS, REPORT_RETRY_FIRST_MS,
    REPORT_RETRY_MS_MAX,
};
use crate::sync::doubled_ms;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Content {
    applied: AssignmentVersion,
    instances: Vec<InstanceReport>,
}

/// What an observation has to tell that the last report did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    /// At most something on its way.
    Progress,
    /// What a rollout waits for: that an instance came to something, or is gone while none is on its way.
    /// Whoever waits for one that is gone waits for what is on its way, too.
    Awaited,
    /// Only that instances are well, which may wait a moment for others: those on their way, or those that were
    /// stopped and are about to be gone.
    Well { any_on_its_way: bool, any_is_leaving: bool },
}

impl Content {
    fn news_after(&self, earlier: &Self) -> News {
        let before: BTreeMap<_, _> = earlier.instances.iter().map(|one| (&one.id, one.phase)).collect();
        let mut stays = 0;
        let (mut any_on_its_way, mut any_is_well, mut any_ended, mut any_is_leaving) =
            (false, false, false, false);
        for one in &self.instances {
            let was = before.get(&one.id).copied();
            stays += usize::from(was.is_some());
            match one.phase {
                Phase::Pending | Phase::Pulling | Phase::Starting => any_on_its_way = true,
                // It served already: a container that was stopped to go, or a job, which costs a moment.
                Phase::Completed if was == Some(Phase::Healthy) => any_is_leaving = true,
                phase if was == Some(phase) => {}
                Phase::Healthy => any_is_well = true,
                Phase::Completed | Phase::Unhealthy | Phase::Failed => any_ended = true,
            }
        }
        let is_gone = !any_on_its_way && stays < before.len();
        match (any_ended || is_gone, any_is_well) {
            (false, false) => News::Progress,
            (false, true) if any_on_its_way || any_is_leaving => {
                News::Well { any_on_its_way, any_is_leaving }
            }
            _ => News::Awaited,
        }
    }
}

/// The reports of one boot.
#[derive(Debug)]
pub struct Reporter {
    fleet: FleetName,
    node: NodeName,
    boot: u64,
    latest: Option<Content>,
    /// Since when the latest differs from what was told last.
    untold_ms: u64,
    /// What the latest tells that was not told.
    news: News,
    /// Since when that is what a rollout waits for.
    awaited_ms: Option<u64>,
    /// Number and content of the last report made.
    made: Option<(u64, Content)>,
    made_ms: u64,
    /// When a report was made last that told what a rollout waits for.
    told_ms: u64,
    /// When the next report would be made if all were equally far apart: the generic cell rate
    /// algorithm (ITU-T I.371).
    even_ms: u64,
    acked: u64,
    in_flight: bool,
    /// When the report under way was sent, if its acknowledgement is to tell how busy the others are.
    sent_ms: Option<u64>,
    /// How long the last acknowledgement took.
    round_trip_ms: u64,
    failures: u32,
    failed_ms: u64,
}

/// What is due.
#[derive(Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing is left to tell, or an answer is awaited.
    Nothing,
    /// Something, at this time.
    At(u64),
}

impl Reporter {
    /// One that has told nothing yet.
    pub fn new(fleet: FleetName, node: NodeName, boot: u64) -> Self {
        Self {
            fleet,
            node,
            boot,
            latest: None,
            untold_ms: 0,
            news: News::Progress,
            awaited_ms: None,
            made: None,
            made_ms: 0,
            told_ms: 0,
            even_ms: 0,
            acked: 0,
            in_flight: false,
            sent_ms: None,
            round_trip_ms: 0,
            failures: 0,
            failed_ms: 0,
        }
    }

    /// The boot all of its reports carry.
    pub fn boot(&self) -> u64 {
        self.boot
    }

    /// The highest number acknowledged.
    pub fn acked(&self) -> u64 {
        self.acked
    }

    /// What is true now.
    pub fn observe(&mut self, applied: AssignmentVersion, instances: Vec<InstanceReport>, now_ms: u64) {
        if !self.is_untold() {
            self.untold_ms = now_ms;
        }
        let latest = Content { applied, instances };
        let made = self.made.as_ref().map(|(_, made)| made);
        self.news = made.map_or(News::Progress, |made| latest.news_after(made));
        let is_awaited = self.news != News::Progress;
        self.awaited_ms = is_awaited.then(|| self.awaited_ms.unwrap_or(now_ms));
        self.latest = Some(latest);
    }

    /// Whether there is something that the last report made does not say.
    fn is_untold(&self) -> bool {
        let made = self.made.as_ref().map(|(_, made)| made);
        self.latest.as_ref().is_some_and(|latest| made != Some(latest))
    }

    /// Whether all there is to tell was told and acknowledged.
    pub fn is_acknowledged(&self) -> bool {
        !self.in_flight
            && !self.is_untold()
            && self.made.as_ref().is_none_or(|(number, _)| *number <= self.acked)
    }

    /// When [`Self::take`] is worth calling.
    pub fn due(&self) -> Due {
        if self.in_flight {
            return Due::Nothing;
        }
        let Some(latest) = &self.latest else { return Due::Nothing };
        let retry_ms = match self.failures {
            0 => 0,
            failures => self.failed_ms + doubled_ms(REPORT_RETRY_FIRST_MS, failures - 1, REPORT_RETRY_MS_MAX),
        };
        match &self.made {
            None => Due::At(retry_ms),
            Some((number, made)) if made != latest => {
                // What was not acknowledged is sent again anyway: better what is true now.
                let news = if *number > self.acked { News::Awaited } else { self.news };
                let mut next_ms = self.next_ms(news != News::Progress);
                if let News::Well { any_on_its_way, any_is_leaving } = news {
                    if any_on_its_way {
                        let pause_ms = self.busy_ms(REPORT_PARTIAL_MS, REPORT_PARTIAL_MS_MAX);
                        next_ms = next_ms.max(self.told_ms + pause_ms);
                    }
                    if any_is_leaving {
                        let wait_ms = self.busy_ms(REPORT_LEAVING_MS, REPORT_LEAVING_MS_MAX);
                        next_ms = next_ms.max(self.awaited_ms.unwrap_or_default() + wait_ms);
                    }
                }
                Due::At(retry_ms.max(next_ms))
            }
            Some((number, _)) if *number > self.acked => Due::At(retry_ms),
            Some(_) => Due::At(retry_ms.max(self.made_ms + self.refresh_ms())),
        }
    }

    /// When a report with other content than the last one may be made.
    fn next_ms(&self, is_awaited: bool) -> u64 {
        if is_awaited {
            let ahead = (REPORT_BURST - 1) * REPORT_MS;
            return (self.made_ms + REPORT_MS_MIN).max(self.even_ms.saturating_sub(ahead));
        }
        (self.untold_ms + self.busy_ms(REPORT_PROGRESS_MS, REPORT_PROGRESS_MS_MAX)).max(self.even_ms)
    }

    /// After which all is told once more: should State not be what was acknowledged, nothing else would say so. Not at
    /// the same time everywhere: no two boots begin at the same microsecond.
    fn refresh_ms(&self) -> u64 {
        REPORT_REFRESH_MS + self.boot % (REPORT_REFRESH_MS / 2)
    }

    /// A wait between these bounds: where acknowledgements take long, somebody is busy with what cannot wait.
    fn busy_ms(&self, least: u64, most: u64) -> u64 {
        let busy = self.round_trip_ms.saturating_mul(REPORT_BUSY_ROUND_TRIPS);
        busy.clamp(least, most)
    }

    /// The report to send now, if one is due: it counts as under way until [`Self::acked_by`] or
    /// [`Self::failed`].
    pub fn take(&mut self, now_ms: u64) -> Option<Report> {
        match self.due() {
            Due::At(at) if at <= now_ms => {}
            _ => return None,
        }
        let latest = self.latest.as_ref()?;
        let number = match &self.made {
            Some((number, made)) if made == latest && *number > self.acked => *number,
            made => {
                let number = made.as_ref().map_or(0, |(number, _)| *number) + 1;
                self.made = Some((number, latest.clone()));
                self.made_ms = now_ms;
                if self.news != News::Progress {
                    self.told_ms = now_ms;
                }
                (self.news, self.awaited_ms) = (News::Progress, None);
                self.even_ms = self.even_ms.max(now_ms) + REPORT_MS;
                number
            }
        };
        self.in_flight = true;
        self.sent_ms = Some(now_ms);
        let (_, content) = self.made.as_ref()?;
        Some(fit(Report {
            fleet: self.fleet.clone(),
            node: self.node.clone(),
            boot: self.boot,
            number,
            applied: content.applied,
            instances: content.instances.clone(),
        }))
    }

    /// A verified acknowledgement of the report under way. Whether it was of that one.
    pub fn acked_by(&mut self, boot: u64, number: u64, now_ms: u64) -> bool {
        let current = self.made.as_ref().map(|(made, _)| *made);
        if boot != self.boot || Some(number) != current || !self.in_flight {
            return false;
        }
        self.in_flight = false;
        self.acked = number;
        // What was sent before may be decided already; then the answer is quick and says nothing.
        if let Some(sent) = self.sent_ms.filter(|_| self.failures == 0) {
            self.round_trip_ms = now_ms.saturating_sub(sent);
        }
        self.failures = 0;
        true
    }

    /// A verified acknowledgement says that controllers know a later boot of this node: they take what this one tells
    /// for old. Its reports are of a boot after that one from now on, which is the answer; what is under way still is.
    pub fn outrun(&mut self, later: u64) -> Option<u64> {
        let next = later.checked_add(1)?;
        if next <= self.boot + 1 || next >= UNORDERED_BOOT_MIN {
            return None;
        }
        self.boot = next;
        Some(next)
    }

    /// The report under way was not acknowledged.
    pub fn failed(&mut self, now_ms: u64) {
        self.in_flight = false;
        if let Some(sent) = self.sent_ms {
            self.round_trip_ms = self.round_trip_ms.max(now_ms.saturating_sub(sent));
        }
        self.failures = self.failures.saturating_add(1);
        self.failed_ms = now_ms;
    }

    /// There is a new connection: no reason to wait any longer.
    pub fn connected(&mut self) {
        self.failures = 0;
        self.round_trip_ms = 0;
        self.sent_ms = None;
    }
}

/// Leaves out log lines, the oldest first, and then the ends of reasons, until the report can be sent.
fn fit(mut report: Report) -> Report {
    let mut keep = report.instances.iter().map(|one| one.log_tail().len()).max().unwrap_or(0);
    while keep > 0 && size(&report) > REPORT_BODY_BYTES_MAX {
        keep /= 2;
        for instance in &mut report.instances {
            instance.cut_log_tail(keep);
        }
    }
    let mut keep = REASON_BYTES_MAX;
    while keep > 0 && size(&report) > REPORT_BODY_BYTES_MAX {
        keep /= 2;
        for instance in &mut report.instances {
            instance.cut_reason(keep);
        }
    }
    report
}

fn size(report: &Report) -> usize {
    serde_json::to_vec(report).map_or(0, |bytes| bytes.len())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use stele_model::limits::{INSTANCES_PER_NODE_MAX, LOG_LINE_BYTES_MAX, LOG_TAIL_LINES_MAX};
    use stele_model::wire::Remarks;

    fn reporter() -> Reporter {
        Reporter::new("acme".parse().unwrap(), "eu-1".parse().unwrap(), 7)
    }

    fn instance(index: usize, restarts: u32) -> InstanceReport {
        InstanceReport {
            id: format!("shop/web@prod/web.{index}-1").parse().unwrap(),
            phase: Phase::Healthy,
            spec_digest: None,
            container: None,
            restarts,
            remarks: None,
        }
    }

    fn see(reporter: &mut Reporter, restarts: u32, now: u64) {
        reporter.observe(AssignmentVersion::default(), vec![instance(0, restarts)], now);
    }

    fn see_phases(reporter: &mut Reporter, phases: &[Phase], now: u64) {
        let each = phases.iter().enumerate();
        let instances = each.map(|(index, phase)| InstanceReport { phase: *phase, ..instance(index, 0) });
        reporter.observe(AssignmentVersion::default(), instances.collect(), now);
    }

    /// Whether what is seen now is told at once.
    fn tells(reporter: &mut Reporter, phases: &[Phase], now: u64) -> bool {
        see_phases(reporter, phases, now);
        let report = reporter.take(now);
        report.inspect(|report| assert!(reporter.acked_by(7, report.number, now))).is_some()
    }

    #[test]
    fn the_first_goes_at_once_and_what_follows_is_coalesced() {
        let mut reporter = reporter();
        assert_eq!(reporter.take(100), None);
        see(&mut reporter, 0, 100);
        let first = reporter.take(100).unwrap();
        assert_eq!((first.boot, first.number), (7, 1));
        assert!(reporter.acked_by(7, 1, 100));
        assert_eq!(reporter.due(), Due::At(107 + REPORT_REFRESH_MS), "nothing is new");

        for restarts in 1..50 {
            see(&mut reporter, restarts, 110 + u64::from(restarts));
        }
        let due = 111 + REPORT_PROGRESS_MS;
        assert_eq!(reporter.due(), Due::At(due), "from the first change on");
        assert_eq!(reporter.take(due - 1), None);
        let second = reporter.take(due).unwrap();
        assert_eq!((second.number, second.instances[0].restarts), (2, 49));
    }

    #[test]
    fn what_is_awaited_goes_at_once_and_progress_when_it_lasts() {
        let mut reporter = reporter();
        assert!(tells(&mut reporter, &[Phase::Pulling], 0));
        assert!(!tells(&mut reporter, &[Phase::Starting], 2_300));
        assert!(tells(&mut reporter, &[Phase::Healthy], 2_800), "it is what a rollout waits for");
        assert!(!tells(&mut reporter, &[Phase::Failed], 2_800 + REPORT_MS_MIN - 1));
        assert!(tells(&mut reporter, &[Phase::Failed], 2_800 + REPORT_MS_MIN));
        assert!(!tells(&mut reporter, &[Phase::Pulling], 10_000));
        assert!(!tells(&mut reporter, &[Phase::Starting], 10_000 + REPORT_PROGRESS_MS - 1));
        assert!(tells(&mut reporter, &[Phase::Starting], 10_000 + REPORT_PROGRESS_MS));
        // However much happens, the average stays.
        let phases = [Phase::Healthy, Phase::Failed];
        let times = (20_000..120_000).step_by(10);
        let busy = times.filter(|now| tells(&mut reporter, &[phases[(*now / 10 % 2) as usize]], *now));
        let count = busy.count() as u64;
        assert!((100..=100 + REPORT_BURST).contains(&count), "{count}");
    }

    #[test]
    fn progress_waits_longer_where_acknowledgements_take_long() {
        let mut reporter = reporter();
        for (took, wait) in [
            (300, REPORT_PROGRESS_MS),
            (2_000, 2_000 * REPORT_BUSY_ROUND_TRIPS),
            (9_000, REPORT_PROGRESS_MS_MAX),
            (200, REPORT_PROGRESS_MS),
        ] {
            let now = reporter.even_ms + REPORT_BURST * REPORT_MS;
            see_phases(&mut reporter, &[Phase::Healthy, Phase::Pulling], now);
            let report = reporter.take(now).unwrap();
            assert!(reporter.acked_by(7, report.number, now + took));
            let now = now + took;
            see_phases(&mut reporter, &[Phase::Healthy, Phase::Starting], now);
            assert_eq!(reporter.due(), Due::At(now + wait), "{took}");
            assert!(
                tells(&mut reporter, &[Phase::Healthy, Phase::Failed], now),
                "what is awaited does not wait"
            );
            assert!(tells(&mut reporter, &[], now + REPORT_MS_MIN));
        }
        // One that is not acknowledged in time says it, too, and the quick answer to its repetition does not.
        let now = reporter.even_ms + REPORT_BURST * REPORT_MS;
        see_phases(&mut reporter, &[Phase::Healthy], now);
        assert!(reporter.take(now).is_some());
        reporter.failed(now + 10_000);
        let again = reporter.take(now + 10_000 + REPORT_RETRY_FIRST_MS).unwrap();
        assert!(reporter.acked_by(7, again.number, now + 12_000));
        assert_eq!(reporter.busy_ms(REPORT_PROGRESS_MS, REPORT_PROGRESS_MS_MAX), REPORT_PROGRESS_MS_MAX);
        reporter.connected();
        assert_eq!(
            reporter.busy_ms(REPORT_PROGRESS_MS, REPORT_PROGRESS_MS_MAX),
            REPORT_PROGRESS_MS,
            "what was waited for the network says nothing"
        );
    }

    #[test]
    fn one_that_is_gone_is_awaited_unless_another_is_on_its_way() {
        let mut reporter = reporter();
        assert!(tells(&mut reporter, &[Phase::Healthy], 0));
        assert!(tells(&mut reporter, &[], 5_000));
        assert!(tells(&mut reporter, &[Phase::Healthy, Phase::Healthy], 10_000));
        assert!(!tells(&mut reporter, &[Phase::Starting], 15_000), "its successor is waited for anyway");
        assert!(tells(&mut reporter, &[Phase::Healthy], 15_500));
    }

    #[test]
    fn what_came_to_something_waits_a_moment_for_the_one_before_it_to_be_gone() {
        let mut reporter = reporter();
        assert!(tells(&mut reporter, &[Phase::Healthy], 0));
        assert!(!tells(&mut reporter, &[Phase::Completed, Phase::Starting], 5_000));
        assert!(!tells(&mut reporter, &[Phase::Completed, Phase::Healthy], 6_000));
        assert_eq!(reporter.due(), Due::At(6_000 + REPORT_LEAVING_MS));
        reporter.observe(AssignmentVersion::default(), vec![instance(1, 0)], 6_100);
        let both = reporter.take(6_100).unwrap();
        assert_eq!(both.instances, [instance(1, 0)]);
        assert!(reporter.acked_by(7, both.number, 6_100));

        assert!(tells(&mut reporter, &[Phase::Healthy], 20_000));
        assert!(!tells(&mut reporter, &[Phase::Completed, Phase::Healthy], 30_000));
        let late = 30_000 + REPORT_LEAVING_MS;
        assert!(!tells(&mut reporter, &[Phase::Completed, Phase::Healthy], late - 1), "since it was awaited");
        assert!(tells(&mut reporter, &[Phase::Completed, Phase::Healthy], late), "it stays for longer");

        assert!(tells(&mut reporter, &[Phase::Healthy], 40_000));
        let failed = [Phase::Completed, Phase::Healthy, Phase::Failed];
        assert!(tells(&mut reporter, &failed, 50_000), "a failure waits for nothing");
    }

    #[test]
    fn what_is_passed_over_for_a_later_boot_is_told_again_as_of_one_after_it() {
        let mut reporter = reporter();
        see(&mut reporter, 0, 0);
        let first = reporter.take(0).unwrap();
        assert_eq!(reporter.outrun(7), None, "it is its own");
        assert_eq!(reporter.outrun(UNORDERED_BOOT_MIN - 1), None, "nothing comes after that");
        assert!(!reporter.acked_by(9, 4, 1));
        assert_eq!(reporter.outrun(9), Some(10));
        reporter.failed(1);
        let again = reporter.take(1 + REPORT_RETRY_FIRST_MS).unwrap();
        assert_eq!((again.boot, again.instances), (10, first.instances));
        assert!(reporter.acked_by(10, again.number, 2_000) && reporter.is_acknowledged());
    }

    #[test]
    fn instances_that_come_to_something_one_after_the_other_share_reports_until_the_last_one() {
        let mut reporter = reporter();
        assert!(tells(&mut reporter, &[Phase::Starting; 20], 0));
        let mut told = Vec::new();
        for well in 1..=20 {
            let mut phases = [Phase::Starting; 20];
            phases[..well].fill(Phase::Healthy);
            if tells(&mut reporter, &phases, 2_000 + well as u64 * 100) {
                told.push(well);
            }
        }
        assert_eq!(told, [1, 6, 11, 16, 20], "the first at once, and the last");
        let failed = [Phase::Healthy, Phase::Starting, Phase::Failed];
        assert!(tells(&mut reporter, &failed, 4_000 + REPORT_MS_MIN), "a failure waits for nobody");
    }

    #[test]
    fn the_first_that_is_well_is_told_at_once_though_progress_was_told_right_before() {
        let mut reporter = reporter();
        assert!(tells(&mut reporter, &[Phase::Pulling; 2], 0));
        assert!(!tells(&mut reporter, &[Phase::Starting; 2], 5_000));
        assert!(tells(&mut reporter, &[Phase::Starting; 2], 5_000 + REPORT_PROGRESS_MS));
        let now = 5_000 + REPORT_PROGRESS_MS + REPORT_MS_MIN;
        assert!(tells(&mut reporter, &[Phase::Healthy, Phase::Starting], now));
    }

    #[test]
    fn some_that_are_well_wait_for_others_no_longer_than_a_while_however_busy_all_are() {
        let mut reporter = reporter();
        assert!(tells(&mut reporter, &[Phase::Starting; 4], 0));
        let phases = |well: usize| {
            let mut phases = [Phase::Starting; 4];
            phases[..well].fill(Phase::Healthy);
            phases
        };
        see_phases(&mut reporter, &phases(1), 20_000);
        let first = reporter.take(20_000).unwrap();
        assert!(reporter.acked_by(7, first.number, 21_000));
        see_phases(&mut reporter, &phases(2), 21_100);
        assert_eq!(reporter.due(), Due::At(20_000 + REPORT_PARTIAL_MS_MAX));
        // One that is about to be gone is waited for besides, from when there was news.
        let with_one_leaving = |mut phases: [Phase; 4]| {
            phases[0] = Phase::Completed;
            phases
        };
        see_phases(&mut reporter, &with_one_leaving(phases(2)), 21_200);
        assert_eq!(reporter.due(), Due::At(21_100 + REPORT_LEAVING_MS_MAX));
        see_phases(&mut reporter, &with_one_leaving(phases(4)), 21_300);
        assert_eq!(reporter.due(), Due::At(21_100 + REPORT_LEAVING_MS_MAX));
        assert!(tells(&mut reporter, &phases(4), 21_400), "the last one waits for nothing");
    }

    #[test]
    fn what_did_not_change_is_not_told_again() {
        let mut reporter = reporter();
        see(&mut reporter, 0, 0);
        reporter.take(0).unwrap();
        assert!(reporter.acked_by(7, 1, 0));
        see(&mut reporter, 0, 100);
        assert_eq!(reporter.due(), Due::At(7 + REPORT_REFRESH_MS));
        reporter.observe(AssignmentVersion { seq: 4, ..Default::default() }, vec![instance(0, 0)], 200);
        assert_eq!(reporter.take(5000).unwrap().number, 2);
    }

    #[test]
    fn an_unacknowledged_report_is_sent_again_with_its_number_ever_less_often() {
        let mut reporter = reporter();
        see(&mut reporter, 0, 0);
        let first = reporter.take(0).unwrap();
        let mut now = 0;
        let mut pauses = Vec::new();
        for _ in 0..7 {
            reporter.failed(now);
            let Due::At(at) = reporter.due() else { panic!("a report is due") };
            pauses.push((at - now) / 1000);
            now = at;
            assert_eq!(reporter.take(now).unwrap(), first);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        reporter.failed(now);
        reporter.connected();
        assert_eq!(reporter.take(now).unwrap(), first);
    }

    #[test]
    fn newer_news_replace_an_unacknowledged_report() {
        let mut reporter = reporter();
        see(&mut reporter, 0, 0);
        reporter.take(0).unwrap();
        see(&mut reporter, 1, 0);
        assert_eq!(reporter.due(), Due::Nothing, "one at a time");
        reporter.failed(10);
        let second = reporter.take(10 + REPORT_RETRY_FIRST_MS).unwrap();
        assert_eq!((second.number, second.instances[0].restarts), (2, 1));
        assert!(!reporter.acked_by(7, 1, 10), "a late acknowledgement of the first");
        assert!(!reporter.acked_by(8, 2, 10), "of another boot");
        assert!(reporter.acked_by(7, 2, 10));
        assert!(!reporter.acked_by(7, 2, 10), "twice");
        assert_eq!(reporter.acked(), 2);
    }

    #[test]
    fn a_report_of_the_largest_node_still_fits_the_wire() {
        let mut reporter = reporter();
        let line = "x".repeat(LOG_LINE_BYTES_MAX);
        let all = (0..INSTANCES_PER_NODE_MAX)
            .map(|index| InstanceReport {
                remarks: Remarks::of(None, None, vec![line.clone(); LOG_TAIL_LINES_MAX]),
                ..instance(index, 0)
            })
            .collect();
        reporter.observe(AssignmentVersion::default(), all, 0);
        let report = reporter.take(0).unwrap();
        assert_eq!(report.instances.len(), INSTANCES_PER_NODE_MAX);
        assert!(size(&report) <= REPORT_BODY_BYTES_MAX);
        assert!(report.instances[0].log_tail().len() < LOG_TAIL_LINES_MAX);

        // As JSON, each of these takes six bytes.
        let reason = "\u{1}".repeat(REASON_BYTES_MAX);
        let all = (0..INSTANCES_PER_NODE_MAX)
            .map(|index| InstanceReport {
                remarks: Remarks::of(Some(reason.clone()), None, Vec::new()),
                ..instance(index, 0)
            })
            .collect();
        let report = fit(Report { instances: all, ..report });
        assert!(size(&report) <= REPORT_BODY_BYTES_MAX);
        assert!(report.instances[0].reason().is_some_and(|reason| reason.len() > REASON_BYTES_MAX / 8));
    }

    #[test]
    fn what_was_acknowledged_is_told_once_more_after_a_while() {
        let mut reporter = reporter();
        see(&mut reporter, 0, 0);
        let first = reporter.take(0).unwrap();
        assert!(reporter.acked_by(7, 1, 10));
        let refresh_ms = REPORT_REFRESH_MS + 7;
        assert_eq!(reporter.due(), Due::At(refresh_ms));
        assert_eq!(reporter.take(refresh_ms - 1), None);
        let again = reporter.take(refresh_ms).unwrap();
        assert_eq!(again, Report { number: 2, ..first });
        // Unanswered, it is sent again under its number.
        reporter.failed(refresh_ms + 1);
        let retried = reporter.take(refresh_ms + REPORT_RETRY_MS_MAX).unwrap();
        assert_eq!(retried.number, 2);
    }
}
