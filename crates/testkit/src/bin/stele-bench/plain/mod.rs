//! Beside `commit`: a program that does as little as still answers once two of three processes have synced.
//!
//! It agrees on nothing, decides nothing, knows nobody, and there is no way back: a control plane has all of that
//! to do as well.

mod follower;
mod leader;
mod log;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use stele_testkit::{Process, eventually, ports};

/// Longest the three may take to listen.
const READY_DEADLINE: Duration = Duration::from_secs(30);
/// Members, as many as Stele's and etcd's.
const MEMBERS: usize = 3;
/// Bytes of the length before each record that goes to a follower.
const LENGTH_BYTES: usize = 4;

/// One of the three.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where clients are answered, or the leader heard
    #[arg(long)]
    listen: SocketAddr,
    /// Where it writes
    #[arg(long)]
    data: PathBuf,
    /// A follower's address; who has them leads
    #[arg(long)]
    follower: Vec<SocketAddr>,
    /// Commands that a request carries
    #[arg(long)]
    commands: u64,
    /// What is done with them
    #[arg(long, value_enum)]
    keeps: Keeps,
}

/// What the three keep of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Keeps {
    /// Its bytes, appended to a file
    Bytes,
    /// Each of its commands, read as JSON, hashed by each member, and put into RocksDB by its position
    Records,
}

/// Runs a member until its parent ends it.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let log = log::Log::create(&args.data, args.keeps)?;
    if args.follower.is_empty() { follower::run(args.listen, log) } else { leader::run(args, log) }
}

/// The running three.
pub(crate) struct Plain {
    leader: SocketAddr,
    // In this order: the processes end before their folder goes.
    _members: Vec<Process>,
    _dir: tempfile::TempDir,
}

impl Plain {
    pub(crate) fn start(commands: u64, keeps: Keeps) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("stele-bench-plain-").tempdir()?;
        let program = std::env::current_exe().context("this program's path is unknown")?;
        let word = match keeps {
            Keeps::Bytes => "bytes",
            Keeps::Records => "records",
        };
        let (mut members, mut places) = (Vec::new(), Vec::new());
        for at in 0..MEMBERS {
            let listen = ports::free()?;
            let data = dir.path().join(at.to_string());
            let mut arguments = vec![
                "plain-member".to_owned(),
                format!("--listen={listen}"),
                format!("--data={}", data.display()),
                format!("--commands={commands}"),
                format!("--keeps={word}"),
            ];
            // The last one leads, when the others listen.
            if at + 1 == MEMBERS {
                arguments.extend(places.iter().map(|follower| format!("--follower={follower}")));
            }
            let mut member = Process::start(&program, &arguments, &dir.path().join(format!("{at}.log")))?;
            eventually(READY_DEADLINE, "a plain member listens", || {
                let listens = member.log().contains(LISTENS);
                (listens || member.ended().is_some()).then_some(())
            })?;
            anyhow::ensure!(member.ended().is_none(), "a plain member ended: {}", member.log());
            members.push(member);
            places.push(listen);
        }
        let leader = *places.last().context("there are members")?;
        Ok(Self { leader, _members: members, _dir: dir })
    }

    /// Where its leader answers any HTTP request with a body.
    pub(crate) fn leader(&self) -> SocketAddr {
        self.leader
    }
}

/// What a member prints when it can be reached.
const LISTENS: &str = "listens";
