//! What becomes of a statement or a member of a class as a whole: pure functions of the tree.

use oxc_ast::ast::{
    AccessorPropertyType, ClassElement, Declaration, ExportDefaultDeclarationKind, Function,
    ImportOrExportKind, ModuleDeclaration, PropertyDefinitionType, Statement, TSModuleBlock,
    TSNamespaceDeclaration, TSNamespaceDeclarationBody,
};
use oxc_span::Span;

/// What becomes of a piece of a program.
pub(super) enum Fate {
    /// It is JavaScript, though there may be types in it.
    Keep,
    /// It says something of types only.
    Erase,
    /// It does something that JavaScript has no word for: where, and what it is.
    Refuse(Span, &'static str),
}

const ENUM: &str = "an enum makes an object at run time: write the object, or compile the program";
const NAMESPACE: &str =
    "a namespace with values makes an object at run time: write a module, or compile the program";
const MODULE: &str = "a module block without `declare` means nothing";
const IMPORT_EQUALS: &str = "`import =` is no import of JavaScript";
const EXPORT_EQUALS: &str = "`export =` is no export of JavaScript";
const ACCESSOR: &str = "`accessor` belongs to decorators, which V8 does not have";

/// What is said of a decorator.
pub(super) const DECORATOR: &str = "V8 has no decorators";

/// What becomes of a statement.
pub(super) fn of_statement(statement: &Statement<'_>) -> Fate {
    if let Some(declaration) = statement.as_declaration() {
        return of_declaration(declaration);
    }
    match statement.as_module_declaration() {
        Some(declaration) => of_module_declaration(declaration),
        None => Fate::Keep,
    }
}

fn of_declaration(declaration: &Declaration<'_>) -> Fate {
    match declaration {
        Declaration::TSTypeAliasDeclaration(_) | Declaration::TSInterfaceDeclaration(_) => Fate::Erase,
        Declaration::VariableDeclaration(it) => erase_if(it.declare),
        Declaration::FunctionDeclaration(it) => of_function(it),
        Declaration::ClassDeclaration(it) => erase_if(it.declare),
        Declaration::TSEnumDeclaration(it) => erase_or_refuse(it.declare, it.span, ENUM),
        Declaration::TSExternalModuleDeclaration(it) => erase_or_refuse(it.declare, it.span, MODULE),
        Declaration::TSGlobalDeclaration(it) => erase_or_refuse(it.declare, it.span, MODULE),
        Declaration::TSNamespaceDeclaration(it) => {
            erase_or_refuse(it.declare || !has_values(it), it.span, NAMESPACE)
        }
        Declaration::TSImportEqualsDeclaration(it) => {
            erase_or_refuse(it.import_kind == ImportOrExportKind::Type, it.span, IMPORT_EQUALS)
        }
    }
}

fn of_module_declaration(declaration: &ModuleDeclaration<'_>) -> Fate {
    let of_types = |kind: ImportOrExportKind| erase_if(kind == ImportOrExportKind::Type);
    match declaration {
        ModuleDeclaration::ImportDeclaration(it) => of_types(it.import_kind),
        ModuleDeclaration::ExportAllDeclaration(it) => of_types(it.export_kind),
        ModuleDeclaration::ExportNamedDeclaration(it) => of_types(it.export_kind),
        ModuleDeclaration::ExportFromDeclaration(it) => of_types(it.export_kind),
        ModuleDeclaration::ExportDeclaration(it) => of_declaration(&it.declaration),
        ModuleDeclaration::ExportDefaultDeclaration(it) => match &it.declaration {
            ExportDefaultDeclarationKind::TSInterfaceDeclaration(_) => Fate::Erase,
            ExportDefaultDeclarationKind::FunctionDeclaration(function) => of_function(function),
            ExportDefaultDeclarationKind::ClassDeclaration(class) => erase_if(class.declare),
            _ => Fate::Keep,
        },
        ModuleDeclaration::TSExportAssignment(it) => Fate::Refuse(it.span, EXPORT_EQUALS),
        ModuleDeclaration::TSNamespaceExportDeclaration(_) => Fate::Erase,
    }
}

/// What becomes of a member of a class.
pub(super) fn of_member(member: &ClassElement<'_>) -> Fate {
    let (decorators, fate) = match member {
        ClassElement::StaticBlock(_) => return Fate::Keep,
        ClassElement::TSIndexSignature(_) => return Fate::Erase,
        ClassElement::MethodDefinition(it) => (&it.decorators, erase_if(it.value.body.is_none())),
        ClassElement::PropertyDefinition(it) => {
            let is_abstract = it.r#type == PropertyDefinitionType::TSAbstractPropertyDefinition;
            (&it.decorators, erase_if(it.declare || is_abstract))
        }
        ClassElement::AccessorProperty(it) => {
            let is_abstract = it.r#type == AccessorPropertyType::TSAbstractAccessorProperty;
            (&it.decorators, erase_or_refuse(is_abstract, it.span, ACCESSOR))
        }
    };
    match decorators.first() {
        Some(decorator) => Fate::Refuse(decorator.span, DECORATOR),
        None => fate,
    }
}

/// An overload's signature and a declared function have no body.
fn of_function(function: &Function<'_>) -> Fate {
    erase_if(function.declare || function.body.is_none())
}

/// Whether anything in a namespace is more than a type. What is declared in it without a value counts, as for the compiler.
fn has_values(namespace: &TSNamespaceDeclaration<'_>) -> bool {
    match &namespace.body {
        TSNamespaceDeclarationBody::TSNamespaceDeclaration(inner) => has_values(inner),
        TSNamespaceDeclarationBody::TSModuleBlock(block) => block_has_values(block),
    }
}

fn block_has_values(block: &TSModuleBlock<'_>) -> bool {
    let is_type = |declaration: &Declaration<'_>| match declaration {
        Declaration::TSTypeAliasDeclaration(_) | Declaration::TSInterfaceDeclaration(_) => true,
        Declaration::TSNamespaceDeclaration(inner) => !has_values(inner),
        _ => false,
    };
    block.body.iter().any(|statement| match statement {
        Statement::ExportDeclaration(export) => !is_type(&export.declaration),
        statement => !statement.as_declaration().is_some_and(is_type),
    })
}

fn erase_if(condition: bool) -> Fate {
    if condition { Fate::Erase } else { Fate::Keep }
}

fn erase_or_refuse(condition: bool, span: Span, what: &'static str) -> Fate {
    if condition { Fate::Erase } else { Fate::Refuse(span, what) }
}
