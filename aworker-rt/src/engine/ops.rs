//! The table of native operations, in the order of `op_list.rs`.
//!
//! The startup snapshot refers to an operation by its index in this table, so
//! table and snapshot must come from the same list. Behind the operations stands what
//! else a program's heap refers to.

include!("op_list.rs");

macro_rules! table {
    ($($name:ident => $path:path,)*) => {
        /// The addresses that the snapshot's operations are bound to.
        pub(super) fn external_references() -> Vec<v8::ExternalReference> {
            use v8::MapFnTo;
            vec![
                $(v8::ExternalReference { function: $path.map_fn_to() },)*
                v8::ExternalReference { message: super::uncaught::on_message },
            ]
        }
    };
}
for_each_op!(table);
