//! The `OpenAPI` 3.1 document, generated from [`ROUTES`].

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::problem::{PROBLEM_JSON, Problem};
use crate::routes::{ROUTES, Route, Success, spec_schema};

/// Where the document keeps its schemas.
const DEFINITIONS: &str = "/components/schemas";

/// The document.
pub fn document() -> Value {
    let mut generator = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = DEFINITIONS.into())
        .into_generator();
    let mut paths = Map::new();
    for route in ROUTES {
        // OpenAPI has no word for the rest of a path; the summary says what it is.
        let item = paths.entry(route.path.replace("{*", "{")).or_insert_with(|| json!({}));
        if let Some(item) = item.as_object_mut() {
            item.insert(route.method.lowercase().to_owned(), operation(route, &mut generator));
        }
    }
    spec_schema(&mut generator);
    let schemas: Map<String, Value> = generator.take_definitions(true);
    json!({
        "openapi": "3.1.1",
        "info": {
            "title": "Stele",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "The control plane of a fleet of containers, with a log of everything.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}
        },
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}
        },
        "security": [{"token": []}]
    })
}

fn operation(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let mut operation = json!({
        "operationId": operation_id(route),
        "summary": route.summary,
        "parameters": parameters(route, generator),
        "responses": {
            "200": success(route, generator),
            "default": {
                "description": "What was wrong, and what to do next (RFC 9457).",
                "content": {PROBLEM_JSON: {"schema": Problem::reference(generator)}}
            }
        }
    });
    if let (Some(request), Some(object)) = (route.request, operation.as_object_mut()) {
        let schema = request(generator).to_value();
        let required = !route.may_lack_body();
        let body = json!({"required": required, "content": {"application/json": {"schema": schema}}});
        object.insert("requestBody".to_owned(), body);
    }
    if let Some(object) = operation.as_object_mut() {
        match route.role {
            None => object.insert("security".to_owned(), json!([])),
            Some(role) => object.insert("x-stele-role".to_owned(), json!(role)),
        };
    }
    operation
}

fn operation_id(route: &Route) -> String {
    let name = format!("{:?}", route.operation);
    let mut id = String::new();
    for (at, character) in name.chars().enumerate() {
        if character.is_uppercase() && at > 0 {
            id.push('_');
        }
        id.push(character.to_ascii_lowercase());
    }
    id
}

fn success(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let (description, content) = match route.success {
        Success::Json(schema) => {
            ("Done.", json!({"application/json": {"schema": schema(generator).to_value()}}))
        }
        Success::JsonOrEvents(schema) => (
            "A page, or a stream without end.",
            json!({
                "application/json": {"schema": schema(generator).to_value()},
                "text/event-stream": {"schema": {"type": "string"}}
            }),
        ),
        Success::Text => ("Lines.", json!({"text/plain": {"schema": {"type": "string"}}})),
        Success::TextOrJsonLines(schema) => (
            "Lines.",
            json!({
                "text/plain": {"schema": {"type": "string"}},
                crate::routes::JSON_LINES: {"schema": schema(generator).to_value()}
            }),
        ),
        Success::Bytes => (
            "Bytes.",
            json!({"application/octet-stream": {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}}),
        ),
    };
    json!({"description": description, "content": content})
}

fn parameters(route: &Route, generator: &mut SchemaGenerator) -> Vec<Value> {
    let mut parameters: Vec<Value> = route
        .path_parameters()
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect();
    if let Some(query) = route.query {
        parameters.extend(query_parameters(&query(generator), generator));
    }
    let header = |name: &str, description: &str| {
        let schema = json!({"type": "string"});
        json!({"name": name, "in": "header", "required": false, "description": description, "schema": schema})
    };
    if route.is_write() && route.role.is_some() {
        parameters.push(header(
            "Idempotency-Key",
            "Repeating a request under its key gives the first answer again; another request under it is refused.",
        ));
        parameters.push(header(
            "If-Match",
            "The seq that last changed the scope's target; refused when it is another.",
        ));
        parameters
            .push(header("X-Stele-Reason", "Why, for the log; a `reason` in the body counts before it."));
        parameters.push(header(
            "X-Stele-Reason-Subject",
            "Seals the reason under the key of this subject, such as `customer:4711`: erasing the subject makes it \
             unreadable for ever.",
        ));
    }
    if route.operation == crate::routes::Operation::Events {
        parameters.push(header("Last-Event-ID", "Go on after this record."));
    }
    parameters.push(header("traceparent", "W3C trace context; logged with what is changed."));
    parameters
}

/// The properties of a query struct, each as a parameter.
fn query_parameters(reference: &schemars::Schema, generator: &mut SchemaGenerator) -> Vec<Value> {
    let name = reference.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next());
    let Some(schema) = name.and_then(|name| generator.definitions().get(name)).cloned() else {
        return Vec::new();
    };
    let required: Vec<_> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let properties = schema["properties"].as_object().cloned().unwrap_or_default();
    properties
        .into_iter()
        .map(|(name, mut schema)| {
            let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
            let is_required = required.contains(&name.as_str());
            json!({
                "name": name, "in": "query", "required": is_required,
                "description": description, "schema": schema
            })
        })
        .collect()
}

trait Reference: JsonSchema {
    fn reference(generator: &mut SchemaGenerator) -> Value
    where
        Self: Sized,
    {
        generator.subschema_for::<Self>().to_value()
    }
}
impl Reference for Problem {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::*;

    /// Every `$ref` in the document.
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(path)) = members.get("$ref") {
                    found.insert(path.clone());
                }
                members.values().for_each(|member| references(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document();
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        assert!(found.len() > 40, "the document refers to its schemas: {found:?}");
        for path in found {
            let pointer = path.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{path} leads nowhere");
        }
    }

    #[test]
    fn every_route_is_described_once() {
        let document = document();
        let operations: usize =
            document["paths"].as_object().unwrap().values().map(|item| item.as_object().unwrap().len()).sum();
        assert_eq!(operations, ROUTES.len());
        let ids: BTreeSet<_> = ROUTES.iter().map(operation_id).collect();
        assert_eq!(ids.len(), ROUTES.len(), "operation ids are unique");
        let status = &document["paths"]["/v1/status"]["get"];
        let names: Vec<_> =
            status["parameters"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["at", "consistency", "problems", "scope", "traceparent"]);
        assert_eq!(document["paths"]["/v1/join"]["post"]["security"], json!([]));
    }

    #[test]
    fn the_document_is_stable() {
        let text = serde_json::to_string_pretty(&document()).unwrap() + "\n";
        expectorate::assert_contents("tests/golden/openapi.json", &text);
    }
}
