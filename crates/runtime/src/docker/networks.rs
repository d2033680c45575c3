//! The network that each app has on a node.

use std::collections::BTreeMap;

use bollard::models::NetworkCreateRequest;
use bollard::query_parameters::ListNetworksOptionsBuilder;
use stele_model::AppEnv;

use super::{Docker, engine_error, status, unless_already};
use crate::host::LABEL_APP_ENV;
use crate::runtime::RuntimeError;

impl Docker {
    /// This node's networks: engine id and app.
    pub(super) async fn networks(&self) -> Result<Vec<(String, AppEnv)>, RuntimeError> {
        let options = ListNetworksOptionsBuilder::default().filters(&self.own_filter()).build();
        let found = self.client().await?.list_networks(Some(options)).await.map_err(engine_error)?;
        let own = found.into_iter().filter_map(|network| {
            let app_env = network.labels?.get(LABEL_APP_ENV)?.parse().ok()?;
            Some((network.id?, app_env))
        });
        Ok(own.collect())
    }

    /// Removes what is one too many. Two networks may have one name: a request to make one that its agent
    /// did not live to see answered may be carried out beside the agent's next one. The engine then refuses
    /// every container of the app, because the name is ambiguous.
    pub(super) async fn one_network_each(
        &self,
        networks: Vec<(String, AppEnv)>,
    ) -> Result<Vec<(String, AppEnv)>, RuntimeError> {
        let mut count = BTreeMap::<AppEnv, usize>::new();
        for (_, app_env) in &networks {
            *count.entry(app_env.clone()).or_default() += 1;
        }
        let mut kept = Vec::new();
        for (id, app_env) in networks {
            let alike = count.entry(app_env.clone()).or_default();
            if *alike > 1 {
                // The engine refuses to remove one that containers are in.
                match self.client().await?.remove_network(&id).await {
                    Err(error) if status(&error) == Some(403) => {}
                    outcome => {
                        unless_already(outcome, &[404])?;
                        *alike -= 1;
                        continue;
                    }
                }
            }
            kept.push((id, app_env));
        }
        Ok(kept)
    }

    pub(super) async fn make_network(&self, app_env: &AppEnv) -> Result<(), RuntimeError> {
        if self.networks().await?.iter().any(|(_, found)| found == app_env) {
            return Ok(());
        }
        let request = NetworkCreateRequest {
            name: self.config.host.network_name(app_env),
            driver: Some("bridge".to_owned()),
            labels: Some(self.config.host.app_labels(app_env).into_iter().collect()),
            ..NetworkCreateRequest::default()
        };
        self.client().await?.create_network(request).await.map(drop).map_err(engine_error)
    }

    pub(super) async fn delete_networks(&self, app_env: &AppEnv) -> Result<(), RuntimeError> {
        for (id, _) in self.networks().await?.iter().filter(|(_, found)| found == app_env) {
            unless_already(self.client().await?.remove_network(id).await, &[404])?;
        }
        Ok(())
    }
}
