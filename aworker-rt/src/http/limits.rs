//! Bounds of the HTTP server, each with the reason for its value. Nothing a
//! client sends or leaves undone is unbounded in memory or in time.

/// Bytes of a request head (request line, fields and the empty line): answered
/// with 431 beyond it. Twice what Node accepts; large cookies fit.
pub const MAX_HEAD_BYTES: usize = 32 * 1024;

/// Bytes of a request target: answered with 414 beyond it. What browsers and
/// proxies commonly accept as the longest URL.
pub const MAX_TARGET_BYTES: usize = 16 * 1024;

/// Header fields of one request: answered with 431 beyond it.
pub const MAX_HEADERS: usize = 128;

/// Bytes of a request body, unless configured otherwise: answered with 413
/// beyond it. The usual bound of hosted workers.
pub const DEFAULT_MAX_BODY_BYTES: u64 = 100 * 1024 * 1024;

/// Bytes of one chunk-size line, extensions included. Nobody uses extensions;
/// the grammar must be tolerated, not stored.
pub const MAX_CHUNK_LINE_BYTES: usize = 256;

/// Bytes of chunk extensions in one body: extensions cost work without being
/// counted as body (CVE-2023-39326 is this attack on another server).
pub const MAX_CHUNK_EXTENSION_BYTES: usize = 16 * 1024;

/// Bytes of a trailer section. Trailers are checked and dropped.
pub const MAX_TRAILER_BYTES: usize = 8 * 1024;

/// One receive takes at most this much: large uploads come in few pieces.
pub const READ_BUFFER_BYTES: usize = 64 * 1024;

/// A response that is being written is flushed at this size, and a stream's
/// source is not pulled while more than this waits for a slow client.
pub const WRITE_HIGH_WATER_BYTES: usize = 64 * 1024;

/// Input kept for a connection whose request is in flight: what pipelining
/// may run ahead. Beyond it the server stops reading, and TCP slows the client.
pub const MAX_LEFTOVER_BYTES: usize = READ_BUFFER_BYTES + MAX_HEAD_BYTES;

/// Pipelined requests answered before the loop serves other connections.
pub const MAX_PIPELINED_PER_TURN: usize = 64;

/// Connections one accept round takes: open connections are served in between.
pub const ACCEPT_BATCH: usize = 16;

/// The same of a worker of a pool: a burst is shared among the workers of one
/// listener.
pub const SHARED_ACCEPT_BATCH: usize = 1;

/// So many connections one worker of a pool takes before it lets the others
/// have their turn.
pub const CONNECTIONS_OF_THE_FIRST: usize = 8;

/// Open connections of one worker; the listener rests while so many are open.
pub const MAX_CONNECTIONS: usize = 16 * 1024;

/// Unread request body that is received and dropped to keep a connection
/// alive, or to let a client read an early answer before the close.
pub const MAX_DISCARD_BYTES: u64 = 256 * 1024;

/// An idle keep-alive connection is closed after this time, unless configured otherwise: what nginx takes.
pub const DEFAULT_IDLE_TIMEOUT_MS: u64 = 75_000;

/// From the first byte of a head to its last: 408 afterwards.
pub const HEAD_TIMEOUT_MS: u64 = 10_000;

/// Without any progress of a body that is wanted, in either direction, unless configured otherwise.
pub const DEFAULT_STALL_TIMEOUT_MS: u64 = 30_000;

/// Progress that renews [`DEFAULT_STALL_TIMEOUT_MS`]: a trickle below it does not.
pub const MIN_PROGRESS_BYTES: u64 = 1024;

/// From the dispatch of a request to the head of its response, unless
/// configured otherwise: 504 afterwards.
pub const DEFAULT_REQUEST_TIMEOUT_MS: u64 = 60_000;

/// How long a closing connection waits for the client's own close, so that
/// the last answer is not destroyed by a reset (RFC 9112, section 9.6).
pub const LINGER_TIMEOUT_MS: u64 = 2_000;

/// How long a drain waits for requests in flight and for `waitUntil`.
pub const DEFAULT_DRAIN_TIMEOUT_MS: u64 = 10_000;

/// The listener rests this long when the process has no file descriptor left.
pub const ACCEPT_BACKOFF_MS: u64 = 100;
