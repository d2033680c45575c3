//! Controllers talking to each other over real sockets on loopback.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stele_peer::ca::Authority;
use stele_peer::{
    Answering, Handler, Members, PeerConfig, Peers, RequestError, RequestFailure, SendError, StartError, Tls,
};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until something holds, however long a busy machine takes.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let poll = async {
        let mut interval = tokio::time::interval(Duration::from_millis(10));
        while !holds() {
            interval.tick().await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, poll).await.is_ok(), "never: {what}");
}

/// Answers `echo:…` with its rest, fails `fail`, is busy for `busy`, never
/// answers `hang`.
struct Recorder {
    raft: mpsc::UnboundedSender<(u64, Vec<u8>)>,
    unreachable: Mutex<Vec<u64>>,
}

impl Handler for Recorder {
    fn raft(&self, from: u64, message: Vec<u8>) {
        self.raft.send((from, message)).unwrap();
    }

    fn request(&self, from: u64, request: Vec<u8>) -> Answering<'_> {
        Box::pin(async move {
            match request.as_slice() {
                b"fail" => Err(RequestFailure::Failed("not today".to_owned())),
                b"busy" => Err(RequestFailure::Busy),
                b"hang" => std::future::pending().await,
                b"who" => Ok(from.to_be_bytes().to_vec()),
                _ => Ok(request.strip_prefix(b"echo:").unwrap_or(b"?").to_vec()),
            }
        })
    }

    fn unreachable(&self, peer: u64) {
        self.unreachable.lock().unwrap().push(peer);
    }
}

struct Node {
    peers: Peers,
    received: mpsc::UnboundedReceiver<(u64, Vec<u8>)>,
    recorder: Arc<Recorder>,
}

fn tls(authority: &Authority, id: u64) -> Tls {
    let issued = authority.issue(id, &[]).unwrap();
    Tls::from_pem(authority.certificate_pem(), &issued.certificate_pem, &issued.key_pem).unwrap()
}

async fn start(id: u64, fleet: &str, tls: Tls, listen: SocketAddr) -> Node {
    let (raft, received) = mpsc::unbounded_channel();
    let recorder = Arc::new(Recorder { raft, unreachable: Mutex::default() });
    let config = PeerConfig { id, fleet: fleet.to_owned(), listen, tls };
    let peers = Peers::start(config, Arc::clone(&recorder) as Arc<dyn Handler>).await.unwrap();
    Node { peers, received, recorder }
}

async fn node(id: u64, authority: &Authority) -> Node {
    start(id, "demo", tls(authority, id), any_port()).await
}

fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn members(nodes: &[(u64, &Node)]) -> Members {
    nodes.iter().map(|(id, node)| (*id, node.peers.local_address().to_string())).collect()
}

async fn connected(node: &Node, to: u64) {
    eventually("connected", || {
        node.peers.status().iter().any(|status| status.id == to && status.is_connected)
    })
    .await;
}

async fn refusal(node: &Node, to: u64, words: &str) {
    eventually(words, || {
        let statuses = node.peers.status();
        let status = statuses.iter().find(|status| status.id == to).unwrap();
        assert!(!status.is_connected, "connected in spite of: {words}");
        status.last_error.as_ref().is_some_and(|error| error.contains(words))
    })
    .await;
}

async fn pair() -> (Node, Node) {
    let authority = Authority::create("demo").unwrap();
    let (one, two) = (node(1, &authority).await, node(2, &authority).await);
    let all = members(&[(1, &one), (2, &two)]);
    one.peers.set_members(all.clone());
    two.peers.set_members(all);
    connected(&one, 2).await;
    connected(&two, 1).await;
    (one, two)
}

#[tokio::test]
async fn messages_and_requests_go_both_ways() {
    let (mut one, mut two) = pair().await;
    one.peers.send_raft(2, b"to two".to_vec()).unwrap();
    two.peers.send_raft(1, b"to one".to_vec()).unwrap();
    assert_eq!(two.received.recv().await.unwrap(), (1, b"to two".to_vec()));
    assert_eq!(one.received.recv().await.unwrap(), (2, b"to one".to_vec()));

    let ask = async |what: &[u8]| one.peers.request(2, what.to_vec(), PATIENCE).await;
    assert_eq!(ask(b"echo:hello").await.unwrap(), b"hello");
    assert_eq!(ask(b"who").await.unwrap(), 1u64.to_be_bytes());
    assert_eq!(ask(b"busy").await.unwrap_err(), RequestError::Busy(2));
    let failed = ask(b"fail").await.unwrap_err();
    assert_eq!(failed, RequestError::Failed { peer: 2, message: "not today".to_owned() });
    assert!(!failed.had_no_effect());

    let many = (0..200u32).map(|i| {
        let peers = one.peers.clone();
        tokio::spawn(async move { peers.request(2, format!("echo:{i}").into_bytes(), PATIENCE).await })
    });
    for (i, answer) in many.enumerate() {
        assert_eq!(answer.await.unwrap().unwrap(), i.to_string().into_bytes());
    }
}

#[tokio::test]
async fn it_is_known_when_certificates_end() {
    let authority = Authority::create("demo").unwrap();
    let own = tls(&authority, 1);
    // Dates have whole seconds.
    let other =
        std::iter::repeat_with(|| tls(&authority, 2)).find(|other| other.not_after() != own.not_after());
    let other = other.unwrap();
    let (own_end, other_end) = (own.not_after().unwrap(), other.not_after().unwrap());
    let (one, two) = (start(1, "demo", own, any_port()).await, start(2, "demo", other, any_port()).await);
    assert_eq!(one.peers.certified_until(), BTreeMap::from([(1, own_end)]), "nobody showed another");
    let all = members(&[(1, &one), (2, &two)]);
    two.peers.set_members(all.clone());
    one.peers.set_members(all);
    connected(&one, 2).await;
    let both = BTreeMap::from([(1, own_end), (2, other_end)]);
    assert_eq!(one.peers.certified_until(), both);
    // What was shown last is still so.
    two.peers.shutdown().await;
    eventually("it is shown as down", || one.peers.status().iter().all(|s| !s.is_connected)).await;
    assert_eq!(one.peers.certified_until(), both);
}

#[tokio::test]
async fn a_request_without_an_answer_ends_in_time_and_harms_no_other() {
    let (one, _two) = pair().await;
    let hung = one.peers.request(2, b"hang".to_vec(), Duration::from_millis(50)).await;
    assert_eq!(hung.unwrap_err(), RequestError::TimedOut(2));
    let next = one.peers.request(2, b"echo:on".to_vec(), PATIENCE).await;
    assert_eq!(next.unwrap(), b"on");
}

#[tokio::test]
async fn a_controller_of_another_authority_is_refused() {
    let (ours, theirs) = (Authority::create("demo").unwrap(), Authority::create("demo").unwrap());
    let one = node(1, &ours).await;
    let stranger = node(2, &theirs).await;
    let all = members(&[(1, &one), (2, &stranger)]);
    one.peers.set_members(all.clone());
    stranger.peers.set_members(all);
    // Each refuses the other's certificate as that of a server.
    refusal(&one, 2, "certificate").await;
    refusal(&stranger, 1, "certificate").await;

    // And as that of a client, when the stranger trusts our authority.
    let issued = theirs.issue(3, &[]).unwrap();
    let forged = Tls::from_pem(ours.certificate_pem(), &issued.certificate_pem, &issued.key_pem).unwrap();
    let forger = start(3, "demo", forged, any_port()).await;
    let all = members(&[(1, &one), (3, &forger)]);
    one.peers.set_members(all.clone());
    forger.peers.set_members(all);
    refusal(&forger, 1, "alert").await;
}

#[tokio::test]
async fn who_is_not_a_member_is_refused_and_let_in_once_added() {
    let authority = Authority::create("demo").unwrap();
    let (one, two) = (node(1, &authority).await, node(2, &authority).await);
    one.peers.set_members(members(&[(1, &one)]));
    two.peers.set_members(members(&[(1, &one), (2, &two)]));
    refusal(&two, 1, "controller 2 is not a member of fleet demo").await;
    one.peers.set_members(members(&[(1, &one), (2, &two)]));
    connected(&two, 1).await;
}

#[tokio::test]
async fn a_certificate_serves_nobody_but_its_owner() {
    let authority = Authority::create("demo").unwrap();
    let (one, two) = (node(1, &authority).await, node(2, &authority).await);
    // Somebody else answers at the address of controller 3.
    let mut all = members(&[(1, &one), (2, &two)]);
    all.insert(3, two.peers.local_address().to_string());
    one.peers.set_members(all);
    refusal(&one, 3, "certificate").await;

    let config = PeerConfig { id: 4, fleet: "demo".to_owned(), listen: any_port(), tls: tls(&authority, 2) };
    let wrong = Peers::start(config, Arc::clone(&one.recorder) as Arc<dyn Handler>).await;
    assert!(matches!(wrong.err().unwrap(), StartError::Tls(_)));
}

#[tokio::test]
async fn a_controller_of_another_fleet_is_refused() {
    let authority = Authority::create("demo").unwrap();
    let one = node(1, &authority).await;
    let two = start(2, "prod", tls(&authority, 2), any_port()).await;
    let all = members(&[(1, &one), (2, &two)]);
    one.peers.set_members(all.clone());
    two.peers.set_members(all);
    refusal(&two, 1, "this is fleet demo, not prod").await;
    refusal(&one, 2, "this is fleet prod, not demo").await;
}

#[tokio::test]
async fn a_removed_member_is_cut_off() {
    let (one, two) = pair().await;
    one.peers.set_members(members(&[(1, &one)]));
    eventually("it is cut off", || two.peers.status().iter().all(|s| !s.is_connected)).await;
    assert_eq!(one.peers.send_raft(2, b"x".to_vec()), Err(SendError::Unknown(2)));
    refusal(&two, 1, "not a member").await;
}

#[tokio::test]
async fn strangers_who_say_nothing_keep_no_controller_out() {
    let authority = Authority::create("demo").unwrap();
    let (one, two) = (node(1, &authority).await, node(2, &authority).await);
    let mut strangers = Vec::new();
    for _ in 0..=stele_peer::limits::MAX_UNKNOWN_CONNECTIONS {
        strangers.push(TcpStream::connect(one.peers.local_address()).await.unwrap());
    }
    // The last had the place of the first, and not the other way round.
    let ended = tokio::time::timeout(PATIENCE, strangers[0].read(&mut [0])).await.unwrap();
    assert!(!matches!(ended, Ok(1..)), "somebody spoke to a stranger");
    let last = strangers.last_mut().unwrap();
    assert_eq!(last.try_read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);

    let all = members(&[(1, &one), (2, &two)]);
    one.peers.set_members(all.clone());
    two.peers.set_members(all);
    connected(&two, 1).await;
    // Nor do they end the connection of one who is in.
    for _ in 0..2 * stele_peer::limits::MAX_UNKNOWN_CONNECTIONS {
        strangers.push(TcpStream::connect(one.peers.local_address()).await.unwrap());
    }
    let answer = two.peers.request(1, b"echo:still here".to_vec(), PATIENCE).await;
    assert_eq!(answer.unwrap(), b"still here");
    assert!(two.recorder.unreachable.lock().unwrap().is_empty(), "it was never cut off");
}

#[tokio::test]
async fn a_controller_has_one_connection_for_each_lane() {
    let authority = Authority::create("demo").unwrap();
    let (one, two) = (node(1, &authority).await, node(2, &authority).await);
    let all = members(&[(1, &one), (2, &two)]);
    one.peers.set_members(all.clone());
    two.peers.set_members(all);
    connected(&two, 1).await;
    two.recorder.unreachable.lock().unwrap().clear();
    // The same controller once more, as if its earlier connections had never ended.
    let again = start(2, "demo", tls(&authority, 2), any_port()).await;
    again.peers.set_members(members(&[(1, &one), (2, &again)]));
    eventually("the earlier connection ends", || two.recorder.unreachable.lock().unwrap().contains(&1)).await;
}

#[tokio::test]
async fn connections_come_back_after_a_restart() {
    let authority = Authority::create("demo").unwrap();
    let (one, two) = (node(1, &authority).await, node(2, &authority).await);
    let all = members(&[(1, &one), (2, &two)]);
    one.peers.set_members(all.clone());
    two.peers.set_members(all.clone());
    connected(&one, 2).await;

    let address = two.peers.local_address();
    two.peers.shutdown().await;
    drop(two);
    eventually("the loss is noticed", || one.recorder.unreachable.lock().unwrap().contains(&2)).await;
    eventually("it is shown as down", || one.peers.status().iter().all(|s| !s.is_connected)).await;
    // It is down once one lane is; another may notice with this very request, and cannot know what came
    // of it. After that, nothing is sent.
    let mut refused = one.peers.request(2, b"echo:x".to_vec(), PATIENCE).await.unwrap_err();
    if refused == RequestError::Lost(2) {
        refused = one.peers.request(2, b"echo:x".to_vec(), PATIENCE).await.unwrap_err();
    }
    assert!(refused.had_no_effect(), "{refused}");

    let mut two = start(2, "demo", tls(&authority, 2), address).await;
    two.peers.set_members(all);
    connected(&one, 2).await;
    one.peers.send_raft(2, b"again".to_vec()).unwrap();
    assert_eq!(two.received.recv().await.unwrap(), (1, b"again".to_vec()));
}

#[tokio::test]
async fn a_large_message_arrives_whole_and_holds_up_no_small_one() {
    let (one, mut two) = pair().await;
    let large: Vec<u8> = (0..48 * 1024 * 1024u32).map(|i| (i % 251) as u8).collect();
    one.peers.send_raft(2, large.clone()).unwrap();
    for i in 0..100u8 {
        one.peers.send_raft(2, vec![i]).unwrap();
    }
    let mut small = Vec::new();
    let mut got_large = false;
    while small.len() < 100 || !got_large {
        let (_, message) = two.received.recv().await.unwrap();
        if message.len() == 1 {
            small.push(message[0]);
        } else {
            assert!(message == large, "the large message arrived changed");
            got_large = true;
        }
    }
    assert_eq!(small, (0..100).collect::<Vec<u8>>());

    let echo = [b"echo:".as_slice(), &large].concat();
    assert!(one.peers.request(2, echo, PATIENCE).await.unwrap() == large);
}

#[tokio::test]
async fn a_full_queue_refuses_and_never_waits() {
    let authority = Authority::create("demo").unwrap();
    let one = node(1, &authority).await;
    // Somebody who accepts and never speaks: the queue cannot drain.
    let silent = tokio::net::TcpListener::bind(any_port()).await.unwrap();
    let address = silent.local_addr().unwrap().to_string();
    one.peers.set_members(BTreeMap::from([(2, address)]));
    let (_held, _) = silent.accept().await.unwrap();
    let refused = (0..100_000).find_map(|_| one.peers.send_raft(2, vec![0; 1024]).err());
    assert_eq!(refused, Some(SendError::Full(2)));
}
