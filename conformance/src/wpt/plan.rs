//! Which tests there are, and what their `// META:` lines ask for.
//! <https://web-platform-tests.org/writing-tests/testharness.html>

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

/// Time for one file, and for one that asks for a long time.
const NORMAL: Duration = Duration::from_secs(15);
const LONG: Duration = Duration::from_secs(60);

/// Deepest directory that is looked into.
const MAX_DEPTH: usize = 12;

/// One run of one file.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The file, below the tests' root, with slashes.
    pub path: String,
    /// `?query` of this variant, or nothing.
    pub variant: String,
    /// Scripts to load first, as written.
    pub scripts: Vec<String>,
    /// The title that the file gives itself.
    pub meta_title: Option<String>,
    /// Whether the file loads the harness by itself.
    pub loads_harness: bool,
    /// When to give up.
    pub limit: Duration,
}

impl Plan {
    /// The file and its variant.
    pub fn title(&self) -> String {
        format!("{}{}", self.path, self.variant)
    }
}

/// The runs of all tests for workers in an area, in order.
pub fn collect(tests: &Path, area: &str) -> Result<Vec<Plan>> {
    let start = tests.join(area);
    let mut files = Vec::new();
    if start.is_file() {
        files.push(start);
    } else {
        walk(&start, 0, &mut files)?;
    }
    files.sort();
    let mut plans = Vec::new();
    for file in files {
        let path = file.strip_prefix(tests).context("a test below the root")?.to_string_lossy().into_owned();
        let text = fs::read(&file).with_context(|| format!("read {path}"))?;
        plans.extend(plans_of(&path, &String::from_utf8_lossy(&text)));
    }
    Ok(plans)
}

fn walk(directory: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("open {}", directory.display()))? {
        let path = entry?.path();
        let name = path.to_string_lossy();
        if path.is_dir() && depth < MAX_DEPTH {
            walk(&path, depth + 1, files)?;
        } else if name.ends_with(".any.js") || name.ends_with(".worker.js") {
            files.push(path);
        }
    }
    Ok(())
}

/// The runs of one file: none if it is not for workers.
fn plans_of(path: &str, text: &str) -> Vec<Plan> {
    let metas: Vec<(&str, &str)> = text
        .lines()
        .take_while(|line| line.starts_with("//") || line.trim().is_empty())
        .filter_map(|line| line.strip_prefix("//")?.trim().strip_prefix("META:")?.trim().split_once('='))
        .collect();
    let all = |key| metas.iter().filter(move |(name, _)| *name == key).map(|(_, value)| (*value).to_owned());
    let for_workers = all("global").all(|globals| {
        globals.split(',').any(|global| global.trim().contains("worker") && !global.trim().starts_with('!'))
    });
    if !for_workers {
        return Vec::new();
    }
    // Some variants ask for a server of HTTP/2 alone, which has a wire format of its own for WebSockets (RFC 8441).
    let mut variants: Vec<String> =
        all("variant").filter(|variant| !variant.contains("wpt_flags=h2")).collect();
    if variants.is_empty() {
        variants.push(String::new());
    }
    let limit = if all("timeout").any(|timeout| timeout == "long") { LONG } else { NORMAL };
    let plan = |variant| Plan {
        path: path.to_owned(),
        variant,
        scripts: all("script").collect(),
        meta_title: all("title").next(),
        loads_harness: path.ends_with(".worker.js"),
        limit,
    };
    variants.into_iter().map(plan).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meta_lines_say_what_runs() {
        let text = "// META: global=window,worker\n// META: script=/common/x.js\n// META: script=resources/y.js\n\
                    // META: variant=?a\n// META: variant=?b\n// META: timeout=long\ntest();\n// META: variant=?c\n";
        let plans = plans_of("a/b.any.js", text);
        assert_eq!(plans.iter().map(Plan::title).collect::<Vec<_>>(), ["a/b.any.js?a", "a/b.any.js?b"]);
        assert_eq!(plans[0].scripts, ["/common/x.js", "resources/y.js"]);
        assert_eq!(plans[0].limit, LONG);
    }

    #[test]
    fn tests_for_windows_alone_are_left_out() {
        assert!(plans_of("a.any.js", "// META: global=window\n").is_empty());
        assert!(plans_of("a.any.js", "// META: global=window,!worker\n").is_empty());
        assert_eq!(plans_of("a.any.js", "// META: global=window,dedicatedworker-module\n").len(), 1);
        assert_eq!(plans_of("a.any.js", "test(() => {});\n").len(), 1);
    }
}
