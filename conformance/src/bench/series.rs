//! Samples and the tables that are made of them.

use std::fmt;

use serde_json::{Value, json};

/// Samples of one quantity.
struct Series {
    section: &'static str,
    name: String,
    unit: &'static str,
    values: Vec<f64>,
}

impl Series {
    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

/// Everything that one run has measured.
pub struct Report {
    machine: String,
    series: Vec<Series>,
    notes: Vec<String>,
}

impl Report {
    /// A report without samples.
    pub fn new(machine: String) -> Report {
        Report { machine, series: Vec::new(), notes: Vec::new() }
    }

    /// Adds one sample; the first one of a name makes the row.
    pub fn add(&mut self, section: &'static str, name: &str, unit: &'static str, value: f64) {
        match self.series.iter_mut().find(|series| series.section == section && series.name == name) {
            Some(series) => series.values.push(value),
            None => self.series.push(Series { section, name: name.to_owned(), unit, values: vec![value] }),
        }
    }

    /// Says what was left out, and why.
    pub fn note(&mut self, text: String) {
        eprintln!("note: {text}");
        self.notes.push(text);
    }

    /// The names of a section's rows.
    pub fn rows(&self, section: &str) -> impl Iterator<Item = &str> {
        self.series.iter().filter(move |series| series.section == section).map(|series| series.name.as_str())
    }

    /// A row's samples, the smallest first.
    pub fn sorted(&self, section: &str, name: &str) -> Option<Vec<f64>> {
        self.find(section, name).map(Series::sorted)
    }

    /// A percentile of a row, and its unit.
    pub fn figure(&self, section: &str, name: &str, rank: f64) -> Option<(f64, &'static str)> {
        let series = self.find(section, name)?;
        Some((percentile(&series.sorted(), rank), series.unit))
    }

    fn find(&self, section: &str, name: &str) -> Option<&Series> {
        self.series.iter().find(|series| series.section == section && series.name == name)
    }

    /// All samples.
    pub fn to_json(&self) -> Value {
        let one = |series: &Series| json!({"section": series.section, "name": series.name, "unit": series.unit, "values": series.values});
        let series: Vec<Value> = self.series.iter().map(one).collect();
        json!({"machine": self.machine, "command": command(), "notes": self.notes, "series": series})
    }
}

/// The command line that made the report, without the program's directory.
fn command() -> String {
    let mut words: Vec<String> = std::env::args().collect();
    if let Some(first) = words.first_mut() {
        *first = first.rsplit('/').next().unwrap_or_default().to_owned();
    }
    words.join(" ")
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "Command: `{}`\n\nMachine: {}", command(), self.machine)?;
        let mut section = "";
        for series in &self.series {
            if series.section != section {
                section = series.section;
                writeln!(
                    out,
                    "\n### {section}\n\n| what | samples | min | p50 | p99 | unit |\n|---|--:|--:|--:|--:|---|"
                )?;
            }
            let sorted = series.sorted();
            let cell = |rank: f64| number(percentile(&sorted, rank));
            let Series { name, unit, values, .. } = series;
            writeln!(
                out,
                "| {name} | {} | {} | {} | {} | {unit} |",
                values.len(),
                cell(0.0),
                cell(50.0),
                cell(99.0)
            )?;
        }
        self.notes.iter().try_for_each(|note| writeln!(out, "\nNote: {note}"))
    }
}

/// The nearest-rank percentile of sorted samples.
fn percentile(sorted: &[f64], rank: f64) -> f64 {
    // Ranks are within the length of a vector, so the conversion loses nothing.
    let index = (rank / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted[index.clamp(1, sorted.len()) - 1]
}

/// Three significant digits at least, no more decimals than that needs.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let sorted: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(percentile(&sorted, 0.0), 1.0);
        assert_eq!(percentile(&sorted, 50.0), 100.0);
        assert_eq!(percentile(&sorted, 99.0), 198.0);
        assert_eq!(percentile(&[7.0], 99.0), 7.0);
    }

    #[test]
    fn rows_are_grouped_under_their_section() {
        let mut report = Report::new("a machine".into());
        report.add("first", "x", "ms", 2.0);
        report.add("first", "x", "ms", 1.0);
        report.add("second", "x", "kB", 1234.5);
        let text = report.to_string();
        assert!(text.contains("| x | 2 | 1.00 | 1.00 | 2.00 | ms |"), "{text}");
        assert!(text.contains("### second"), "{text}");
        assert_eq!(report.to_json()["series"][0]["values"], json!([2.0, 1.0]));
    }
}
