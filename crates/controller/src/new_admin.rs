//! A way back for a fleet that nobody can administer any more.
//!
//! Tokens end, and only an administrator makes another. When the last one's has ended, whoever governs a controller's
//! host leaves a new one beside its configuration, and the controller makes it known at its next start. That takes
//! nothing that its host does not have: who has a controller's keys can have anything decided when it leads. And it does
//! nothing while an administrator's token is valid, nor a day later, so that a file that was forgotten is worth nothing.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use stele_ledger::system_request;
use stele_model::event::{Holder, Role, Token};
use stele_model::limits::TOKEN_LIFE_SECONDS_MAX;
use stele_model::{Command, PrincipalId, Request, Time, Value};

use crate::config::{Config, read_text};
use crate::found::new_token;
use crate::handle::{Handle, SubmitError, now};
use crate::limits::{HOUSEKEEPING_INTERVAL, NEW_ADMIN_LIFE};
use crate::own_files::replace;
use crate::when::since_1970;

/// The file, beside the configuration.
const NEW_ADMIN: &str = "new-admin.json";

/// What is in it; the token's text is not.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewAdmin {
    token: Token,
    /// From then on it is worth nothing.
    until: Time,
}

/// A new administrator's token that a controller makes known.
#[derive(Debug)]
pub struct Left {
    /// Its text, which is kept nowhere.
    pub token: String,
    /// Until when it is believed, once it is known.
    pub expires: Time,
    /// The file that was left.
    pub file: PathBuf,
}

/// Leaves a new administrator's token beside a controller's configuration, in place of one that is there.
pub fn leave(config: &Path, principal: &PrincipalId) -> anyhow::Result<Left> {
    let own = Config::read(config)?;
    let (text, hash) = new_token()?;
    let now = now();
    let expires = Time(now.0 + TOKEN_LIFE_SECONDS_MAX * 1_000_000);
    let token =
        Token { principal: principal.clone(), hash, role: Role::Admin, holder: Holder::Person, expires };
    let left = NewAdmin { token, until: Time(now.0 + since_1970(NEW_ADMIN_LIFE).0) };
    let file = beside(&own);
    replace(&file, &serde_json::to_string_pretty(&left)?, config)?;
    Ok(Left { token: text, expires, file })
}

fn beside(config: &Config) -> PathBuf {
    config.fresh.with_file_name(NEW_ADMIN)
}

/// What was left, if anything was and it is still worth something.
fn read(file: &Path, now: Time) -> anyhow::Result<Option<Token>> {
    if !file.try_exists().with_context(|| format!("cannot find out whether {} is there", file.display()))? {
        return Ok(None);
    }
    let left: NewAdmin = serde_json::from_str(&read_text(file)?)
        .with_context(|| format!("{} is not what stele controller new-admin leaves", file.display()))?;
    anyhow::ensure!(
        now < left.until,
        "{} was left too long ago: repeat stele controller new-admin",
        file.display()
    );
    Ok(Some(left.token))
}

/// Makes known what was left beside this controller's configuration, once somebody leads.
pub(crate) async fn make_known(handle: &Handle, config: &Config) {
    let file = beside(config);
    let token = match read(&file, handle.now()) {
        Ok(Some(token)) => token,
        Ok(None) => return,
        Err(error) => return tracing::error!("the new administrator is not made known: {error:#}"),
    };
    let mut follow = handle.follow();
    if follow.wait_for(|published| published.state.control.fleet.is_some()).await.is_err() {
        return;
    }
    let principal = token.principal.clone();
    let why =
        format!("no administrator's token was valid; asked for on the host of controller {}", config.id);
    let request =
        Request { reason: Some(Value::Plain(why)), ..system_request(Command::RestoreAdmin { token }) };
    loop {
        match handle.submit(request.clone()).await {
            Ok(answer) if answer.decision.is_some() => {
                tracing::warn!(%principal, "a new administrator's token is believed from now on");
                break;
            }
            Ok(_) => {
                tracing::warn!("an administrator's token is valid, so no other was made known");
                break;
            }
            Err(SubmitError::Rejected(why)) => {
                return tracing::error!("the new administrator is not made known: {why}");
            }
            Err(error) => {
                tracing::debug!(%error, "the new administrator is not made known yet");
                tokio::time::sleep(HOUSEKEEPING_INTERVAL).await;
            }
        }
    }
    if let Err(error) = std::fs::remove_file(&file) {
        tracing::warn!(%error, file = %file.display(), "it is worth nothing any more, and cannot be removed");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_was_left_is_worth_something_for_a_day() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(NEW_ADMIN);
        assert_eq!(read(&file, now()).unwrap(), None);
        let token = Token {
            principal: "dana".parse().unwrap(),
            hash: stele_model::Digest::EMPTY,
            role: Role::Admin,
            holder: Holder::Person,
            expires: Time(1),
        };
        let left = NewAdmin { token: token.clone(), until: Time(1000) };
        std::fs::write(&file, serde_json::to_string(&left).unwrap()).unwrap();
        assert_eq!(read(&file, Time(999)).unwrap(), Some(token));
        let late = read(&file, Time(1000)).unwrap_err();
        assert!(late.to_string().contains("repeat stele controller new-admin"), "{late}");
        std::fs::write(&file, "{}").unwrap();
        assert!(read(&file, Time(1)).is_err());
    }
}
