//! The world: virtual time, the queue of what is to come, and everybody in it.

mod elections;
mod loss;
mod publishing;
mod trouble;
mod turns;

use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use stele_consensus::{MembershipChange, Role};
use stele_model::ControllerId;

use self::loss::Loss;
use self::publishing::FeedWeather;
use crate::agent::Agent;
use crate::client::{Client, Histories};
use crate::controller::{Controller, Process};
use crate::fault::Scheduled;
use crate::feed::Tag;
use crate::jetstream::{JetStream, Reply, Request};
use crate::limits::{HAND_OVER_US, OLD_MESSAGES_KEPT, REPETITION_DELAYS, TICK_US, VOTERS_MIN};
use crate::oracle::Oracle;
use crate::rng::{Rng, mix};
use crate::setup::{Keys, Setup};
use crate::trace::{Trace, of_bytes};
use crate::wire::{Asked, Asker, FromNode, Out, Packet, ToNode, Told};

/// What is to come.
enum Event {
    Tick(ControllerId, u64),
    /// A leader that proposed nothing more tells what it committed.
    Tell(ControllerId, u64),
    Packet {
        from: ControllerId,
        to: ControllerId,
        packet: Packet,
    },
    ClientAsks {
        to: ControllerId,
        asker: Asker,
        asked: Rc<Asked>,
    },
    ClientHears {
        client: usize,
        attempt: u64,
        told: Told,
    },
    NodeSays {
        node: usize,
        to: ControllerId,
        said: FromNode,
    },
    NodeHears {
        node: usize,
        said: ToNode,
    },
    FeedAsks {
        from: ControllerId,
        incarnation: u64,
        tag: Tag,
        request: Request,
    },
    FeedHears {
        to: ControllerId,
        incarnation: u64,
        tag: Tag,
        reply: Reply,
    },
    Agent(usize),
    Client(usize),
    Begins(usize),
    Ends(usize),
    /// A fault goes on.
    GoesOn(usize),
    /// A controller whose process ended starts again.
    Restart(ControllerId),
}

/// Loss, repetition and delay.
#[derive(Clone, Copy)]
struct Weather {
    lose: u32,
    repeat: u32,
    delay_us: u64,
}

/// Regions there are: of nodes by index, of controllers by id.
const REGIONS: usize = 3;

const CALM: Weather = Weather { lose: 0, repeat: 0, delay_us: 2_000 };

/// See the module.
pub(crate) struct World {
    /// What it is made of.
    pub(crate) setup: Setup,
    /// Keys and names.
    pub(crate) keys: Keys,
    /// Virtual time since the beginning, in microseconds.
    pub(crate) now_us: u64,
    queue: BTreeMap<(u64, u64), Event>,
    queued: u64,
    net_rng: Rng,
    bus_rng: Rng,
    rng: Rng,
    /// What happened.
    pub(crate) trace: Trace,
    /// Controllers by id, those gone for good included.
    pub(crate) controllers: BTreeMap<ControllerId, Controller>,
    /// Nodes.
    pub(crate) agents: Vec<Agent>,
    /// When each is due by itself, to not queue it twice.
    agents_due: Vec<u64>,
    clients: Vec<Client>,
    clients_due: Vec<u64>,
    /// What clients know.
    pub(crate) histories: Histories,
    oracle: Rc<RefCell<Oracle>>,
    faults: Vec<Scheduled>,
    peer_weather: Weather,
    bus_weather: Weather,
    /// Pairs of controllers between which nothing passes: from, to, and the fault that says so.
    cuts: BTreeSet<(ControllerId, ControllerId, usize)>,
    feed_rng: Rng,
    feed_weather: FeedWeather,
    /// When the last message of a controller to the stream, or back, gets there.
    feed_ways: BTreeMap<ControllerId, u64>,
    jetstream: JetStream,
    bus_up: bool,
    bus_count: u64,
    old: VecDeque<(usize, ToNode)>,
    /// Whom each fault that lasts has hit.
    hit: BTreeMap<usize, u64>,
    next_controller: ControllerId,
    /// The one controller whose disk may spoil and lose what it has.
    bad_disk: Option<ControllerId>,
    /// The one controller whose clock may be a day ahead.
    day_ahead: Option<ControllerId>,
    /// Regions whose nodes are not heard, and those that do not hear, each with the fault that says so.
    mute: BTreeSet<(usize, usize)>,
    deaf: BTreeSet<(usize, usize)>,
    /// How far the loss of the quorum is.
    loss: Loss,
    /// When a leader that lacks records hands over next, and how long after that the next one does.
    hands_over: (u64, u64),
    /// How much later than otherwise leaves what is sent now.
    lag_us: u64,
    /// Whether faults and clients are over.
    pub(crate) healed: bool,
}

impl World {
    /// A world before its first moment.
    pub(crate) fn new(setup: &Setup, faults: &[Scheduled]) -> Self {
        let keys = Keys::new(setup.seed);
        let founders: Vec<_> = (1..=setup.controllers).collect();
        let controllers =
            founders.iter().map(|id| (*id, Controller::new(*id, &founders, &keys, setup))).collect();
        let agents: Vec<_> =
            (0..setup.agents as usize).map(|index| Agent::new(index, &keys, setup)).collect();
        let clients: Vec<_> =
            (0..setup.clients as usize).map(|index| Client::new(index, setup, &keys)).collect();
        let mut world = Self {
            setup: setup.clone(),
            keys,
            now_us: 0,
            queue: BTreeMap::new(),
            queued: 0,
            net_rng: Rng::fork(setup.seed, 3),
            bus_rng: Rng::fork(setup.seed, 4),
            rng: Rng::fork(setup.seed, 5),
            trace: Trace::new(setup.loud),
            controllers,
            agents_due: vec![u64::MAX; agents.len()],
            agents,
            clients_due: vec![u64::MAX; clients.len()],
            clients,
            histories: Histories::default(),
            oracle: Rc::default(),
            faults: faults.to_vec(),
            peer_weather: CALM,
            bus_weather: CALM,
            cuts: BTreeSet::new(),
            feed_rng: Rng::fork(setup.seed, 10),
            feed_weather: FeedWeather::default(),
            feed_ways: BTreeMap::new(),
            jetstream: JetStream::new(setup.feed_window_ms * 1000),
            bus_up: true,
            bus_count: 1,
            old: VecDeque::new(),
            hit: BTreeMap::new(),
            next_controller: setup.controllers + 1,
            bad_disk: None,
            day_ahead: None,
            mute: BTreeSet::new(),
            deaf: BTreeSet::new(),
            loss: Loss::None,
            hands_over: (0, HAND_OVER_US),
            lag_us: 0,
            healed: false,
        };
        // Who says nothing of its clock cannot be told from one whose clock is good.
        world.oracle.borrow_mut().ahead_us = (!setup.skewed).then_some(0);
        world.begin();
        world
    }

    fn begin(&mut self) {
        for id in self.controllers.keys().copied().collect::<Vec<_>>() {
            self.start_controller(id);
        }
        for index in 0..self.agents.len() {
            self.agents[index].start(0);
            self.agents[index].connect(0, true);
            self.queue_agent(index);
        }
        for index in 0..self.clients.len() {
            self.queue_client(index);
        }
        for index in 0..self.faults.len() {
            let at = self.setup.founding_us() + self.faults[index].at_ms * 1000;
            self.push(at, Event::Begins(index));
        }
    }

    /// Who sees everything.
    pub(crate) fn oracle(&self) -> RefMut<'_, Oracle> {
        self.oracle.borrow_mut()
    }

    fn push(&mut self, at_us: u64, event: Event) {
        self.queued += 1;
        self.queue.insert((at_us.max(self.now_us), self.queued), event);
    }

    fn queue_agent(&mut self, index: usize) {
        let due = self.agents[index].due_us.max(self.now_us);
        if due < self.agents_due[index] {
            self.agents_due[index] = due;
            self.push(due, Event::Agent(index));
        }
    }

    fn queue_client(&mut self, index: usize) {
        let due = self.clients[index].due_us.max(self.now_us);
        if due < self.clients_due[index] {
            self.clients_due[index] = due;
            self.push(due, Event::Client(index));
        }
    }

    /// Whether no invariant is broken yet.
    pub(crate) fn is_sound(&self) -> bool {
        self.oracle.borrow().violation.is_none()
    }

    /// Lets everything happen until a moment, or until something is broken.
    pub(crate) fn run_until(&mut self, until_us: u64) {
        while self.is_sound() {
            let Some(entry) = self.queue.first_entry() else { break };
            let (at, number) = *entry.key();
            if at > until_us {
                break;
            }
            let event = entry.remove();
            self.now_us = at;
            self.oracle.borrow_mut().now_us = at;
            self.happen(number, event);
        }
        self.now_us = self.now_us.max(until_us);
    }

    fn happen(&mut self, number: u64, event: Event) {
        let now = self.now_us;
        match event {
            Event::Tick(id, incarnation) => {
                self.trace.step(now, 1, id, number);
                let Some(controller) = self.controllers.get(&id) else { return };
                if controller.process.is_none() || controller.incarnation != incarnation {
                    return;
                }
                let paused = controller.paused_until;
                if paused > now {
                    return self.push(paused, Event::Tick(id, incarnation));
                }
                let held = self.controllers.get_mut(&id).map(|it| std::mem::take(&mut it.held));
                for (from, packet) in held.unwrap_or_default() {
                    self.give(id, from, packet);
                }
                self.push(now + TICK_US, Event::Tick(id, incarnation));
                self.note_clocks();
                self.turn(id);
            }
            Event::Tell(id, incarnation) => {
                self.trace.step(now, 15, id, number);
                self.tell(id, incarnation);
            }
            Event::Packet { from, to, packet } => {
                let detail = match &packet {
                    Packet::Raft(bytes) => of_bytes(bytes),
                    _ => 1,
                };
                self.trace.step(now, 2, from << 8 | to, detail);
                self.arrive(from, to, packet);
            }
            Event::ClientAsks { to, asker, asked } => {
                self.trace.step(now, 3, to, of_bytes(asked.key.as_bytes()));
                self.arrive(0, to, Packet::Ask(asker, asked));
            }
            Event::ClientHears { client, attempt, told } => {
                self.trace.step(now, 4, client as u64, attempt);
                let mut oracle = self.oracle.borrow_mut();
                let setup = &self.setup;
                let one = &mut self.clients[client];
                self.trace.say(now, || format!("client {client} hears {}", told.words()));
                one.hear(now, attempt, told, setup, &mut self.histories, &mut oracle);
                drop(oracle);
                self.clients_due[client] = u64::MAX;
                self.queue_client(client);
            }
            Event::NodeSays { node, to, said } => {
                self.trace.step(now, 5, node as u64, to);
                self.controller_hears(to, node, &said);
            }
            Event::NodeHears { node, said } => {
                self.trace.step(now, 6, node as u64, number);
                if !self.agents[node].connected {
                    return;
                }
                let oracle = Rc::clone(&self.oracle);
                self.agents[node].hear(now, &said, &mut oracle.borrow_mut());
                self.queue_agent(node);
            }
            Event::FeedAsks { from, incarnation, tag, request } => {
                self.trace.step(now, 13, from, tag.1);
                self.stream_hears(from, incarnation, tag, request);
            }
            Event::FeedHears { to, incarnation, tag, reply } => {
                self.trace.step(now, 14, to, tag.1);
                self.publisher_hears(to, incarnation, tag, reply);
            }
            Event::Agent(index) => {
                if self.agents_due[index] != now {
                    return;
                }
                self.trace.step(now, 7, index as u64, 0);
                self.agents_due[index] = u64::MAX;
                let oracle = Rc::clone(&self.oracle);
                self.agents[index].wake(now, &mut oracle.borrow_mut());
                for said in std::mem::take(&mut self.agents[index].out) {
                    self.send_to_controllers(index, &said);
                }
                if self.agents[index].runs() {
                    self.queue_agent(index);
                }
            }
            Event::Client(index) => {
                if self.clients_due[index] != now {
                    return;
                }
                self.trace.step(now, 8, index as u64, 0);
                self.clients_due[index] = u64::MAX;
                self.client_wakes(index);
                self.queue_client(index);
            }
            Event::Begins(index) => {
                self.trace.step(now, 9, index as u64, 0);
                self.fault_begins(index);
            }
            Event::Ends(index) => {
                self.trace.step(now, 10, index as u64, 0);
                self.fault_ends(index);
            }
            Event::GoesOn(index) => {
                self.trace.step(now, 11, index as u64, 0);
                self.fault_goes_on(index);
            }
            Event::Restart(id) => {
                self.trace.step(now, 12, id, 0);
                self.start_controller(id);
            }
        }
    }

    fn client_wakes(&mut self, index: usize) {
        let asked = self.clients[index].wake(self.now_us, &self.setup, &self.histories);
        let Some(asked) = asked else { return };
        let ids: Vec<_> = self.controllers.values().filter(|it| !it.retired).map(|it| it.id).collect();
        let Some(to) = self.net_rng.pick(&ids).copied() else { return };
        let now = self.now_us;
        self.trace.say(now, || {
            format!("client {index} asks controller {to}: {} {}", asked.key, asked.want.words())
        });
        self.ask(index, to, &asked);
    }

    /// A client's request leaves for a controller.
    fn ask(&mut self, index: usize, to: ControllerId, asked: &Rc<Asked>) {
        let asker = Asker::Client { client: index, attempt: self.clients[index].attempt };
        for at in self.travel(true) {
            let (asker, asked) = (asker.clone(), Rc::clone(asked));
            self.push(at, Event::ClientAsks { to, asker, asked });
        }
    }

    /// How far the log may get ahead of time by what its controllers can know.
    fn note_clocks(&mut self) {
        let now = self.now_us;
        let judges = self.controllers.values().filter_map(|it| it.process.as_ref());
        let worst = judges.filter_map(|judge| {
            let voters = judge.app.voters.iter().filter_map(|id| self.controllers.get(id));
            let mut ahead: Vec<_> = voters.map(|it| it.clock.ahead_as_heard_us(now)).collect();
            ahead.sort_unstable();
            // Leaders are judged by a quorum's earlier median: which of the clocks that is at worst.
            let quorum = ahead.len() / 2 + 1;
            ahead.get(ahead.len().saturating_sub(quorum) + (quorum - 1) / 2).copied()
        });
        let worst = worst.max();
        let mut oracle = self.oracle.borrow_mut();
        if let (Some(known), Some(worst)) = (oracle.ahead_us, worst) {
            oracle.ahead_us = Some(known.max(worst));
        }
    }

    /// When the copies of a message that is sent now arrive.
    fn travel(&mut self, peers: bool) -> Vec<u64> {
        let (rng, weather) = if peers {
            (&mut self.net_rng, self.peer_weather)
        } else {
            (&mut self.bus_rng, self.bus_weather)
        };
        let copies = 1 + u64::from(weather.repeat > 0 && rng.chance(weather.repeat));
        (0..copies)
            .filter_map(|copy| {
                let lost = weather.lose > 0 && rng.chance(weather.lose);
                // What is repeated may come when others have been sent and heard since.
                let latest_us = weather.delay_us * if copy == 0 { 1 } else { REPETITION_DELAYS };
                (!lost).then(|| self.now_us + self.lag_us + 200 + rng.below(latest_us))
            })
            .collect()
    }

    fn send(&mut self, from: ControllerId, out: Out) {
        match out {
            Out::Peer(to, packet) => {
                if self.cuts.iter().any(|(one, other, _)| (*one, *other) == (from, to)) {
                    return;
                }
                for at in self.travel(true) {
                    self.push(at, Event::Packet { from, to, packet: packet.clone() });
                }
            }
            Out::Client(client, attempt, told) => {
                for at in self.travel(true) {
                    self.push(at, Event::ClientHears { client, attempt, told: told.clone() });
                }
            }
            Out::Node(node, said) => {
                if self.old.len() == OLD_MESSAGES_KEPT {
                    self.old.pop_front();
                }
                self.old.push_back((node, said.clone()));
                self.send_to_node(node, &said);
            }
        }
    }

    fn send_to_node(&mut self, node: usize, said: &ToNode) {
        let is_deaf = self.deaf.iter().any(|(region, _)| *region == node % REGIONS);
        if !self.bus_up || node >= self.agents.len() || is_deaf {
            return;
        }
        for at in self.travel(false) {
            self.push(at, Event::NodeHears { node, said: said.clone() });
        }
    }

    fn send_to_controllers(&mut self, node: usize, said: &FromNode) {
        let is_mute = self.mute.iter().any(|(region, _)| *region == node % REGIONS);
        if !self.bus_up || !self.agents[node].connected || is_mute {
            return;
        }
        let mut ids: Vec<_> =
            self.controllers.values().filter(|it| it.process.is_some()).map(|it| it.id).collect();
        // Everybody hears heartbeats; anything else is for one of a queue group.
        if !matches!(said, FromNode::Heartbeat(_)) {
            ids = self.bus_rng.pick(&ids).copied().into_iter().collect();
        }
        for to in ids {
            for at in self.travel(false) {
                self.push(at, Event::NodeSays { node, to, said: said.clone() });
            }
        }
    }

    fn controller_hears(&mut self, id: ControllerId, node: usize, said: &FromNode) {
        stele_planted::work_for(id);
        let now = self.now_us;
        let Some(controller) = self.controllers.get_mut(&id) else { return };
        // A process that stands still reads late what is then too old to matter.
        if controller.paused_until > now {
            return;
        }
        let signer = controller.signer(self.setup.skewed);
        let (clock, local) = (controller.clock.off_us, controller.clock.local_us(now));
        let Some(process) = &mut controller.process else { return };
        process.at(local, clock);
        process.hear(local, &signer, &self.agents[node].name, said);
        if matches!(said, FromNode::Heartbeat(_)) {
            for one in std::mem::take(&mut process.app.out) {
                self.send(id, one);
            }
        } else {
            self.turn(id);
        }
    }

    fn start_controller(&mut self, id: ControllerId) {
        let now = self.now_us;
        let Some(controller) = self.controllers.get_mut(&id) else { return };
        if controller.retired || controller.broken || controller.process.is_some() {
            return;
        }
        controller.paused_until = 0;
        match controller.start(now, &self.keys, &self.setup, &self.oracle) {
            Ok(()) => {
                let incarnation = controller.incarnation;
                // Controllers do not tick in step.
                let phase = mix(id ^ incarnation << 8 ^ self.setup.seed) % TICK_US;
                self.push(now + phase, Event::Tick(id, incarnation));
            }
            Err(ended) => self.process_ended(id, &ended),
        }
    }

    /// Controllers that are not gone for good.
    pub(crate) fn living(&self) -> Vec<ControllerId> {
        self.controllers.values().filter(|it| !it.retired).map(|it| it.id).collect()
    }

    /// The leader of the highest term.
    pub(crate) fn leader(&self) -> Option<ControllerId> {
        let running = self.controllers.values().filter_map(|it| it.process.as_ref());
        let leaders = running.map(Process::status).filter(|it| it.role == Role::Leader);
        leaders.max_by_key(|status| status.term).map(|status| status.id)
    }

    /// Ends all faults, and all clients once they have heard what they wait for.
    pub(crate) fn heal(&mut self) {
        self.healed = true;
        let now = self.now_us;
        self.trace.say(now, || "faults are over".to_owned());
        (self.peer_weather, self.bus_weather) = (CALM, CALM);
        self.feed_weather = FeedWeather::default();
        self.cuts.clear();
        self.mute.clear();
        self.deaf.clear();
        self.retire_removed();
        for id in self.living() {
            let Some(controller) = self.controllers.get_mut(&id) else { continue };
            controller.paused_until = 0;
            controller.slow_us = 0;
            controller.jumpy = false;
            // Whatever was to end a process inside has ended it by now.
            if self.hit.values().any(|hit| *hit == id) {
                controller.crash();
            }
            self.start_controller(id);
        }
        self.hit.clear();
        self.set_bus(true);
        for index in 0..self.agents.len() {
            let agent = &mut self.agents[index];
            (agent.engine.off, agent.engine.failing) = (false, 0);
            (agent.engine.hangs, agent.engine.lies) = (false, false);
            agent.start(now);
            agent.connect(now, true);
            self.queue_agent(index);
        }
        for client in &mut self.clients {
            client.done = true;
        }
    }

    /// Controllers that the fleet removed are switched off by whoever removed them.
    pub(crate) fn retire_removed(&mut self) {
        let retired = self.oracle.borrow().state.control.retired.clone();
        for (id, controller) in &mut self.controllers {
            if retired.contains(id) && !controller.retired {
                controller.crash();
                controller.retired = true;
            }
        }
    }

    fn change_members(&mut self, leader: ControllerId, change: MembershipChange) {
        if let Some(process) = self.controllers.get_mut(&leader).and_then(|it| it.process.as_mut())
            && process.change_members(change)
        {
            self.turn(leader);
        }
    }

    /// Whoever looks after a fleet removes a controller whose disk is damaged, and adds a new one.
    pub(crate) fn replace_broken(&mut self) {
        self.end_starved();
        let broken: Vec<_> =
            self.controllers.values().filter(|it| it.broken && !it.retired).map(|it| it.id).collect();
        let Some(leader) = self.leader() else { return };
        for id in &broken {
            self.change_members(leader, self.removal(*id));
        }
        let voters = self.oracle.borrow().state.control.voters.len();
        if broken.is_empty() && self.living().len() < VOTERS_MIN && voters < VOTERS_MIN {
            self.add_controller();
        }
    }

    /// Whether no client waits for anything.
    pub(crate) fn clients_are_idle(&self) -> bool {
        self.clients.iter().all(Client::is_idle)
    }

    /// Writes acknowledged, refused, of unknown outcome, and reads answered.
    pub(crate) fn counts(&self) -> [u64; 4] {
        let mut sum = [0; 4];
        for client in &self.clients {
            for (sum, count) in sum.iter_mut().zip(client.counts) {
                *sum += count;
            }
        }
        sum
    }
}
