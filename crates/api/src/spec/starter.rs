//! The commented spec `stele init` writes.

use stele_model::AppId;

/// A spec that can be applied as it is once its image exists, which may be named, with every usual field explained.
pub fn starter(app: &AppId, image: Option<&str>) -> String {
    let image = image.map_or_else(|| format!("registry.example.com/{app}:1.0"), str::to_owned);
    STARTER
        .replace("PROJECT/APP", &app.to_string())
        .replace("SERVICE", app.app.as_str())
        .replace("IMAGE", &image)
}

const STARTER: &str = include_str!("starter.yaml");
