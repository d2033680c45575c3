//! What several instances printed, in the order of its times.

use stele_api::wire::{InstanceStatus, LogLine};

use super::{Logs, Missing, lines, names};
use crate::client::Client;
use crate::exit::Failure;
use crate::limits::MERGED_LINES_BYTES_MAX;
use crate::session::Session;

impl Logs {
    /// What there is of every instance: one that says nothing does not hide the others.
    pub(super) fn print_merged(
        &self,
        session: &Session,
        client: &Client,
        instances: &[InstanceStatus],
    ) -> Result<(), Failure> {
        let mut missing = Missing::default();
        let mut logs: Vec<Vec<LogLine>> = instances.iter().map(|_| Vec::new()).collect();
        let mut bytes = 0;
        // Nodes that were not heard of lately are asked last: waiting for them holds nothing up.
        let (near, far): (Vec<_>, Vec<_>) =
            instances.iter().zip(&mut logs).partition(|(instance, _)| instance.reachable);
        for (instance, log) in near.into_iter().chain(far) {
            if missing.silent.contains(&instance.node) {
                missing.tell(instance, "its node did not answer before");
                continue;
            }
            let heard = lines(client, &instance.id, &self.path(&instance.id)).and_then(|lines| {
                for line in lines {
                    let line = line?;
                    bytes += size_of::<LogLine>() + line.line.len();
                    if bytes > MERGED_LINES_BYTES_MAX {
                        return Err(self.too_much_to_merge(instances.len()));
                    }
                    log.push(line);
                }
                Ok(())
            });
            if let Err(failure) = heard {
                missing.note(instance, failure)?;
            }
        }
        let names = names(instances);
        for (of, line) in by_time(logs) {
            self.print(session.terminal, &instances[of].id, Some(&names[of]), &line)?;
        }
        missing.verdict(&self.of, instances.len())
    }

    fn too_much_to_merge(&self, instances: usize) -> Failure {
        Failure::Usage(format!(
            "the lines of {instances} instances are more than {} MiB, which is the most that is put in order\n  next: \
             stele logs {} --tail 100, or --since a later time, or one --service",
            MERGED_LINES_BYTES_MAX / 1024 / 1024,
            self.of
        ))
    }
}

/// All lines in the order of their times, each with the index of its log; of the same time, in the order of the logs.
///
/// No log's own order is changed: a line without a time stays with the line before it, and so does one with an
/// earlier time than that, as engines read an instance's two streams by themselves.
fn by_time(logs: Vec<Vec<LogLine>>) -> Vec<(usize, LogLine)> {
    let mut all: Vec<_> = logs
        .into_iter()
        .enumerate()
        .flat_map(|(of, log)| {
            let mut latest = None;
            log.into_iter().map(move |line| {
                latest = latest.max(line.time);
                (latest, of, line)
            })
        })
        .collect();
    all.sort_by_key(|(time, of, _)| (*time, *of));
    all.into_iter().map(|(_, of, line)| (of, line)).collect()
}

#[cfg(test)]
mod tests {
    use stele_model::Time;

    use super::*;

    fn merged(logs: &[&[(Option<u64>, &str)]]) -> String {
        let line = |(time, line): &(Option<u64>, &str)| LogLine {
            time: time.map(Time),
            stream: None,
            line: (*line).to_owned(),
        };
        let logs = logs.iter().map(|log| log.iter().map(line).collect()).collect();
        by_time(logs).into_iter().flat_map(|(of, line)| [of.to_string(), line.line, " ".to_owned()]).collect()
    }

    #[test]
    fn lines_of_several_instances_are_in_the_order_of_their_times() {
        let first: &[_] = &[(Some(1), "a"), (Some(4), "b"), (Some(4), "c")];
        let second: &[_] = &[(Some(2), "a"), (Some(3), "b"), (Some(4), "c"), (Some(9), "d")];
        assert_eq!(merged(&[first, second]), "0a 1a 1b 0b 0c 1c 1d ");
        assert_eq!(merged(&[second, first]), "1a 0a 0b 0c 1b 1c 0d ");
    }

    #[test]
    fn no_instances_own_order_is_changed() {
        let torn: &[_] = &[(Some(5), "a"), (Some(3), "b"), (None, "c"), (Some(6), "d")];
        let other: &[_] = &[(Some(4), "x"), (Some(5), "y")];
        assert_eq!(merged(&[torn, other]), "1x 0a 0b 0c 1y 0d ");
        let earlier_version: &[_] = &[(None, "a"), (None, "b")];
        assert_eq!(merged(&[other, earlier_version]), "1a 1b 0x 0y ");
    }
}
