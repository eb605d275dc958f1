//! Sources that are TypeScript by their file's name, and the JavaScript that V8 gets of them.

use std::borrow::Cow;

use super::deep_stack;
use crate::typescript::{self, Goal, Refusal, STACK_PER_BYTE};

/// A source as V8 gets it.
pub(crate) struct Source<'t> {
    pub(crate) text: Cow<'t, str>,
    /// Whether it is a module, where it is known before V8 has seen it.
    pub(crate) is_module: Option<bool>,
}

/// Whether the file of this path is TypeScript.
pub(crate) fn is_typed(path: &str) -> bool {
    path.ends_with(".ts") || path.ends_with(".mts")
}

/// The JavaScript of the file of this path.
///
/// # Errors
/// What is no TypeScript, or more than types, and where.
pub(crate) fn javascript<'t>(path: &str, text: &'t str, goal: Goal) -> Result<Source<'t>, Refusal> {
    if !is_typed(path) {
        return Ok(Source { text: Cow::Borrowed(text), is_module: None });
    }
    let goal = if path.ends_with(".mts") { Goal::Module } else { goal };
    let stack = text.len().saturating_mul(STACK_PER_BYTE);
    let stripped = deep_stack::call(stack, || typescript::strip(text, goal)).unwrap_or_else(|error| {
        let reason = format!("no {} MB of address space for the parser's stack: {error}", stack >> 20);
        Err(Refusal { line: 1, column: 1, reason, text: String::new() })
    })?;
    Ok(Source { text: Cow::Owned(stripped.text), is_module: Some(stripped.is_module) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the parser recurses into, begun so often that a stack of a thread's usual size would not do.
    #[test]
    fn a_source_may_nest_as_deep_as_it_is_long() {
        let nesting = [
            "(",
            "[",
            "f(",
            "a[",
            "`${",
            "{",
            "({a:",
            "!",
            "a=>",
            "a?",
            "a?b:",
            "a**",
            "a=",
            "a:",
            "new ",
            "if(a)",
            "do ",
            "for(;;)",
            "class{a=",
            "class A{a(){",
            "x=function(a=",
            "async()=>",
            "a?.[",
            "try{",
            "switch(a){case ",
            "namespace A{",
            "yield ",
        ];
        let types = [
            "(",
            "[",
            "[...",
            "{a:",
            "`${",
            "A<",
            "keyof ",
            "a extends b?",
            "()=>",
            "(a:",
            "new(a:",
            "<T extends ",
        ];
        let types = types.map(|piece| ("type A=", piece));
        for (start, piece) in nesting.map(|piece| ("", piece)).into_iter().chain(types) {
            let source = format!("{start}{}", piece.repeat(20_000 / piece.len()));
            let outcome = javascript("a.ts", &source, Goal::Either);
            assert!(outcome.is_err_and(|refusal| refusal.line == 1), "it does not end: {piece}");
        }
        for (open, close) in [
            ("(", ")"),
            ("[", "]"),
            ("{", "}"),
            ("f(", ")"),
            ("(", " as T)"),
            ("if(a){}else ", ";"),
            ("a+", ""),
            ("a.b!.", ""),
        ] {
            let source = format!("{}a{}", open.repeat(5_000), close.repeat(5_000));
            let outcome = javascript("a.ts", &source, Goal::Either);
            assert!(outcome.is_ok_and(|stripped| stripped.text.len() == source.len()), "{open}{close}");
        }
    }

    #[test]
    fn a_files_name_says_what_it_is() {
        for (path, is_typescript) in
            [("/a.ts", true), ("/a.mts", true), ("/a.js", false), ("/ts", false), ("/a.ts/b.mjs", false)]
        {
            let source = javascript(path, "let a: T", Goal::Either).expect("a declaration");
            assert_eq!(source.text != "let a: T", is_typescript, "{path}");
            assert_eq!(source.is_module.is_some(), is_typescript, "{path}");
        }
        assert_eq!(javascript("/a.mts", "let a", Goal::Script).expect("a declaration").is_module, Some(true));
    }
}
