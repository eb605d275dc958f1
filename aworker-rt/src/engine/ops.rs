//! The table of native operations, in the order of `op_list.rs`.
//!
//! The startup snapshot refers to an operation by its index in this table, so
//! table and snapshot must come from the same list. Behind the operations stand the texts of the built-ins, which the
//! heap refers to, and what else a program's heap refers to.

include!("op_list.rs");
include!(concat!(env!("OUT_DIR"), "/builtin_sources.rs"));

macro_rules! table {
    ($($name:ident => $path:path,)*) => {
        /// The addresses that the snapshot's operations are bound to.
        pub(super) fn external_references() -> Vec<v8::ExternalReference> {
            use v8::MapFnTo;
            let mut table = vec![$(v8::ExternalReference { function: $path.map_fn_to() },)*];
            let texts = SOURCES.iter().map(|text| std::ptr::from_ref(text).cast_mut().cast());
            table.extend(texts.map(|pointer| v8::ExternalReference { pointer }));
            table.push(v8::ExternalReference { message: super::uncaught::on_message });
            table
        }
    };
}
for_each_op!(table);
