//! Rules on the text of source files.

use super::{File, Objections, ending};

/// A file may have this many lines: what is longer holds more than one thing.
const MOST_LINES: usize = 700;

/// The rooms in which `unsafe` may stand.
const UNSAFE_ROOMS: &[&str] = &["turf-core/src/sys/", "turf-core/init/src/sys/", "aworker-rt/src/engine/"];

/// How far above an `unsafe` block its reason may begin.
const SAFETY_LINES: usize = 12;

/// Source files say first what they are.
pub fn headers(tree: &[File]) -> Objections {
    let rust = ending(tree, &[".rs"]).filter(|file| !file.text.starts_with("//"));
    let script = ending(tree, &[".js"]).filter(|file| !file.text.starts_with("//"));
    let rust = rust.map(|file| format!("{}: does not begin with a comment that says what it is", file.path));
    let script =
        script.map(|file| format!("{}: does not begin with a comment that says what it is", file.path));
    rust.chain(script).collect()
}

/// Source files stay readable.
pub fn lengths(tree: &[File]) -> Objections {
    let long = ending(tree, &[".rs", ".js"]).filter(|file| file.text.lines().count() > MOST_LINES);
    long.map(|file| format!("{}: has more than {MOST_LINES} lines", file.path)).collect()
}

/// `unsafe` stands only in its rooms, and each block gives its reason.
pub fn unsafe_rooms(tree: &[File]) -> Objections {
    let mut objections = Vec::new();
    for file in ending(tree, &[".rs"]) {
        let allowed = UNSAFE_ROOMS.iter().any(|room| file.path.starts_with(room));
        let lines: Vec<&str> = file.text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if !uses_unsafe(code) {
                continue;
            }
            let place = format!("{}:{}", file.path, index + 1);
            if !allowed {
                objections.push(format!("{place}: unsafe outside its rooms ({})", UNSAFE_ROOMS.join(", ")));
            } else if opens_unsafe(code) && !has_reason(&lines[index.saturating_sub(SAFETY_LINES)..=index]) {
                objections.push(format!("{place}: an unsafe block without `// SAFETY:`"));
            }
        }
    }
    objections
}

/// Whether the line uses the keyword or lifts the lint, outside string literals.
fn uses_unsafe(code: &str) -> bool {
    let bare: String = code.split('"').step_by(2).collect();
    let words = bare.split(|c: char| !c.is_alphanumeric() && c != '_');
    words.into_iter().any(|word| word == "unsafe") || bare.contains(concat!("allow(unsafe", "_code"))
}

fn opens_unsafe(code: &str) -> bool {
    code.contains("unsafe {") || code.contains("unsafe impl")
}

fn has_reason(lines: &[&str]) -> bool {
    lines.iter().any(|line| line.contains("// SAFETY:"))
}

/// Nothing is left half done.
pub fn unfinished(tree: &[File]) -> Objections {
    // Put together here so that this file does not object to itself.
    let marks = [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("dbg", "!("),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
    ];
    let mut objections = Vec::new();
    for file in ending(tree, &[".rs", ".js", ".sh", ".toml"]) {
        for (index, line) in file.text.lines().enumerate() {
            let found = marks.iter().find(|mark| line.contains(**mark));
            // mktemp(1)'s template is a row of the same letter.
            if let Some(mark) = found.filter(|_| !line.contains("mktemp")) {
                objections.push(format!("{}:{}: {mark}", file.path, index + 1));
            }
        }
    }
    objections
}

/// No blank at the end of a line, no tab, a line break at the end of the file.
pub fn whitespace(tree: &[File]) -> Objections {
    let mut objections = Vec::new();
    for file in ending(tree, &[".rs", ".js", ".md", ".toml", ".sh"]) {
        for (index, line) in file.text.lines().enumerate() {
            if line.ends_with([' ', '\t']) || line.starts_with('\t') {
                objections.push(format!(
                    "{}:{}: blank at the end of the line, or a tab",
                    file.path,
                    index + 1
                ));
            }
        }
        if !file.text.is_empty() && !file.text.ends_with('\n') {
            objections.push(format!("{}: does not end with a line break", file.path));
        }
    }
    objections
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    #[test]
    fn a_file_without_a_header_is_refused() {
        assert_eq!(headers(&[file("a/src/x.rs", "fn f() {}\n")]).len(), 1);
        assert_eq!(headers(&[file("a/src/x.js", "let x;\n")]).len(), 1);
        assert_eq!(headers(&[file("a/src/x.rs", "//! What.\n")]).len(), 0);
    }

    #[test]
    fn a_long_file_is_refused() {
        assert_eq!(lengths(&[file("x.rs", &"\n".repeat(MOST_LINES))]).len(), 0);
        assert_eq!(lengths(&[file("x.rs", &"\n".repeat(MOST_LINES + 1))]).len(), 1);
    }

    #[test]
    fn unsafe_outside_its_rooms_is_refused() {
        assert_eq!(unsafe_rooms(&[file("turf-cli/src/x.rs", "unsafe { f() }\n")]).len(), 1);
        assert_eq!(unsafe_rooms(&[file("turf-cli/src/x.rs", "#![allow(unsafe_code)]\n")]).len(), 1);
        assert_eq!(
            unsafe_rooms(&[file("turf-cli/src/x.rs", "// not unsafe\nlet a = \"unsafe\";\n")]).len(),
            0
        );
    }

    #[test]
    fn an_unsafe_block_without_a_reason_is_refused() {
        assert_eq!(unsafe_rooms(&[file("turf-core/src/sys/x.rs", "unsafe { f() }\n")]).len(), 1);
        assert_eq!(
            unsafe_rooms(&[file("turf-core/src/sys/x.rs", "// SAFETY: so.\nunsafe { f() }\n")]).len(),
            0
        );
    }

    #[test]
    fn unfinished_work_is_refused() {
        assert_eq!(unfinished(&[file("x.rs", concat!("todo", "!()\n"))]).len(), 1);
        assert_eq!(unfinished(&[file("x.js", concat!("// FIX", "ME\n"))]).len(), 1);
    }

    #[test]
    fn stray_whitespace_is_refused() {
        assert_eq!(whitespace(&[file("x.rs", "a \n")]).len(), 1);
        assert_eq!(whitespace(&[file("x.rs", "\ta\n")]).len(), 1);
        assert_eq!(whitespace(&[file("x.rs", "a")]).len(), 1);
        assert_eq!(whitespace(&[file("x.rs", "a\n")]).len(), 0);
    }
}
