//! What a person sees while a certificate is being issued: a spinner on a terminal, plain lines elsewhere, on standard error.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::issuer::Event;

/// How often the spinner turns.
const TURN: Duration = Duration::from_millis(100);

/// Shows events as they come.
pub(super) struct Progress(Option<ProgressBar>);

impl Progress {
    pub(super) fn start() -> Self {
        if !io::stderr().is_terminal() {
            return Self(None);
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(TURN);
        Self(Some(bar))
    }

    pub(super) fn show(&self, event: &Event) {
        match &self.0 {
            None => line(&event.to_string()),
            Some(bar) if matches!(event, Event::Warning { .. }) => bar.suspend(|| line(&event.to_string())),
            Some(bar) => bar.set_message(event.to_string()),
        }
    }

    pub(super) fn end(self) {
        if let Some(bar) = self.0 {
            bar.finish_and_clear();
        }
    }
}

/// Prints a line to standard error, whether or not anybody reads it.
pub(super) fn line(text: &str) {
    // In one piece, so that it stays whole beside other writers.
    let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
}
