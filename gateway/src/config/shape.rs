//! Checks a YAML tree against the JSON Schema of the `Spec`, and finds everything that is wrong with its shape at once: unknown and missing keys,
//! values of the wrong kind, words that are not among the allowed ones.
//!
//! serde alone stops at the first error. The schema is the one that `acmegate config schema` prints, so an editor that uses it and the program
//! agree. Only what schemars derives for a `Spec` and for the providers' settings is understood here: `$ref`, `anyOf`/`oneOf`, `type`, `const`/`enum`,
//! `properties`, `additionalProperties`, `items`, `minimum`/`maximum`, and the `if`/`then` by which a provider's name chooses its settings.

use serde_json::Value as Json;

use super::{
    catalogue,
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
            let mut wanted: Vec<String> = alternatives.iter().map(|one| kind_wanted(one)).collect();
            wanted.dedup();
            let wanted = one_of_sections(&alternatives).unwrap_or_else(|| listed(&wanted, "or"));
            // What stands where a section should may be a secret that was written down by mistake.
            let may_be_secret = alternatives.iter().any(|one| types(one).contains(&"object"));
            let found = if may_be_secret { kind_alone(&node.value) } else { kind(&node.value) };
            let hint = match &node.value {
                Value::Text(_) | Value::Number(_) if alternatives.iter().any(|one| one.pointer("/properties/file").is_some()) => {
                    " (a secret is not written here: say where it is, such as {file: ./token})"
                }
                Value::Number(_) if wanted.contains("text") && !may_be_secret => {
                    " (a duration has a unit, such as 24h; other text made of digits needs quotes)"
                }
                Value::Bool(_) if wanted.contains("text") => " (put it in quotes if it is meant as text)",
                Value::Null if !path.is_empty() => " (leave the key out to get its default)",
                _ => "",
            };
            self.problems.add(node.place, path, format!("must be {wanted}, not {found}{hint}"));
            return;
        };
        match &node.value {
            Value::Map(entries) => {
                if let Some(one) = self.alternative(&fitting, node, entries, path) {
                    self.check_map(one, node, entries, path);
                }
            }
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.check(first.get("items").unwrap_or(&Json::Null), item, &format!("{path}[{index}]"));
                }
            }
            Value::Text(text) => {
                let words: Vec<&str> = fitting.iter().flat_map(|one| words(one)).collect();
                if !words.is_empty() && !words.contains(&&**text) {
                    let guess = guess(text, words.iter().copied());
                    self.problems.add(node.place, path, format!("{text:?} is not allowed{guess}; allowed: {}", words.join(", ")));
                }
            }
            Value::Number(number) => self.check_number(first, node, number, path),
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// The form of a section that is meant, where it has several; `None` if none is, which is then noted.
    fn alternative<'s>(&mut self, forms: &[&'s Json], node: &Node, entries: &[Entry], path: &str) -> Option<&'s Json> {
        if let [one] = forms {
            return Some(one);
        }
        let takes = |form: &Json, key: &str| properties(form).is_some_and(|properties| properties.contains_key(key));
        let tagged = |form: &&&Json| {
            let word_fits = |(key, value): &Entry| match (properties(form).and_then(|all| all.get(&*key.text)?.get("const")), &value.value)
            {
                (Some(word), Value::Text(text)) => word.as_str() == Some(text),
                _ => true,
            };
            entries.iter().all(word_fits)
        };
        let best = forms.iter().filter(tagged).max_by_key(|form| {
            let (known, required) = (entries.iter().filter(|(key, _)| takes(form, &key.text)).count(), required(form));
            let missing = required.iter().filter(|needed| !entries.iter().any(|(key, _)| *key.text == ***needed)).count();
            // The first of equals: `max_by_key` would give the last.
            (known, std::cmp::Reverse(missing), std::cmp::Reverse(forms.iter().position(|other| std::ptr::eq(*other, **form))))
        });
        let best = best.or(forms.first()).copied()?;
        let mut keys: Vec<&str> =
            forms.iter().flat_map(|form| properties(form).into_iter().flat_map(|all| all.keys())).map(String::as_str).collect();
        keys.sort_unstable();
        keys.dedup();
        if !entries.iter().any(|(key, _)| takes(best, &key.text)) {
            let message = match entries.first() {
                None => format!("is empty; it needs one of {}", keys.join(", ")),
                Some((key, _)) => {
                    format!("unknown key{}; known here, one of them: {}", guess(&key.text, keys.iter().copied()), keys.join(", "))
                }
            };
            let (place, path) = match entries.first() {
                None => (node.place, path.to_owned()),
                Some((key, _)) => (key.place, below(path, &key.text)),
            };
            self.problems.add(place, &path, message);
            return None;
        }
        let strangers: Vec<&Entry> =
            entries.iter().filter(|(key, _)| !takes(best, &key.text) && forms.iter().any(|form| takes(form, &key.text))).collect();
        if strangers.is_empty() {
            return Some(best);
        }
        for (key, _) in strangers {
            let others = entries.iter().map(|(key, _)| &*key.text).filter(|other| **other != *key.text).collect::<Vec<_>>().join(", ");
            self.problems.add(key.place, &below(path, &key.text), format!("stands beside {others}: give one of them"));
        }
        None
    }

    fn check_map(&mut self, schema: &Json, node: &Node, entries: &[Entry], path: &str) {
        // What the section's own words choose stands before what holds for all.
        let chosen: Vec<&Json> =
            catalogue::rules(schema).filter(|(condition, _)| holds(condition, entries)).map(|(_, then)| then).collect();
        let layers = || chosen.iter().copied().chain([schema]);
        let property = |key: &str| layers().find_map(|layer| properties(layer)?.get(key));
        let any = schema.get("additionalProperties").filter(|any| any.as_bool() != Some(false));
        let known = || properties(schema).into_iter().flat_map(|properties| properties.keys().map(String::as_str));
        let mut meant = Vec::new();
        for (key, value) in entries {
            match property(&key.text) {
                Some(schema) => self.check(schema, value, &below(path, &key.text)),
                None if any.is_some_and(Json::is_object) => self.check(any.unwrap_or(&Json::Null), value, &below(path, &key.text)),
                None if any.is_some() => {}
                None => {
                    meant.extend(nearest(&key.text, known()));
                    let guess = guess(&key.text, known());
                    let known = known().collect::<Vec<_>>().join(", ");
                    self.problems.add(key.place, &below(path, &key.text), format!("unknown key{guess}; known here: {known}"));
                }
            }
        }
        for required in layers().flat_map(required) {
            if !entries.iter().any(|(key, _)| *key.text == *required) && !meant.contains(&required) {
                self.problems.add(node.place, &below(path, required), "is missing".to_owned());
            }
        }
    }

    fn check_number(&mut self, schema: &Json, node: &Node, number: &serde_json::Number, path: &str) {
        let least = schema.get("minimum").and_then(Json::as_u64).unwrap_or(0);
        // schemars writes no maximum for the larger Rust integers; none of ours is larger than u32.
        let most = schema.get("maximum").and_then(Json::as_u64).unwrap_or(u64::from(u32::MAX));
        if number.as_u64().is_none_or(|n| n < least || n > most) {
            self.problems.add(node.place, path, format!("must be a whole number from {least} to {most}, not {number}"));
        }
    }
}

type Entry = (super::tree::Key, Node);

fn properties(schema: &Json) -> Option<&serde_json::Map<String, Json>> {
    schema.get("properties").and_then(Json::as_object)
}

fn required(schema: &Json) -> Vec<&str> {
    schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str).collect()
}

fn below(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Whether a condition of `if` holds: words that keys of this section have.
fn holds(condition: &Json, entries: &[Entry]) -> bool {
    properties(condition).into_iter().flatten().all(|(wanted, word)| {
        let given = entries.iter().find(|(key, _)| *key.text == **wanted).map(|(_, node)| &node.value);
        matches!((given, word.get("const").and_then(Json::as_str)), (Some(Value::Text(text)), Some(word)) if **text == *word)
    })
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

/// What is wanted where one key says which of several sections it is.
fn one_of_sections(alternatives: &[&Json]) -> Option<String> {
    let keys = alternatives.iter().map(|one| Some(required(one)).filter(|keys| keys.len() == 1 && types(one) == ["object"]));
    let keys = keys.collect::<Option<Vec<_>>>().filter(|keys| keys.len() > 1)?.concat();
    let keys: Vec<String> = keys.into_iter().map(str::to_owned).collect();
    Some(format!("a section with one of the keys {}", listed(&keys, "or")))
}

/// Without what it is.
fn kind_alone(value: &Value) -> String {
    match value {
        Value::Number(_) => "a number".to_owned(),
        Value::Text(_) => "text".to_owned(),
        other => kind(other),
    }
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
