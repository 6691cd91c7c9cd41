//! The input document of the gate: its JSON Schema, whether a document fits, and which paths it can have.
//!
//! Only the keywords that the schema uses are understood; a test refuses any other, and another compares the verdicts with a
//! complete JSON Schema validator.

use std::sync::LazyLock;

use serde_json::Value;

/// Text of `policies/gate-input.schema.json` as of the build.
pub const INPUT_SCHEMA: &str = include_str!("../../policies/gate-input.schema.json");

/// Returns the schema of the gate's input.
#[must_use]
pub fn input_schema() -> &'static Value {
    static SCHEMA: LazyLock<Value> =
        LazyLock::new(|| serde_json::from_str(INPUT_SCHEMA).expect("a test reads the embedded schema"));
    &SCHEMA
}

/// Returns every way in which the document does not fit the schema, as `path: what`. Empty means that it fits.
///
/// A document that does not fit is denied unasked: a rule over a missing key is undefined, and what is undefined does not
/// deny.
#[must_use]
pub fn validate_input(input: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    validate(input_schema(), input, "input", &mut faults);
    faults
}

fn validate(schema: &Value, value: &Value, path: &str, faults: &mut Vec<String>) {
    if let Some(expected) = schema.get("const")
        && value != expected
    {
        faults.push(format!("{path} is not {expected}"));
    }
    if let Some(choices) = schema.get("enum").and_then(Value::as_array)
        && !choices.contains(value)
    {
        faults.push(format!("{path} is {value}, which is none of {}", Value::Array(choices.clone())));
    }
    let types = types_of(schema);
    if !types.is_empty() && !types.iter().any(|name| has_type(value, name)) {
        faults.push(format!("{path} is not of type {}", types.join(" or ")));
        return;
    }
    if let (Some(least), Some(text)) = (schema.get("minLength").and_then(Value::as_u64), value.as_str())
        && (text.chars().count() as u64) < least
    {
        faults.push(format!("{path} is shorter than {least} characters"));
    }
    if let (Some(least), Some(number)) = (schema.get("minimum").and_then(Value::as_f64), value.as_f64())
        && number < least
    {
        faults.push(format!("{path} is less than {least}"));
    }
    if let (Some(items), Some(elements)) = (schema.get("items"), value.as_array()) {
        for (at, element) in elements.iter().enumerate() {
            validate(items, element, &format!("{path}[{at}]"), faults);
        }
    }
    if let Some(map) = value.as_object() {
        for key in
            schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
        {
            if !map.contains_key(key) {
                faults.push(format!("{path}.{key} is missing"));
            }
        }
        for (key, element) in map {
            match child(schema, key) {
                Child::Schema(inner) => validate(inner, element, &format!("{path}.{key}"), faults),
                Child::Impossible => faults.push(format!("{path}.{key} is not a key of the gate's input")),
                Child::Anything => {}
            }
        }
    }
}

fn types_of(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn has_type(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        // JSON Schema counts 1.0 as an integer.
        "integer" => {
            value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
        }
        _ => false,
    }
}

/// What a schema says about something inside a value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Child<'s> {
    Schema(&'s Value),
    Anything,
    /// No value that fits the schema has this.
    Impossible,
}

/// Returns what may stand at the key of an object.
pub(super) fn child<'s>(schema: &'s Value, key: &str) -> Child<'s> {
    let types = types_of(schema);
    if types.is_empty() {
        // A constant or a list of choices holds scalars here, which have no keys.
        return if schema.get("const").or(schema.get("enum")).is_some() {
            Child::Impossible
        } else {
            Child::Anything
        };
    }
    if !types.contains(&"object") {
        return Child::Impossible;
    }
    if let Some(inner) = schema.get("properties").and_then(|properties| properties.get(key)) {
        return Child::Schema(inner);
    }
    match schema.get("additionalProperties") {
        Some(Value::Bool(false)) => Child::Impossible,
        Some(inner @ Value::Object(_)) => Child::Schema(inner),
        _ => Child::Anything,
    }
}

/// Returns what an iteration over the value yields.
pub(super) fn element(schema: &Value) -> Child<'_> {
    let types = types_of(schema);
    if types.contains(&"array") {
        return schema.get("items").map_or(Child::Anything, Child::Schema);
    }
    if types.contains(&"object") {
        return match (schema.get("properties"), schema.get("additionalProperties")) {
            (None, Some(inner @ Value::Object(_))) => Child::Schema(inner),
            _ => Child::Anything,
        };
    }
    if types.is_empty() && schema.get("const").or(schema.get("enum")).is_none() {
        Child::Anything
    } else {
        Child::Impossible
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::gate::tests::input;
    use super::*;

    fn keywords(schema: &Value, found: &mut std::collections::BTreeSet<String>) {
        for (keyword, value) in schema.as_object().unwrap() {
            found.insert(keyword.clone());
            match keyword.as_str() {
                "properties" => value.as_object().unwrap().values().for_each(|inner| keywords(inner, found)),
                "items" => keywords(value, found),
                "additionalProperties" if value.is_object() => keywords(value, found),
                _ => {}
            }
        }
    }

    #[test]
    fn the_schema_uses_only_keywords_that_are_understood() {
        let mut found = std::collections::BTreeSet::new();
        keywords(input_schema(), &mut found);
        let understood =
            ["$schema", "title", "description", "type", "required", "additionalProperties", "properties"]
                .into_iter()
                .chain(["const", "enum", "items", "minLength", "minimum"]);
        assert_eq!(
            found.into_iter().filter(|k| !understood.clone().any(|u| u == k)).collect::<Vec<_>>(),
            [""; 0]
        );
    }

    #[test]
    fn agrees_with_a_complete_validator_on_mutations() {
        let oracle = jsonschema::validator_for(input_schema()).unwrap();
        let whole = input();
        assert_eq!(validate_input(&whole), [""; 0]);
        assert!(oracle.is_valid(&whole));
        let (mut refused, mut accepted) = (0, 0);
        let mut paths = Vec::new();
        collect(&whole, "", &mut paths);
        for path in &paths {
            let substitutes =
                [json!(null), json!(true), json!(-1), json!(1.5), json!("x"), json!([]), json!({"zz": 1})];
            for substitute in substitutes {
                let mut mutant = whole.clone();
                *mutant.pointer_mut(path).unwrap() = substitute;
                let ours = validate_input(&mutant).is_empty();
                assert_eq!(ours, oracle.is_valid(&mutant), "{path}: {mutant}");
                if ours { accepted += 1 } else { refused += 1 }
            }
            let (parent, key) = path.rsplit_once('/').unwrap();
            let mut mutant = whole.clone();
            if let Some(map) = mutant.pointer_mut(parent).and_then(Value::as_object_mut) {
                map.remove(key);
                assert_eq!(validate_input(&mutant).is_empty(), oracle.is_valid(&mutant), "{path} removed");
            }
        }
        assert!(refused > 100 && accepted > 20, "{refused} refused, {accepted} accepted");
    }

    fn collect(value: &Value, path: &str, paths: &mut Vec<String>) {
        let mut visit = |key: &str, inner: &Value| {
            let path = format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
            collect(inner, &path, paths);
            paths.push(path);
        };
        match value {
            Value::Object(map) => map.iter().for_each(|(key, inner)| visit(key, inner)),
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(at, inner)| visit(&at.to_string(), inner));
            }
            _ => {}
        }
    }
}
