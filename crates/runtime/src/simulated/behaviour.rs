//! What a simulated container does: its image's name says so.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behaviour {
    Runs,
    Missing,
    Crashes,
    Exits,
    Sick,
}

impl Behaviour {
    pub(super) fn of(repository: &str) -> Self {
        if repository.starts_with("gone.example/") {
            return Self::Missing;
        }
        let name = repository.rsplit('/').next().unwrap_or_default();
        let known = [
            ("missing", Self::Missing),
            ("crash", Self::Crashes),
            ("exit", Self::Exits),
            ("sick", Self::Sick),
        ];
        known
            .into_iter()
            .find(|(prefix, _)| name.starts_with(prefix))
            .map_or(Self::Runs, |(_, behaviour)| behaviour)
    }
}
