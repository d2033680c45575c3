//! The commented spec `stele init` writes.

use stele_model::AppId;

/// A spec that can be applied as it is once its image exists, with every usual field explained.
pub fn starter(app: &AppId) -> String {
    STARTER.replace("PROJECT/APP", &app.to_string()).replace("SERVICE", app.app.as_str())
}

const STARTER: &str = include_str!("starter.yaml");
