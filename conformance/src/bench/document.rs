//! Puts a report into a document: between two marks, with its goals, its pictures beside it and all samples.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::series::Report;
use super::{goals, plots};

/// The lines of the document around what is measured.
const BEGIN: &str = "<!-- measured: begin -->\n";
const END: &str = "<!-- measured: end -->\n";

/// Replaces what is between the marks of the document, and writes `plots/` beside it.
pub fn write(report: &Report, document: &Path) -> Result<()> {
    let old = fs::read_to_string(document).with_context(|| format!("read {}", document.display()))?;
    let directory = document.with_file_name("plots");
    let pictures = plots::write(report, &directory)?;
    let samples = serde_json::to_string(&report.to_json())? + "\n";
    let raw = directory.join("samples.json");
    fs::write(&raw, samples).with_context(|| format!("write {}", raw.display()))?;
    let pictures: String =
        pictures.iter().map(|(title, file)| format!("![{title}](plots/{file})\n\n")).collect();
    let text = format!(
        "\n{}\n{pictures}{report}\nAll samples: [samples.json](plots/samples.json).\n\n",
        goals::table(report)
    );
    fs::write(document, replace(&old, &text)?).with_context(|| format!("write {}", document.display()))
}

fn replace(old: &str, text: &str) -> Result<String> {
    let begin = old.find(BEGIN).with_context(|| format!("the document has no line {BEGIN}"))? + BEGIN.len();
    let end = old[begin..].find(END).with_context(|| format!("the document has no line {END}"))? + begin;
    Ok([&old[..begin], text, &old[end..]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let old = format!("before\n{BEGIN}old\n{END}after\n");
        let new = replace(&old, "new\n").unwrap();
        assert_eq!(new, format!("before\n{BEGIN}new\n{END}after\n"));
        assert!(replace("nothing", "new").is_err());
        assert!(replace(BEGIN, "new").is_err());
    }

    #[test]
    fn a_document_gets_goals_tables_and_samples() {
        let directory = tempfile::tempdir().unwrap();
        let document = directory.path().join("performance.md");
        fs::write(&document, format!("# Title\n{BEGIN}{END}")).unwrap();
        let mut report = Report::new("a machine".into());
        report.add("First connection to a pool at zero", "connect to answer", "ms", 2.0);
        write(&report, &document).unwrap();
        let text = fs::read_to_string(&document).unwrap();
        for part in
            ["# Title", "| 2.00 ms | reached |", "![How long a start takes](plots/start.svg)", "a machine"]
        {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(directory.path().join("plots/samples.json").is_file());
    }
}
