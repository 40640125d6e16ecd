//! What is wrong with a configuration, all of it at once, each with its place.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use super::tree::{Node, Place};

/// Why there is no configuration to run on. Its text names the file, and for each error line, column and key.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: cannot be read: {source}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is not a valid configuration.
    #[error("{0}")]
    Invalid(Invalid),
}

/// Everything that is wrong with a configuration, in the order of the file.
#[derive(Debug)]
pub struct Invalid {
    file: PathBuf,
    problems: Vec<Problem>,
}

#[derive(Debug)]
struct Problem {
    /// `None` until it is looked up.
    place: Option<Place>,
    path: String,
    message: String,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        for (index, Problem { place, path, message }) in self.problems.iter().enumerate() {
            let Place { line, column } = place.unwrap_or(Place::START);
            let newline = if index == 0 { "" } else { "\n" };
            let path = if path.is_empty() { String::new() } else { format!("{path}: ") };
            write!(f, "{newline}{file}:{line}:{column}: {path}{message}")?;
        }
        Ok(())
    }
}

/// Collects what is wrong.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<Problem>);

impl Problems {
    pub(super) fn add(&mut self, place: Place, path: &str, message: String) {
        self.0.push(Problem { place: Some(place), path: path.to_owned(), message });
    }

    /// Something is wrong with the value at `path`, wherever that is.
    pub(super) fn add_at(&mut self, path: &str, message: String) {
        self.0.push(Problem { place: None, path: path.to_owned(), message });
    }

    /// Looks up where the values are.
    pub(super) fn locate(&mut self, tree: &Node) {
        for problem in &mut self.0 {
            problem.place.get_or_insert_with(|| tree.place_of(&problem.path));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn into_error(mut self, file: &Path) -> ConfigError {
        self.0.sort_by_key(|problem| problem.place);
        ConfigError::Invalid(Invalid { file: file.to_owned(), problems: self.0 })
    }
}
