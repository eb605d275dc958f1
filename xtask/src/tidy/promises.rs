//! docs/spec.md: every promise names the test or benchmark that proves it, and that exists, or says *pending*.

use super::{File, Objections, ending};

/// Where the promises stand: rows of tables whose last column is the proof.
const PROMISES: &str = "docs/spec.md";

/// Each name in backticks in the last column of a promise is the name of a test, a benchmark or a file of the tree.
pub fn proofs(tree: &[File]) -> Objections {
    let Some(spec) = tree.iter().find(|file| file.path == PROMISES) else {
        return vec![format!("{PROMISES}: is missing")];
    };
    let mut objections = Vec::new();
    for (index, line) in spec.text.lines().enumerate() {
        let Some(proof) = last_column(line) else { continue };
        let place = format!("{PROMISES}:{}", index + 1);
        let names: Vec<&str> = proof.split('`').skip(1).step_by(2).collect();
        if names.is_empty() && !proof.contains("*pending*") {
            objections.push(format!("{place}: the row names neither a proof nor *pending*"));
        }
        for name in names.iter().filter(|name| !exists(tree, name)) {
            objections.push(format!("{place}: no test, benchmark or file is called {name}"));
        }
    }
    objections
}

/// The last cell of a table's row; nothing for other lines, heads and rules.
fn last_column(line: &str) -> Option<&str> {
    let cells = line.strip_prefix('|')?.strip_suffix('|')?;
    let last = cells.rsplit('|').next()?.trim();
    (!last.is_empty() && last != "proof" && !last.starts_with("---")).then_some(last)
}

/// Whether the name is a path of the tree, or stands in a source file as a function's name or as a string.
fn exists(tree: &[File], name: &str) -> bool {
    if tree.iter().any(|file| file.path == name) {
        return true;
    }
    let last = name.rsplit("::").next().unwrap_or(name);
    let (function, string) = (format!("fn {last}("), format!("\"{last}\""));
    ending(tree, &[".rs", ".js"]).any(|file| file.text.contains(&function) || file.text.contains(&string))
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    fn objections(row: &str) -> Objections {
        let spec = format!("| promise | proof |\n|---|---|\n{row}\n");
        proofs(&[
            file(PROMISES, &spec),
            file("a/tests/x.rs", "fn it_holds() {}\nconst N: &str = \"bench_it\";\n"),
        ])
    }

    #[test]
    fn a_promise_without_a_proof_is_refused() {
        assert_eq!(objections("| it is fast | believe us |").len(), 1);
        assert_eq!(objections("| it is fast | `no_such_test` |").len(), 1);
    }

    #[test]
    fn a_proof_that_exists_or_is_pending_is_taken() {
        assert_eq!(objections("| it is fast | `it_holds` |").len(), 0);
        assert_eq!(objections("| it is fast | `bench_it`, `a/tests/x.rs` |").len(), 0);
        assert_eq!(objections("| it is fast | *pending* |").len(), 0);
    }

    #[test]
    fn a_tree_without_promises_is_refused() {
        assert_eq!(proofs(&[]).len(), 1);
    }
}
