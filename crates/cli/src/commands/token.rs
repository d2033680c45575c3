//! Tokens of people and programs.

use clap::{Subcommand, ValueEnum};
use stele_api::wire::{ChangeAnswer, TokenAnswer, TokenRequest, TokensAnswer, WithdrawRequest};
use stele_model::PrincipalId;
use stele_model::event::{Holder, Role};
use ureq::http::Method;

use crate::client::with_query;
use crate::exit::Failure;
use crate::options::{ChangeOptions, ReadOptions, point};
use crate::session::Session;
use crate::terminal::{Tone, table, time};

/// Make, list and revoke tokens; one for each principal
#[derive(Subcommand, Debug)]
pub(crate) enum Token {
    Create(CreateToken),
    List(ListTokens),
    Revoke(RevokeToken),
}

impl Token {
    pub(crate) fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Create(it) => it.run(session),
            Self::List(it) => it.run(session),
            Self::Revoke(it) => it.run(session),
        }
    }
}

/// What a token may do.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum RoleOption {
    /// Everything
    Admin,
    /// Deploy, roll back, configure; read
    Deployer,
    /// Read everything, change nothing
    Auditor,
}

impl From<RoleOption> for Role {
    fn from(role: RoleOption) -> Self {
        match role {
            RoleOption::Admin => Self::Admin,
            RoleOption::Deployer => Self::Deployer,
            RoleOption::Auditor => Self::Auditor,
        }
    }
}

/// Make a principal's token; it is shown this once
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele token create anna --role deployer\n  stele token create ci --role deployer --service --days 30 > ci.token\n\nA new token replaces the principal's old one."
)]
pub(crate) struct CreateToken {
    /// Whose
    principal: PrincipalId,
    /// What it may do
    #[arg(long, value_enum)]
    role: RoleOption,
    /// For a program, such as CI: it never lifts a latch
    #[arg(long)]
    service: bool,
    /// How many days it is believed
    #[arg(long, default_value_t = 90)]
    days: u64,
    #[command(flatten)]
    change: ChangeOptions,
}

impl CreateToken {
    fn run(self, session: &Session) -> Result<(), Failure> {
        let request = TokenRequest {
            principal: self.principal,
            role: self.role.into(),
            holder: if self.service { Holder::Service } else { Holder::Person },
            life_seconds: Some(self.days.saturating_mul(24 * 3600)),
            reason: self.change.reason.clone(),
            links: self.change.links(),
        };
        let answer: TokenAnswer =
            session.client()?.write(Method::POST, "/v1/tokens", Some(&request), &self.change.conditions())?;
        eprintln!(
            "the token of {}, valid until {}; it is shown this once{}",
            answer.principal,
            time(answer.expires),
            if answer.replaced { ". The one they had is no longer believed" } else { "" }
        );
        session.terminal.answer(&answer, |answer| answer.token.clone())
    }
}

/// List tokens
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  stele token list\n  stele token list --at 2026-01-31T12:00:00Z")]
pub(crate) struct ListTokens {
    /// As of when: seq:N, a time, or "2h ago"
    #[arg(long, value_name = "POINT", value_parser = point)]
    at: Option<String>,
    #[command(flatten)]
    read: ReadOptions,
}

impl ListTokens {
    fn run(self, session: &Session) -> Result<(), Failure> {
        let path = with_query("/v1/tokens", &[("at", self.at), self.read.consistency()]);
        let answer: TokensAnswer = session.client()?.get(&path)?;
        let terminal = session.terminal;
        terminal.answer(&answer, |answer| {
            let rows = answer.tokens.iter().map(|token| {
                let expires = time(token.expires);
                vec![
                    token.principal.to_string(),
                    format!("{:?}", token.role).to_lowercase(),
                    format!("{:?}", token.holder).to_lowercase(),
                    if token.expired {
                        terminal.paint(Tone::Bad, &format!("{expires} (expired)"))
                    } else {
                        expires
                    },
                ]
            });
            table(&["PRINCIPAL", "ROLE", "HOLDER", "EXPIRES"], rows.collect())
        })
    }
}

/// Stop believing a principal's token
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  stele token revoke ci --reason \"leaked in a build log\"")]
pub(crate) struct RevokeToken {
    /// Whose
    principal: PrincipalId,
    #[command(flatten)]
    change: ChangeOptions,
}

impl RevokeToken {
    fn run(self, session: &Session) -> Result<(), Failure> {
        let client = session.client()?;
        let path = format!("/v1/tokens/{}", self.principal);
        let request = WithdrawRequest { reason: self.change.reason.clone(), links: self.change.links() };
        let answer: ChangeAnswer =
            client.write(Method::DELETE, &path, Some(&request), &self.change.conditions())?;
        session.changed(&client, &format!("token {} revoke", self.principal), &answer, None)
    }
}
