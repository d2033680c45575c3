//! Log lines of instances.

use std::io::BufRead as _;

use stele_api::wire::StatusAnswer;
use stele_model::{AppEnv, InstanceId, Scope, ServiceName};

use crate::client::{Client, with_query};
use crate::exit::Failure;
use crate::session::Session;

/// Print log lines of an instance
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele logs shop/web@prod/web.0-142 --tail 50\n  stele logs shop/web@prod --service worker     # of every instance of it\n  stele logs shop/web@prod/web.0-142 --follow"
)]
pub(crate) struct Logs {
    /// An instance (see: stele status PROJECT/APP@ENV), or an app for all of its instances
    #[arg(value_name = "INSTANCE|PROJECT/APP@ENV")]
    of: String,
    /// Only instances of this service
    #[arg(long)]
    service: Option<ServiceName>,
    /// Lines of the past
    #[arg(short = 'n', long, default_value_t = stele_api::limits::LOG_TAIL_LINES_DEFAULT)]
    tail: u32,
    /// Go on with new lines until interrupted
    #[arg(short, long)]
    follow: bool,
}

impl Logs {
    pub(crate) fn run(self, session: &Session) -> Result<(), Failure> {
        let client = session.client()?;
        let instances = self.instances(&client)?;
        if self.follow && instances.len() > 1 {
            return Err(Failure::Usage(format!(
                "one instance can be followed at a time, and {} has {}\n  next: stele logs {} --follow",
                self.of,
                instances.len(),
                instances[0]
            )));
        }
        for instance in &instances {
            let path = with_query(
                "/v1/logs",
                &[
                    ("instance", Some(instance.to_string())),
                    ("tail", Some(self.tail.to_string())),
                    ("follow", self.follow.then(|| "true".to_owned())),
                ],
            );
            for line in client.stream(&path, "text/plain")?.lines() {
                let line =
                    line.map_err(|error| Failure::Unreachable(format!("the stream broke: {error}")))?;
                if instances.len() > 1 {
                    let slot = &instance.slot;
                    session.terminal.line(&format!("{}.{} | {line}", slot.service, slot.index))?;
                } else {
                    session.terminal.line(&line)?;
                }
            }
        }
        Ok(())
    }

    fn instances(&self, client: &Client) -> Result<Vec<InstanceId>, Failure> {
        if let Ok(instance) = self.of.parse::<InstanceId>() {
            return Ok(vec![instance]);
        }
        let app_env: AppEnv = self.of.parse().map_err(|_| {
            Failure::Usage(format!(
                "{:?} is neither an instance, such as shop/web@prod/web.0-142, nor an app, such as shop/web@prod",
                self.of
            ))
        })?;
        let path = with_query("/v1/status", &[("scope", Some(Scope::app_env(&app_env).to_string()))]);
        let status: StatusAnswer = client.get(&path)?;
        let instances: Vec<_> = status
            .apps
            .into_iter()
            .flat_map(|app| app.instances)
            .map(|instance| instance.id)
            .filter(|id| self.service.as_ref().is_none_or(|service| id.slot.service == *service))
            .collect();
        if instances.is_empty() {
            return Err(Failure::Failed(format!(
                "{} has no such instance\n  next: stele status {}",
                self.of, self.of
            )));
        }
        Ok(instances)
    }
}
