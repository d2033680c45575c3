//! How a node becomes one of a fleet: a line that somebody pastes, a request over
//! HTTP, and an answer that the fleet's root vouches for.
//!
//! ```
//! use stele_bus::join::JoinLine;
//! use stele_model::signature::PublicKey;
//!
//! let line = JoinLine {
//!     fleet: "acme".parse().expect("a label"),
//!     root: PublicKey("ab".repeat(32)),
//!     secret: "s3cr3t".to_owned(),
//!     controllers: vec!["https://stele.example.com".to_owned()],
//!     tls_root: None,
//! };
//! let text = line.to_string();
//! assert!(text.starts_with("stele-join-v1."));
//! assert_eq!(text.parse::<JoinLine>()?, line);
//! # Ok::<(), stele_bus::join::JoinLineError>(())
//! ```

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use stele_model::ids::{FleetName, NodeName, RegionName, Time};
use stele_model::signature::{Certificate, PublicKey, SignatureError};
use stele_model::wire::{OpenError, Signed};

use crate::connection::Auth;
use crate::limits::{JOIN_CONTROLLERS_MAX, JOIN_LINE_BYTES_MAX};
use crate::purposes;

const PREFIX: &str = "stele-join-v1.";

/// What `stele node token` prints and `stele-agent join` takes: one line of text.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinLine {
    /// The fleet to join.
    pub fleet: FleetName,
    /// Its root's public key, which the node pins.
    pub root: PublicKey,
    /// The token's text; whoever has it can join once.
    pub secret: String,
    /// Where controllers answer, such as `https://stele.example.com`; tried in this order.
    pub controllers: Vec<String>,
    /// PEM of the authority behind the controllers' `https` addresses; absent for `http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_root: Option<String>,
}

impl fmt::Debug for JoinLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinLine")
            .field("fleet", &self.fleet)
            .field("root", &self.root)
            .field("controllers", &self.controllers)
            .finish_non_exhaustive()
    }
}

/// A text is not a join line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinLineError {
    /// Something else was pasted.
    #[error("a join token begins with {PREFIX}; make one with: stele node token")]
    Prefix,
    /// Another version's form.
    #[error("this join token has form {0:?}, which this version cannot read: it reads {PREFIX}…")]
    Version(String),
    /// Part of it is missing, or it was changed on the way.
    #[error("the join token is damaged ({0}): copy the whole line again")]
    Damaged(String),
    /// It says nothing usable.
    #[error("the join token is of no use: {0}; make another with: stele node token")]
    Useless(String),
}

impl fmt::Display for JoinLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Strings, lists and options are always representable as JSON.
        let json = serde_json::to_vec(self).map_err(|_| fmt::Error)?;
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(json))
    }
}

impl FromStr for JoinLine {
    type Err = JoinLineError;

    fn from_str(text: &str) -> Result<Self, JoinLineError> {
        let text = text.trim();
        if text.len() > JOIN_LINE_BYTES_MAX {
            return Err(JoinLineError::Damaged(format!(
                "it has {} bytes, {JOIN_LINE_BYTES_MAX} at most",
                text.len()
            )));
        }
        let Some(encoded) = text.strip_prefix(PREFIX) else {
            return Err(match text.split_once('.') {
                Some((form, _)) if form.starts_with("stele-join-") => JoinLineError::Version(form.to_owned()),
                _ => JoinLineError::Prefix,
            });
        };
        let json =
            URL_SAFE_NO_PAD.decode(encoded).map_err(|error| JoinLineError::Damaged(error.to_string()))?;
        let line: Self =
            serde_json::from_slice(&json).map_err(|error| JoinLineError::Damaged(error.to_string()))?;
        if line.root.0.len() != 64 || !line.root.0.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(JoinLineError::Useless("its root key is no key".to_owned()));
        }
        if line.secret.is_empty() {
            return Err(JoinLineError::Useless("it has no secret".to_owned()));
        }
        if line.controllers.is_empty() || line.controllers.len() > JOIN_CONTROLLERS_MAX {
            return Err(JoinLineError::Useless(format!(
                "it names {} controllers, 1 to {JOIN_CONTROLLERS_MAX} are allowed",
                line.controllers.len()
            )));
        }
        if let Some(bad) = line
            .controllers
            .iter()
            .find(|address| !address.starts_with("http://") && !address.starts_with("https://"))
        {
            return Err(JoinLineError::Useless(format!("{bad:?} is no http:// or https:// address")));
        }
        Ok(line)
    }
}

/// What a node sends to `POST /v1/join`, as a [`Signed`] by its own key, so that
/// nobody can enrol a key they do not have.
#[derive(Clone, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The token's text; its SHA-256 is what the log knows.
    pub secret: String,
    /// The name the node wants.
    pub name: NodeName,
    /// Verifies the node's reports, and this request.
    pub key: PublicKey,
    /// X25519 public key, as hex: wraps data keys for it.
    pub sealing_key: String,
    /// Where its published ports are reached, if it says so.
    pub address: Option<String>,
}

impl fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinRequest")
            .field("name", &self.name)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// How a node reaches NATS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatsAccess {
    /// Addresses; any of them will do.
    pub urls: Vec<String>,
    /// What to show at the door.
    pub auth: Auth,
    /// PEM of the authority behind `tls` addresses; the system's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_root: Option<String>,
}

/// What a controller answers, as a [`Signed`] by its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinAnswer {
    /// The fleet.
    pub fleet: FleetName,
    /// The node's name in it.
    pub node: NodeName,
    /// The key it was enrolled with, so that the answer is of use to nobody else.
    pub key: PublicKey,
    /// Its region.
    pub region: RegionName,
    /// The fleet's incarnation.
    pub epoch: u64,
    /// How it reaches NATS.
    pub nats: NatsAccess,
    /// The fleet's root key.
    pub root: PublicKey,
    /// Whose signature it carries, and the root's word for that key.
    pub controller: Certificate,
}

/// Why a join request or answer is not believed.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Unreadable, or the signature is wrong.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The root did not vouch for the controller.
    #[error("the controller that answered is not one of fleet {fleet}: {source}")]
    Certificate {
        /// The fleet that was to be joined.
        fleet: FleetName,
        /// Why.
        #[source]
        source: SignatureError,
    },
    /// It is about something else.
    #[error("the controller answered about {0}, which was not asked")]
    Other(String),
}

/// Reads a [`JoinRequest`] and checks that its sender has the key it asks to enrol.
pub fn open_request(signed: &Signed) -> Result<JoinRequest, JoinError> {
    let claimed: JoinRequest = signed.peek()?;
    Ok(signed.open(&claimed.key, purposes::JOIN_REQUEST)?)
}

/// Reads a [`JoinAnswer`] and checks that a controller certified by the line's root signed it,
/// for the line's fleet and this node's key. `now` is left out where no clock can be trusted.
pub fn open_answer(
    line: &JoinLine,
    signed: &Signed,
    key: &PublicKey,
    now: Option<Time>,
) -> Result<JoinAnswer, JoinError> {
    let claimed: JoinAnswer = signed.peek()?;
    claimed
        .controller
        .check(&line.root, &line.fleet, now)
        .map_err(|source| JoinError::Certificate { fleet: line.fleet.clone(), source })?;
    let answer: JoinAnswer = signed.open(&claimed.controller.body.key, purposes::JOIN_ANSWER)?;
    if answer.fleet != line.fleet {
        return Err(JoinError::Other(format!("fleet {}", answer.fleet)));
    }
    if answer.root != line.root {
        return Err(JoinError::Other(format!("root key {}", answer.root)));
    }
    if &answer.key != key {
        return Err(JoinError::Other(format!("node key {}", answer.key)));
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use ed25519_dalek::SigningKey;
    use stele_model::signature::{CertificateBody, public_key};

    use super::*;

    fn line(root: &SigningKey) -> JoinLine {
        JoinLine {
            fleet: "acme".parse().unwrap(),
            root: public_key(root),
            secret: "s3cr3t".to_owned(),
            controllers: vec!["http://127.0.0.1:7000".to_owned()],
            tls_root: None,
        }
    }

    fn answer(root: &SigningKey, controller: &SigningKey, node: &SigningKey) -> JoinAnswer {
        let body = CertificateBody {
            fleet: "acme".parse().unwrap(),
            controller: 1,
            key: public_key(controller),
            not_before: Time(10),
            not_after: Time(20),
        };
        JoinAnswer {
            fleet: "acme".parse().unwrap(),
            node: "eu-1".parse().unwrap(),
            key: public_key(node),
            region: "eu".parse().unwrap(),
            epoch: 1,
            nats: NatsAccess { urls: Vec::new(), auth: Auth::None, tls_root: None },
            root: public_key(root),
            controller: Certificate::issue(root, body),
        }
    }

    #[test]
    fn bad_lines_say_what_is_wrong() {
        let good = line(&SigningKey::from_bytes(&[1; 32]));
        assert_eq!(format!(" {good}\n").parse::<JoinLine>().unwrap(), good);
        assert_eq!("hello".parse::<JoinLine>(), Err(JoinLineError::Prefix));
        assert_eq!(
            "stele-join-v9.abc".parse::<JoinLine>(),
            Err(JoinLineError::Version("stele-join-v9".to_owned()))
        );
        let text = good.to_string();
        assert!(matches!(text[..text.len() - 9].parse::<JoinLine>(), Err(JoinLineError::Damaged(_))));
        let long = format!("{text}{}", "A".repeat(JOIN_LINE_BYTES_MAX));
        assert!(matches!(long.parse::<JoinLine>(), Err(JoinLineError::Damaged(_))));
        for useless in [
            JoinLine { controllers: Vec::new(), ..good.clone() },
            JoinLine { controllers: vec!["ftp://x".to_owned()], ..good.clone() },
            JoinLine { secret: String::new(), ..good.clone() },
            JoinLine { root: PublicKey("zz".repeat(32)), ..good.clone() },
        ] {
            assert!(matches!(useless.to_string().parse::<JoinLine>(), Err(JoinLineError::Useless(_))));
        }
    }

    #[test]
    fn the_secret_is_not_shown() {
        assert!(!format!("{:?}", line(&SigningKey::from_bytes(&[1; 32]))).contains("s3cr3t"));
    }

    #[test]
    fn only_an_answer_of_the_root_s_controller_for_this_node_is_believed() {
        let [root, controller, node, stranger] = [1, 2, 3, 4].map(|seed| SigningKey::from_bytes(&[seed; 32]));
        let line = line(&root);
        let right = answer(&root, &controller, &node);
        let now = Some(Time(15));
        let open = |signed: &Signed| open_answer(&line, signed, &public_key(&node), now);
        let sign = |key: &SigningKey, answer: &JoinAnswer| Signed::new(key, purposes::JOIN_ANSWER, answer);

        assert_eq!(open(&sign(&controller, &right)).unwrap(), right);
        assert!(matches!(open(&sign(&stranger, &right)), Err(JoinError::Open(_))));
        let other_root = answer(&stranger, &controller, &node);
        assert!(matches!(open(&sign(&controller, &other_root)), Err(JoinError::Certificate { .. })));
        let for_another = answer(&root, &controller, &stranger);
        assert!(matches!(open(&sign(&controller, &for_another)), Err(JoinError::Other(_))));
        let lying = JoinAnswer { root: public_key(&stranger), ..right.clone() };
        assert!(matches!(open(&sign(&controller, &lying)), Err(JoinError::Other(_))));
        let late = open_answer(&line, &sign(&controller, &right), &public_key(&node), Some(Time(21)));
        assert!(matches!(late, Err(JoinError::Certificate { .. })));
        assert!(open(&Signed { body: "{}".to_owned(), ..sign(&controller, &right) }).is_err());
    }

    #[test]
    fn nobody_enrols_a_key_they_do_not_have() {
        let [mine, theirs] = [3, 4].map(|seed| SigningKey::from_bytes(&[seed; 32]));
        let request = JoinRequest {
            secret: "s3cr3t".to_owned(),
            name: "eu-1".parse().unwrap(),
            key: public_key(&theirs),
            sealing_key: "00".repeat(32),
            address: None,
        };
        assert!(open_request(&Signed::new(&theirs, purposes::JOIN_REQUEST, &request)).is_ok());
        assert!(open_request(&Signed::new(&mine, purposes::JOIN_REQUEST, &request)).is_err());
    }
}
