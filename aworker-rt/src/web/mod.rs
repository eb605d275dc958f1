//! Native halves of the Web APIs, one file per standard. The algorithms that
//! users see are in `src/js`; here is what JavaScript cannot do, or not fast.
//! No file keeps anything that two forks must not share.

mod base64;
pub(crate) mod bytes;
pub(crate) mod compression;
pub(crate) mod console;
pub(crate) mod crypto;
pub(crate) mod encoding;
mod file_url;
pub(crate) mod form;
pub(crate) mod mime_type;
pub(crate) mod multipart;
pub mod performance;
pub(crate) mod structured_clone;
pub(crate) mod url;

pub(crate) use base64::{atob, btoa};
pub use url::is_url;
