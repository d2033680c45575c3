//! Starting and stopping a controller.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use ed25519_dalek::SigningKey;
use stele_bus::{BusConfig, ControllerBus};
use stele_codec::{Chain, DecodeError, RecordBytes, Snapshot};
use stele_consensus::{Config as RaftConfig, Driver, LogStore as _};
use stele_ledger::Ledger;
use stele_model::{Command, State, fold};
use stele_peer::{PeerConfig, Peers, Tls};
use stele_store::{Identity as StoreIdentity, Store};
use tokio::sync::{OnceCell, watch};
use tokio::task::JoinSet;

use crate::app::{App, Published, send_raft};
use crate::config::{Config, read_key, read_text};
use crate::digested::Digested;
use crate::forward::Inbox;
use crate::handle::{Handle, Inner};
use crate::identity::Identity;
use crate::keepalive::Keepalive;
use crate::keyring::{Keyring, random};
use crate::limits::{CERTIFICATE_WARNING, INPUT_QUEUE_MAX, STOP_DEADLINE, TICK};
use crate::node_threads::NodeThreads;
use crate::past::Past;
use crate::reached::Reached;
use crate::registry::{Credentials, Registry};
use crate::replica::{Input, Replica};
use crate::retention::Retention;
use crate::{
    archive, backfill, feed, history, http, inbox, key_copies, memory, mirror, opening, outbox, proof,
    removed, serving, tls,
};

/// A controller that runs.
pub struct Running {
    /// Where its API listens.
    pub api: SocketAddr,
    /// What can be asked of it.
    pub handle: Handle,
    replica: std::thread::JoinHandle<anyhow::Result<()>>,
    tasks: JoinSet<anyhow::Result<()>>,
    _nodes: NodeThreads,
}

impl Running {
    /// Runs until told to stop, or until something ends that must not end: then the
    /// controller as a whole must stop, with that as the reason.
    pub async fn run_until(mut self, told: impl Future<Output = ()>) -> anyhow::Result<()> {
        let mut look = tokio::time::interval(TICK);
        let replica_ended = async {
            while !self.replica.is_finished() {
                look.tick().await;
            }
        };
        tokio::select! {
            () = told => {}
            () = replica_ended => {}
            Some(ended) = self.tasks.join_next() => {
                let error = match ended {
                    Ok(Ok(())) => {
                        // Tasks end without an error when the replica has: then it knows the reason.
                        self.stop().await?;
                        anyhow::bail!("a task of this controller ended by itself");
                    }
                    Ok(Err(error)) => error,
                    Err(error) => error.into(),
                };
                // The first failure is the reason; stopping may fail in consequence.
                drop(self.stop().await);
                return Err(error);
            }
        }
        self.stop().await
    }

    /// Stops in order.
    pub async fn stop(self) -> anyhow::Result<()> {
        let Self { replica, mut tasks, handle, .. } = self;
        tasks.shutdown().await;
        handle.peers().shutdown().await;
        // A full queue or an ended thread: joining tells which.
        drop(handle.0.inputs.send(Input::Stop));
        tokio::task::spawn_blocking(move || {
            let ended = crate::replica::join(replica, STOP_DEADLINE);
            // The next start need not derive it again; it can.
            if let Err(error) = handle.reader().flush_derived() {
                tracing::warn!(%error, "what was derived from the log last is derived again at the next start");
            }
            ended
        })
        .await?
    }
}

/// Starts a controller.
pub async fn start(config: Config) -> anyhow::Result<Running> {
    // Which provider rustls uses is the program's choice; a second start in one process finds it made.
    drop(rustls::crypto::ring::default_provider().install_default());
    let identity = identity(&config)?;
    let store = open_store(&config)?;
    let reader = store.reader();
    let (mut state, chain, snapshot_at) = recover(&store)?;
    // Hashes every leaf once; whoever clones this State hashes what changed since.
    state.digest();
    tracing::info!(controller = config.id, seq = state.seq, "State is rebuilt");
    let (inputs, queue) = std::sync::mpsc::sync_channel(INPUT_QUEUE_MAX);
    let cell = Arc::new(OnceCell::new());
    let peers = start_peers(&config, Inbox { inputs: inputs.clone(), handle: Arc::clone(&cell) }).await?;
    peers.set_members(members(&config, &state));
    let nodes = NodeThreads::start()?;
    let bus = nodes.handle.spawn(ControllerBus::connect(bus_config(&config)?)).await??;
    let (committed_tell, committed) = watch::channel(state.seq);
    let first = Published { state: state.clone(), leads: false, leader: None, term: 0, assigns_more: false };
    let (publish, published) = watch::channel(first.clone());
    let (pace, paced) = watch::channel(first);
    let registry = match &config.registries {
        None => Registry::new(Credentials::default()),
        Some(path) => Registry::new(
            Credentials::parse(&read_text(path)?)
                .with_context(|| format!("{} is not in the form of Docker's config.json", path.display()))?,
        ),
    };
    let keyring = Keyring::open(config.data.join("keys"), read_key(&config.master_key)?)?;
    let nonce = u64::from_be_bytes(random()?);
    let ledger = Ledger::new(config.fleet.as_str(), state, chain);
    // Reads wait until so much is applied, and an idle fleet's Raft would not say it again.
    let applied = store.index().applied();
    let (digested, reached) = (Digested::default(), Reached::default());
    let keepalive = {
        let (links, transport) = (peers.clone(), peers.clone());
        let others = move || links.status().into_iter().map(|peer| peer.id).collect();
        Keepalive::start(config.id, others, move |heartbeat| send_raft(&transport, &heartbeat))?
    };
    let app = App::new(
        config.id,
        ledger,
        peers.clone(),
        keepalive,
        publish,
        committed_tell,
        digested.clone(),
        reached.clone(),
        snapshot_at,
        applied,
        nonce,
    );
    let raft = RaftConfig { lets_commits_ride: true, ..RaftConfig::new(config.id) };
    let driver = Driver::new(raft, store)?;
    let replica = Replica::spawn(driver, app, queue, standing(&config))?;
    let handle = Handle(Arc::new(Inner {
        identity,
        inputs,
        published,
        paced,
        committed,
        past: Past::new(reader.clone(), memory::for_the_past(config.past_memory_mib)?),
        reached,
        proofs: proof::Proofs::new(reader.clone(), witnesses(&config)?, digested.clone()),
        public_tree: config.public_tree,
        reader,
        lost: std::sync::Mutex::default(),
        removing: tokio::sync::Mutex::default(),
        peers,
        keyring,
        making_keys: tokio::sync::Mutex::default(),
        registry,
        retention: Retention::new(&config)?,
        bus,
        statements: crate::statements::Statements::default(),
    }));
    // Set once, here, before anything could have been asked.
    drop(cell.set(handle.clone()));
    let listener = tokio::net::TcpListener::bind(config.api_listen)
        .await
        .with_context(|| format!("the API cannot listen on {}", config.api_listen))?;
    let api = listener.local_addr()?;
    let tls = if config.api_tls {
        Some(tls::acceptor(&read_text(&config.tls.certificate)?, &read_text(&config.tls.key)?)?)
    } else {
        None
    };
    let tasks = tasks(&handle, pace, config, listener, tls, &nodes.handle);
    tracing::info!(%api, "controller runs");
    Ok(Running { api, handle, replica, tasks, _nodes: nodes })
}

fn tasks(
    handle: &Handle,
    pace: watch::Sender<Published>,
    config: Config,
    listener: tokio::net::TcpListener,
    tls: Option<tokio_rustls::TlsAcceptor>,
    nodes: &tokio::runtime::Handle,
) -> JoinSet<anyhow::Result<()>> {
    let heard = outbox::Heard::default();
    let offers = outbox::Offers::default();
    let mut tasks = JoinSet::new();
    let router = http::router(handle.clone());
    tasks.spawn(async move {
        match serving::serve(listener, tls, router, serving::Bounds::of_this_process()).await {}
    });
    tasks.spawn_on(outbox::heartbeats(handle.clone(), Arc::clone(&heard), offers.clone()), nodes);
    tasks.spawn_on(outbox::sync_requests(handle.clone()), nodes);
    tasks.spawn_on(inbox::reports(handle.clone()), nodes);
    let endless = |task: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| async move {
        task.await;
        Ok(())
    };
    tasks.spawn_on(endless(Box::pin(inbox::liveness(handle.clone(), heard))), nodes);
    tasks.spawn_on(endless(Box::pin(outbox::run(handle.clone(), offers))), nodes);
    tasks.spawn_on(endless(Box::pin(removed::run(handle.clone()))), nodes);
    tasks.spawn(endless(Box::pin(crate::pace::relay(handle.watch(), pace))));
    tasks.spawn(endless(Box::pin(feed::run(handle.clone()))));
    tasks.spawn(endless(Box::pin(backfill::run(handle.clone()))));
    tasks.spawn(endless(Box::pin(history::promote(handle.clone()))));
    tasks.spawn(endless(Box::pin(history::hand_over(handle.clone()))));
    tasks.spawn(endless(Box::pin(key_copies::run(handle.clone()))));
    tasks.spawn(endless(Box::pin(crate::request_keys::run(handle.clone()))));
    tasks.spawn(crate::scrub::run(handle.clone()));
    tasks.spawn(endless(Box::pin(crate::disk_space::run(handle.clone()))));
    tasks.spawn(proof::follow(handle.clone()));
    tasks.spawn(proof::compare(handle.clone()));
    let publish = config.publish_checkpoints.clone();
    tasks.spawn(endless(Box::pin(proof::publish(handle.clone(), publish))));
    tasks.spawn(endless(Box::pin(crate::erasure::run(handle.clone()))));
    tasks.spawn(endless(Box::pin(archive::run(handle.clone()))));
    tasks.spawn(endless(Box::pin(mirror::run(handle.clone()))));
    let (to, own) = (handle.clone(), config.clone());
    tasks.spawn(async move {
        crate::new_admin::make_known(&to, &own).await;
        std::future::pending().await
    });
    tasks.spawn(endless(Box::pin(follow_members(handle.clone(), config))));
    tasks
}

fn identity(config: &Config) -> anyhow::Result<Identity> {
    let key = SigningKey::from_bytes(&read_key(&config.signing_key)?);
    config
        .certificate
        .check(&config.root, &config.fleet, Some(crate::handle::now()))
        .context("this controller's certificate is not valid (if it has ended: stele controller renew)")?;
    anyhow::ensure!(
        config.certificate.body.key == stele_model::signature::public_key(&key),
        "the certificate is for another key than {}",
        config.signing_key.display()
    );
    Ok(Identity {
        fleet: config.fleet.clone(),
        id: config.id,
        root: config.root.clone(),
        certificate: config.certificate.clone(),
        nats: config.nats.clone(),
        api_authority: if config.api_tls { Some(read_text(&config.tls.authority)?) } else { None },
        key,
    })
}

/// The log, which is made where this controller never ran.
fn open_store(config: &Config) -> anyhow::Result<Store> {
    let identity = StoreIdentity { fleet: config.fleet.to_string(), node: config.id };
    let (data, fresh, founders) = (&config.data, &config.fresh, &config.founders);
    opening::Place { data, fresh, identity, founders }.open()
}

/// State as of the last record: the newest snapshot, and what follows it.
pub(crate) fn recover(store: &Store) -> anyhow::Result<(State, Chain, u64)> {
    let newest = store.latest_snapshot()?;
    let (mut state, mut chain) = begin_with(newest.map(|snapshot| Snapshot::decode(&snapshot.data)))?;
    let snapshot_at = state.seq;
    state.keep_counts();
    let reader = store.reader();
    let last = store.index().last_seq();
    while state.seq < last {
        let next = state.seq + 1;
        let mut folded = Ok(());
        reader.each_record(next..=last, |seq, bytes| {
            folded = next_of(&mut state, &mut chain, bytes).with_context(|| format!("record {seq}"));
            folded.is_ok()
        })?;
        folded?;
        anyhow::ensure!(state.seq >= next, "record {next} is missing from this log");
    }
    Ok((state, chain, snapshot_at))
}

/// Where folding begins: a snapshot only spares a replay. One that this program does not read is passed over, because
/// the log itself is still read; one that is damaged is not.
fn begin_with(snapshot: Option<Result<Snapshot, DecodeError>>) -> anyhow::Result<(State, Chain)> {
    match snapshot {
        Some(Ok(snapshot)) => return Ok((snapshot.state, snapshot.chain)),
        Some(Err(error @ (DecodeError::Format { .. } | DecodeError::TooLarge { .. }))) => {
            tracing::warn!(%error, "the snapshot is not read: the log is folded from its beginning");
        }
        Some(Err(error)) => return Err(error.into()),
        None => {}
    }
    Ok((State::default(), Chain::GENESIS))
}

/// Links a record, as the store keeps it, to those before it, and folds it.
fn next_of(state: &mut State, chain: &mut Chain, bytes: &[u8]) -> anyhow::Result<()> {
    let (record, kept) = RecordBytes::read(bytes)?;
    *chain = chain.link(record.leaf());
    anyhow::ensure!(
        kept == *chain,
        "it does not continue the log before it: this replica is damaged; wipe it and let it rejoin under a new id"
    );
    fold(state, &record.decode()?);
    Ok(())
}

fn witnesses(config: &Config) -> anyhow::Result<Vec<stele_proof::VerifierKey>> {
    let key = |text: &String| text.parse().with_context(|| format!("{text:?} is no witness's key"));
    config.witnesses.iter().map(key).collect()
}

async fn start_peers(config: &Config, inbox: Inbox) -> anyhow::Result<Peers> {
    let tls = Tls::from_pem(
        &read_text(&config.tls.authority)?,
        &read_text(&config.tls.certificate)?,
        &read_text(&config.tls.key)?,
    )?;
    let now = Duration::from_micros(crate::handle::now().0);
    tls.check_at(config.id, now).with_context(|| {
        format!(
            "the others do not believe {} (if it has ended: stele controller renew)",
            config.tls.certificate.display()
        )
    })?;
    let not_after = config.certificate.body.not_after.0;
    let soon = now + CERTIFICATE_WARNING;
    if tls.check_at(config.id, soon).is_err()
        || not_after < u64::try_from(soon.as_micros()).unwrap_or(u64::MAX)
    {
        tracing::warn!(
            within_days = CERTIFICATE_WARNING.as_secs() / 86_400,
            "this controller's certificates end soon: renew them before that (stele controller renew)"
        );
    }
    let peers =
        PeerConfig { id: config.id, fleet: config.fleet.to_string(), listen: config.peer_listen, tls };
    Ok(Peers::start(peers, Arc::new(inbox)).await?)
}

fn bus_config(config: &Config) -> anyhow::Result<BusConfig> {
    let root_ca = match &config.nats.tls_root {
        None => None,
        Some(pem) => {
            let path = config.data.join("nats-authority.pem");
            std::fs::write(&path, pem).with_context(|| format!("cannot write {}", path.display()))?;
            Some(path)
        }
    };
    Ok(BusConfig {
        urls: config.nats.urls.clone(),
        auth: config.nats.auth.clone(),
        root_ca,
        fleet: config.fleet.clone(),
        name: format!("controller {}", config.id),
    })
}

/// What this controller makes known whenever it leads: the fleet, and itself.
fn standing(config: &Config) -> Vec<Command> {
    let mut commands = Vec::new();
    if let Some(admin) = &config.first_admin {
        commands.push(Command::CreateFleet {
            fleet: config.fleet.clone(),
            root: config.root.clone(),
            admin: admin.clone(),
        });
    }
    commands
}

/// Where each controller is: as the log says, and as configured for those it does not know yet.
fn members(config: &Config, state: &State) -> std::collections::BTreeMap<u64, String> {
    let mut members = config.peers.clone();
    members.insert(config.id, config.peer_address.clone());
    for (id, controller) in &state.control.controllers {
        members.insert(*id, controller.peer.clone());
    }
    members.retain(|id, _| !state.control.retired.contains(id));
    members
}

/// Keeps the transport's list of members as the log has it, and this controller's
/// own certificate in the log.
async fn follow_members(handle: Handle, config: Config) {
    let mut watch = handle.follow();
    loop {
        let state = watch.borrow_and_update().state.clone();
        handle.peers().set_members(members(&config, &state));
        let known = state.control.controllers.get(&config.id);
        let is_current = known.is_some_and(|known| {
            known.certificate == config.certificate
                && known.api == config.api_url
                && known.peer == config.peer_address
        });
        if state.control.fleet.is_some() && !is_current {
            let command = Command::CertifyController {
                certificate: config.certificate.clone(),
                api: config.api_url.clone(),
                peer: config.peer_address.clone(),
            };
            if let Err(error) = handle.submit(stele_ledger::system_request(command)).await {
                tracing::debug!(%error, "this controller is not certified in the log yet");
                tokio::time::sleep(crate::limits::HOUSEKEEPING_INTERVAL).await;
                continue;
            }
        }
        if watch.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_snapshot_that_is_not_read_costs_a_replay_and_a_damaged_one_the_start() {
        let beginning = (State::default(), Chain::GENESIS);
        assert_eq!(begin_with(None).unwrap(), beginning);
        let mut state = State::default();
        state.seq = 7;
        let snapshot = Snapshot { chain: Chain::GENESIS, state: state.clone() };
        assert_eq!(begin_with(Some(Ok(snapshot))).unwrap(), (state, Chain::GENESIS));
        let what = "snapshot";
        assert_eq!(
            begin_with(Some(Err(DecodeError::Format { what, found: 9, known: 4 }))).unwrap(),
            beginning
        );
        let large = DecodeError::TooLarge { what, found: 2, limit: 1 };
        assert_eq!(begin_with(Some(Err(large))).unwrap(), beginning);
        assert!(begin_with(Some(Err(DecodeError::Checksum(what)))).is_err());
    }
}
