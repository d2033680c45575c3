//! Which fleet is talked to, and as whom.

use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;
use stele_api::wire::ClusterAnswer;
use stele_model::signature::PublicKey;

use crate::client::{Client, bearer};
use crate::context::{Context, Contexts, remember};
use crate::exit::Failure;
use crate::session::Session;
use crate::terminal::table;

/// Longest token read from standard input, in bytes.
const TOKEN_BYTES_MAX: u64 = 4096;

/// Save a fleet's address and a token, after trying them
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele login --addr https://stele.example.com --token-stdin < my.token\n  stele login --name prod --addr https://c1.example.com:7400,https://c2.example.com:7400 --tls-root ca.pem --token TOKEN"
)]
pub(crate) struct Login {
    /// Name of the context
    #[arg(long, default_value = "default")]
    name: String,
    /// PEM of the authority behind https addresses
    #[arg(long, value_name = "FILE")]
    tls_root: Option<PathBuf>,
    /// The fleet root's public key (see: stele cluster status), to be sure which fleet it is; else the
    /// controllers' word is taken for it, this once
    #[arg(long, value_name = "HEX", env = "STELE_ROOT", value_parser = super::checkpoint::root_key)]
    root: Option<PublicKey>,
    /// Read the token from standard input
    #[arg(long, conflicts_with = "token")]
    token_stdin: bool,
}

impl Login {
    pub(crate) fn run(self, session: &Session) -> Result<(), Failure> {
        let globals = session.globals();
        if globals.addr.is_empty() {
            return Err(Failure::Usage("say where the controllers are: --addr URL[,URL]".to_owned()));
        }
        let token = match session.token()? {
            Some(token) => token,
            None => self.read_token()?,
        };
        let tls_root = self
            .tls_root
            .as_ref()
            .map(|path| {
                std::fs::read_to_string(path)
                    .map_err(|error| Failure::Usage(format!("cannot read {}: {error}", path.display())))
            })
            .transpose()?;
        let mut context =
            Context { addresses: globals.addr.clone(), token: Some(token), tls_root, root: self.root };
        let cluster: ClusterAnswer = Client::new(&context)?.get("/v1/cluster?consistency=stale")?;
        if let (Some(wanted), Some(found)) = (&context.root, &cluster.root)
            && wanted != found
        {
            return Err(Failure::Failed(format!(
                "this is another fleet: its root key is {found}, not {wanted}; nothing was saved"
            )));
        }
        context.root = context.root.or(cluster.root);
        remember(&self.name, context)?;
        let fleet = cluster
            .fleet
            .map_or_else(|| "a fleet not yet created".to_owned(), |fleet| format!("fleet {fleet}"));
        session.terminal.line(&format!("logged in to {fleet}; saved as context {}", self.name))
    }

    fn read_token(&self) -> Result<String, Failure> {
        if !self.token_stdin && !std::io::stdin().is_terminal() {
            return Err(Failure::Usage("give the token with --token-stdin or STELE_TOKEN".to_owned()));
        }
        if !self.token_stdin {
            eprintln!("paste the token, then press Enter and Ctrl-D");
        }
        let mut token = String::new();
        std::io::stdin()
            .lock()
            .take(TOKEN_BYTES_MAX)
            .read_to_string(&mut token)
            .map_err(|error| Failure::Usage(format!("the token cannot be read: {error}")))?;
        bearer(&token)?.ok_or_else(|| Failure::Usage("the token is empty".to_owned()))
    }
}

/// List saved contexts and choose one
#[derive(Subcommand, Debug)]
pub(crate) enum ContextCommand {
    List(ListContexts),
    Use(UseContext),
}

impl ContextCommand {
    pub(crate) fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::List(ListContexts {}) => ListContexts::run(session),
            Self::Use(it) => it.run(session),
        }
    }
}

/// List saved contexts
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  stele context list")]
pub(crate) struct ListContexts {}

/// A context without its token.
#[derive(Serialize)]
struct Listed {
    name: String,
    current: bool,
    addresses: Vec<String>,
}

impl ListContexts {
    fn run(session: &Session) -> Result<(), Failure> {
        let contexts = Contexts::load()?;
        let list: Vec<_> = contexts
            .contexts
            .into_iter()
            .map(|(name, context)| Listed {
                current: contexts.current.as_deref() == Some(&name),
                addresses: context.addresses,
                name,
            })
            .collect();
        session.terminal.answer(&list, |list| {
            if list.is_empty() {
                return "No context is saved.\nnext: stele login --addr URL".to_owned();
            }
            let rows = list.iter().map(|it| {
                vec![if it.current { "*" } else { "" }.to_owned(), it.name.clone(), it.addresses.join(",")]
            });
            table(&["", "CONTEXT", "ADDRESSES"], rows.collect())
        })
    }
}

/// Choose the context used from now on
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  stele context use prod")]
pub(crate) struct UseContext {
    /// Its name
    name: String,
}

impl UseContext {
    fn run(self, session: &Session) -> Result<(), Failure> {
        let mut contexts = Contexts::load()?;
        contexts.select(Some(&self.name))?;
        contexts.current = Some(self.name.clone());
        contexts.save()?;
        session.terminal.line(&format!("using context {}", self.name))
    }
}
