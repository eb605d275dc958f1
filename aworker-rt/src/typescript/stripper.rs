//! The walk over the tree that marks what goes.
//!
//! White space in the place of a token can join what was apart. Where it would, a semicolon stands at the place: for each
//! statement and member of a class that goes, after a field without a value (`get: T` before a method would make a getter of it),
//! and after an `as` whose type ended the statement before a line that begins with a bracket. Where a line would end before `=>`, or after `async` or
//! `return`, the parenthesis of the parameters moves over the type.

use oxc_ast::AstKind;
use oxc_ast::ast::{
    ArrowFunctionExpression, Class, ClassElement, FormalParameter, ImportOrExportKind, MethodDefinition,
    PropertyDefinition, PropertyKey, Statement, TSClassImplements, TSThisParameter, TSType, TSTypeAnnotation,
    TSTypeParameterDeclaration, TSTypeParameterInstantiation,
};
use oxc_ast_visit::{Visit, walk};
use oxc_span::{GetSpan, Span};

use super::fate::{self, Fate};
use super::mask::Mask;
use super::scan::{byte, has_line_end, skip_trivia, word};

/// Words before a member of a class that speak to the compiler only.
const MODIFIERS: [&str; 7] =
    ["abstract", "declare", "override", "private", "protected", "public", "readonly"];

/// What cannot be erased: where, and why.
type Obstacle = (usize, String);

/// Marks what goes.
pub(super) struct Stripper<'s> {
    mask: Mask<'s>,
    obstacle: Option<Obstacle>,
}

impl<'s> Stripper<'s> {
    pub(super) fn new(source: &'s str) -> Stripper<'s> {
        Stripper { mask: Mask::new(source), obstacle: None }
    }

    /// The JavaScript, or the first thing that is none.
    pub(super) fn finish(self) -> Result<String, Obstacle> {
        match self.obstacle {
            Some(obstacle) => Err(obstacle),
            None => Ok(self.mask.finish()),
        }
    }

    fn source(&self) -> &'s str {
        self.mask.source()
    }

    /// Keeps the first obstacle in the order of the source.
    fn refuse(&mut self, span: Span, reason: &str) {
        let start = start(span);
        if self.obstacle.as_ref().is_none_or(|(first, _)| start < *first) {
            self.obstacle = Some((start, reason.to_owned()));
        }
    }

    fn blank(&mut self, span: Span) {
        self.mask.blank(start(span), end(span));
    }

    /// From the next token behind a node to the end of the node around it.
    fn blank_rest(&mut self, inner: Span, outer: Span) {
        self.mask.blank(skip_trivia(self.source(), end(inner)), end(outer));
    }

    /// A statement or member that goes: what stands before it must not go on behind it.
    fn erase(&mut self, span: Span) {
        self.blank(span);
        self.mask.put(start(span), b';');
    }

    /// The token behind a position goes if it is one of these; where it is.
    fn blank_token(&mut self, behind: usize, tokens: &[u8]) -> Option<usize> {
        let at = skip_trivia(self.source(), behind);
        let found = byte(self.source(), at).is_some_and(|byte| tokens.contains(&byte));
        found.then(|| self.mask.blank(at, at + 1)).map(|()| at)
    }

    /// An element of a list goes, and the comma behind it.
    fn blank_element(&mut self, span: Span) {
        self.blank(span);
        self.blank_token(end(span), b",");
    }

    /// `as T` and `satisfies T`. No type goes on with a bracket on the next line, but what stands before the type would.
    fn blank_assertion(&mut self, expression: Span, whole: Span) {
        let source = self.source();
        self.blank_rest(expression, whole);
        let next = skip_trivia(source, end(whole));
        let is_bracket = byte(source, next).is_some_and(|byte| matches!(byte, b'(' | b'[' | b'`'));
        if is_bracket && has_line_end(source, end(whole), next) {
            self.mask.put(skip_trivia(source, end(expression)), b';');
        }
    }

    /// The words before a member's name that go.
    fn blank_modifiers(&mut self, member: Span, key: Span) {
        let source = self.source();
        let mut at = start(member);
        while at < start(key) {
            let word = word(source, at);
            if MODIFIERS.contains(&word) {
                self.mask.blank(at, at + word.len());
                if at == start(member) {
                    self.mask.put(at, b';');
                }
            }
            if word.is_empty() {
                break;
            }
            at = skip_trivia(source, at + word.len());
        }
    }

    /// Where a member's name ends, with the bracket of a computed one.
    fn name_end(&self, key: &PropertyKey<'_>, is_computed: bool) -> usize {
        let name = end(key.span());
        if is_computed { skip_trivia(self.source(), name) + 1 } else { name }
    }

    fn mark_field(&mut self, field: &PropertyDefinition<'_>) {
        self.blank_modifiers(field.span, field.key.span());
        let name = self.name_end(&field.key, field.computed);
        let mark = (field.optional || field.definite).then(|| self.blank_token(name, b"?!")).flatten();
        let annotation = field.type_annotation.as_ref().map(|annotation| start(annotation.span));
        if let (None, Some(at)) = (&field.value, mark.or(annotation)) {
            self.mask.put(at, b';');
        }
    }

    fn mark_method(&mut self, method: &MethodDefinition<'_>) {
        self.blank_modifiers(method.span, method.key.span());
        if method.optional {
            let name = self.name_end(&method.key, method.computed);
            self.blank_token(name, b"?");
        }
    }

    fn mark_parameter(&mut self, parameter: &FormalParameter<'_>) {
        if parameter.accessibility.is_some() || parameter.readonly || parameter.r#override {
            return self.refuse(
                parameter.span,
                "a parameter property makes a field at run time: write the field, or compile the program",
            );
        }
        if parameter.optional {
            self.blank_token(end(parameter.pattern.span()), b"?");
        }
    }

    fn mark_class(&mut self, class: &Class<'_>) {
        let source = self.source();
        let mut at = start(class.span);
        if class.r#abstract && word(source, at) == "abstract" {
            self.mask.blank(at, at + "abstract".len());
            at = skip_trivia(source, at + "abstract".len());
        }
        let Some(last) = class.implements.last() else { return };
        let heritage = class.heritage.as_ref().map(|heritage| {
            heritage
                .type_arguments
                .as_ref()
                .map_or_else(|| heritage.expression.span(), |arguments| arguments.span)
        });
        let parameters = class.type_parameters.as_ref().map(|parameters| parameters.span);
        let name = class.id.as_ref().map(|name| name.span);
        let before = heritage.or(parameters).or(name).map_or(at + "class".len(), end);
        self.mask.blank(skip_trivia(source, before), end(last.span));
    }

    fn mark_arrow(&mut self, arrow: &ArrowFunctionExpression<'_>) {
        let source = self.source();
        let (open, close) = (start(arrow.params.span), end(arrow.params.span) - 1);
        if let Some(parameters) = &arrow.type_parameters
            && has_line_end(source, start(parameters.span), open)
        {
            self.mask.put(start(parameters.span), b'(');
            self.mask.blank(open, open + 1);
        }
        if let Some(returned) = &arrow.return_type
            && has_line_end(source, close, end(returned.span))
        {
            self.mask.blank(close, close + 1);
            self.mask.put(source.floor_char_boundary(end(returned.span) - 1), b')');
        }
    }
}

impl<'a> Visit<'a> for Stripper<'_> {
    fn enter_node(&mut self, node: AstKind<'a>) {
        match node {
            AstKind::TSAsExpression(it) => self.blank_assertion(it.expression.span(), it.span),
            AstKind::TSSatisfiesExpression(it) => self.blank_assertion(it.expression.span(), it.span),
            AstKind::TSNonNullExpression(it) => self.blank_rest(it.expression.span(), it.span),
            AstKind::TSTypeAssertion(it) => {
                self.refuse(it.span, "an assertion before its value, `<T>value`: write `value as T`");
            }
            AstKind::Decorator(it) => self.refuse(it.span, fate::DECORATOR),
            AstKind::VariableDeclarator(it) if it.definite => {
                self.blank_token(end(it.id.span()), b"!");
            }
            AstKind::ImportSpecifier(it) if it.import_kind == ImportOrExportKind::Type => {
                self.blank_element(it.span);
            }
            AstKind::ExportSpecifier(it) if it.export_kind == ImportOrExportKind::Type => {
                self.blank_element(it.span);
            }
            AstKind::PropertyDefinition(it) => self.mark_field(it),
            AstKind::MethodDefinition(it) => self.mark_method(it),
            AstKind::FormalParameter(it) => self.mark_parameter(it),
            AstKind::Class(it) => self.mark_class(it),
            AstKind::ArrowFunctionExpression(it) => self.mark_arrow(it),
            _ => {}
        }
    }

    fn visit_statement(&mut self, it: &Statement<'a>) {
        match fate::of_statement(it) {
            Fate::Keep => walk::walk_statement(self, it),
            Fate::Erase => self.erase(it.span()),
            Fate::Refuse(span, reason) => self.refuse(span, reason),
        }
    }

    fn visit_class_element(&mut self, it: &ClassElement<'a>) {
        match fate::of_member(it) {
            Fate::Keep => walk::walk_class_element(self, it),
            Fate::Erase => self.erase(it.span()),
            Fate::Refuse(span, reason) => self.refuse(span, reason),
        }
    }

    fn visit_ts_this_parameter(&mut self, it: &TSThisParameter<'a>) {
        self.blank_element(it.span);
    }

    fn visit_ts_type_annotation(&mut self, it: &TSTypeAnnotation<'a>) {
        self.blank(it.span);
    }

    fn visit_ts_type_parameter_declaration(&mut self, it: &TSTypeParameterDeclaration<'a>) {
        self.blank(it.span);
    }

    fn visit_ts_type_parameter_instantiation(&mut self, it: &TSTypeParameterInstantiation<'a>) {
        self.blank(it.span);
    }

    /// The type of `as`, which is marked with it; and what is below.
    fn visit_ts_type(&mut self, _: &TSType<'a>) {}

    fn visit_ts_class_implements(&mut self, _: &TSClassImplements<'a>) {}
}

fn start(span: Span) -> usize {
    span.start as usize
}

fn end(span: Span) -> usize {
    span.end as usize
}
