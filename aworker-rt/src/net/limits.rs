//! Bounds of the network client, each with the reason for its value.

use std::time::Duration;

/// Exchanges (fetches) that are open at one time: the next is refused. Each may hold about 200 KiB.
pub const MAX_EXCHANGES: usize = 4096;

/// HTTP/1.1 connections to one origin: further requests wait. Undici and browsers use 6 to
/// unlimited; a server's worker talks to few origins.
pub const MAX_CONNECTIONS_PER_ORIGIN: usize = 64;

/// Garbage is looked for at most so often when requests wait for connections whose responses nobody
/// may hold any more.
pub const CROWDED_COLLECTION_INTERVAL: Duration = Duration::from_secs(1);

/// Idle connections that are kept in all; the oldest goes first.
pub const MAX_IDLE_CONNECTIONS: usize = 128;

/// An idle connection is closed after this time, before most servers do it (nginx: 75 s, Node: 5 s;
/// a connection that the server closes meanwhile is noticed).
pub const IDLE_CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);

/// From the first attempt to connect to a secured connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// The next address is tried after this time (RFC 8305, section 8: "Connection Attempt Delay").
pub const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Waits for AAAA records after A records have come (RFC 8305, section 8: "Resolution Delay").
pub const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// Addresses of one host that are tried.
pub const MAX_ADDRESSES: usize = 32;

/// From the request to the response's head, and before that for a connection: as long as undici waits.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(300);

/// Without any byte of a body somebody waits for: as long as undici waits.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(300);

/// Bytes of a response's head: what undici and Node's client take is 16 KiB; large cookies and
/// policies need more.
pub const MAX_RESPONSE_HEAD_BYTES: usize = 128 * 1024;

/// Header fields of a response.
pub const MAX_RESPONSE_HEADERS: usize = 512;

/// Header fields of a request: what our own server takes, twice.
pub const MAX_REQUEST_HEADERS: usize = 256;

/// Bytes of one receive.
pub const READ_BUFFER_BYTES: usize = 64 * 1024;

/// A response's body waits in its connection while so many decoded bytes have not been read.
pub const BODY_BUFFER_BYTES: usize = 64 * 1024;

/// A request's stream is not pulled while so many bytes have not been sent.
pub const UPLOAD_BUFFER_BYTES: usize = 64 * 1024;

/// The head of a proxy's answer to CONNECT.
pub const MAX_PROXY_HEAD_BYTES: usize = 16 * 1024;

/// Content codings of one response, applied one over the other: each holds a window.
pub const MAX_CODINGS: usize = 5;

/// Futures polled before the event loop serves others.
pub const MAX_POLLS_PER_TURN: usize = 1024;

/// Events of descriptors taken at once.
pub const MAX_EVENTS: usize = 64;

/// How long the rest of an upload may keep a connection from being used again.
pub const REUSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Memory of an HTTP/2 stream's and connection's unread data.
pub const H2_STREAM_WINDOW: u32 = 256 * 1024;
/// See [`H2_STREAM_WINDOW`].
pub const H2_CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Bytes of resolv.conf that are read; glibc reads lines of 255.
pub const MAX_RESOLV_CONF_BYTES: u64 = 64 * 1024;
/// Bytes of the hosts file that are read.
pub const MAX_HOSTS_BYTES: u64 = 1024 * 1024;
/// Bytes of a file of certificates that are read.
pub const MAX_CERTIFICATE_FILE_BYTES: u64 = 4 * 1024 * 1024;
/// Files of a directory of certificates that are read.
pub const MAX_CERTIFICATE_FILES: usize = 4096;

/// WebSocket connections that are open at one time.
pub const MAX_WEB_SOCKETS: usize = 4096;
/// Bytes of a WebSocket message that is received: a whole one must fit into memory.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;
/// Unsent bytes of a WebSocket: the connection is closed beyond it, as the standard says.
pub const MAX_BUFFERED_BYTES: usize = 256 * 1024 * 1024;
/// Received messages that the script has not seen yet: the connection is not read beyond it.
pub const MAX_UNDELIVERED_MESSAGES: usize = 64;
/// Their bytes: compressed ones may be much longer than what has come over the wire.
pub const MAX_UNDELIVERED_BYTES: usize = 4 * 1024 * 1024;
/// Shorter messages are not compressed: there is little to gain.
pub const MIN_DEFLATED_BYTES: usize = 256;
/// Pongs that the peer does not take: a peer that only pings is cut off.
pub const MAX_UNSENT_PONGS: usize = 1024;
/// From the closing frame to the end of the connection.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
