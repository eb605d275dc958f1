//! Aworker: a single-threaded, Web-interoperable JavaScript runtime on V8.
