//! One controller or agent of a cluster: where it lives, and its process while it runs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::process::Process;

/// A controller.
#[derive(Debug)]
pub(crate) struct Controller {
    pub(crate) api: SocketAddr,
    pub(crate) config: PathBuf,
    pub(crate) process: Option<Process>,
}

impl Controller {
    pub(crate) fn folder(&self) -> &Path {
        self.config.parent().unwrap_or(Path::new("."))
    }

    /// Starts it; `wrapper` is a program and its arguments that starts the rest of its line.
    pub(crate) fn start(&mut self, stele: &Path, wrapper: &[String]) -> anyhow::Result<()> {
        let own = [
            stele.display().to_string(),
            "controller".to_owned(),
            "run".to_owned(),
            "--config".to_owned(),
            self.config.display().to_string(),
        ];
        let line: Vec<String> = wrapper.iter().cloned().chain(own).collect();
        let (program, arguments) = line.split_first().context("there is always the program itself")?;
        // One that still runs ends first: it has the store's lock, and the port.
        self.process = None;
        self.process = Some(Process::start(Path::new(program), arguments, &self.folder().join("log.txt"))?);
        Ok(())
    }

    pub(crate) fn process(&mut self) -> anyhow::Result<&mut Process> {
        self.process.as_mut().context("this controller does not run")
    }
}

/// An agent.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) data: PathBuf,
    pub(crate) process: Option<Process>,
}

impl Agent {
    pub(crate) fn start(&mut self, agent: &Path) -> anyhow::Result<()> {
        let arguments = ["run".to_owned(), "--data".to_owned(), self.data.display().to_string()];
        self.process = None;
        self.process = Some(Process::start(agent, &arguments, &self.data.with_extension("log"))?);
        Ok(())
    }
}
