//! Clients that write and read, and an operator who deploys and rolls back, while things go wrong.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use serde_json::{Value, json};
use stele_linear::{Deed, Operation};
use stele_model::Seq;
use stele_testkit::{Answer, Client, pause};
use ureq::http::Method;

use crate::dice::Dice;
use crate::limits::{
    ATTEMPT_PAUSE, ATTEMPT_TIMEOUT, CLIENT_PAUSE, OPERATOR_PATIENCE, OPERATOR_PAUSE, READERS, WRITERS,
};

/// The label that clients write: each node is a register.
pub(crate) const LABEL: &str = "chaos";
/// What the operator deploys.
pub(crate) const APP: &str = "shop/web@prod";

/// A change that somebody was told is done.
#[derive(Clone, Debug)]
pub(crate) struct Acked {
    pub(crate) key: String,
    pub(crate) seq: Seq,
}

/// What all clients saw.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) operations: Vec<Operation<String>>,
    pub(crate) acked: Vec<Acked>,
    /// Changes that were refused, with the words.
    pub(crate) refused: Vec<String>,
    /// What happened that never may.
    pub(crate) wrong: Vec<String>,
    pub(crate) deployments: u64,
    pub(crate) rollbacks: u64,
}

struct Shared {
    clients: Vec<Client>,
    registers: Vec<String>,
    began: Instant,
    stop: AtomicBool,
    acknowledged: AtomicU64,
    history: Mutex<History>,
}

/// Everybody who uses the fleet.
pub(crate) struct Clients {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    /// Lets them begin. `clients` talk to one controller each, as the administrator.
    pub(crate) fn start(clients: Vec<Client>, registers: Vec<String>, dice: &mut Dice) -> Self {
        let clients = clients.into_iter().map(|client| client.with_timeout(ATTEMPT_TIMEOUT)).collect();
        let shared = Arc::new(Shared {
            clients,
            registers,
            began: Instant::now(),
            stop: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            history: Mutex::default(),
        });
        let mut threads = Vec::new();
        let mut begin = |work: fn(&Shared, u64, Dice), number: u64| {
            let (shared, dice) = (Arc::clone(&shared), dice.fork());
            threads.push(std::thread::spawn(move || work(&shared, number, dice)));
        };
        (0..WRITERS).for_each(|number| begin(write_on, number));
        (0..READERS).for_each(|number| begin(read_on, number));
        begin(operate, 0);
        Self { shared, threads }
    }

    /// Writes acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::SeqCst)
    }

    /// Ends them once what they asked is answered; says what they saw.
    pub(crate) fn stop(self) -> History {
        self.shared.stop.store(true, Ordering::SeqCst);
        let mut panicked = Vec::new();
        for thread in self.threads {
            if thread.join().is_err() {
                panicked.push("a client panicked; its words are above".to_owned());
            }
        }
        let mut history = self.shared.history();
        history.wrong.extend(panicked);
        std::mem::take(&mut history)
    }
}

impl Shared {
    fn history(&self) -> std::sync::MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::SeqCst)
    }

    /// Asks one controller after the other, under one key, until the change is done or refused.
    fn change(
        &self,
        method: &Method,
        path: &str,
        key: &str,
        body: &Value,
        dice: &mut Dice,
    ) -> Option<Answer> {
        let body = body.to_string();
        loop {
            let client = dice.pick(&self.clients)?;
            let answer = client.send(method.clone(), path, &[("idempotency-key", key)], Some(&body));
            match answer {
                Ok(answer) if answer.status < 500 && answer.status != 429 => return Some(answer),
                // Nobody there, no leader, or an unknown outcome: the same again, perhaps elsewhere.
                _ => pause(ATTEMPT_PAUSE).ok()?,
            }
        }
    }
}

fn write_on(shared: &Shared, writer: u64, mut dice: Dice) {
    let mut count = 0;
    while shared.goes_on() {
        count += 1;
        let Some(register) = dice.pick(&shared.registers).cloned() else { return };
        let key = format!("w{writer}-{count}");
        let path = format!("/v1/nodes/{register}/labels");
        let asked_us = shared.now_us();
        let body = json!({"labels": {LABEL: key}});
        let Some(answer) = shared.change(&Method::PUT, &path, &key, &body, &mut dice) else { return };
        let answered_us = shared.now_us();
        let mut history = shared.history();
        match answer.body["seq"].as_u64().filter(|_| answer.status == 200) {
            Some(seq) => {
                history.operations.push(Operation { asked_us, answered_us, what: Deed::Write { seq } });
                history.acked.push(Acked { key, seq });
                shared.acknowledged.fetch_add(1, Ordering::SeqCst);
            }
            None => history.wrong.push(format!("write {key}: HTTP {}: {}", answer.status, answer.body)),
        }
        drop(history);
        if pause(CLIENT_PAUSE).is_err() {
            return;
        }
    }
}

fn read_on(shared: &Shared, _: u64, mut dice: Dice) {
    while shared.goes_on() {
        let (Some(register), Some(client)) =
            (dice.pick(&shared.registers).cloned(), dice.pick(&shared.clients))
        else {
            return;
        };
        let asked_us = shared.now_us();
        let answer = client.get(&format!("/v1/nodes/{register}"));
        let answered_us = shared.now_us();
        // No answer and a refusal say nothing of what was written.
        if let Ok(answer) = answer
            && answer.status == 200
        {
            let value = answer.body["labels"][LABEL].as_str().map(str::to_owned);
            let what = Deed::Read { register, value };
            shared.history().operations.push(Operation { asked_us, answered_us, what });
        }
        if pause(CLIENT_PAUSE).is_err() {
            return;
        }
    }
}

/// A spec whose image is named by digest, so that no registry is asked.
pub(crate) fn spec(marker: &str, replicas: usize) -> Value {
    let digest = format!("sha256:{}", "a".repeat(64));
    json!({
        "app": "shop/web",
        "environments": ["prod"],
        "services": {"web": {
            "image": format!("127.0.0.1:5055/stele/busybox@{digest}"),
            "env": {"MARKER": marker},
            "replicas": replicas,
        }},
    })
}

fn operate(shared: &Shared, _: u64, mut dice: Dice) {
    let mut turn = 0;
    // Where deployments ended, to go back to.
    let mut points: Vec<Seq> = Vec::new();
    while shared.goes_on() {
        turn += 1;
        let (what, path, body) = if turn % 2 == 1 || points.len() < 2 {
            let marker = format!("{turn}");
            ("deploy", "/v1/apply", json!({"spec": spec(&marker, shared.registers.len())}))
        } else {
            let to = match (dice.below(3), dice.pick(&points)) {
                (0, _) | (_, None) => "prev".to_owned(),
                (1, _) => "last-good".to_owned(),
                (_, Some(seq)) => format!("seq:{seq}"),
            };
            let body = json!({"scope": APP, "to": to, "reason": "chaos"});
            ("rollback", "/v1/rollbacks", body)
        };
        let key = format!("{what}-{turn}");
        let Some(answer) = shared.change(&Method::POST, path, &key, &body, &mut dice) else { return };
        if (200..300).contains(&answer.status) {
            let mut history = shared.history();
            if what == "deploy" {
                history.deployments += 1;
            } else {
                history.rollbacks += 1;
            }
            if let Some(seq) = answer.body["seq"].as_u64() {
                history.acked.push(Acked { key, seq });
                points.push(seq);
            }
            drop(history);
            wait_for_end(shared, answer.body["deployments"][0].as_u64(), &mut dice);
        } else {
            let words = format!("{key}: HTTP {}: {}", answer.status, answer.detail());
            shared.history().refused.push(words);
        }
        if pause(OPERATOR_PAUSE).is_err() {
            return;
        }
    }
}

/// Waits a little for a deployment to end; under faults it may not, and the next change comes all the same.
fn wait_for_end(shared: &Shared, deployment: Option<u64>, dice: &mut Dice) {
    let Some(id) = deployment else { return };
    let began = Instant::now();
    while shared.goes_on() && began.elapsed() < OPERATOR_PATIENCE {
        let Some(client) = dice.pick(&shared.clients) else { return };
        let answer = client.get(&format!("/v1/deployments/{id}"));
        if answer.is_ok_and(|answer| answer.status == 200 && !answer.body["finished"].is_null()) {
            return;
        }
        if pause(CLIENT_PAUSE).is_err() {
            return;
        }
    }
}
