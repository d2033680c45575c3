//! Images: whether they are here, and getting them.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use bollard::models::CreateImageInfo;
use bollard::query_parameters::{
    CreateImageOptionsBuilder, ListContainersOptionsBuilder, ListImagesOptionsBuilder,
};
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use stele_model::release::Image;
use stele_reconcile::ImageHere;
use tokio::time::Instant;

use super::{Docker, Failed, engine_error, status};
use crate::inspect::ImageShown;
use crate::limits::PULL_STALL_MAX;
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
        let client = self.client().await?.clone().with_timeout(PULL_STALL_MAX);
        let told = client.create_image(Some(options), None, credentials).map_err(pull_error);
        to_its_end(told, PULL_STALL_MAX, image).await
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
    // Much else that an engine looks for may be not found, and be there the next time.
    let is_not_found = words.contains("failed to resolve reference") && words.ends_with(": not found");
    let is_clear = words.contains("manifest unknown") || is_not_found;
    if is_clear && !words.contains("denied") {
        return RuntimeError::NoSuchImage(words.clone());
    }
    engine_error(error)
}

/// Follows a pull, for as long as it gets on.
async fn to_its_end(
    told: impl Stream<Item = Result<CreateImageInfo, RuntimeError>>,
    stall_max: Duration,
    image: &Image,
) -> Result<(), RuntimeError> {
    let mut told = std::pin::pin!(told);
    let mut progress = Progress::default();
    let mut got_on = Instant::now();
    loop {
        match tokio::time::timeout_at(got_on + stall_max, told.next()).await {
            Ok(None) => return Ok(()),
            Ok(Some(told)) => {
                if progress.gets_on(told?) {
                    got_on = Instant::now();
                }
            }
            Err(_) => {
                let seconds = stall_max.as_secs();
                return Err(RuntimeError::Engine(format!("pulling {image} got no further for {seconds} s")));
            }
        }
    }
}

/// How far each layer is, as told last. Some engines repeat that while nothing happens.
#[derive(Debug, Default)]
struct Progress(HashMap<String, (Option<String>, Option<i64>)>);

impl Progress {
    fn gets_on(&mut self, told: CreateImageInfo) -> bool {
        let now = (told.status, told.progress_detail.and_then(|detail| detail.current));
        let before = self.0.insert(told.id.unwrap_or_default(), now.clone());
        before.is_none_or(|before| before != now)
    }
}

/// Such as `registry.example.com/shop/web@sha256:…`.
fn name_of(text: &str) -> Option<Image> {
    let (repository, digest) = text.split_once('@')?;
    Some(Image { repository: repository.to_owned(), digest: digest.parse().ok()? })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bollard::models::ProgressDetail;
    use futures::stream;
    use stele_model::Digest;

    use super::*;

    fn told(id: &str, status: &str, current: i64) -> CreateImageInfo {
        CreateImageInfo {
            id: Some(id.to_owned()),
            status: Some(status.to_owned()),
            progress_detail: Some(ProgressDetail { current: Some(current), total: None }),
            ..CreateImageInfo::default()
        }
    }

    #[test]
    fn what_is_only_repeated_is_no_progress() {
        let mut progress = Progress::default();
        assert!(progress.gets_on(told("a", "Downloading", 1)));
        assert!(progress.gets_on(told("b", "Downloading", 1)));
        assert!(!progress.gets_on(told("a", "Downloading", 1)));
        assert!(progress.gets_on(told("a", "Downloading", 2)));
        assert!(!progress.gets_on(told("b", "Downloading", 1)));
        assert!(progress.gets_on(told("b", "Extracting", 1)));
    }

    #[tokio::test]
    async fn a_pull_that_gets_no_further_has_failed_though_the_engine_goes_on_talking() {
        let image = Image { repository: "registry/shop".to_owned(), digest: Digest::of(&[b"v1"]) };
        let limit = Duration::from_millis(1);
        let repeats = stream::repeat_with(|| Ok(told("a", "Downloading", 1))).then(async |told| {
            tokio::task::yield_now().await;
            told
        });
        let ended = to_its_end(repeats, limit, &image).await.unwrap_err();
        assert!(ended.to_string().contains("no further"), "{ended}");
        let silent = stream::iter([Ok(told("a", "Downloading", 1))]).chain(stream::pending());
        assert!(to_its_end(silent, limit, &image).await.is_err());
        let whole = stream::iter([Ok(told("a", "Downloading", 1)), Ok(told("a", "Pull complete", 1))]);
        to_its_end(whole, Duration::MAX / 4, &image).await.unwrap();
    }

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
