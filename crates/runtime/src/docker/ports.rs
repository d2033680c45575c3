//! The host's ports, as far as others have them.

use std::io::ErrorKind;
use std::net::{IpAddr, TcpListener, UdpSocket};

use bollard::models::{ContainerSummary, PortSummary, PortSummaryTypeEnum};
use bollard::query_parameters::ListContainersOptionsBuilder;
use stele_model::release::Protocol;
use stele_model::wire::{HostPort, TakenPort};

use super::{Docker, engine_error};
use crate::runtime::RuntimeError;

impl Docker {
    pub(super) async fn taken(&self, ports: &[HostPort]) -> Result<Vec<TakenPort>, RuntimeError> {
        let options = ListContainersOptionsBuilder::default().all(false).build();
        let running = self.client().await?.list_containers(Some(options)).await.map_err(engine_error)?;
        let address = &self.config.host.publish_address;
        let labels = self.config.host.labels();
        let is_own = |container: &ContainerSummary| {
            let of = container.labels.as_ref();
            labels.iter().all(|(label, text)| of.and_then(|of| of.get(label)) == Some(text))
        };
        let taken = ports.iter().filter_map(|port| {
            let holds = |container: &&ContainerSummary| {
                container.ports.iter().flatten().any(|published| clashes(published, *port, address))
            };
            let holder = match running.iter().find(holds) {
                Some(own) if is_own(own) => return None,
                Some(other) => format!("container {}", name(other)),
                None if is_bound(address, *port) => "a process".to_owned(),
                None => return None,
            };
            Some(TakenPort { port: *port, holder })
        });
        Ok(taken.collect())
    }
}

fn name(container: &ContainerSummary) -> &str {
    let names = container.names.iter().flatten();
    names.map(|name| name.trim_start_matches('/')).next().or(container.id.as_deref()).unwrap_or_default()
}

fn clashes(published: &PortSummary, wanted: HostPort, address: &str) -> bool {
    let protocol = match published.typ {
        Some(PortSummaryTypeEnum::UDP) => Protocol::Udp,
        _ => Protocol::Tcp,
    };
    let is_any = |address: &str| matches!(address, "" | "0.0.0.0" | "::");
    let at = published.ip.as_deref().unwrap_or_default();
    published.public_port == Some(wanted.port)
        && protocol == wanted.protocol
        && (at == address || is_any(at) || is_any(address))
}

/// Whether a process has the port, as far as this agent's own network shows: it is bound for a
/// moment, and only "in use" counts.
fn is_bound(address: &str, port: HostPort) -> bool {
    let Ok(address) = address.parse::<IpAddr>() else { return false };
    let bound = match port.protocol {
        Protocol::Tcp => TcpListener::bind((address, port.port)).map(drop),
        Protocol::Udp => UdpSocket::bind((address, port.port)).map(drop),
    };
    bound.is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
}
