//! The table at the end of a benchmark: ours, the yardstick, their ratio, the goal, and whether it was met.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    time::Duration,
};

/// A measured quantity.
#[derive(Debug, Clone, Copy)]
pub struct Figure {
    value: f64,
    unit: &'static str,
}

impl Figure {
    /// Any quantity.
    pub fn new(value: f64, unit: &'static str) -> Self {
        Self { value, unit }
    }

    /// Things a second.
    pub fn rate(value: f64) -> Self {
        Self::new(value, "/s")
    }

    /// A time, shown in milliseconds.
    pub fn time(time: Duration) -> Self {
        Self::new(time.as_secs_f64() * 1e3, "ms")
    }

    /// A short time, shown in microseconds.
    pub fn micros(time: Duration) -> Self {
        Self::new(time.as_secs_f64() * 1e6, "µs")
    }

    fn shown(self) -> String {
        format!("{} {}", number(self.value), self.unit)
    }
}

/// What a row of the table compares, and which ratio is wanted.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    /// Ours divided by the yardstick, at least so much: for rates.
    Times(f64),
    /// The yardstick divided by ours, at least so much: for times and costs.
    TimesLess(f64),
    /// Ours divided by the yardstick, at most so much.
    AtMost(f64),
    /// Ours divided by the yardstick, for information.
    Shown,
}

/// The rows so far.
#[derive(Debug)]
pub struct Report {
    title: String,
    rows: Vec<[String; 6]>,
}

const HEAD: [&str; 6] = ["", "ours", "yardstick", "ratio", "goal", "met"];

impl Report {
    /// An empty table.
    pub fn new(title: &str) -> Self {
        Self { title: title.into(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, what: &str, ours: Figure, yardstick: Figure, goal: Goal) {
        let quotient = |a: f64, b: f64| if b > 0.0 { a / b } else { f64::NAN };
        let over = quotient(ours.value, yardstick.value);
        let (ratio, wanted, met) = match goal {
            Goal::Times(least) => (over, format!("≥ {} ×", number(least)), Some(over >= least)),
            Goal::TimesLess(least) => {
                let under = quotient(yardstick.value, ours.value);
                (under, format!("≥ {} × less", number(least)), Some(under >= least))
            }
            Goal::AtMost(most) => (over, format!("≤ {} ×", number(most)), Some(over <= most)),
            Goal::Shown => (over, String::new(), None),
        };
        let met = met.map_or("", |met| if met { "yes" } else { "NO" });
        self.rows.push([what.into(), ours.shown(), yardstick.shown(), number(ratio), wanted, met.into()]);
    }

    /// Prints it.
    pub fn print(&self) {
        say(&format!("\n{}\n\n{}", self.title, self.table()));
    }

    fn table(&self) -> String {
        let head = HEAD.map(str::to_owned);
        let width = |column: usize| {
            let cells = std::iter::once(&head).chain(&self.rows).filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let line = |row: &[String; 6]| {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let _ = match column {
                    0 => write!(line, "| {cell:<width$} ", width = width(column)),
                    _ => write!(line, "| {cell:>width$} ", width = width(column)),
                };
            }
            line + "|\n"
        };
        let rule: String = (0..HEAD.len()).map(|column| format!("|{}", "-".repeat(width(column) + 2))).collect();
        line(&head) + &rule + "|\n" + &self.rows.iter().map(line).collect::<String>()
    }
}

/// Prints a line of a benchmark. Nobody reading it is no reason to fail.
pub fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Three digits that matter, and no more.
fn number(value: f64) -> String {
    match value.abs() {
        size if size.is_nan() => "?".into(),
        size if size >= 100.0 || size == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_goal_is_judged_its_own_way() {
        let mut report = Report::new("title");
        report.row("faster", Figure::rate(1000.0), Figure::rate(2.0), Goal::Times(500.0));
        report.row("cheaper", Figure::micros(Duration::from_micros(9)), Figure::micros(Duration::from_micros(17)), Goal::TimesLess(2.0));
        report.row("no slower", Figure::time(Duration::from_millis(3)), Figure::time(Duration::from_millis(2)), Goal::AtMost(2.0));
        report.row("for information", Figure::rate(1.0), Figure::rate(0.0), Goal::Shown);
        let table = report.table();
        let last = |row: usize| table.lines().nth(row + 2).map(|line| line.rsplit('|').nth(1).unwrap_or_default().trim().to_owned());
        let verdicts = [0, 1, 2, 3].map(|row| last(row).unwrap_or_default());
        assert_eq!(verdicts, ["yes", "NO", "yes", ""]);
        assert!(table.contains("1.89") && table.contains("?"), "{table}");
    }
}
