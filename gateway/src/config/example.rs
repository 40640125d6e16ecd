//! The commented example, made from the schema's descriptions and the embedded defaults, so that it cannot fall behind either.

use std::fmt::Write as _;

use serde_json::Value as Json;

/// Where comments are broken.
const WIDTH: usize = 100;

/// The example file: every key, its description, and the value that holds without a file. A key that has no default is shown commented out.
pub(super) fn render(schema: &Json, defaults: &Json) -> String {
    let mut text = String::new();
    comment(&mut text, "", schema);
    text.push('\n');
    Example { root: schema }.section(&mut text, "", schema, defaults, true);
    text
}

struct Example<'a> {
    root: &'a Json,
}

impl Example<'_> {
    fn section(&self, out: &mut String, indent: &str, schema: &Json, values: &Json, top: bool) {
        let Some(properties) = schema.get("properties").and_then(Json::as_object) else { return };
        for (number, (key, property)) in properties.iter().enumerate() {
            if top && number > 0 {
                out.push('\n');
            }
            comment(out, indent, property);
            match values.get(key) {
                Some(value) if !value.is_null() => self.entry(out, indent, key, property, value),
                _ => self.commented_out(out, indent, key, property),
            }
        }
    }

    fn entry(&self, out: &mut String, indent: &str, key: &str, property: &Json, value: &Json) {
        let schema = self.resolve(property);
        match value {
            Json::Object(_) => {
                let _ = writeln!(out, "{indent}{key}:");
                self.section(out, &format!("{indent}  "), schema, value, false);
            }
            Json::Array(items) if items.iter().any(Json::is_object) => {
                let _ = writeln!(out, "{indent}{key}:");
                let item_schema = schema.get("items").map_or(&Json::Null, |items| self.resolve(items));
                for item in items {
                    let mut block = String::new();
                    self.section(&mut block, &format!("{indent}    "), item_schema, item, false);
                    out.push_str(&dashed(&block, indent));
                }
            }
            scalar => {
                let _ = writeln!(out, "{indent}{key}: {}", flow(scalar));
            }
        }
    }

    /// A key without a default: its example, behind a comment sign.
    fn commented_out(&self, out: &mut String, indent: &str, key: &str, property: &Json) {
        let mut block = String::new();
        self.sample(&mut block, "", key, property);
        for line in block.lines() {
            let _ = writeln!(out, "{indent}# {line}");
        }
    }

    fn sample(&self, out: &mut String, indent: &str, key: &str, property: &Json) {
        let Some(properties) = self.resolve(property).get("properties").and_then(Json::as_object) else {
            let example = property.get("examples").and_then(|examples| examples.get(0)).map_or_else(|| "\"\"".to_owned(), flow);
            let _ = writeln!(out, "{indent}{key}: {example}");
            return;
        };
        let _ = writeln!(out, "{indent}{key}:");
        let below = format!("{indent}  ");
        for (key, property) in properties {
            comment(out, &below, property);
            self.sample(out, &below, key, property);
        }
    }

    /// The schema behind references and behind "or nothing".
    fn resolve<'s>(&'s self, schema: &'s Json) -> &'s Json {
        if let Some(target) = schema.get("$ref").and_then(Json::as_str) {
            return self.root.pointer(target.trim_start_matches('#')).map_or(&Json::Null, |target| self.resolve(target));
        }
        let branches = schema.get("anyOf").and_then(Json::as_array);
        let section = branches.into_iter().flatten().find(|branch| branch.get("$ref").is_some());
        section.map_or(schema, |section| self.resolve(section))
    }
}

fn comment(out: &mut String, indent: &str, schema: &Json) {
    let Some(description) = schema.get("description").and_then(Json::as_str) else { return };
    for (number, paragraph) in description.split("\n\n").enumerate() {
        if number > 0 {
            let _ = writeln!(out, "{indent}#");
        }
        let mut line = format!("{indent}#");
        for word in paragraph.split_whitespace() {
            if line.chars().count() + 1 + word.chars().count() > WIDTH {
                let _ = writeln!(out, "{line}");
                line = format!("{indent}#");
            }
            line.push(' ');
            line.push_str(word);
        }
        let _ = writeln!(out, "{line}");
    }
}

/// Puts the dash of a list item before the first key of a block that is indented by four more than `indent`.
fn dashed(block: &str, indent: &str) -> String {
    let mut dash_pending = true;
    let mut text = String::new();
    for line in block.lines() {
        let bare = line.trim_start();
        if !dash_pending {
            let _ = writeln!(text, "{line}");
        } else if bare.starts_with('#') {
            let _ = writeln!(text, "{indent}  {bare}");
        } else {
            dash_pending = false;
            let _ = writeln!(text, "{indent}  - {bare}");
        }
    }
    text
}

/// A scalar or a list of scalars on one line, quoted where YAML would read it as something else.
fn flow(value: &Json) -> String {
    match value {
        Json::Array(items) => format!("[{}]", items.iter().map(Json::to_string).collect::<Vec<_>>().join(", ")),
        Json::String(text) if plain(text) => text.clone(),
        other => other.to_string(),
    }
}

/// True if YAML reads the bare text as itself.
fn plain(text: &str) -> bool {
    let is_duration = text.strip_suffix(['s', 'm', 'h', 'd']).is_some_and(|number| number.parse::<u32>().is_ok());
    (is_duration || text.starts_with(|c: char| c.is_ascii_alphabetic() || "./".contains(c)))
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._/:@".contains(&b))
        && !text.ends_with(':')
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&text.to_ascii_lowercase().as_str())
}
