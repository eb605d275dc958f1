//! The HTTP/1.1 server: RFC 9110 and RFC 9112, strict where two parsers could
//! disagree. It knows nothing of OCI and, below [`connection`], nothing of V8.
//!
//! - `head`, `chunked`, `response`, `date`: the wire format, pure.
//! - `target`: a request's URL, pure.
//! - `connection`: one connection as a state machine over bytes, pure.
//! - `server`: the state of all connections; `serve`: the event loop's side;
//!   `ops`: what the built-ins call; `supervised`: what a supervisor changes.
//!
//! # One answer for every ambiguity
//!
//! | input | answer |
//! |---|---|
//! | a line that ends with LF alone, a lone CR, NUL or another control character | 400 |
//! | blank before the colon, a folded line, an empty name, a line without a colon | 400 |
//! | empty lines (CRLF) before the request line | skipped |
//! | more than one blank in the request line, HTTP/0.9 | 400 |
//! | a version other than 1.0 and 1.1, the HTTP/2 preface | 505 |
//! | a target with `#`, controls or bytes above 0x7e; a relative target; `*` without OPTIONS | 400 |
//! | absolute-form `http://`: its authority is the URL's, `Host` must be valid too | accepted |
//! | absolute-form of another scheme, user information | 400 |
//! | CONNECT, TRACE | 501 |
//! | `Host` missing (HTTP/1.1), twice, empty or not `host[:port]` | 400 |
//! | `Content-Length` twice, even if equal; a list; a sign; more than 19 digits | 400 |
//! | `Content-Length` with `Transfer-Encoding` | 400 |
//! | `Transfer-Encoding` twice, with HTTP/1.0, or not ending in one `chunked` | 400 |
//! | a known coding before `chunked` | 501 |
//! | chunk sizes with a sign, blank, prefix or overflow; LF alone; too long extensions or trailers | 400 |
//! | `Expect` other than `100-continue` | 417 |
//! | a head, target or body beyond its limit | 431, 414, 413 |
//! | `Upgrade` | ignored, but for a correct WebSocket handshake that the handler answers with 101 |
//!
//! After each refusal the connection is closed, once the client has had time
//! to read the answer.
//!
//! # Other answers
//!
//! | event | answer |
//! |---|---|
//! | no listener calls `respondWith` | 404 |
//! | a handler throws, rejects or gives no Response | 500 and the stack on stderr; the worker lives |
//! | a handler gives no response head in time | 504; `request.signal` is aborted |
//! | the head, or a body that is wanted, does not come in time | 408 |
//! | a new request while the worker drains | 503 |
//! | the response's stream fails, or breaks its `content-length` | the connection is cut after what was sent |
//! | the client shuts down its sending side | `request.signal` is aborted; an answer that comes whole is still sent, a stream ends |
//! | a response ends before the request's body was read | up to 256 KiB are dropped, else the connection is closed |
//! | trailers, chunk extensions | checked, dropped |
//! | a body of GET or HEAD | dropped, `request.body` is null |

pub mod chunked;
pub mod connection;
pub mod date;
mod gates;
pub(crate) mod handover;
pub mod head;
mod hold;
pub mod limits;
pub(crate) mod ops;
pub mod response;
mod serve;
mod server;
mod slow;
mod supervised;
pub mod target;
pub(crate) mod upgrade;

pub(crate) use gates::listeners;
pub(crate) use handover::{handed_over, next_ticket, settle as settle_handover, take_over};
pub(crate) use hold::{forget, go_on, hold, under_way};
pub(crate) use serve::shrink;
pub use serve::{WarmUp, drain, serve, warm_up};
pub use server::{ServerOptions, attach, detach};
pub use supervised::{adopt, adopt_last, finish, interrupted, listen, poke, retire, shed, unlisten};
