//! `stele-agent join` and `status` as programs, against a controller of one answer.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Output};
use std::thread::JoinHandle;

use stele_bus::Auth;
use stele_bus::join::{JoinAnswer, JoinLine, JoinRequest, NatsAccess, open_request};
use stele_bus::purposes;
use stele_model::signature::public_key;
use stele_model::wire::Signed;
use support::Fleet;

/// Answers one request to join, and returns it.
fn controller(
    answer: impl FnOnce(&JoinRequest) -> (u16, String) + Send + 'static,
) -> (String, JoinHandle<JoinRequest>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let serving = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert_eq!(line, "POST /v1/join HTTP/1.1\r\n");
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).unwrap();
            if header == "\r\n" {
                break;
            }
            if let Some(value) = header.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let request = open_request(&serde_json::from_slice::<Signed>(&body).unwrap()).unwrap();
        let (status, body) = answer(&request);
        let head =
            format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
        reader.get_mut().write_all((head + &body).as_bytes()).unwrap();
        request
    });
    (address, serving)
}

fn line(fleet: &Fleet, controllers: &[&str]) -> String {
    JoinLine {
        fleet: fleet.name.parse().unwrap(),
        root: public_key(&fleet.root),
        secret: "s3cr3t".to_owned(),
        controllers: controllers.iter().map(|address| (*address).to_owned()).collect(),
        tls_root: None,
    }
    .to_string()
}

fn answer(fleet: &Fleet, request: &JoinRequest) -> (u16, String) {
    let answer = JoinAnswer {
        fleet: fleet.name.parse().unwrap(),
        node: request.name.clone(),
        key: request.key.clone(),
        region: "eu".parse().unwrap(),
        epoch: 1,
        nats: NatsAccess { urls: vec!["nats://127.0.0.1:1".to_owned()], auth: Auth::None, tls_root: None },
        root: public_key(&fleet.root),
        controller: fleet.certificate.clone(),
    };
    let signed = Signed::new(&fleet.controller, purposes::JOIN_ANSWER, &answer);
    (200, serde_json::to_string(&signed).unwrap())
}

fn agent(arguments: &[&str], data: &std::path::Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_stele-agent"))
        .args(arguments)
        .args(["--data".as_ref(), data.as_os_str()])
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_node_joins_once_and_can_tell_its_state_without_any_controller() {
    let fleet = Fleet::new("acme");
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("agent");
    let before = agent(&["status"], &data);
    assert_eq!(before.status.code(), Some(4), "{}", stderr(&before));
    assert!(stderr(&before).contains("stele-agent join"), "{}", stderr(&before));

    let (address, serving) = controller({
        let fleet = fleet.clone();
        move |request| answer(&fleet, request)
    });
    // The first address is dead; the second one answers.
    let token = line(&fleet, &["http://127.0.0.1:1", &address]);
    let joined =
        agent(&["join", &token, "--name", "eu-1", "--runtime", "simulated", "--address", "192.0.2.1"], &data);
    assert_eq!(joined.status.code(), Some(0), "{}", stderr(&joined));
    assert!(String::from_utf8_lossy(&joined.stdout).contains("eu-1 is a node of fleet acme in region eu"));
    let request = serving.join().unwrap();
    assert_eq!(
        (request.secret.as_str(), request.name.as_str(), request.address.as_deref()),
        ("s3cr3t", "eu-1", Some("192.0.2.1"))
    );
    assert_eq!(request.sealing_key.len(), 64);

    let again = agent(&["join", &token, "--name", "eu-2"], &data);
    assert_eq!(again.status.code(), Some(5));
    assert!(stderr(&again).contains("already belongs to node eu-1 of fleet acme"), "{}", stderr(&again));

    let status = agent(&["status"], &data);
    let page = String::from_utf8_lossy(&status.stdout).into_owned();
    assert_eq!(status.status.code(), Some(0), "{}", stderr(&status));
    assert!(page.contains("node        eu-1 in region eu of fleet acme"), "{page}");
    assert!(page.contains("agent       not running"), "{page}");
    assert!(page.contains("none was ever verified"), "{page}");
}

#[test]
fn an_answer_the_root_does_not_vouch_for_is_not_believed() {
    let fleet = Fleet::new("acme");
    let folder = tempfile::tempdir().unwrap();
    let (address, serving) = controller(|request| answer(&Fleet::with_keys("acme", 3, 4), request));
    let refused = agent(&["join", &line(&fleet, &[&address]), "--name", "eu-1"], folder.path());
    serving.join().unwrap();
    assert_eq!(refused.status.code(), Some(5));
    assert!(stderr(&refused).contains("is not believed"), "{}", stderr(&refused));
    assert_eq!(agent(&["status"], folder.path()).status.code(), Some(4), "it has not joined");
}

#[test]
fn a_refusal_is_told_in_the_controllers_words() {
    let fleet = Fleet::new("acme");
    let folder = tempfile::tempdir().unwrap();
    let (address, serving) = controller(|_| {
        (
            403,
            r#"{"title":"The join token has expired","detail":"make another with: stele node token"}"#
                .to_owned(),
        )
    });
    let refused = agent(&["join", &line(&fleet, &[&address]), "--name", "eu-1"], folder.path());
    serving.join().unwrap();
    assert_eq!(refused.status.code(), Some(5));
    let words = stderr(&refused);
    assert!(words.contains("The join token has expired: make another with: stele node token"), "{words}");
}

#[test]
fn mistakes_are_told_apart_by_exit_code() {
    let fleet = Fleet::new("acme");
    let folder = tempfile::tempdir().unwrap();
    let nobody = agent(&["join", &line(&fleet, &["http://127.0.0.1:1"]), "--name", "eu-1"], folder.path());
    assert_eq!(nobody.status.code(), Some(6), "{}", stderr(&nobody));
    let pasted = agent(&["join", "hello", "--name", "eu-1"], folder.path());
    assert_eq!(pasted.status.code(), Some(1));
    assert!(stderr(&pasted).contains("a join token begins with stele-join-v1."), "{}", stderr(&pasted));
    let name = agent(&["join", "hello", "--name", "EU 1"], folder.path());
    assert_eq!(name.status.code(), Some(2), "{}", stderr(&name));
    let run = agent(&["run"], folder.path());
    assert_eq!(run.status.code(), Some(4), "{}", stderr(&run));
}
