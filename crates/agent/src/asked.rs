//! Answering controllers that ask something.

use std::collections::{BTreeSet, VecDeque};

use futures::StreamExt as _;
use stele_bus::ask::{Outcome, Question, Request, Stamp};
use stele_bus::limits::{ASKED_IMAGES_MAX, ASKED_PORTS_MAX, LOGS_LINES_MAX, QUESTION_AGE_US_MAX};
use stele_bus::purposes;
use stele_model::ids::{InstanceId, Time};
use stele_model::release::Image;
use stele_model::wire::Signed;
use stele_reconcile::Trust;
use stele_runtime::{LogLine, LogRequest, Runtime};

use crate::limits::{ANSWER_TIMEOUT, LOGS_ANSWER_BYTES_MAX, STAMP_BYTES_MAX};

/// Believes a question, or says why not.
pub(crate) fn open(signed: &Signed, trust: &Trust, now: Option<Time>) -> Result<Request, String> {
    let request: Request = signed.peek().map_err(|error| error.to_string())?;
    let controller = &request.controller;
    trust.check(controller, now).map_err(|error| error.to_string())?;
    signed.verify(&controller.body.key, purposes::QUESTION).map_err(|error| error.to_string())?;
    let pinned = trust.pinned();
    if request.fleet != pinned.fleet || request.node != pinned.node {
        return Err(format!("it is for node {} of fleet {}", request.node, request.fleet));
    }
    if let Some(now) = now
        && now.0.abs_diff(request.asked.0) > QUESTION_AGE_US_MAX
    {
        return Err("it was made too long ago, or one of the two clocks is wrong".to_owned());
    }
    Ok(request)
}

/// Finds out what was asked. `container` names the container of an instance on this node.
pub(crate) async fn answer(
    runtime: &dyn Runtime,
    question: &Question,
    container: impl Fn(&InstanceId) -> Option<String>,
) -> Outcome {
    let found = async {
        match question {
            Question::Logs { instance, lines, since_ms } => {
                let container = container(instance)
                    .ok_or_else(|| "the instance has no container on this node".to_owned())?;
                let tail = (*lines).min(LOGS_LINES_MAX);
                last_lines(runtime, &container, tail, *since_ms).await
            }
            Question::Images { images } => Ok(Outcome::Images { here: here(runtime, images).await? }),
            Question::Ports { ports } => {
                if ports.len() > ASKED_PORTS_MAX {
                    return Err(too_many(ports.len(), "ports", ASKED_PORTS_MAX));
                }
                let taken = runtime.ports_taken(ports).await.map_err(|error| error.to_string())?;
                Ok(Outcome::Ports { taken })
            }
        }
    };
    let found = tokio::time::timeout(ANSWER_TIMEOUT, found).await;
    found
        .unwrap_or_else(|_| Err("the container engine did not answer in time".to_owned()))
        .unwrap_or_else(|why: String| Outcome::Failed { why })
}

async fn here(runtime: &dyn Runtime, images: &[Image]) -> Result<Vec<Image>, String> {
    if images.len() > ASKED_IMAGES_MAX {
        return Err(too_many(images.len(), "images", ASKED_IMAGES_MAX));
    }
    // By content, as [`Runtime::has_image`] has it, but asking the engine once.
    let present = runtime.images().await.map_err(|error| error.to_string())?;
    let present: BTreeSet<_> = present.iter().flat_map(|one| &one.names).map(|name| name.digest).collect();
    Ok(images.iter().filter(|image| present.contains(&image.digest)).cloned().collect())
}

fn too_many(count: usize, of: &str, max: usize) -> String {
    format!("{count} {of} are more than the {max} that may be asked for")
}

async fn last_lines(
    runtime: &dyn Runtime,
    container: &str,
    tail: u32,
    since_ms: Option<u64>,
) -> Result<Outcome, String> {
    let tail = Some(usize::try_from(tail).unwrap_or(usize::MAX));
    let mut stream = runtime.logs(container, LogRequest { tail, since_ms, follow: false });
    let mut lines = VecDeque::new();
    let (mut bytes, mut is_cut) = (0, false);
    while let Some(line) = stream.next().await {
        let line = line.map_err(|error| error.to_string())?;
        bytes += wire_size(&line.text);
        lines.push_back(line);
        while bytes > LOGS_ANSWER_BYTES_MAX {
            is_cut = true;
            bytes -= lines.pop_front().map_or(bytes, |dropped| wire_size(&dropped.text));
        }
    }
    let told = |LogLine { time_ms, stderr, text }| (text, Stamp { time_ms, stderr });
    let (lines, stamps) = lines.into_iter().map(told).unzip();
    Ok(Outcome::Logs { lines, stamps, is_cut })
}

/// Bytes of a line and its stamp inside a signed message: escaped once as JSON, and once more as part of the
/// text that is signed.
fn wire_size(line: &str) -> usize {
    let escaped: usize = line
        .bytes()
        .map(|byte| match byte {
            b'"' | b'\\' => 4,
            0..=31 => 7,
            _ => 1,
        })
        .sum();
    escaped + 8 + STAMP_BYTES_MAX
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_size_on_the_wire_is_never_underestimated() {
        for line in ["", "plain", "a \"quoted\" \\ line", "\u{1}\u{1f}\t\n", "äöü😀"] {
            let stamp = Stamp { time_ms: Some(253_402_300_799_999), stderr: false };
            let once = serde_json::to_string(&(&[line], &[stamp])).unwrap();
            let twice = serde_json::to_string(&once).unwrap();
            assert!(wire_size(line) + 4 >= twice.len() - 4, "{line:?}: {} for {twice}", wire_size(line));
        }
    }
}
