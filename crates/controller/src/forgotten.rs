//! Points that State no longer remembers, found in States of the past that still do.
//!
//! State keeps the newest changes of an app and its newest deployments; the log keeps them all.

use stele_model::{AppEnv, Point, Scope, Seq, State};

use crate::handle::{Handle, ReadError};
use crate::limits::FORGOTTEN_STATES_MAX;

impl Handle {
    /// The seq of a point that `state` does not know of, if an earlier State does.
    pub(crate) async fn resolve_forgotten(
        &self,
        state: &State,
        scope: &Scope,
        point: &Point,
    ) -> Result<Option<Seq>, ReadError> {
        match (point, scope.as_app_env()) {
            (Point::Release(_) | Point::Previous(_), Some(app_env)) => {
                self.earlier_in_force(state, &app_env, scope, point).await
            }
            (Point::Deployment(id), _) => self.earlier_deployment(state, *id).await,
            (Point::LastGood, _) => {
                let is_found = |state: &State, since| state.last_good(scope, since).is_some();
                let (state, since) = self.remembering(state, scope, is_found).await?;
                Ok(state.last_good(scope, since))
            }
            _ => Ok(None),
        }
    }

    /// A State that remembers changes and deployments in a scope which `state` forgot: those of States of the past are
    /// added, of ever earlier ones, until there are enough. That is told the seq from which on all are known, which is
    /// answered, too. What comes of it is for looking up alone: it has no digest, and nothing is decided on it.
    pub(crate) async fn remembering(
        &self,
        state: &State,
        scope: &Scope,
        is_enough: impl Fn(&State, Seq) -> bool,
    ) -> Result<(State, Seq), ReadError> {
        let mut all = state.clone();
        let mut since = state.remembers_since(scope);
        for _ in 0..FORGOTTEN_STATES_MAX {
            if since == 0 || is_enough(&all, since) {
                break;
            }
            // What ended because this one began is a part of the same decision.
            let begins = self.in_past(move |past| past.header(since)).await?.decision.last();
            let earlier = self.state_at(begins).await?;
            let ended = earlier.history.deployments.iter().filter(|(_, it)| it.finished.is_some());
            for (id, deployment) in ended.filter(|(_, it)| scope.covers_app_env(&it.app_env)) {
                if !all.history.deployments.contains_key(id) {
                    all.history.deployments.insert(*id, deployment.clone());
                    all.history.deployments_of.insert((deployment.app_env.clone(), *id), ());
                }
            }
            for (at, change) in
                earlier.history.changes.iter().filter(|((app_env, _), _)| scope.covers_app_env(app_env))
            {
                if !all.history.changes.contains_key(at) {
                    all.history.changes.insert(at.clone(), change.clone());
                }
            }
            // An earlier State forgot earlier ones, so that this ends.
            since = earlier.remembers_since(scope).min(since - 1);
        }
        Ok((all, since))
    }

    /// Goes back from one State's oldest change to the State before it, which remembers as many again.
    async fn earlier_in_force(
        &self,
        state: &State,
        app_env: &AppEnv,
        scope: &Scope,
        point: &Point,
    ) -> Result<Option<Seq>, ReadError> {
        let (mut state, mut point) = (state.clone(), point.clone());
        for _ in 0..FORGOTTEN_STATES_MAX {
            let known = state.timeline(app_env);
            let Some(oldest) = known.last().filter(|_| state.has_forgotten_changes(app_env)) else { break };
            let before = state.first_of_change(app_env, oldest.from).unwrap_or(oldest.from) - 1;
            if let Point::Previous(steps) = &mut point {
                *steps -= known.len().min(*steps as usize) as u32;
            }
            state = self.state_at(before).await?;
            if let Ok(seq) = state.resolve_point(scope, &point) {
                return Ok(Some(seq));
            }
        }
        Ok(None)
    }

    /// Halves the log until a State is found in which the deployment is finished and not forgotten:
    /// first it runs, then it is remembered, then it never is again.
    async fn earlier_deployment(&self, state: &State, id: Seq) -> Result<Option<Seq>, ReadError> {
        if id == 0 || id > state.seq {
            return Ok(None);
        }
        let begins = self.in_past(move |past| past.header(id)).await?.decision.last();
        let (mut running, mut forgotten) = (begins, state.seq);
        if !self.state_at(begins).await?.history.deployments.contains_key(&id) {
            return Ok(None);
        }
        while running + 1 < forgotten {
            let middle = running.midpoint(forgotten);
            let whole = self.in_past(move |past| past.whole(middle)).await?.max(begins);
            match self.state_at(whole).await?.history.deployments.get(&id) {
                Some(deployment) => match &deployment.finished {
                    Some((_, seq, _)) => return Ok(Some(*seq)),
                    None => running = middle,
                },
                None => forgotten = middle,
            }
        }
        Ok(None)
    }
}
