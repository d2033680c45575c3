//! Deploying and removing apps that exist.

use std::collections::BTreeMap;

use stele_api::wire::{ChangeAnswer, DeployRequest, RemoveRequest};
use stele_model::AppEnv;
use ureq::http::Method;

use super::spec::parse_images;
use crate::client::encode;
use crate::exit::Failure;
use crate::options::{ChangeOptions, WaitOptions};
use crate::session::Session;

/// Deploy another image or release of an app
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele deploy shop/web@prod --image registry.example.com/shop/web:1.3 --wait\n  stele deploy shop/web@prod --image web=registry/shop/web:1.3 --image worker=registry/shop/worker:7\n  stele deploy shop/web@prod --release v12\n  stele deploy shop/web@prod --again      # what is in force there, once more"
)]
pub(crate) struct Deploy {
    /// The app in its environment
    #[arg(value_name = "PROJECT/APP@ENV")]
    app_env: AppEnv,
    /// A new image; a tag is resolved to a digest once, now
    #[arg(long = "image", value_name = "[SERVICE=]REF", conflicts_with = "release")]
    images: Vec<String>,
    /// An existing release, such as v12; without this, an image and --again, the app's newest, whichever environment
    /// it was made for
    #[arg(long, value_name = "vN", value_parser = parse_release)]
    release: Option<u32>,
    /// Only show what would change
    #[arg(long, conflicts_with = "wait")]
    plan: bool,
    /// Deploy even when nothing differs; without a release and an image, what is in force in this environment
    #[arg(long)]
    again: bool,
    /// What a rollback past this deployment would not bring back, such as "migrates orders"
    #[arg(long, value_name = "WHAT")]
    barrier: Option<String>,
    #[command(flatten)]
    wait: WaitOptions,
    #[command(flatten)]
    change: ChangeOptions,
}

fn parse_release(text: &str) -> Result<u32, String> {
    text.strip_prefix('v')
        .unwrap_or(text)
        .parse()
        .map_err(|_| format!("{text:?} is not a release: write v and its number, such as v12"))
}

impl Deploy {
    pub(crate) fn run(self, session: &Session) -> Result<(), Failure> {
        let (image, images) = split_images(&self.images)?;
        let client = session.client()?;
        let request = DeployRequest {
            app_env: self.app_env.clone(),
            image,
            images,
            release: self.release,
            again: self.again,
            barrier: self.barrier.clone(),
            plan: self.plan,
            reason: self.change.reason.clone(),
            links: self.change.links(),
        };
        let answer: ChangeAnswer =
            client.write(Method::POST, "/v1/deployments", Some(&request), &self.change.conditions())?;
        session.changed(&client, &self.app_env.to_string(), &answer, Some(self.wait))
    }
}

type Images = BTreeMap<stele_model::ServiceName, String>;

/// One bare reference, or several with their services.
fn split_images(images: &[String]) -> Result<(Option<String>, Images), Failure> {
    if let [only] = images
        && !only.contains('=')
    {
        return Ok((Some(only.clone()), BTreeMap::new()));
    }
    let pairs = images
        .iter()
        .map(|text| {
            super::key_value(text).map_err(|_| {
                Failure::Usage(format!("--image {text}: with several images, write SERVICE=REF for each"))
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok((None, parse_images(&pairs)?))
}

/// Remove an app from an environment
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  stele remove shop/web@staging --plan\n  stele remove shop/web@staging --reason \"moved to cart\" --wait\n\nIts history stays, and a rollback brings it back."
)]
pub(crate) struct Remove {
    /// The app in its environment
    #[arg(value_name = "PROJECT/APP@ENV")]
    app_env: AppEnv,
    /// Only show what would change
    #[arg(long, conflicts_with = "wait")]
    plan: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    wait: WaitOptions,
    #[command(flatten)]
    change: ChangeOptions,
}

impl Remove {
    pub(crate) fn run(self, session: &Session) -> Result<(), Failure> {
        let client = session.client()?;
        if !self.plan {
            session.confirm(&format!("Remove {} and stop all of its containers?", self.app_env), self.yes)?;
        }
        let (app, environment) = (&self.app_env.app, &self.app_env.environment);
        let path = format!(
            "/v1/apps/{}/{}/{}",
            encode(app.project.as_str()),
            encode(app.app.as_str()),
            encode(environment.as_str())
        );
        let request =
            RemoveRequest { plan: self.plan, reason: self.change.reason.clone(), links: self.change.links() };
        let answer: ChangeAnswer =
            client.write(Method::DELETE, &path, Some(&request), &self.change.conditions())?;
        session.changed(&client, &self.app_env.to_string(), &answer, Some(self.wait))
    }
}
