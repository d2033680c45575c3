//! What is looked at again though nothing of it changed.

use std::collections::BTreeSet;
use std::ops::Bound;

use stele_model::{AppEnv, Command, Seq, State, Time};

use crate::limits::WITHOUT_ROOM_PER_LOOK_MAX;

/// Apps to look at again and again: those on their way, whose deadlines pass, and those that found no room, which others
/// may leave at any time.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    without_room: BTreeSet<AppEnv>,
    /// The one of them that was due last: the next are others' turn.
    last: Option<AppEnv>,
    /// The last record by then. Without another, there is no more room than there was.
    seen: Seq,
}

impl Watch {
    /// The next command for one app in one environment, if there is anything to do.
    pub fn plan_app(&mut self, state: &State, app_env: &AppEnv, now: Time) -> Option<Command> {
        let (command, has_room) = crate::look(state, app_env, now);
        if has_room {
            self.without_room.remove(app_env);
        } else {
            self.without_room.insert(app_env.clone());
        }
        command
    }

    /// The apps to look at now: all that are on their way, and some that had no room.
    pub fn due(&mut self, state: &State) -> Vec<AppEnv> {
        let mut due: Vec<_> = on_their_way(state).cloned().collect();
        if std::mem::replace(&mut self.seen, state.seq) == state.seq {
            return due;
        }
        let after = self.last.take().map_or(Bound::Unbounded, Bound::Excluded);
        let later = self.without_room.range((after.clone(), Bound::Unbounded));
        let earlier = self.without_room.iter().take_while(|app_env| match &after {
            Bound::Excluded(last) => *app_env <= last,
            _ => false,
        });
        let turn: Vec<_> = later.chain(earlier).take(WITHOUT_ROOM_PER_LOOK_MAX).cloned().collect();
        self.last = turn.last().cloned();
        due.extend(turn);
        due
    }
}

/// The apps whose next step may be due by the passing of time alone.
pub fn on_their_way(state: &State) -> impl Iterator<Item = &AppEnv> {
    state
        .history
        .latest
        .iter()
        .filter(|(_, seq)| state.history.deployments.get(*seq).is_some_and(|it| it.finished.is_none()))
        .map(|(app_env, _)| app_env)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn those_without_room_take_turns() {
        let many = 2 * WITHOUT_ROOM_PER_LOOK_MAX + 1;
        let apps: BTreeSet<AppEnv> =
            (0..many).map(|at| format!("shop/app-{at}@prod").parse().unwrap()).collect();
        let mut watch = Watch { without_room: apps.clone(), ..Watch::default() };
        let mut state = State::default();
        let mut due = |watch: &mut Watch| {
            state.seq += 1;
            let due = watch.due(&state);
            assert!(watch.due(&state).is_empty(), "there is no more room than there was");
            due
        };
        let mut seen = BTreeSet::new();
        for _ in 0..3 {
            let turn = due(&mut watch);
            assert_eq!(turn.len(), WITHOUT_ROOM_PER_LOOK_MAX);
            seen.extend(turn);
        }
        assert_eq!(seen, apps);
        watch.without_room = apps.into_iter().take(1).collect();
        assert_eq!((due(&mut watch).len(), due(&mut watch).len()), (1, 1));
    }
}
