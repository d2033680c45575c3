//! A `nats-server` of one's own, for `stele dev`, demos and tests.
//!
//! It must never be how a production fleet runs NATS: it is one process on loopback.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::TcpStream;

use crate::connection::Auth;
use crate::error::Error;
use crate::limits::{
    NATS_PAYLOAD_BYTES_MAX, SERVER_GREETING_BYTES_MAX, SERVER_LOG_QUOTE_BYTES, SERVER_START_POLL,
    SERVER_START_TIMEOUT,
};

/// How to run a server.
#[derive(Clone, Debug)]
pub struct NatsServerConfig {
    /// The program: a path, or a name looked up in `PATH`.
    pub program: PathBuf,
    /// Loopback port; any free one when absent.
    pub port: Option<u16>,
    /// Where its configuration, log and JetStream data are kept.
    pub dir: PathBuf,
    /// Largest message, in bytes.
    pub max_payload: usize,
    /// What clients must show; nothing when absent.
    pub token: Option<String>,
    /// More lines of the server's own configuration language, such as users or TLS.
    pub more: String,
}

impl NatsServerConfig {
    /// A server that keeps everything under `dir` and carries Stele's messages.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            program: PathBuf::from("nats-server"),
            port: None,
            dir: dir.into(),
            max_payload: NATS_PAYLOAD_BYTES_MAX,
            token: None,
            more: String::new(),
        }
    }
}

/// Where the server writes its process id.
const PID_FILE: &str = "nats-server.pid";

/// A running server; it ends with this value.
#[derive(Debug)]
pub struct NatsServer {
    child: Child,
    port: u16,
    config: NatsServerConfig,
}

impl NatsServer {
    /// Starts a server and waits until it accepts connections.
    pub async fn spawn(config: NatsServerConfig) -> Result<Self, Error> {
        let jetstream = config.dir.join("jetstream");
        fs::create_dir_all(&jetstream).map_err(file("create", &jetstream))?;
        let port = match config.port {
            Some(port) => port,
            None => free_port()?,
        };
        let random = getrandom::u64().map_err(|error| Error::Server { why: error.to_string() })?;
        let name = format!("stele-{random:016x}");
        let settings = config.dir.join("nats-server.conf");
        end_leftover(&config.dir, &settings).await;
        let log = config.dir.join("nats-server.log");
        write_private(&settings, &settings_text(&name, port, &jetstream, &log, &config))?;
        // A log of an earlier run must not explain this one.
        fs::write(&log, "").map_err(file("clear", &log))?;
        let child = Command::new(&config.program)
            .arg("--config")
            .arg(&settings)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| Error::Server {
                why: format!("{}: {error}; is it installed?", config.program.display()),
            })?;
        let mut server = Self { child, port, config };
        server.ready(&name, &log).await?;
        Ok(server)
    }

    /// Its port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address, such as `nats://127.0.0.1:4222`.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// What clients must show.
    pub fn auth(&self) -> Auth {
        self.config.token.clone().map_or(Auth::None, Auth::Token)
    }

    /// Id of its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Ends it at once, as a crash would, and returns how to start it again on the same port.
    pub fn stop(mut self) -> NatsServerConfig {
        self.end();
        NatsServerConfig { port: Some(self.port), ..self.config.clone() }
    }

    fn end(&mut self) {
        // Failing means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    async fn ready(&mut self, name: &str, log: &Path) -> Result<(), Error> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let mut tick = tokio::time::interval(SERVER_START_POLL);
        let deadline = tokio::time::Instant::now() + SERVER_START_TIMEOUT;
        loop {
            tick.tick().await;
            match self.child.try_wait() {
                Ok(None) => {}
                Ok(Some(status)) => {
                    return Err(Error::Server { why: format!("it ended with {status}\n{}", tail(log)) });
                }
                Err(error) => return Err(Error::Server { why: error.to_string() }),
            }
            // Any process could listen there, another NATS server too: this one says its name.
            if let Ok(greeting) = tokio::time::timeout_at(deadline, greeting(address)).await
                && greeting.is_ok_and(|line| line.starts_with("INFO ") && line.contains(name))
            {
                return Ok(());
            }
            if tokio::time::Instant::now() >= deadline {
                let why = format!("not ready after {} s\n{}", SERVER_START_TIMEOUT.as_secs(), tail(log));
                return Err(Error::Server { why });
            }
        }
    }
}

/// Ends a server of the same folder that outlived whoever started it: killed without a word, that
/// could not end it. Its port would be taken.
async fn end_leftover(dir: &Path, settings: &Path) {
    let Ok(text) = fs::read_to_string(dir.join(PID_FILE)) else { return };
    let Ok(pid) = text.trim().parse::<i32>() else { return };
    // Ids are used again: only a process that was started with these very settings is ended.
    let is_ours = || {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let settings = settings.as_os_str().as_encoded_bytes();
        command.split(|byte| *byte == 0).any(|argument| argument == settings)
    };
    if pid > 1 && is_ours() {
        let killed =
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        let deadline = std::time::Instant::now() + SERVER_START_TIMEOUT;
        while killed.is_ok() && is_ours() && std::time::Instant::now() < deadline {
            tokio::time::sleep(SERVER_START_POLL).await;
        }
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.end();
    }
}

async fn greeting(address: SocketAddr) -> std::io::Result<String> {
    let stream = TcpStream::connect(address).await?;
    let mut line = String::new();
    BufReader::new(stream.take(SERVER_GREETING_BYTES_MAX)).read_line(&mut line).await?;
    Ok(line)
}

fn settings_text(name: &str, port: u16, jetstream: &Path, log: &Path, config: &NatsServerConfig) -> String {
    let mut text = format!(
        "server_name: \"{name}\"\n\
         listen: \"127.0.0.1:{port}\"\n\
         max_payload: {}\n\
         log_file: {}\n\
         pid_file: {}\n\
         jetstream {{\n  store_dir: {}\n}}\n",
        config.max_payload,
        quoted(&log.to_string_lossy()),
        quoted(&config.dir.join(PID_FILE).to_string_lossy()),
        quoted(&jetstream.to_string_lossy()),
    );
    if let Some(token) = &config.token {
        text.push_str("authorization {\n  token: ");
        text.push_str(&quoted(token));
        text.push_str("\n}\n");
    }
    text.push_str(&config.more);
    text
}

/// A string of the server's configuration language.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// Free a moment ago: good enough on loopback, and a clash is a clear error of the server.
fn free_port() -> Result<u16, Error> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| Error::Server { why: format!("no free port: {error}") })
}

fn write_private(path: &Path, text: &str) -> Result<(), Error> {
    // It holds the token.
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path).and_then(|mut out| out.write_all(text.as_bytes())).map_err(file("write", path))
}

fn file(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.display().to_string();
    move |source| Error::File { doing, path, source }
}

fn tail(path: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut log = fs::File::open(path)?;
        let from = log.metadata()?.len().saturating_sub(SERVER_LOG_QUOTE_BYTES as u64);
        log.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        log.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    };
    read().unwrap_or_else(|error| format!("(its log cannot be read: {error})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_quote_what_they_are_given() {
        let mut config = NatsServerConfig::new("/data");
        config.token = Some("a\"b\\c".to_owned());
        let text =
            settings_text("mine", 4222, Path::new("/data/jet stream"), Path::new("/data/log"), &config);
        assert!(text.contains("listen: \"127.0.0.1:4222\""), "{text}");
        assert!(text.contains("store_dir: \"/data/jet stream\""), "{text}");
        assert!(text.contains("token: \"a\\\"b\\\\c\""), "{text}");
        assert!(text.contains("max_payload: 8388608"), "{text}");
    }
}
