//! TypeScript by type stripping: what says something of types only becomes white space, and what is left is JavaScript for V8.
//!
//! Lines and columns (in UTF-16 units, as V8 counts) stay what they were, so stack traces need no source map. What means
//! something at run time that JavaScript does not have (`enum` and the like) is refused by name; types are not checked, and no
//! import is left out that does not say `type`. Of the compiler's options this is `erasableSyntaxOnly` with
//! `verbatimModuleSyntax` and `isolatedModules`: <https://www.typescriptlang.org/tsconfig/#erasableSyntaxOnly>
//!
//! The parser is a crate's; no V8 here.
//!
//! ```text
//!   source -> syntax tree (oxc) -> Stripper: fate of each statement and member -> Mask over the source -> JavaScript
//! ```

mod fate;
mod mask;
mod scan;
mod stripper;
#[cfg(test)]
mod tests;

use std::fmt;

use oxc_allocator::Allocator;
use oxc_ast_visit::Visit;
use oxc_parser::Parser;
use oxc_span::SourceType;

use stripper::Stripper;

/// What the source is parsed as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// A module, whatever is in it.
    Module,
    /// A classic script.
    Script,
    /// A module if it has an import, an export or an `await` at its top level, and otherwise a script.
    Either,
}

/// What is left of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JavaScript {
    /// As long as the source, line by line.
    pub text: String,
    /// What the goal, or else the source, says; also an `import type` does.
    pub is_module: bool,
}

/// Why a source cannot be run, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// From 1.
    pub line: usize,
    /// From 1, in UTF-16 units.
    pub column: usize,
    /// A sentence without its end.
    pub reason: String,
    /// The line.
    pub text: String,
}

/// `line:column: reason`.
impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: {}", self.line, self.column, self.reason)
    }
}

/// What the parser's recursion needs of the stack for each byte of source, at most: 1.7 kB for a bracket in an optimised build, and
/// up to three times that in a build for development.
pub const STACK_PER_BYTE: usize = 8 << 10;

/// The JavaScript of a TypeScript source. It needs [`STACK_PER_BYTE`] bytes of stack for each byte of it.
///
/// # Errors
/// What is no TypeScript, and what is more than types: the first place of it.
pub fn strip(source: &str, goal: Goal) -> Result<JavaScript, Refusal> {
    let kind = match goal {
        Goal::Module => SourceType::ts(),
        Goal::Script => SourceType::ts().with_script(true),
        Goal::Either => SourceType::ts().with_unambiguous(true),
    };
    let allocator = Allocator::default();
    let parsed = Parser::new(&allocator, source, kind).parse();
    if let Some(error) = parsed.diagnostics.errors().next() {
        let start = error.labels.first().map_or(0, |label| label.offset() as usize);
        return Err(refusal(source, start, error.message.clone().into_owned()));
    }
    let mut stripper = Stripper::new(source);
    stripper.visit_program(&parsed.program);
    let text = stripper.finish().map_err(|(start, reason)| refusal(source, start, reason))?;
    Ok(JavaScript { text, is_module: goal == Goal::Module || parsed.module_record.has_module_syntax })
}

fn refusal(source: &str, start: usize, reason: String) -> Refusal {
    let place = scan::place(source, start);
    Refusal { line: place.line, column: place.column, reason, text: place.text.to_owned() }
}
