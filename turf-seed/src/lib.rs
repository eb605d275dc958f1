//! The seam between the sandbox and V8: warm once, fork on request.
