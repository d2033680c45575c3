//! Giving a target many inputs, and noticing what goes wrong.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, Once, PoisonError};

use crate::corpus;
use crate::limits::STACK_BYTES;
use crate::memory::measured;
use crate::mutate;
use crate::rng::Rng;
use crate::target::{Target, Verdict};

/// What went wrong with an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The input.
    pub input: Vec<u8>,
    /// What happened.
    pub what: What,
}

/// How a target failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// It panicked.
    Panic(String),
    /// It asked for more memory than its budget.
    Memory(String),
    /// Something that must hold does not.
    Broken(String),
    /// A good input of the corpus is refused.
    Refused(String),
}

impl std::fmt::Display for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Panic(text) => write!(f, "it panicked: {text}"),
            Self::Memory(text) | Self::Broken(text) | Self::Refused(text) => f.write_str(text),
        }
    }
}

/// How inputs fared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Inputs given.
    pub inputs: u64,
    /// Those that were read.
    pub read: u64,
    /// The most memory asked for by one of them, in bytes.
    pub memory_max: usize,
}

thread_local! {
    /// The last panic of this thread, while panics are kept quiet.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Panics of decoding threads are findings, and are told as such.
const QUIET_THREAD: &str = "decoder";

/// Memory is counted for the whole process, so one target runs at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn keep_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if std::thread::current().name() == Some(QUIET_THREAD) {
                PANIC.with(|panic| *panic.borrow_mut() = Some(info.to_string()));
            } else {
                usual(info);
            }
        }));
    });
}

/// Runs something as decoders are run: with a stack like the product's, its panics kept.
pub fn on_decoder_thread<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    keep_panics();
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let builder = std::thread::Builder::new().name(QUIET_THREAD.to_owned()).stack_size(STACK_BYTES);
    std::thread::scope(|scope| {
        let handle = builder.spawn_scoped(scope, run).map(std::thread::ScopedJoinHandle::join);
        match handle {
            Ok(Ok(value)) => value,
            // Whatever is run here catches the panics of decoders itself.
            Ok(Err(panic)) => panic::resume_unwind(panic),
            Err(error) => panic::resume_unwind(Box::new(format!("a thread does not start: {error}"))),
        }
    })
}

/// Gives a target one input.
pub fn one(target: &Target, input: &[u8]) -> Result<(Verdict, usize), What> {
    // What is made once for all inputs is not the fault of the first.
    match once(target, input) {
        Err(What::Memory(_)) => once(target, input),
        outcome => outcome,
    }
}

fn once(target: &Target, input: &[u8]) -> Result<(Verdict, usize), What> {
    let (outcome, memory) = measured(|| panic::catch_unwind(AssertUnwindSafe(|| (target.run)(input))));
    match outcome {
        Err(panic) => Err(What::Panic(message(panic.as_ref()))),
        Ok(Err(broken)) => Err(What::Broken(broken)),
        Ok(Ok(_)) if memory > target.budget.of(input.len()) => Err(What::Memory(format!(
            "it asked for {memory} bytes of memory for an input of {}; its budget is {}",
            input.len(),
            target.budget.of(input.len())
        ))),
        Ok(Ok(verdict)) => Ok((verdict, memory)),
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let kept = PANIC.with(|panic| panic.borrow_mut().take());
    let said = || {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| panic.downcast_ref::<String>().cloned())
    };
    kept.or_else(said).unwrap_or_else(|| "it does not say why".to_owned())
}

/// A target with all inputs that others are made of.
pub struct Run {
    target: Target,
    seed: u64,
    good: Vec<Vec<u8>>,
    nasty: Vec<Vec<u8>>,
    made: usize,
}

impl Run {
    /// Reads the corpus.
    pub fn new(target: Target, seed: u64) -> anyhow::Result<Self> {
        let files = corpus::files(&target)?;
        let (made, found): (Vec<_>, Vec<_>) = files.into_iter().partition(|(name, _)| corpus::is_made(name));
        let bytes = |files: Vec<(String, Vec<u8>)>| files.into_iter().map(|(_, bytes)| bytes);
        let count = made.len();
        let good = bytes(made).chain(bytes(found)).collect();
        Ok(Self { target, seed, good, nasty: (target.nasty)(), made: count })
    }

    /// The input of an iteration. The corpus comes first, as it stands.
    pub fn input(&self, iteration: u64) -> Vec<u8> {
        let stand = self.good.iter().chain(&self.nasty);
        if let Some(input) = stand.clone().nth(usize::try_from(iteration).unwrap_or(usize::MAX)) {
            return input.clone();
        }
        let mut rng = Rng::of(self.seed, iteration);
        let mut input = mutate::input(self.target.form, &self.good, &mut rng);
        if let Some(mend) = self.target.mend
            && !rng.once_in(4)
        {
            mend(&mut input);
        }
        input
    }

    /// How many inputs there are before any is changed.
    pub fn standing(&self) -> u64 {
        (self.good.len() + self.nasty.len()) as u64
    }

    /// Gives the target the input of an iteration.
    pub fn step(&self, iteration: u64, tally: &mut Tally) -> Result<(), Finding> {
        let input = self.input(iteration);
        let outcome = one(&self.target, &input);
        tally.inputs += 1;
        let what = match outcome {
            Ok((Verdict::Refused, _)) if iteration < self.made as u64 => What::Refused(
                "a good input of the corpus is refused; if its form changed, write the corpus anew: \
                 cargo xtask fuzz --corpus"
                    .to_owned(),
            ),
            Ok((verdict, memory)) => {
                tally.read += u64::from(verdict == Verdict::Read);
                tally.memory_max = tally.memory_max.max(memory);
                return Ok(());
            }
            Err(what) => what,
        };
        Err(Finding { input, what })
    }

    /// Gives the target its corpus and so many inputs more.
    pub fn bounded(&self, iterations: u64) -> Result<Tally, Finding> {
        on_decoder_thread(|| {
            let mut tally = Tally::default();
            for iteration in 0..self.standing() + iterations {
                self.step(iteration, &mut tally)?;
            }
            Ok(tally)
        })
    }
}
