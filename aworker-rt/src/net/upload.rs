//! The body of a request, as hyper asks for it.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::error::NetError;
use super::exchange::Exchange;

/// Where the bytes come from.
pub enum Upload {
    /// There is no body.
    None,
    /// All bytes are there; taken once.
    Whole(Bytes),
    /// A script's stream, through its exchange.
    Stream(Rc<Exchange>),
}

impl Body for Upload {
    type Data = Bytes;
    type Error = NetError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, NetError>>> {
        match self.get_mut() {
            Upload::None => Poll::Ready(None),
            Upload::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Upload::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Upload::Stream(exchange) => {
                exchange.poll_upload(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Upload::None => true,
            Upload::Whole(bytes) => bytes.is_empty(),
            Upload::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Upload::None => SizeHint::with_exact(0),
            Upload::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Upload::Stream(_) => SizeHint::default(),
        }
    }
}
