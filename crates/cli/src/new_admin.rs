//! `stele controller new-admin`: a way back for a fleet that nobody can administer any more.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use stele_controller::new_admin::leave;
use stele_model::{PrincipalId, Time};

use crate::exit::Failure;
use crate::server::failed;
use crate::session::Session;
use crate::terminal::time;

#[derive(Args, Debug)]
pub(crate) struct NewAdmin {
    /// The controller's configuration
    #[arg(long, value_name = "FILE", env = "STELE_CONTROLLER_CONFIG")]
    config: PathBuf,
    /// Whose token it is; a token they have is replaced
    #[arg(long, value_name = "PRINCIPAL", default_value = "admin")]
    admin: PrincipalId,
}

/// What is printed.
#[derive(Serialize)]
struct Answer {
    admin: PrincipalId,
    admin_token: String,
    expires: Time,
    file: PathBuf,
}

impl NewAdmin {
    pub(crate) fn run(self, session: &Session) -> Result<(), Failure> {
        let left = leave(&self.config, &self.admin).map_err(failed)?;
        let answer =
            Answer { admin: self.admin, admin_token: left.token, expires: left.expires, file: left.file };
        session.terminal.item(&answer, |answer| {
            format!(
                "Left {} for the controller.\nThe token of {}, until {}, shown only once:\n  {}\nNext: start the \
                 controller again; its log says whether the token is believed. It is not while an administrator's \
                 token is valid.",
                answer.file.display(),
                answer.admin,
                time(answer.expires),
                answer.admin_token
            )
        })
    }
}
