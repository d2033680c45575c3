//! Waiting until a drained node is empty.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use stele_api::wire::{NodeStatus, StayingStatus};
use stele_model::NodeName;

use crate::client::Client;
use crate::exit::Failure;
use crate::limits::WAIT_PAUSE;
use crate::session::count;
use crate::terminal::{Terminal, one_line};

/// What is still there, by what it waits for.
pub(super) fn reasons(staying: &[StayingStatus]) -> Vec<String> {
    let mut by_reason: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for it in staying {
        by_reason.entry(&it.why).or_default().push(it.instance.to_string());
    }
    let line = |(why, instances): (&str, Vec<String>)| match instances.as_slice() {
        [only] => format!("- {only}: {}", one_line(why)),
        [first, others @ ..] => format!("- {first} and {}: {}", count(others.len(), "other"), one_line(why)),
        [] => String::new(),
    };
    by_reason.into_iter().map(line).collect()
}

/// Waits until nothing is on a drained node, live on a terminal and line by line elsewhere.
pub(super) fn until_empty(client: &Client, node: &NodeName, patience: Duration) -> Result<(), Failure> {
    let deadline = Instant::now() + patience;
    let bar = Terminal::is_watched().then(|| {
        let style = ProgressStyle::with_template("{spinner} {msg} [{bar:24}] {pos}/{len} gone, {elapsed}");
        ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    });
    let (mut most, mut last) = (0, Vec::new());
    loop {
        let status: NodeStatus = client.get(&format!("/v1/nodes/{node}"))?;
        if status.drained.is_none() {
            return Err(Failure::Failed(format!("node {node} was resumed meanwhile")));
        }
        let left = status.staying.len();
        most = most.max(left);
        let told = reasons(&status.staying);
        if let Some(bar) = &bar {
            bar.set_length(most as u64);
            bar.set_position((most - left) as u64);
            bar.set_message(node.to_string());
            bar.tick();
        }
        if told != last {
            let lines = told.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
            match &bar {
                Some(bar) => bar.println(&lines),
                None if left > 0 => eprintln!("{} left on {node}\n{lines}", count(left, "instance")),
                None => {}
            }
            last = told;
        }
        if left == 0 {
            if let Some(bar) = &bar {
                bar.finish_and_clear();
            }
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Failure::Undecided(format!(
                "{} still on {node}:\n{}\n  next: stele node show {node}",
                count(left, "instance"),
                last.join("\n")
            )));
        }
        std::thread::sleep(WAIT_PAUSE);
    }
}
