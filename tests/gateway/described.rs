//! Whether what the admin interface answers is as its description says.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::Answer;

const DESCRIPTION: &str = include_str!("../../docs/admin.openapi.json");

/// Fails unless the answer is as described.
pub fn assert_described(method: &str, path: &str, status: &str, answer: &Answer) {
    assert_eq!(answer.status.to_string(), status, "{method} {path}");
    let description: Value = serde_json::from_str(DESCRIPTION).unwrap();
    let operation = &description["paths"][path][method.to_ascii_lowercase()];
    let media = answer.header("content-type").unwrap();
    let schema = &operation["responses"][status]["content"][media]["schema"];
    assert!(!schema.is_null(), "{method} {path}: {status} {media}");
    let problem = differs(&description, schema, &answer.json());
    assert_eq!(problem, None, "{method} {path}");
}

/// Where a value has other keys than its schema has properties.
fn differs(description: &Value, schema: &Value, value: &Value) -> Option<String> {
    if let Some(name) = schema["$ref"].as_str() {
        let pointer = name.trim_start_matches('#');
        let schema = description.pointer(pointer).expect("what is referred to");
        return differs(description, schema, value);
    }
    if let Some(branches) = schema["oneOf"].as_array() {
        let mut found = branches.iter().map(|it| differs(description, it, value));
        return match found.any(|problem| problem.is_none()) {
            true => None,
            false => Some(format!("none of them: {value}")),
        };
    }
    if let Some(properties) = schema["properties"].as_object() {
        // One that may be null has no keys then.
        let keys: BTreeSet<_> = value.as_object()?.keys().collect();
        let described: BTreeSet<_> = properties.keys().collect();
        if keys != described {
            return Some(format!("{keys:?}, not {described:?}"));
        }
        let mut pairs = properties.iter();
        return pairs.find_map(|(key, schema)| differs(description, schema, &value[key]));
    }
    let mut elements = value.as_array()?.iter();
    elements.find_map(|element| differs(description, &schema["items"], element))
}
