//! The providers' settings inside the schema of the configuration: which keys `settings:` takes depends on what `provider:` says.

use providers::Kind;
use serde_json::{Map, Value as Json, json};

/// Where the schema of a backend stands.
const BACKEND: &str = "/$defs/Backend";

/// Puts every provider into the schema: the words of `provider`, and, for each of them, what `settings` has to be (`if`/`then`).
pub(super) fn insert(schema: &mut Json, kinds: &[Kind]) {
    let (mut definitions, mut rules) = (Map::new(), Vec::new());
    for kind in kinds {
        let mut settings = (kind.schema)();
        requalify(&mut settings, kind.id);
        let Some(object) = settings.as_object_mut() else { continue };
        object.remove("$schema");
        object.insert("title".to_owned(), kind.title.into());
        let own = object.remove("$defs").and_then(|own| if let Json::Object(own) = own { Some(own) } else { None });
        definitions.extend(own.into_iter().flatten().map(|(name, definition)| (qualified(kind.id, &name), definition)));
        let mut then = json!({ "properties": { "settings": { "$ref": format!("#/$defs/{}", kind.id) } } });
        let needs_settings = object.get("required").and_then(Json::as_array).is_some_and(|required| !required.is_empty());
        if needs_settings {
            then["required"] = json!(["settings"]);
        }
        rules.push(json!({ "if": { "properties": { "provider": { "const": kind.id } }, "required": ["provider"] }, "then": then }));
        definitions.insert(kind.id.to_owned(), settings);
    }
    if let Some(backend) = schema.pointer_mut(BACKEND).and_then(Json::as_object_mut) {
        if let Some(provider) = backend.get_mut("properties").and_then(|properties| properties.get_mut("provider")) {
            provider["enum"] = kinds.iter().map(|kind| kind.id).collect();
        }
        if !rules.is_empty() {
            backend.insert("allOf".to_owned(), rules.into());
        }
    }
    if let Some(all) = schema.get_mut("$defs").and_then(Json::as_object_mut) {
        all.extend(definitions);
    }
}

/// Providers may give different definitions the same name.
fn qualified(id: &str, definition: &str) -> String {
    format!("{id}.{definition}")
}

fn requalify(schema: &mut Json, id: &str) {
    match schema {
        Json::Object(entries) => {
            for (key, value) in entries {
                let name = if key == "$ref" { value.as_str().and_then(|target| target.strip_prefix("#/$defs/")) } else { None };
                match name {
                    Some(name) => *value = format!("#/$defs/{}", qualified(id, name)).into(),
                    None => requalify(value, id),
                }
            }
        }
        Json::Array(items) => items.iter_mut().for_each(|item| requalify(item, id)),
        _ => {}
    }
}

/// The `if`/`then` rules of a schema, as pairs.
pub(super) fn rules(schema: &Json) -> impl Iterator<Item = (&Json, &Json)> {
    let rules = schema.get("allOf").and_then(Json::as_array).into_iter().flatten();
    rules.filter_map(|rule| rule.get("if").zip(rule.get("then")))
}
