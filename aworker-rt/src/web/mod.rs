//! Native halves of the Web APIs: one file per standard.
