//! Small images to deploy: one program in several versions, made on the spot because a
//! test may not need the internet.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::{http, report};

const BUSYBOX: &str = "/bin/busybox";
const REPOSITORY: &str = "stele/busybox";
const VERSIONS: [&str; 3] = ["v1", "v2", "v3"];
/// Raise this whenever what is in an image changes, so that every machine makes them anew.
const RECIPE: u32 = 1;
const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// What an image does when it is given no command: it serves its own version.
const SERVE_VERSION: &str = "#!/bin/sh
# Process 1 ignores every signal it has no handler for; this one ends at once.
trap 'exit 0' TERM INT
httpd -f -p \"${PORT:-8080}\" -h /srv &
wait $!
";

/// An image in the registry.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// `host:port/name:tag`.
    pub(crate) reference: String,
    /// `sha256:…` of its manifest.
    pub(crate) digest: String,
}

/// Makes sure the registry has the images; true when they were made by this call.
pub(crate) fn ensure(addr: &str, target_dir: &Path) -> Result<(Vec<Image>, bool)> {
    let marks = target_dir.join("run");
    let mark = marks.join(format!("images-{RECIPE}-{}", addr.replace([':', '/'], "-")));
    if mark.exists()
        && let Some(images) = in_registry(addr)?
    {
        report("images", &format!("{addr}/{REPOSITORY}: {}", VERSIONS.join(" ")));
        return Ok((images, false));
    }
    for version in VERSIONS {
        make(addr, version)?;
    }
    let Some(images) = in_registry(addr)? else {
        bail!("images were pushed to {addr}, and it does not have them");
    };
    fs::write(&mark, "").with_context(|| format!("cannot write {}", mark.display()))?;
    report("images", &format!("{addr}/{REPOSITORY}: made {}", VERSIONS.join(" ")));
    Ok((images, true))
}

fn reference(addr: &str, version: &str) -> String {
    format!("{addr}/{REPOSITORY}:{version}")
}

fn in_registry(addr: &str) -> Result<Option<Vec<Image>>> {
    let mut images = Vec::new();
    for version in VERSIONS {
        let path = format!("/v2/{REPOSITORY}/manifests/{version}");
        let answer = http::request("HEAD", addr, &path, MANIFEST)?;
        let (200, Some(digest)) = (answer.status, answer.header("Docker-Content-Digest")) else {
            return Ok(None);
        };
        images.push(Image { reference: reference(addr, version), digest: digest.to_owned() });
    }
    Ok(Some(images))
}

fn make(addr: &str, version: &str) -> Result<()> {
    let reference = reference(addr, version);
    let mut import = Command::new("docker")
        .args(["import", "--change", "ENV PATH=/bin:/sbin:/usr/bin:/usr/sbin"])
        .args(["--change", "EXPOSE 8080"])
        .args(["--change", r#"CMD ["/bin/serve-version"]"#])
        .args(["-", &reference])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .context("cannot run docker import")?;
    let stdin = import.stdin.take().context("docker import took no input")?;
    let written = write_root(stdin, version);
    let status = import.wait().context("cannot run docker import")?;
    if !status.success() {
        bail!("docker import {reference} failed ({status}); its own message is above");
    }
    written?;
    let push = Command::new("docker")
        .args(["push", "--quiet", &reference])
        .output()
        .context("cannot run docker push")?;
    if !push.status.success() {
        bail!("docker push {reference} failed: {}", String::from_utf8_lossy(&push.stderr).trim());
    }
    Ok(())
}

/// Writes the root file system of an image as a tar archive.
fn write_root(out: impl Write, version: &str) -> Result<()> {
    let busybox =
        fs::read(BUSYBOX).with_context(|| format!("cannot read {BUSYBOX} (package busybox-static)"))?;
    let applets =
        Command::new(BUSYBOX).arg("--list-full").output().with_context(|| format!("cannot run {BUSYBOX}"))?;
    let applets: BTreeSet<String> = String::from_utf8_lossy(&applets.stdout)
        .lines()
        .map(|path| path.trim_start_matches('/').to_owned())
        .filter(|path| !path.is_empty() && path != "bin/busybox")
        .collect();

    let mut archive = tar::Builder::new(out);
    for dir in ["bin", "sbin", "usr", "usr/bin", "usr/sbin", "etc", "srv", "root", "dev", "proc", "sys"] {
        directory(&mut archive, dir, 0o755)?;
    }
    directory(&mut archive, "tmp", 0o1777)?;
    file(&mut archive, "bin/busybox", 0o755, &busybox)?;
    file(&mut archive, "bin/serve-version", 0o755, SERVE_VERSION.as_bytes())?;
    file(
        &mut archive,
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    )?;
    file(&mut archive, "etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n")?;
    let text = format!("{version}\n");
    file(&mut archive, "version", 0o644, text.as_bytes())?;
    file(&mut archive, "srv/index.html", 0o644, text.as_bytes())?;
    for applet in &applets {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        archive.append_link(&mut header, applet, BUSYBOX)?;
    }
    archive.into_inner()?.flush()?;
    Ok(())
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn directory(archive: &mut tar::Builder<impl Write>, path: &str, mode: u32) -> Result<()> {
    let mut header = header(tar::EntryType::Directory, mode, 0);
    Ok(archive.append_data(&mut header, format!("{path}/"), std::io::empty())?)
}

fn file(archive: &mut tar::Builder<impl Write>, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut header = header(tar::EntryType::Regular, mode, bytes.len() as u64);
    Ok(archive.append_data(&mut header, path, bytes)?)
}
