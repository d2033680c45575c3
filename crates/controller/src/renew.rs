//! Renewing the two certificates of a controller, in place.
//!
//! Its id and its signing key stay: the fleet's root vouches for the key once more, for longer, so that whatever the
//! key signed is worth what it was. Its connections get a new key and a certificate for that.
//!
//! All of it is made and checked before anything is written. The new files come first, under names that nothing has.
//! The configuration, which names them, is replaced last and at once: whatever is interrupted leaves a controller that
//! starts. The controller may run meanwhile, because it reads these files at its start only.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use ed25519_dalek::SigningKey;
use serde::Serialize;
use stele_model::signature::{Certificate, CertificateBody, public_key};
use stele_model::{ControllerId, FleetName, Time};
use stele_peer::Tls;
use stele_peer::ca::Issued;

use crate::config::{Config, read_key, read_text};
use crate::found::{authority, certified_until, root_key, root_key_file};
use crate::limits::RENEWALS_PER_DAY_MAX;
use crate::own_files::{replace, sync_folder_of, write_new};
use crate::when::{day, since_1970, written};

/// Until when a certificate is good, and would be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Term {
    /// The last moment of the one there is.
    pub until: Time,
    /// The last moment of the new one.
    pub renewed_until: Time,
}

/// What was found, and what a renewal makes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Found {
    /// The fleet.
    pub fleet: FleetName,
    /// The controller.
    pub controller: ControllerId,
    /// The clock here, which the dates are counted from.
    pub clock: Time,
    /// The certificate for its signatures.
    pub signatures: Term,
    /// The certificate for its connections.
    pub connections: Term,
    /// Where the new certificate for its connections says that it is reached, besides its name.
    pub addresses: Vec<IpAddr>,
    /// The file of the new certificate for its connections.
    pub certificate: PathBuf,
    /// The file of the key for that.
    pub key: PathBuf,
    /// The files that are used no more once the controller was started again.
    pub replaced: [PathBuf; 2],
}

/// A renewal that is worked out, and not written.
pub struct Renewal {
    found: Found,
    issued: Issued,
    /// The configuration: where, as it is, and as it will be.
    config: PathBuf,
    present: String,
    renewed: String,
}

impl Renewal {
    /// Looks at a controller's folder and at the root, and makes new certificates. Nothing is written.
    pub fn examine(config: &Path, folder: &Path) -> anyhow::Result<Self> {
        Self::examine_at(config, folder, crate::handle::now())
    }

    fn examine_at(path: &Path, folder: &Path, now: Time) -> anyhow::Result<Self> {
        // What a link leads to is replaced, and paths count from where the link is.
        let config =
            std::fs::canonicalize(path).with_context(|| format!("cannot read {}", path.display()))?;
        let present = read_text(&config)?;
        let mut renewed = Config::as_written(path, &present)?;
        let own = renewed.clone().in_folder(path.parent().unwrap_or(Path::new(".")));
        let (id, fleet) = (own.id, &own.fleet);
        check_signing_key(&own)?;
        let tls = |certificate: &str, key: &str| {
            Tls::from_pem(&read_text(&own.tls.authority)?, certificate, key).map_err(anyhow::Error::from)
        };
        let before = tls(&read_text(&own.tls.certificate)?, &read_text(&own.tls.key)?)?;
        let ends = before
            .not_after()
            .with_context(|| format!("{} does not say when it ends", own.tls.certificate.display()))?;
        let clock = Duration::from_micros(now.0);
        let is_believed = before.check_at(id, clock).is_ok();

        let root_file = root_key_file(folder);
        let root =
            root_key(folder).context("--folder is the folder the fleet was founded in, with its root")?;
        ensure!(
            public_key(&root) == own.root,
            "{} is not the root key of this controller's fleet, {fleet}: that one is {}, as {} says; --folder is the \
             folder that fleet was founded in",
            root_file.display(),
            own.root,
            path.display()
        );
        // It begins when it did: the key is no other one since, for nodes whose clocks are behind, and for those that
        // were told that this controller was removed.
        let not_after = certified_until(now).max(own.certificate.body.not_after);
        let body = CertificateBody { not_after, ..own.certificate.body.clone() };
        let certificate = Certificate::issue(&root, body);
        let addresses = addresses(&own);
        let issued = authority(folder, fleet)?.issue(id, &addresses)?;
        let after = tls(&issued.certificate_pem, &issued.key_pem)?;
        after.check_at(id, clock).with_context(|| {
            format!(
                "the authority beside {} is not the one that this controller trusts, {}; bring both from where the \
                 fleet was founded",
                root_file.display(),
                own.tls.authority.display()
            )
        })?;
        let after = after.not_after().context("the new certificate does not say when it ends")?;
        let signatures =
            Term { until: own.certificate.body.not_after, renewed_until: certificate.body.not_after };
        let connections = Term { until: since_1970(ends), renewed_until: since_1970(after) };
        // One that is not believed by this clock, as it was made by one that was ahead, is not waited for.
        ensure!(
            connections.renewed_until >= connections.until || !is_believed,
            "the new certificate for connections would end before the one there is ({}): it is {} by the clock of this \
             machine; set it",
            written(connections.until),
            written(now)
        );
        let (new_certificate, new_key) = new_files(&own, now)?;
        renewed.certificate = certificate;
        name_anew(&mut renewed.tls.certificate, &new_certificate);
        name_anew(&mut renewed.tls.key, &new_key);
        let found = Found {
            fleet: fleet.clone(),
            controller: id,
            clock: now,
            signatures,
            connections,
            addresses,
            certificate: new_certificate,
            key: new_key,
            replaced: [own.tls.certificate, own.tls.key],
        };
        Ok(Self { found, issued, config, present, renewed: serde_json::to_string_pretty(&renewed)? })
    }

    /// What was found, and what would be done.
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// Puts the new certificates in the place of the old ones. On return it is on the disk.
    pub fn renew(self) -> anyhow::Result<Found> {
        ensure!(
            read_text(&self.config)? == self.present,
            "{} was changed meanwhile: look at it again",
            self.config.display()
        );
        self.write_files()?;
        self.replace_config().inspect_err(|_| self.remove_files())?;
        Ok(self.found)
    }

    /// The new files, of which nothing knows yet.
    fn write_files(&self) -> anyhow::Result<()> {
        let Found { certificate, key, replaced: [old_certificate, old_key], .. } = &self.found;
        write_new(key, &self.issued.key_pem, old_key)?;
        write_new(certificate, &self.issued.certificate_pem, old_certificate)
            .inspect_err(|_| drop(std::fs::remove_file(key)))?;
        for file in [key, certificate] {
            sync_folder_of(file).inspect_err(|_| self.remove_files())?;
        }
        Ok(())
    }

    /// From here on, the controller starts with them.
    fn replace_config(&self) -> anyhow::Result<()> {
        replace(&self.config, &self.renewed, &self.config)
    }

    /// What was begun and came to nothing leaves nothing, unless the configuration may name it already.
    fn remove_files(&self) {
        if read_text(&self.config).is_ok_and(|text| text == self.present) {
            drop(std::fs::remove_file(&self.found.key));
            drop(std::fs::remove_file(&self.found.certificate));
        }
    }
}

/// The root is asked to vouch for this key, so it must be this controller's.
fn check_signing_key(own: &Config) -> anyhow::Result<()> {
    let body = &own.certificate.body;
    own.certificate
        .check(&own.root, &own.fleet, None)
        .context("the controller's own certificate is not valid, whatever its dates")?;
    ensure!(
        body.controller == own.id,
        "the certificate is of controller {}, and this is controller {}",
        body.controller,
        own.id
    );
    let key = SigningKey::from_bytes(&read_key(&own.signing_key)?);
    ensure!(
        body.key == public_key(&key),
        "the certificate is for another key than {}",
        own.signing_key.display()
    );
    Ok(())
}

/// Whom others connect to by number. A controller that listens everywhere is reached where it says.
fn addresses(own: &Config) -> Vec<IpAddr> {
    let listened = [own.peer_listen.ip(), own.api_listen.ip()];
    let told = [host(&own.peer_address), host(&own.api_url)];
    let mut addresses = Vec::new();
    for address in listened.into_iter().chain(told.into_iter().flatten()) {
        if !address.is_unspecified() && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

/// The host in `host:port` or in a URL, if it is written as a number.
fn host(place: &str) -> Option<IpAddr> {
    let place = place.split_once("://").map_or(place, |(_, rest)| rest);
    let place = place.split('/').next()?;
    let host =
        place.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')).map_or(place, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Names beside the files there are, by the day, that nothing has: an earlier renewal may have left some.
fn new_files(own: &Config, now: Time) -> anyhow::Result<(PathBuf, PathBuf)> {
    let day = day(now);
    for turn in 1..=RENEWALS_PER_DAY_MAX {
        let stem = if turn == 1 { format!("tls-{day}") } else { format!("tls-{day}-{turn}") };
        let certificate = own.tls.certificate.with_file_name(format!("{stem}.pem"));
        let key = own.tls.key.with_file_name(format!("{stem}.key"));
        let is_there = |path: &Path| {
            path.try_exists().with_context(|| format!("cannot find out whether {} is there", path.display()))
        };
        if !is_there(&certificate)? && !is_there(&key)? {
            return Ok((certificate, key));
        }
    }
    anyhow::bail!("{RENEWALS_PER_DAY_MAX} renewals of today left their files: delete those that are not used")
}

/// Gives a path as it is written another file name, so that it stays as relative as it is.
fn name_anew(written: &mut PathBuf, new: &Path) {
    let name = new.file_name().map(OsString::from).unwrap_or_default();
    *written = written.with_file_name(name);
}

#[cfg(test)]
#[path = "renew_tests.rs"]
mod tests;
