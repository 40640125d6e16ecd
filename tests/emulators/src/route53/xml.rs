//! As much XML as Route 53 speaks: elements with text or with elements, no attributes worth reading.

use std::fmt::Write as _;

/// An element.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Element {
    pub(super) name: String,
    /// What stands between the tag's name and its end: namespaces.
    attributes: String,
    pub(super) text: String,
    pub(super) children: Vec<Element>,
}

impl Element {
    /// The root element of a document; `None` if it is not well-formed.
    pub(super) fn parse(document: &str) -> Option<Self> {
        let mut open: Vec<Self> = Vec::new();
        let mut rest = document;
        loop {
            let (text, tag) = rest.split_once('<')?;
            if let Some(element) = open.last_mut() {
                element.text.push_str(&unescape(text));
            }
            let (tag, after) = tag.split_once('>')?;
            rest = after;
            if tag.starts_with(['?', '!']) {
                continue;
            }
            if let Some(name) = tag.strip_prefix('/') {
                let element = open.pop().filter(|element| element.name == name.trim())?;
                match open.last_mut() {
                    Some(parent) => parent.children.push(element),
                    None => return Some(element),
                }
                continue;
            }
            let (tag, alone) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
            let (name, attributes) = tag.split_once(char::is_whitespace).unwrap_or((tag, ""));
            let element = Self { name: name.to_owned(), attributes: attributes.to_owned(), ..Self::default() };
            match open.last_mut() {
                Some(parent) if alone => parent.children.push(element),
                None if alone => return Some(element),
                _ => open.push(element),
            }
        }
    }

    /// The first child of a name.
    pub(super) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The text of the first child of a name; empty if there is none.
    pub(super) fn value(&self, name: &str) -> &str {
        self.child(name).map_or("", |child| child.text.as_str())
    }

    /// The children of the first child of a name.
    pub(super) fn list(&self, name: &str) -> &[Self] {
        self.child(name).map_or(&[], |child| child.children.as_slice())
    }

    /// As a document's text.
    pub(super) fn write(&self) -> String {
        let mut text = String::new();
        self.append(&mut text);
        text
    }

    fn append(&self, text: &mut String) {
        let separator = if self.attributes.is_empty() { "" } else { " " };
        let _ = write!(text, "<{}{separator}{}>", self.name, self.attributes);
        if self.children.is_empty() {
            text.push_str(&escape(&self.text));
        }
        for child in &self.children {
            child.append(text);
        }
        let _ = write!(text, "</{}>", self.name);
    }
}

/// Text as it can stand in an element.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn unescape(text: &str) -> String {
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#34;", "\"");
    text.replace("&apos;", "'").replace("&#39;", "'").replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let text = "<?xml version=\"1.0\"?>\n<a xmlns=\"urn:x\"><b>1 &lt; &quot;2&quot;</b><c/><d><b> x </b></d></a>";
        let root = Element::parse(text).expect("XML");
        assert_eq!((root.value("b"), root.value("c"), root.list("d").len()), ("1 < \"2\"", "", 1));
        let written = root.write();
        assert!(written.starts_with("<a xmlns=\"urn:x\"><b>1 &lt; \"2\"</b>"), "{written}");
        assert_eq!(Element::parse(&written).map(|again| again.write()), Some(written));
        assert_eq!(Element::parse("<a><b></a>"), None);
    }
}
