//! The commented example, made from the schema's descriptions and the embedded defaults, so that it cannot fall behind either.

use std::fmt::Write as _;

use serde_json::{Map, Value as Json};

use super::catalogue;

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
                Some(Json::Array(none)) if none.is_empty() && self.section_items(property).is_some() => {
                    self.commented_out(out, indent, key, property);
                }
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
        if let Some(item) = self.section_items(property) {
            let _ = writeln!(out, "{indent}{key}:");
            return self.sample_items(out, indent, item);
        }
        match self.resolve(property).get("properties").and_then(Json::as_object) {
            Some(properties) if property.get("examples").is_none() => {
                let _ = writeln!(out, "{indent}{key}:");
                self.sample_section(out, &format!("{indent}  "), properties);
            }
            _ => {
                let _ = writeln!(out, "{indent}{key}: {}", flow(&self.sample_value(property)));
            }
        }
    }

    fn sample_section(&self, out: &mut String, indent: &str, properties: &Map<String, Json>) {
        for (key, property) in properties {
            comment(out, indent, property);
            self.sample(out, indent, key, property);
        }
    }

    /// One item for each form that items may have; or one item, and where the schema makes some keys depend on a word, one for each word: the first with every key, the others with what differs.
    fn sample_items(&self, out: &mut String, indent: &str, item: &Json) {
        let inner = format!("{indent}    ");
        for form in forms(item) {
            let mut block = String::new();
            comment(&mut block, &inner, form);
            for (key, property) in form.get("properties").and_then(Json::as_object).into_iter().flatten() {
                self.sample(&mut block, &inner, key, property);
            }
            out.push_str(&dashed(&block, indent));
        }
        let Some(properties) = item.get("properties").and_then(Json::as_object) else { return };
        let mut rules = catalogue::rules(item).peekable();
        if rules.peek().is_none() {
            let mut block = String::new();
            self.sample_section(&mut block, &inner, properties);
            out.push_str(&dashed(&block, indent));
        }
        for (number, (condition, then)) in rules.enumerate() {
            let chosen = |from: &Json, key: &str| from.get("properties").and_then(|properties| properties.get(key)).cloned();
            let mut block = String::new();
            for (key, property) in properties {
                let (word, depending) = (chosen(condition, key), chosen(then, key));
                if number == 0 {
                    comment(&mut block, &inner, property);
                }
                match (word, depending) {
                    (Some(word), _) => {
                        let _ = writeln!(block, "{inner}{key}: {}", flow(word.get("const").unwrap_or(&Json::Null)));
                    }
                    (None, Some(depending)) => self.sample(&mut block, &inner, key, &depending),
                    (None, None) if number == 0 || required(item, key) => {
                        let value = self.sample_value(property);
                        // Names are unique.
                        let suffix = if number == 0 { String::new() } else { format!("-{}", number + 1) };
                        let value = value.as_str().map(|text| format!("{text}{suffix}").into()).unwrap_or(value);
                        let _ = writeln!(block, "{inner}{key}: {}", flow(&value));
                    }
                    (None, None) => {}
                }
            }
            out.push_str(&dashed(&block, indent));
        }
    }

    /// The items' schema, if it is a list of sections.
    fn section_items<'s>(&'s self, property: &'s Json) -> Option<&'s Json> {
        let item = self.resolve(self.resolve(property).get("items")?);
        (item.get("properties").is_some() || forms(item).next().is_some()).then_some(item)
    }

    /// What a key may hold: its example, its default, or the least of its kind.
    fn sample_value(&self, property: &Json) -> Json {
        let resolved = self.resolve(property);
        let given = |schema: &Json| {
            let example = schema.get("examples").and_then(|examples| examples.get(0));
            example.or_else(|| schema.get("default")).or_else(|| schema.get("const")).filter(|value| !value.is_null()).cloned()
        };
        let word = || resolved.get("enum").and_then(|words| words.get(0)).cloned();
        let kind = || {
            let kind = resolved.get("type");
            let kind = kind.and_then(|kind| kind.as_str().or_else(|| kind.get(0).and_then(Json::as_str)));
            match kind {
                Some("integer" | "number") => resolved.get("minimum").cloned().unwrap_or_else(|| 0.into()),
                Some("boolean") => false.into(),
                Some("array") => Json::Array(Vec::new()),
                Some("object") => Json::Object(Map::new()),
                _ => "".into(),
            }
        };
        // A union shows the first of its forms.
        let form = || {
            let forms = resolved.get("oneOf").or_else(|| resolved.get("anyOf")).and_then(Json::as_array)?;
            let form = forms.iter().find(|form| form.get("type").and_then(Json::as_str) != Some("null"))?;
            Some(self.sample_value(form))
        };
        let section = || {
            let properties = resolved.get("properties").and_then(Json::as_object)?;
            Some(properties.iter().map(|(key, property)| (key.clone(), self.sample_value(property))).collect::<Map<_, _>>().into())
        };
        given(property).or_else(|| given(resolved)).or_else(word).or_else(form).or_else(section).unwrap_or_else(kind)
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

/// The forms of a section that is one of several.
fn forms(schema: &Json) -> impl Iterator<Item = &Json> {
    let forms = schema.get("oneOf").and_then(Json::as_array).into_iter().flatten();
    forms.filter(|form| form.get("properties").is_some())
}

fn required(schema: &Json, key: &str) -> bool {
    schema.get("required").and_then(Json::as_array).is_some_and(|required| required.iter().any(|one| one == key))
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
        Json::Array(items) => {
            let item = |item: &Json| if item.is_string() { item.to_string() } else { flow(item) };
            format!("[{}]", items.iter().map(item).collect::<Vec<_>>().join(", "))
        }
        Json::Object(entries) => {
            format!("{{{}}}", entries.iter().map(|(key, value)| format!("{key}: {}", flow(value))).collect::<Vec<_>>().join(", "))
        }
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
