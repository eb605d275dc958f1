//! A connection as a stream of bytes, plain or secured, in the shape hyper asks for.

use std::io;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use nix::sys::socket::{MsgFlags, recv, send};

use super::executor::{Side, Source};
use super::limits::READ_BUFFER_BYTES;
use super::tls::{TlsStream, shut_down};

/// See the module's documentation.
pub enum Stream {
    /// TCP, or a Unix socket of a served WebSocket.
    Plain(Source),
    /// TLS.
    Secured(Box<TlsStream>),
}

impl Stream {
    /// Whether both sides have agreed on HTTP/2.
    pub fn is_http2(&self) -> bool {
        match self {
            Stream::Plain(_) => false,
            Stream::Secured(stream) => stream.is_http2(),
        }
    }

    /// Reads into `room`; 0 is the end.
    pub fn poll_read(&mut self, context: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Stream::Plain(source) => {
                source.poll_io(context, Side::Read, |fd| Ok(recv(fd.as_raw_fd(), room, MsgFlags::empty())?))
            }
            Stream::Secured(stream) => stream.poll_read(context, room),
        }
    }

    /// Takes bytes to send; how many.
    pub fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Stream::Plain(source) => source
                .poll_io(context, Side::Write, |fd| Ok(send(fd.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL)?)),
            Stream::Secured(stream) => stream.poll_write(context, bytes),
        }
    }

    /// Sends what was taken.
    pub fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Plain(_) => Poll::Ready(Ok(())),
            Stream::Secured(stream) => stream.poll_flush(context),
        }
    }

    /// Tells the peer that nothing more comes.
    pub fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Plain(source) => Poll::Ready(shut_down(source)),
            Stream::Secured(stream) => stream.poll_shutdown(context),
        }
    }

    /// Writes and sends all bytes.
    ///
    /// # Errors
    /// As send(2), and TLS's.
    pub async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = std::future::poll_fn(|context| self.poll_write(context, bytes)).await?;
            bytes = &bytes[count..];
        }
        std::future::poll_fn(|context| self.poll_flush(context)).await
    }

    /// Reads once; 0 is the end.
    ///
    /// # Errors
    /// As recv(2), and TLS's.
    pub async fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        std::future::poll_fn(|context| self.poll_read(context, room)).await
    }
}

impl hyper::rt::Read for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        // hyper's buffer is not initialised memory; bytes go there by a copy.
        let mut room = [0; 8192];
        let limit = buffer.remaining().min(room.len());
        let stream = self.get_mut();
        let mut taken = 0;
        // More than one receive for a large body, so that few wake-ups carry much.
        while taken < READ_BUFFER_BYTES && buffer.remaining() >= limit && limit > 0 {
            match stream.poll_read(context, &mut room[..limit]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(count)) => {
                    buffer.put_slice(&room[..count]);
                    taken += count;
                    if count < limit {
                        return Poll::Ready(Ok(()));
                    }
                }
                Poll::Ready(Err(_)) | Poll::Pending if taken > 0 => return Poll::Ready(Ok(())),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_shutdown(context)
    }
}
