//! The demo's specs are what a newcomer reads first: they must be valid, and tell the story.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use stele_api::spec::{AppSpec, parse_yaml};

fn read(version: &str) -> AppSpec {
    let file = format!("shop-web.{version}.yaml");
    let path = Path::new("../../deploy/demo").join(&file);
    let text = std::fs::read_to_string(path).unwrap();
    parse_yaml(&text, &file).unwrap_or_else(|errors| panic!("{errors}")).spec
}

#[test]
fn the_specs_are_valid_and_differ_as_the_demo_says() {
    let [v1, v2, v3] = ["v1", "v2", "v3"].map(read);
    let service = |spec: &AppSpec, name: &str| spec.services[&name.parse().unwrap()].clone();
    let (old, new) = (service(&v1, "web"), service(&v2, "web"));
    assert_ne!(old.image, new.image);
    assert_ne!(old.env, new.env);
    assert_ne!(old.files, new.files);
    assert_eq!(old.replicas.unwrap() + 1, new.replicas.unwrap());
    assert!(!v1.services.contains_key(&"cache".parse().unwrap()));
    service(&v2, "cache");
    assert_eq!(v2.services.keys().collect::<Vec<_>>(), v3.services.keys().collect::<Vec<_>>());
    assert_ne!(service(&v3, "web").image, new.image);
}
