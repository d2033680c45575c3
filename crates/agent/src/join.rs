//! Joining a fleet: make keys, ask a controller, believe the answer only if the root vouches.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use stele_bus::join::{JoinAnswer, JoinLine, JoinRequest, open_answer};
use stele_bus::purposes;
use stele_model::ids::NodeName;
use stele_model::wire::Signed;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use crate::clock;
use crate::data_dir::DataDir;
use crate::error::Error;
use crate::identity::{Engine, Enrollment, Keys};
use crate::limits::{JOIN_ANSWER_BYTES_MAX, JOIN_TIMEOUT};

/// What a node wants to be.
#[derive(Clone, Debug)]
pub struct JoinOptions {
    /// Where its keys and everything else will be kept.
    pub data: DataDir,
    /// From whom and with which token.
    pub line: JoinLine,
    /// Its name.
    pub name: NodeName,
    /// Where its published ports are reached.
    pub address: Option<String>,
    /// What will run its containers.
    pub engine: Engine,
}

/// Joins a fleet. Blocks until a controller answered or all failed.
///
/// Nothing is enrolled twice: a node that joins again before it has an answer uses the keys it
/// made before, by which controllers know it.
pub fn join(options: JoinOptions) -> Result<Enrollment, Error> {
    let JoinOptions { data, line, name, address, engine } = options;
    data.create()?;
    let _lock = data.lock()?;
    if let Some(present) = Enrollment::load(&data)? {
        return Err(Error::AlreadyJoined {
            path: data.path().to_owned(),
            node: present.node.to_string(),
            fleet: present.fleet.to_string(),
        });
    }
    let keys = Keys::load_or_make(&data)?;
    let request = JoinRequest {
        secret: line.secret.clone(),
        name: name.clone(),
        key: keys.public(),
        sealing_key: keys.sealing_public(),
        address,
    };
    let request = Signed::new(&keys.signing, purposes::JOIN_REQUEST, &request);
    let answer = ask(&line, &request, &keys, &name)?;
    let enrollment = Enrollment {
        fleet: answer.fleet,
        node: answer.node,
        region: answer.region,
        epoch: answer.epoch,
        root: line.root,
        nats: answer.nats,
        engine,
    };
    enrollment.save(&data)?;
    Ok(enrollment)
}

fn ask(line: &JoinLine, request: &Signed, keys: &Keys, name: &NodeName) -> Result<JoinAnswer, Error> {
    let http = http_client(line)?;
    let mut failures = Vec::new();
    for controller in &line.controllers {
        match post(&http, controller, request) {
            Err(why) => failures.push(format!("  {controller}: {why}")),
            Ok((200..=299, body)) => return believe(line, controller, &body, keys, name),
            // This one cannot answer now; another may.
            Ok((status @ 500..=599, body)) => {
                failures.push(format!("  {controller}: {}", problem(status, &body)));
            }
            Ok((status, body)) => {
                return Err(Error::Refused { controller: controller.clone(), why: problem(status, &body) });
            }
        }
    }
    Err(Error::Unreachable(failures.join("\n")))
}

fn believe(
    line: &JoinLine,
    controller: &str,
    body: &str,
    keys: &Keys,
    name: &NodeName,
) -> Result<JoinAnswer, Error> {
    let not_believed = |why: String| Error::NotBelieved { controller: controller.to_owned(), why };
    let signed: Signed = serde_json::from_str(body).map_err(|error| not_believed(error.to_string()))?;
    let answer = open_answer(line, &signed, &keys.public(), clock::now())
        .map_err(|error| not_believed(error.to_string()))?;
    if answer.node != *name {
        return Err(not_believed(format!("it names the node {}, not {name}", answer.node)));
    }
    Ok(answer)
}

fn http_client(line: &JoinLine) -> Result<ureq::Agent, Error> {
    let mut config = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(JOIN_TIMEOUT.as_secs())))
        .http_status_as_error(false)
        // A redirect would carry the token to an address that the token does not name.
        .max_redirects(0);
    if line.controllers.iter().any(|address| address.starts_with("https://")) {
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&authorities(line)?))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        config = config.tls_config(tls);
    }
    Ok(config.build().new_agent())
}

fn authorities(line: &JoinLine) -> Result<Vec<Certificate<'static>>, Error> {
    let unusable = |why: String| Error::Unreachable(format!("  the trusted authorities: {why}"));
    let Some(pem) = &line.tls_root else {
        let loaded = rustls_native_certs::load_native_certs();
        if loaded.certs.is_empty() {
            return Err(unusable("this host has none".to_owned()));
        }
        return Ok(loaded.certs.iter().map(|cert| Certificate::from_der(cert.as_ref()).to_owned()).collect());
    };
    parse_pem(pem.as_bytes())
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(Ok(certificate)),
            Ok(_) => None,
            Err(error) => Some(Err(unusable(error.to_string()))),
        })
        .collect()
}

fn post(http: &ureq::Agent, controller: &str, request: &Signed) -> Result<(u16, String), String> {
    let url = format!("{}/v1/join", controller.trim_end_matches('/'));
    let mut response = http.post(&url).send_json(request).map_err(|error| error.to_string())?;
    let body = response
        .body_mut()
        .with_config()
        .limit(JOIN_ANSWER_BYTES_MAX)
        .read_to_string()
        .map_err(|error| error.to_string())?;
    Ok((response.status().as_u16(), body))
}

/// The words of an RFC 9457 problem, or as much as there is.
fn problem(status: u16, body: &str) -> String {
    #[derive(Deserialize)]
    struct Problem {
        title: Option<String>,
        detail: Option<String>,
    }
    match serde_json::from_str::<Problem>(body) {
        Ok(Problem { title: Some(title), detail: Some(detail) }) => format!("{title}: {detail}"),
        Ok(Problem { title: Some(text), .. } | Problem { detail: Some(text), .. }) => text,
        _ => format!("HTTP status {status}"),
    }
}
