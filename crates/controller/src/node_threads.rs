//! The threads for what comes from nodes and goes to them.

use anyhow::Context as _;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::limits::NODES_NICENESS;

/// Threads of their own, so that no request waits behind ten thousand nodes that all have something to say.
/// They end with this.
pub(crate) struct NodeThreads {
    /// Absent only while it ends.
    runtime: Option<Runtime>,
    /// Where its tasks are spawned.
    pub(crate) handle: Handle,
}

impl NodeThreads {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(processors.div_ceil(2)).thread_name("nodes");
        builder.enable_all().on_thread_start(give_way);
        let runtime = builder.build().context("cannot start the threads for nodes")?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }
}

impl Drop for NodeThreads {
    fn drop(&mut self) {
        // Its tasks have ended by then, and nothing may wait here.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn give_way() {
    // Of this thread alone, on Linux. Where the system does not allow it, all are equal.
    let _ = rustix::process::setpriority_process(None, NODES_NICENESS);
}
