//! Checks a YAML tree against the JSON Schema of the `Spec`, and finds everything that is wrong with its shape at once: unknown and missing keys,
//! values of the wrong kind, words that are not among the allowed ones.
//!
//! serde alone stops at the first error. The schema is the one that `acmegate config schema` prints, so an editor that uses it and the program
//! agree. Only what schemars derives for a `Spec` is understood here: `$ref`, `anyOf`/`oneOf`, `type`, `const`/`enum`, `properties`, `items`.

use serde_json::Value as Json;

use super::{
    problem::Problems,
    tree::{Node, Value},
};

/// Notes in `problems` whatever does not fit the schema.
pub(super) fn check(schema: &Json, node: &Node, problems: &mut Problems) {
    Shape { root: schema, problems }.check(schema, node, "");
}

struct Shape<'a> {
    root: &'a Json,
    problems: &'a mut Problems,
}

impl Shape<'_> {
    fn check(&mut self, schema: &Json, node: &Node, path: &str) {
        let alternatives = alternatives(self.root, schema);
        let fitting: Vec<&Json> = alternatives.iter().copied().filter(|one| takes_kind(one, &node.value)).collect();
        let Some(first) = fitting.first() else {
            let wanted = listed(&alternatives.iter().map(|one| kind_wanted(one)).collect::<Vec<_>>(), "or");
            let hint = match &node.value {
                Value::Number(_) if wanted.contains("text") => {
                    " (a duration has a unit, such as 24h; other text made of digits needs quotes)"
                }
                Value::Bool(_) if wanted.contains("text") => " (put it in quotes if it is meant as text)",
                Value::Null if !path.is_empty() => " (leave the key out to get its default)",
                _ => "",
            };
            self.problems.add(node.place, path, format!("must be {wanted}, not {}{hint}", kind(&node.value)));
            return;
        };
        match &node.value {
            Value::Map(entries) => self.check_map(first, node, entries, path),
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.check(first.get("items").unwrap_or(&Json::Null), item, &format!("{path}[{index}]"));
                }
            }
            Value::Text(text) => {
                let words: Vec<&str> = fitting.iter().flat_map(|one| words(one)).collect();
                if !words.is_empty() && !words.contains(&text.as_str()) {
                    let guess = guess(text, words.iter().copied());
                    self.problems.add(node.place, path, format!("{text:?} is not allowed{guess}; allowed: {}", words.join(", ")));
                }
            }
            Value::Number(number) => self.check_number(first, node, number, path),
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn check_map(&mut self, schema: &Json, node: &Node, entries: &[(super::tree::Key, Node)], path: &str) {
        let properties = schema.get("properties").and_then(Json::as_object);
        let known = || properties.into_iter().flat_map(|properties| properties.keys().map(String::as_str));
        let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        let mut meant = Vec::new();
        for (key, value) in entries {
            match properties.and_then(|properties| properties.get(&key.text)) {
                Some(schema) => self.check(schema, value, &below(&key.text)),
                None => {
                    meant.extend(nearest(&key.text, known()));
                    let guess = guess(&key.text, known());
                    let known = known().collect::<Vec<_>>().join(", ");
                    self.problems.add(key.place, &below(&key.text), format!("unknown key{guess}; known here: {known}"));
                }
            }
        }
        for required in schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str) {
            if !entries.iter().any(|(key, _)| key.text == required) && !meant.contains(&required) {
                self.problems.add(node.place, &below(required), "is missing".to_owned());
            }
        }
    }

    fn check_number(&mut self, schema: &Json, node: &Node, number: &serde_json::Number, path: &str) {
        let least = schema.get("minimum").and_then(Json::as_u64).unwrap_or(0);
        // schemars writes no maximum for the Rust integers; all of ours are u32.
        if number.as_u64().is_none_or(|n| n < least || n > u64::from(u32::MAX)) {
            self.problems.add(node.place, path, format!("must be a whole number from {least} to {}, not {number}", u32::MAX));
        }
    }
}

/// The schema with references followed and unions opened.
fn alternatives<'a>(root: &'a Json, schema: &'a Json) -> Vec<&'a Json> {
    if let Some(target) = schema.get("$ref").and_then(Json::as_str) {
        return match root.pointer(target.trim_start_matches('#')) {
            Some(target) => alternatives(root, target),
            None => Vec::new(),
        };
    }
    match schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Json::as_array) {
        Some(branches) => branches.iter().flat_map(|branch| alternatives(root, branch)).collect(),
        None => vec![schema],
    }
}

fn takes_kind(schema: &Json, value: &Value) -> bool {
    types(schema).iter().any(|kind| {
        matches!(
            (*kind, value),
            ("null", Value::Null)
                | ("boolean", Value::Bool(_))
                | ("integer" | "number", Value::Number(_))
                | ("string", Value::Text(_))
                | ("array", Value::List(_))
                | ("object", Value::Map(_))
        )
    })
}

fn types(schema: &Json) -> Vec<&str> {
    match schema.get("type") {
        Some(Json::String(one)) => vec![one],
        Some(Json::Array(many)) => many.iter().filter_map(Json::as_str).collect(),
        _ => Vec::new(),
    }
}

/// The words that a schema for text allows; none if it allows any text.
fn words(schema: &Json) -> Vec<&str> {
    let one = schema.get("const").into_iter();
    one.chain(schema.get("enum").and_then(Json::as_array).into_iter().flatten()).filter_map(Json::as_str).collect()
}

fn kind_wanted(schema: &Json) -> String {
    let kinds: Vec<String> = types(schema)
        .iter()
        .map(|kind| {
            match *kind {
                "null" => "nothing",
                "boolean" => "true or false",
                "integer" => "a whole number",
                "number" => "a number",
                "string" if !words(schema).is_empty() => return words(schema).join(" or "),
                "string" => "text",
                "array" => "a list",
                _ => "a section with keys",
            }
            .to_owned()
        })
        .collect();
    listed(&kinds, "or")
}

fn kind(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => format!("the number {number}"),
        Value::Text(text) => format!("the text {text:?}"),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a section with keys".to_owned(),
    }
}

fn listed(items: &[String], last: &str) -> String {
    match items {
        [] => "something else".to_owned(),
        [one] => one.clone(),
        [head @ .., tail] => format!("{} {last} {tail}", head.join(", ")),
    }
}

/// `; did you mean "…"?`, if a known word is near enough.
fn guess<'a>(text: &str, known: impl Iterator<Item = &'a str>) -> String {
    nearest(text, known).map_or_else(String::new, |word| format!("; did you mean {word:?}?"))
}

/// The known word that was meant, most likely.
fn nearest<'a>(text: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let normal = |text: &str| text.to_lowercase().replace(['-', ' '], "_");
    let text = normal(text);
    // A third of the letters may differ: `listne` finds `listen`, `foo` finds nothing.
    let most = (text.chars().count() / 3).max(1);
    known
        .map(|word| (distance(&text, &normal(word)), word))
        .filter(|&(distance, word)| distance <= most || (text.len() > 3 && (word.starts_with(&text) || text.starts_with(word))))
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, word)| word)
}

/// Optimal string alignment: insertions, deletions, substitutions, and swaps of neighbours.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, &from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &to) in b.iter().enumerate() {
            let mut best = (last[j] + usize::from(from != to)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && from == b[j - 1] && a[i - 1] == to {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_guessed_and_far_ones_are_not() {
        let known = || ["listen", "zones", "nameservers", "tokens_file"].into_iter();
        assert_eq!(guess("listne", known()), "; did you mean \"listen\"?");
        assert_eq!(guess("zone", known()), "; did you mean \"zones\"?");
        assert_eq!(guess("tokens-file", known()), "; did you mean \"tokens_file\"?");
        assert_eq!(guess("nameserver", known()), "; did you mean \"nameservers\"?");
        assert_eq!(guess("foo", known()), "");
    }

    #[test]
    fn a_swap_is_one_step() {
        assert_eq!(distance("listne", "listen"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
