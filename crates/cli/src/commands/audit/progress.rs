//! How far it is, for people.

use indicatif::{ProgressBar, ProgressStyle};

use crate::terminal::Terminal;

/// A bar on standard error, where somebody watches; it goes when it is dropped.
pub(super) struct Progress(Option<ProgressBar>);

impl Progress {
    pub(super) fn new(what: &'static str, records: u64) -> Self {
        let bar = Terminal::is_watched().then(|| {
            let template = "{spinner} {msg} [{bar:32}] {pos}/{len} records, {eta} left";
            let style =
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(records).with_style(style).with_message(what)
        });
        Self(bar)
    }

    pub(super) fn add(&self, records: u64) {
        if let Some(bar) = &self.0 {
            bar.inc(records);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
