//! What a command works with: the fleet it talks to and the terminal it prints on.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use stele_api::wire::{ChangeAnswer, DeploymentStatus};
use stele_model::Seq;

use crate::client::{Client, bearer};
use crate::context::{Context, Contexts};
use crate::exit::Failure;
use crate::options::{Globals, WaitOptions};
use crate::progress::{target, wait_for};
use crate::terminal::{Terminal, one_line, version};

pub(crate) struct Session {
    pub(crate) terminal: Terminal,
    globals: Globals,
}

impl Session {
    pub(crate) fn new(globals: Globals) -> Self {
        Self { terminal: Terminal::new(globals.output), globals }
    }

    /// Who is talked to, and as whom.
    pub(crate) fn context(&self) -> Result<Context, Failure> {
        Ok(self.selected()?.1)
    }

    /// The same, and under which name it is kept, where it was chosen by that.
    fn selected(&self) -> Result<(Option<String>, Context), Failure> {
        let addresses: Vec<_> =
            self.globals.addr.iter().filter(|it| !it.trim().is_empty()).cloned().collect();
        let token = self.token()?;
        if !addresses.is_empty() && self.globals.context.is_none() {
            let contexts = Contexts::load().unwrap_or_default();
            let known = contexts.with_addresses(&addresses);
            let context = Context {
                token: token.or_else(|| known?.token.clone()),
                tls_root: known.and_then(|context| context.tls_root.clone()),
                root: known.and_then(|context| context.root.clone()),
                addresses,
            };
            return Ok((None, context));
        }
        let contexts = Contexts::load()?;
        let Some(context) = contexts.select(self.globals.context.as_deref())? else {
            return Err(Failure::Usage(
                "no fleet is known: nothing says where its controllers are\n  next: stele dev   (a fleet on this \
                 machine), stele login --addr URL, or set STELE_ADDR and STELE_TOKEN"
                    .to_owned(),
            ));
        };
        let mut context = context.clone();
        if context.has_addresses(&addresses) {
            context.addresses = addresses;
        } else if !addresses.is_empty() {
            // One of the two is not meant, and the other would be changed.
            let own: Vec<_> = context.addresses.iter().map(|it| one_line(it)).collect();
            return Err(Failure::Usage(format!(
                "the context that is named is of {}, and --addr or STELE_ADDR says {}\n  next: leave out one of the two",
                own.join(", "),
                one_line(&addresses.join(", "))
            )));
        }
        context.token = token.or(context.token);
        let name = self.globals.context.clone().or(contexts.current);
        Ok((name, context))
    }

    /// The token given with the command or in the environment.
    pub(crate) fn token(&self) -> Result<Option<String>, Failure> {
        Ok(self.globals.token.as_deref().map(bearer).transpose()?.flatten())
    }

    pub(crate) fn client(&self) -> Result<Client, Failure> {
        Client::new(&self.context()?)
    }

    pub(crate) fn globals(&self) -> &Globals {
        &self.globals
    }

    /// Says what a change came to, then waits for it when asked to.
    pub(crate) fn changed(
        &self,
        client: &Client,
        what: &str,
        answer: &ChangeAnswer,
        wait: Option<WaitOptions>,
    ) -> Result<(), Failure> {
        let terminal = self.terminal;
        terminal.answer(answer, |answer| {
            if answer.planned {
                return match answer.differences.as_slice() {
                    [] => {
                        let release = answer.release.map(|number| format!(" v{number}")).unwrap_or_default();
                        format!("{what}{release}: nothing would change")
                    }
                    differences => format!(
                        "{what}: {} would change ({})\n{}\nNothing was done: this was a plan.",
                        count(differences.len(), "thing"),
                        version(answer.release),
                        terminal.differences(differences)
                    ),
                };
            }
            let release = answer.release.map(|number| format!(" v{number}")).unwrap_or_default();
            match (answer.seq, answer.deployments.as_slice()) {
                (None, _) => format!("{what}{release}: nothing had to change"),
                (Some(seq), []) => format!("{what}{release}: done (seq {seq})"),
                (Some(seq), ids) => format!("{what}{release}: {} started (seq {seq})", deployments(ids)),
            }
        })?;
        self.waited(client, &answer.deployments, wait)
    }

    /// Waits for deployments, when asked to, and says how they ended.
    pub(crate) fn waited(
        &self,
        client: &Client,
        ids: &[Seq],
        wait: Option<WaitOptions>,
    ) -> Result<(), Failure> {
        let Some(wait) = wait.filter(|wait| wait.wait && !ids.is_empty()) else { return Ok(()) };
        for status in wait_for(client, ids, wait.patience())? {
            self.terminal.note(&ended(&status))?;
        }
        Ok(())
    }

    /// Asks before something large is done to a fleet, and says to which: whoever has several may mean another one.
    pub(crate) fn confirm(&self, question: &str, yes: bool) -> Result<(), Failure> {
        if yes {
            return Ok(());
        }
        let (name, Context { addresses, .. }) = self.selected()?;
        let addresses: Vec<_> = addresses.iter().map(|it| one_line(it)).collect();
        let name = name.map(|name| format!("context {}: ", one_line(&name))).unwrap_or_default();
        Self::ask(&format!("{question} ({name}{})", addresses.join(", ")), false)
    }

    /// Asks before something large; off a terminal only `--yes` answers.
    pub(crate) fn ask(question: &str, yes: bool) -> Result<(), Failure> {
        if yes {
            return Ok(());
        }
        if !std::io::stdin().is_terminal() {
            return Err(Failure::Usage(format!("{question}\n  nobody is there to ask: repeat with --yes")));
        }
        let mut out = std::io::stderr().lock();
        write!(out, "{question} [y/N] ")?;
        out.flush()?;
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        if matches!(answer.trim(), "y" | "Y" | "yes") {
            Ok(())
        } else {
            Err(Failure::Usage("nothing was done".to_owned()))
        }
    }
}

fn ended(status: &DeploymentStatus) -> String {
    if status.to.is_none() && status.places.is_empty() {
        return format!("{} is removed", status.app_env);
    }
    let healthy = count(status.healthy as usize, "instance");
    let target = target(status);
    let is = if target.starts_with('v') { "runs" } else { "is" };
    format!("{} {is} {target}: {healthy} healthy", status.app_env)
}

/// `1 thing`, `2 things`.
pub(crate) fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

fn deployments(ids: &[Seq]) -> String {
    let list = ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if ids.len() == 1 { format!("deployment {list}") } else { format!("deployments {list}") }
}
