//! Everything Turf knows about Linux and OCI: see docs/architecture.md.
