//! Answering controllers that ask for a container's last lines.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::StreamExt as _;
use stele_bus::limits::{LOGS_LINES_MAX, LOGS_REQUEST_AGE_US_MAX};
use stele_bus::logs::{LogsAnswer, LogsRequest};
use stele_bus::purposes;
use stele_model::ids::Time;
use stele_model::wire::Signed;
use stele_reconcile::Pinned;
use stele_runtime::{LogRequest, Runtime};

use crate::limits::{LOGS_ANSWER_BYTES_MAX, LOGS_READ_TIMEOUT};

/// Believes a request, or says why not.
pub(crate) fn open_request(
    signed: &Signed,
    pinned: &Pinned,
    now: Option<Time>,
) -> Result<LogsRequest, String> {
    let claimed: LogsRequest = signed.peek().map_err(|error| error.to_string())?;
    let controller = claimed.controller;
    controller.check(&pinned.root, &pinned.fleet, now).map_err(|error| error.to_string())?;
    let request: LogsRequest =
        signed.open(&controller.body.key, purposes::LOGS_REQUEST).map_err(|error| error.to_string())?;
    if request.fleet != pinned.fleet || request.node != pinned.node {
        return Err(format!("it is for node {} of fleet {}", request.node, request.fleet));
    }
    if let Some(now) = now
        && now.0.abs_diff(request.asked.0) > LOGS_REQUEST_AGE_US_MAX
    {
        return Err("it was made too long ago, or one of the two clocks is wrong".to_owned());
    }
    Ok(request)
}

/// The last lines of a container, as many as were asked for and fit.
pub(crate) async fn read(
    runtime: Arc<dyn Runtime>,
    request: &LogsRequest,
    container: Option<String>,
) -> LogsAnswer {
    let outcome = match container {
        None => Err("the instance has no container on this node".to_owned()),
        Some(container) => {
            let lines = last_lines(runtime, &container, request.lines.min(LOGS_LINES_MAX));
            tokio::time::timeout(LOGS_READ_TIMEOUT, lines)
                .await
                .unwrap_or_else(|_| Err("the container engine did not answer in time".to_owned()))
        }
    };
    let (lines, error) = match outcome {
        Ok(lines) => (lines, None),
        Err(why) => (Vec::new(), Some(why)),
    };
    LogsAnswer { node: request.node.clone(), instance: request.instance.clone(), lines, error }
}

async fn last_lines(runtime: Arc<dyn Runtime>, container: &str, count: u32) -> Result<Vec<String>, String> {
    let tail = Some(usize::try_from(count).unwrap_or(usize::MAX));
    let mut stream = runtime.logs(container, LogRequest { tail, follow: false });
    let mut lines = VecDeque::new();
    let mut bytes = 0;
    while let Some(line) = stream.next().await {
        let text = line.map_err(|error| error.to_string())?.text;
        bytes += wire_size(&text);
        lines.push_back(text);
        while bytes > LOGS_ANSWER_BYTES_MAX {
            bytes -= lines.pop_front().map_or(bytes, |dropped| wire_size(&dropped));
        }
    }
    Ok(lines.into())
}

/// Bytes of a line inside a signed message: escaped once as JSON, and once more as part of the
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
    escaped + 8
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_size_on_the_wire_is_never_underestimated() {
        for line in ["", "plain", "a \"quoted\" \\ line", "\u{1}\u{1f}\t\n", "äöü😀"] {
            let once = serde_json::to_string(&[line]).unwrap();
            let twice = serde_json::to_string(&once).unwrap();
            assert!(wire_size(line) + 4 >= twice.len() - 4, "{line:?}: {} for {twice}", wire_size(line));
        }
    }
}
