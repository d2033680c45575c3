//! What happens to the fleet of the golden history, and how it is told.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, anyhow, bail, ensure};
use stele_codec::Chain;
use stele_ledger::system_request;
use stele_model::event::{Contacts, Holder, Role};
use stele_model::signature::PublicKey;
use stele_model::wire::{InstanceReport, Phase, Remarks};
use stele_model::{
    AppEnv, Command, Decision, Digest, Event, InstanceId, Links, NodeName, Point, Release, ReleaseChoice,
    Request, Scope, Seq, State, Time, Value,
};

use super::super::releases::Version;
use super::super::scribe::Written;
use super::super::world::{Shape, World};
use super::chapters::{CHAPTERS, Chapter};
use super::specs::{Style, styled};

/// Nodes of the fleet after each upgrade: so many join that there are as many again.
const NODES: usize = 7;
/// Its apps, each in two environments. What is tried elsewhere is cleared away before the next upgrade.
const APPS: usize = 4;
/// Where apps stay.
const LASTING: [&str; 2] = ["prod", "staging"];
/// How often each chapter is told.
const ROUNDS: usize = 3;
/// Happenings of every day between two chapters.
const ROUTINE_STEPS: usize = 2;
/// Between two happenings on average, in microseconds: half an hour.
const PACE_US: u64 = 30 * 60 * 1_000_000;
/// Between the end of the log before and the first record after the upgrade, in microseconds: an hour,
/// so that tokens of a day are still good.
const UPGRADE_US: u64 = 3600 * 1_000_000;
/// Records between two recorded State digests.
const DIGEST_INTERVAL_RECORDS: u64 = 100;
/// Rounds a rollout may take before something must be wrong.
const ROLLOUT_ROUNDS_MAX: usize = 200;
/// After which no deployment waits any longer for health, in microseconds: ten minutes.
const UNHEALTHY_US: u64 = 10 * 60 * 1_000_000;
/// Points a rollback looks at until it finds one that is otherwise than now.
const POINTS_TRIED_MAX: usize = 12;
/// How often a chapter is begun until something must be wrong with it.
const CHAPTER_TRIES: usize = 8;
/// Of the first generation is one more; any number would do.
const SEED: u64 = 0x57e1e;

/// The fleet, and what can be done with it.
pub(super) struct Story {
    pub(super) world: World,
    digest_at: Seq,
    apps_seen: u16,
    /// Which time the chapters are told.
    pub(super) round: usize,
}

/// How a rollback is wished, besides what and where to.
#[derive(Default)]
pub(super) struct Wish<'a> {
    pub(super) except: &'a [&'a str],
    pub(super) now: bool,
    pub(super) strict: bool,
    pub(super) best_effort: bool,
    pub(super) pass_barriers: bool,
    pub(super) unobtainable: Vec<(AppEnv, String)>,
}

/// Tells what happens after an upgrade in place.
pub(super) fn tell(
    state: State,
    chain: Chain,
    states: BTreeMap<Seq, State>,
    generation: u32,
) -> anyhow::Result<Vec<Written>> {
    let fleet = state.control.fleet.as_ref().context("the fleet was founded before")?;
    let shape = Shape {
        fleet: fleet.name.clone(),
        root: fleet.root.clone(),
        admin: Digest::of(&[b"admin", &generation.to_be_bytes()]),
        nodes: NODES.saturating_sub(state.control.nodes.len()),
        apps: APPS.saturating_sub(state.control.apps.len()),
        begins: Time(state.time.0 + UPGRADE_US),
        pace_us: PACE_US,
        seed: SEED + u64::from(generation),
    };
    let admin = shape.admin;
    let digest_at = state.seq;
    let mut world = World::upgraded(state, chain, shape);
    world.scribe.keep_states(states);
    let mut story = Story { world, digest_at, apps_seen: 0, round: 0 };
    story.begin(admin).context("after the upgrade")?;
    for round in 0..ROUNDS {
        story.round = round;
        story.heal()?;
        for (name, chapter) in CHAPTERS {
            story.tell(chapter).with_context(|| format!("round {round}, the chapter {name:?}"))?;
            for _ in 0..ROUTINE_STEPS {
                story.routine().with_context(|| format!("round {round}, a day after {name:?}"))?;
            }
        }
    }
    story.world.system(Command::RecordStateDigest)?;
    Ok(story.world.take())
}

impl Story {
    /// The first things the new version does: lead, renew tokens, and grow.
    fn begin(&mut self, admin: Digest) -> anyhow::Result<()> {
        let term = self.state().history.term + 1;
        let controller = self.state().history.leader;
        self.world.system(Command::StartTerm { term, controller })?;
        let token = self.world.token("admin", admin, Role::Admin, Holder::Person)?;
        self.ask("admin", Command::CreateToken { token })?;
        self.world.make_tokens()?;
        let tried = self.state().target.intent.keys();
        let tried = tried.filter(|app_env| !LASTING.contains(&app_env.environment.as_str()));
        for app_env in tried.cloned().collect::<Vec<_>>() {
            self.must("admin", Command::Remove { app_env })?;
        }
        self.settle_all()?;
        self.world.grow()?;
        self.settle_all()
    }

    /// Tells a chapter. It may come to apps of which it cannot be told, such as one whose old values
    /// nobody can read any more: then it is told again of others, and what happened so far has happened.
    fn tell(&mut self, chapter: Chapter) -> anyhow::Result<()> {
        let mut told = chapter(self);
        for _ in 1..CHAPTER_TRIES {
            if told.is_ok() {
                break;
            }
            self.heal()?;
            told = chapter(self);
        }
        told
    }

    /// Lost nodes return, and apps that a rollback took away are deployed again.
    fn heal(&mut self) -> anyhow::Result<()> {
        let lost = self.state().observed.iter().filter(|(_, seen)| seen.lost);
        let returned = lost.map(|(node, _)| node.clone()).collect();
        self.world.system(Command::MarkNodes { lost: Vec::new(), returned })?;
        self.settle_all()?;
        self.world.deploy_missing()?;
        self.settle_all()
    }

    pub(super) fn state(&self) -> &State {
        self.world.state()
    }

    /// One more thing of every day.
    fn routine(&mut self) -> anyhow::Result<()> {
        let pause = self.world.chance.below(2 * PACE_US as usize) as u64;
        self.world.scribe.pass(pause);
        match self.world.chance.below(100) {
            0..=9 => {
                let app_env = self.app()?;
                let style = Style::PLACEABLE[self.world.chance.below(Style::PLACEABLE.len())];
                // Automation does not lift a latch, and not every release fits beside the others.
                if self.deploy("ci", &app_env, style, None).is_ok() {
                    self.world.settle(&app_env)?;
                }
            }
            10..=16 => {
                let app_env = self.app()?;
                self.world.configure(&app_env)?;
            }
            17..=21 => {
                let app_env = self.app()?;
                self.world.set_secret(&app_env)?;
            }
            22..=25 => {
                let app_env = self.app()?;
                self.world.roll_back(&app_env)?;
            }
            26..=33 => self.world.lose_and_find()?,
            34..=36 => self.world.refuse()?,
            37..=46 => self.world.label()?,
            _ => self.world.restart()?,
        }
        if self.state().seq >= self.digest_at + DIGEST_INTERVAL_RECORDS {
            self.digest_at = self.state().seq;
            self.world.system(Command::RecordStateDigest)?;
        }
        Ok(())
    }

    /// An app that is wanted somewhere; each in turn would be too regular.
    pub(super) fn app(&mut self) -> anyhow::Result<AppEnv> {
        self.app_in(&Scope::fleet())
    }

    /// The same, in a scope.
    pub(super) fn app_in(&mut self, scope: &Scope) -> anyhow::Result<AppEnv> {
        let wanted = self.state().target.intent.keys();
        let wanted: Vec<_> = wanted.filter(|app_env| scope.covers_app_env(app_env)).cloned().collect();
        ensure!(!wanted.is_empty(), "no app is left in {scope}");
        let at = self.world.chance.below(wanted.len());
        Ok(wanted[at].clone())
    }

    /// As [`World::request`], with every reason and link there can be.
    fn request(&mut self, principal: &str, command: Command) -> anyhow::Result<Request> {
        let mut request = self.world.request(principal, command)?;
        if self.world.chance.percent(10) {
            request.reason = Some(Value::Sealed(self.world.seal("reasons")));
        }
        if principal == "ci" {
            request.links.ci_run =
                Some(format!("https://ci.example.com/{}", self.world.chance.below(90_000)));
            let person = self.world.person();
            request.links.on_behalf_of =
                if self.world.chance.percent(30) { Some(person.parse()?) } else { None };
        }
        Ok(request)
    }

    /// Asks in somebody's name. Answers the decision, if anything had to change.
    pub(super) fn ask(&mut self, principal: &str, command: Command) -> anyhow::Result<Option<Decision>> {
        let request = self.request(principal, command)?;
        let records = self.world.scribe.ask(&request, BTreeMap::new()).map_err(|error| anyhow!("{error}"))?;
        Ok(records.first().map(|record| record.header.decision))
    }

    /// What must change something.
    pub(super) fn must(&mut self, principal: &str, command: Command) -> anyhow::Result<Decision> {
        let what = format!("{command:?}");
        self.ask(principal, command)?.with_context(|| format!("nothing had to change for {what:.200}"))
    }

    /// Writes an event that no command of the model is decided into, or that needs a key nobody has.
    pub(super) fn write(&mut self, principal: &str, event: Event) -> anyhow::Result<()> {
        // What is asked is not looked at: the request gives the header's fields.
        let request = self.request(principal, Command::RecordStateDigest)?;
        self.world.scribe.write(&request, &[event]).map_err(|error| anyhow!("{error}"))?;
        Ok(())
    }

    pub(super) fn release(&mut self, app_env: &AppEnv, style: Style) -> anyhow::Result<Release> {
        let secret = self.state().newest_secret(app_env, &"database".parse()?) > 0;
        let version = Version {
            image: self.world.chance.next() % 100_000,
            replicas: 2 + self.world.chance.below(2) as u32,
            secret,
        };
        self.apps_seen = (self.apps_seen + 1) % 1000;
        let sealed = self.world.seal(&app_env.to_string());
        styled(&app_env.app, style, version, sealed, self.apps_seen)
    }

    /// Starts a deployment, and leaves it to others to bring it to its end.
    pub(super) fn deploy(
        &mut self,
        principal: &str,
        app_env: &AppEnv,
        style: Style,
        barrier: Option<&str>,
    ) -> anyhow::Result<Decision> {
        let release = self.release(app_env, style)?;
        let image =
            |name: &_| (Clone::clone(name), format!("registry.example.com/{}/{name}:main", app_env.app));
        let images = release.services.keys().map(image).collect();
        let runbook =
            self.world.chance.percent(20).then(|| format!("https://wiki.example.com/{}", app_env.app));
        let contacts = Contacts {
            owner: (!self.world.chance.percent(10)).then(|| app_env.app.project.to_string()),
            on_call: Some(format!("#{}-alerts", app_env.app.project)),
            runbook,
        };
        let command = Command::Deploy {
            app_env: app_env.clone(),
            contacts: Some(contacts),
            release: ReleaseChoice::Content { release, images },
            again: false,
            barrier: barrier.map(str::to_owned),
        };
        self.must(principal, command)
    }

    /// The same, and brings it to its end.
    pub(super) fn deployed(
        &mut self,
        principal: &str,
        app_env: &AppEnv,
        style: Style,
        barrier: Option<&str>,
    ) -> anyhow::Result<Decision> {
        let decision = self.deploy(principal, app_env, style, barrier)?;
        self.world.settle(app_env)?;
        Ok(decision)
    }

    /// Lets conductor and nodes work until no app has anything to do.
    pub(super) fn settle_all(&mut self) -> anyhow::Result<()> {
        for app_env in stele_planner::apps(self.state()) {
            self.world.settle(&app_env)?;
        }
        Ok(())
    }

    /// Nodes tell of an app's instances that are not healthy yet, each as `change` makes it. False when
    /// there is none.
    pub(super) fn report_as(
        &mut self,
        app_env: &AppEnv,
        change: impl Fn(&mut InstanceReport),
    ) -> anyhow::Result<bool> {
        let state = self.state();
        let fresh: BTreeSet<(NodeName, InstanceId)> = state
            .assigned_to(app_env)
            .filter(|(node, id, _)| state.is_reachable(node) && !state.is_healthy(node, id))
            .map(|(node, id, _)| (node.clone(), id.clone()))
            .collect();
        let nodes: BTreeSet<&NodeName> = fresh.iter().map(|(node, _)| node).collect();
        let mut reports = Vec::new();
        for node in nodes {
            reports.extend(self.world.report(node, |_, report| {
                if fresh.iter().any(|(_, id)| *id == report.id) {
                    change(report);
                }
            }));
        }
        self.world.system(Command::Report { reports })?;
        Ok(!fresh.is_empty())
    }

    /// Lets a running deployment fail: whatever of it is new ends at once, or is never healthy.
    pub(super) fn fail(&mut self, app_env: &AppEnv, ends: bool) -> anyhow::Result<()> {
        for _ in 0..ROLLOUT_ROUNDS_MAX {
            self.world.scribe.pass(200_000);
            if self.state().running_deployment(app_env).is_none() {
                return Ok(());
            }
            let now = self.world.scribe.now();
            if let Some(command) = stele_planner::plan_app(self.state(), app_env, now) {
                self.world.conduct(command)?;
                continue;
            }
            let failed = self.report_as(app_env, |report| {
                report.phase = if ends { Phase::Failed } else { Phase::Unhealthy };
                report.restarts = 5;
                let reason = if ends { "exited with 3" } else { "answers 503" };
                let lines: &[&str] =
                    if ends { &["connecting to the database", "no such table: orders"] } else { &[] };
                let log_tail = lines.iter().map(|line| (*line).to_owned()).collect();
                report.remarks = Remarks::of(Some(reason.to_owned()), ends.then_some(3), log_tail);
            })?;
            if !ends {
                self.world.scribe.pass(UNHEALTHY_US);
            }
            ensure!(failed, "nothing of {app_env} is new, so that nothing can fail");
        }
        bail!("{app_env} does not fail")
    }

    /// A rollback of a scope to a point.
    pub(super) fn rollback_to(
        &mut self,
        principal: &str,
        scope: &Scope,
        (seq, point): (Seq, String),
        wish: &Wish<'_>,
    ) -> anyhow::Result<Option<Decision>> {
        let except = wish.except.iter().map(|scope| scope.parse()).collect::<Result<_, _>>()?;
        let command = Command::Rollback {
            scope: scope.clone(),
            except,
            point,
            seq,
            now: wish.now,
            strict: wish.strict,
            best_effort: wish.best_effort,
            pass_barriers: wish.pass_barriers,
            unobtainable: wish.unobtainable.clone(),
        };
        self.ask(principal, command)
    }

    /// A rollback of a scope to the newest point, `skipped` such points aside, from which it differs.
    pub(super) fn roll_back(
        &mut self,
        principal: &str,
        scope: &str,
        skipped: usize,
        wish: &Wish<'_>,
    ) -> anyhow::Result<Decision> {
        let scope: Scope = scope.parse()?;
        let points: Vec<Seq> =
            self.state().earlier(&scope, 0).map(|earlier| earlier.point).skip(skipped).collect();
        let mut refused = Vec::new();
        for seq in points.into_iter().take(POINTS_TRIED_MAX) {
            match self.rollback_to(principal, &scope, (seq, format!("seq:{seq}")), wish) {
                Ok(Some(decision)) => {
                    self.settle_all()?;
                    return Ok(decision);
                }
                Ok(None) => {}
                Err(error) => refused.push(error.to_string()),
            }
        }
        bail!("{scope} can be rolled back to none of the points tried; refused: {refused:?}")
    }

    /// A rollback of one app to a point as people write it.
    pub(super) fn roll_back_app(
        &mut self,
        principal: &str,
        app_env: &AppEnv,
        point: &Point,
        wish: &Wish<'_>,
    ) -> anyhow::Result<Decision> {
        let scope = Scope::app_env(app_env);
        let seq = self.state().resolve_point(&scope, point).map_err(|error| anyhow!("{error}"))?;
        let decision = self.rollback_to(principal, &scope, (seq, point.to_string()), wish)?;
        self.world.settle(app_env)?;
        decision.with_context(|| format!("{app_env} was at {point} already"))
    }

    /// Undoes decisions.
    pub(super) fn undo(&mut self, principal: &str, decisions: &[Decision]) -> anyhow::Result<Decision> {
        let what: Vec<_> = decisions.iter().map(|decision| format!("seq:{}", decision.first)).collect();
        let command = Command::Undo {
            decisions: decisions.to_vec(),
            what: what.join(" "),
            now: false,
            pass_barriers: false,
        };
        let decision = self.must(principal, command)?;
        self.settle_all()?;
        Ok(decision)
    }

    /// Sets variables of an app's config.
    pub(super) fn configure(
        &mut self,
        principal: &str,
        app_env: &AppEnv,
        variables: &[(&str, Option<Value>)],
    ) -> anyhow::Result<Decision> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let decision = self.must(principal, Command::SetConfig { app_env: app_env.clone(), variables })?;
        self.world.settle(app_env)?;
        Ok(decision)
    }

    /// A public key, as hex, for which nobody has the other half.
    pub(super) fn key(&mut self) -> PublicKey {
        PublicKey(self.world.chance.hex(32))
    }

    /// A request of the controllers' own, in somebody else's name.
    pub(super) fn system_for(&mut self, principal: &str, command: Command) -> anyhow::Result<()> {
        let request =
            Request { principal: principal.parse()?, links: Links::default(), ..system_request(command) };
        self.world.scribe.ask(&request, BTreeMap::new()).map_err(|error| anyhow!("{error}"))?;
        Ok(())
    }
}
