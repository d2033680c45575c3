//! Copying one image between registries: the manifest or list of manifests byte for byte, so that
//! its digest stays, and what they name. What is there already is not copied again, and the
//! manifest comes last: a mirror that names an image has all of it.

use futures::TryStreamExt as _;
use oci_client::errors::OciDistributionError;
use oci_client::{Client, Reference};
use serde::Deserialize;
use stele_model::Digest;
use stele_model::release::Image;

use crate::limits::{BLOBS_PER_MANIFEST_MAX, MANIFEST_BYTES_MAX, MANIFESTS_PER_IMAGE_MAX};
use crate::registry::Registry;

/// What manifests are asked for as: everything that Docker can run.
const ACCEPTED: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// Why an image was not copied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    /// A registry refused, or was not reached.
    #[error("{doing}: {error}")]
    Registry {
        /// What was asked of it.
        doing: String,
        /// Its words.
        error: Box<OciDistributionError>,
    },
    /// The name cannot be used.
    #[error("{0} is not an image reference")]
    Malformed(String),
    /// It is not what Docker runs, or too large, or not what its digest says.
    #[error("{0}")]
    Unfit(String),
    /// It took too long.
    #[error("copying took longer than {seconds} s")]
    TimedOut {
        /// How long was waited, in seconds.
        seconds: u64,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    media_type: Option<String>,
    /// Of a list: one for each platform.
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    size: u64,
    /// Layers that are only had elsewhere, and may not be copied.
    #[serde(default)]
    urls: Vec<String>,
}

/// One end of a copy.
struct End<'a> {
    client: &'a Client,
    reference: Reference,
}

impl End<'_> {
    fn at(&self, digest: &str) -> Reference {
        let (registry, repository) = (self.reference.registry(), self.reference.repository());
        Reference::with_digest(registry.to_owned(), repository.to_owned(), digest.to_owned())
    }
}

impl Registry {
    /// Has an image in another repository too. Whether it had to be copied.
    pub(crate) async fn copy(&self, image: &Image, copy: &Image) -> Result<bool, CopyError> {
        let end = |image: &Image| {
            let text = image.to_string();
            let reference: Reference = text.parse().map_err(|_| CopyError::Malformed(text))?;
            Ok::<_, CopyError>(End { client: self.client_of(&reference), reference })
        };
        let (from, to) = (end(image)?, end(copy)?);
        let auth = self.auth_of(&to.reference);
        if to.client.fetch_manifest_digest(&to.reference, &auth).await.is_ok() {
            return Ok(false);
        }
        to.client.store_auth_if_needed(to.reference.resolve_registry(), &auth).await;
        let (bytes, manifest) = self.manifest(&from, &image.digest.to_string()).await?;
        let parts = manifest.manifests.as_deref().unwrap_or_default();
        if parts.len() > MANIFESTS_PER_IMAGE_MAX {
            let words = format!("it is of {} images, more than {MANIFESTS_PER_IMAGE_MAX}", parts.len());
            return Err(CopyError::Unfit(words));
        }
        for part in parts {
            let (bytes, manifest) = self.manifest(&from, &part.digest).await?;
            copy_blobs(&from, &to, &manifest).await?;
            put(&to, &part.digest, bytes, &manifest).await?;
        }
        if manifest.manifests.is_none() {
            copy_blobs(&from, &to, &manifest).await?;
        }
        put(&to, &image.digest.to_string(), bytes, &manifest).await?;
        Ok(true)
    }

    /// A manifest, which is what its digest says.
    async fn manifest(&self, from: &End<'_>, digest: &str) -> Result<(Vec<u8>, Manifest), CopyError> {
        let reference = from.at(digest);
        let auth = self.auth_of(&reference);
        let pulled = from.client.pull_manifest_raw(&reference, &auth, &ACCEPTED).await;
        let (bytes, _) = pulled.map_err(failed(format!("asking for {reference}")))?;
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(CopyError::Unfit(format!("{reference} has more than {MANIFEST_BYTES_MAX} bytes")));
        }
        let found = Digest::of(&[&bytes]).to_string();
        if found != digest {
            return Err(CopyError::Unfit(format!("{reference} hashes to {found}")));
        }
        let manifest = serde_json::from_slice(&bytes)
            .map_err(|error| CopyError::Unfit(format!("{reference} is not a manifest: {error}")))?;
        Ok((bytes.to_vec(), manifest))
    }
}

fn failed(doing: String) -> impl FnOnce(OciDistributionError) -> CopyError {
    move |error| CopyError::Registry { doing, error: Box::new(error) }
}

async fn copy_blobs(from: &End<'_>, to: &End<'_>, manifest: &Manifest) -> Result<(), CopyError> {
    let config = manifest.config.as_ref();
    let config = config.ok_or_else(|| CopyError::Unfit("a manifest names no configuration".to_owned()))?;
    if manifest.layers.len() >= BLOBS_PER_MANIFEST_MAX {
        return Err(CopyError::Unfit(format!("it has {} layers", manifest.layers.len())));
    }
    for blob in manifest.layers.iter().chain([config]).filter(|blob| blob.urls.is_empty()) {
        let digest = blob.digest.as_str();
        let there = to.client.blob_exists(&to.reference, digest).await;
        if there.map_err(failed(format!("asking for {digest} in {}", to.reference)))? {
            continue;
        }
        // Within one registry nothing has to travel.
        if from.reference.registry() == to.reference.registry()
            && to.client.mount_blob(&to.reference, &from.reference, digest).await.is_ok()
        {
            continue;
        }
        let pulled = from.client.pull_blob_stream(&from.reference, digest).await;
        let pulled = pulled.map_err(failed(format!("reading {digest} of {}", from.reference)))?;
        let stream = pulled.stream.map_err(OciDistributionError::IoError);
        let pushed = to.client.push_blob_stream(&to.reference, stream, digest, Some(blob.size)).await;
        pushed.map_err(failed(format!("writing {digest} into {}", to.reference)))?;
    }
    Ok(())
}

async fn put(to: &End<'_>, digest: &str, bytes: Vec<u8>, manifest: &Manifest) -> Result<(), CopyError> {
    // Only OCI's own may leave it out.
    let kind = manifest.media_type.as_deref().unwrap_or(if manifest.manifests.is_some() {
        "application/vnd.oci.image.index.v1+json"
    } else {
        "application/vnd.oci.image.manifest.v1+json"
    });
    let kind = kind.parse().map_err(|_| CopyError::Unfit(format!("{kind:?} is no media type")))?;
    let reference = to.at(digest);
    let pushed = to.client.push_manifest_raw(&reference, bytes, kind).await;
    pushed.map(drop).map_err(failed(format!("writing {reference}")))
}

#[cfg(test)]
#[path = "copy_tests.rs"]
mod tests;
