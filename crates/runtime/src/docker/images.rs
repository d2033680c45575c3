//! Images: whether they are here, and getting them.

use std::collections::BTreeSet;
use std::time::Duration;

use bollard::query_parameters::{
    CreateImageOptionsBuilder, ListContainersOptionsBuilder, ListImagesOptionsBuilder,
};
use futures::TryStreamExt as _;
use stele_model::release::Image;
use stele_reconcile::ImageHere;

use super::{Docker, Failed, engine_error, status};
use crate::inspect::ImageShown;
use crate::limits::PULL_TIMEOUT_MS;
use crate::runtime::RuntimeError;

impl Docker {
    pub(super) async fn image(&self, image: &str) -> Result<Option<ImageShown>, RuntimeError> {
        match self.client().await?.inspect_image(image).await {
            Ok(found) => Ok(Some(ImageShown::of(found))),
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(engine_error(error)),
        }
    }

    /// The image under its own name, or the same bytes under another.
    pub(super) async fn find(&self, image: &Image) -> Result<Option<(String, ImageShown)>, RuntimeError> {
        let name = image.to_string();
        if let Some(found) = self.image(&name).await? {
            return Ok(Some((name, found)));
        }
        let options = ListImagesOptionsBuilder::default().build();
        let here = self.client().await?.list_images(Some(options)).await.map_err(engine_error)?;
        let mut names = here.iter().flat_map(|one| &one.repo_digests);
        let is_same = |name: &&String| name_of(name).is_some_and(|name| name.digest == image.digest);
        let Some(name) = names.find(is_same).cloned() else { return Ok(None) };
        Ok(self.image(&name).await?.map(|found| (name, found)))
    }

    pub(super) async fn list(&self) -> Result<Vec<ImageHere>, RuntimeError> {
        let client = self.client().await?;
        let images = client.list_images(Some(ListImagesOptionsBuilder::default().build()));
        let images = images.await.map_err(engine_error)?;
        // Everybody's containers: an image that somebody else's is made of stays.
        let options = ListContainersOptionsBuilder::default().all(true).build();
        let containers = client.list_containers(Some(options)).await.map_err(engine_error)?;
        let used: BTreeSet<String> =
            containers.into_iter().filter_map(|container| container.image_id).collect();
        let here = images.into_iter().map(|image| ImageHere {
            names: image.repo_digests.iter().filter_map(|name| name_of(name)).collect(),
            is_tagged: image.repo_tags.iter().any(|tag| tag != "<none>:<none>"),
            is_used: used.contains(&image.id),
        });
        Ok(here.filter(|image| !image.names.is_empty()).collect())
    }

    pub(super) async fn pull_image(&self, image: &Image) -> Result<(), RuntimeError> {
        if self.image(&image.to_string()).await?.is_some() {
            return Ok(());
        }
        let options = CreateImageOptionsBuilder::default()
            .from_image(&image.repository)
            .tag(&image.digest.to_string())
            .build();
        let credentials = self.config.logins.now().credentials(&image.repository);
        let limit = Duration::from_millis(PULL_TIMEOUT_MS);
        let client = self.client().await?.clone().with_timeout(limit);
        let pulled =
            client.create_image(Some(options), None, credentials).try_for_each(async |_| Ok(()));
        match tokio::time::timeout(limit, pulled).await {
            Ok(outcome) => outcome.map_err(pull_error),
            Err(_) => {
                Err(RuntimeError::Engine(format!("pulling {image} took longer than {PULL_TIMEOUT_MS} ms")))
            }
        }
    }
}

/// What an engine answers about an image that the registry has not: not where it says as much of one that may only need
/// another login.
fn pull_error(error: Failed) -> RuntimeError {
    let words = match &error {
        Failed::DockerResponseServerError { status_code: 404, message } => message,
        Failed::DockerStreamError { error } => error,
        _ => return engine_error(error),
    };
    let is_clear = words.contains("manifest unknown") || words.ends_with(": not found");
    if is_clear && !words.contains("denied") {
        return RuntimeError::NoSuchImage(words.clone());
    }
    engine_error(error)
}

/// Such as `registry.example.com/shop/web@sha256:…`.
fn name_of(text: &str) -> Option<Image> {
    let (repository, digest) = text.split_once('@')?;
    Some(Image { repository: repository.to_owned(), digest: digest.parse().ok()? })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_a_registry_that_is_clear_about_it_has_no_such_image() {
        let answered = |status_code, message: &str| {
            pull_error(Failed::DockerResponseServerError { status_code, message: message.to_owned() })
        };
        for (status, words) in [
            (404, "manifest for registry/shop@sha256:12 not found: manifest unknown: manifest unknown"),
            (
                404,
                "failed to resolve reference \"registry/shop@sha256:12\": registry/shop@sha256:12: not found",
            ),
        ] {
            assert!(matches!(answered(status, words), RuntimeError::NoSuchImage(_)), "{words}");
        }
        for (status, words) in [
            (404, "pull access denied for shop, repository does not exist or may require 'docker login'"),
            (429, "toomanyrequests: You have reached your pull rate limit"),
            (500, "received unexpected HTTP status: 503 Service Unavailable"),
            (500, "lookup registry: no such host: not found"),
        ] {
            assert!(matches!(answered(status, words), RuntimeError::Engine(_)), "{words}");
        }
    }
}
