//! What came of a file of tests, and sums of it.

use serde_json::Value;

/// A subtest that did not pass.
pub struct Failure {
    /// Its name.
    pub name: String,
    /// What the harness says of it.
    pub message: String,
}

/// What came of one file.
#[derive(Default)]
pub struct Outcome {
    /// Subtests that passed.
    pub passed: usize,
    /// Those that did not, a file without any result included as one.
    pub failures: Vec<Failure>,
}

impl Outcome {
    /// The file as a whole failed: it crashed, hung or had a syntax error.
    pub fn broken(message: String) -> Outcome {
        Outcome { passed: 0, failures: vec![Failure { name: "(the file)".to_owned(), message }] }
    }

    /// Reads the report that the harness's completion callback printed.
    pub fn parse(report: &str) -> Option<Outcome> {
        let report: Value = serde_json::from_str(report).ok()?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut outcome = Outcome::default();
        for test in report["tests"].as_array()? {
            match test[1].as_u64()? {
                0 => outcome.passed += 1,
                status => outcome.failures.push(Failure {
                    name: text(&test[0]),
                    message: format!("{}{}", STATUS[usize::try_from(status).ok()?.min(4)], text(&test[2])),
                }),
            }
        }
        // The harness itself: 0 fine, 1 error, 2 time-out, 3 a precondition that fails.
        if matches!(report["status"].as_u64()?, 1 | 2) {
            let message = format!("harness: {}", text(&report["message"]));
            outcome.failures.push(Failure { name: "(the file)".to_owned(), message });
        }
        Some(outcome)
    }

    /// One line for the file, and with `verbose` one for each failure.
    pub fn print(&self, title: &str, verbose: bool) {
        let all = self.passed + self.failures.len();
        if !self.failures.is_empty() || verbose {
            println!("{:>5}/{all:<5} {title}", self.passed);
        }
        if verbose {
            for failure in &self.failures {
                println!("        {}: {}", failure.name.escape_debug(), failure.message.escape_debug());
            }
        }
    }
}

/// What a subtest's status adds to its message.
const STATUS: [&str; 5] = ["", "", "timed out ", "did not run ", "precondition failed "];

/// Sums over files.
#[derive(Default)]
pub struct Tally {
    files: usize,
    passed: usize,
    failed: usize,
}

impl Tally {
    /// Counts one more file.
    pub fn add(&mut self, outcome: &Outcome) {
        self.files += 1;
        self.passed += outcome.passed;
        self.failed += outcome.failures.len();
    }

    /// The share that passed.
    #[allow(clippy::cast_precision_loss)]
    pub fn percent(&self) -> f64 {
        100.0 * self.passed as f64 / (self.passed + self.failed).max(1) as f64
    }

    /// A row of the table.
    pub fn row(&self, area: &str) -> String {
        format!("{area:<44} {:>6} {:>7} {:>7} {:>7.1}%", self.files, self.passed, self.failed, self.percent())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_counted_with_the_harness_itself() {
        let report = r#"{"status":1,"message":"boom","tests":[["a",0,null],["b",1,"no"],["c",3,null]]}"#;
        let outcome = Outcome::parse(report).expect("a report");
        assert_eq!((outcome.passed, outcome.failures.len()), (1, 3));
        assert!(Outcome::parse("not JSON").is_none());
    }
}
