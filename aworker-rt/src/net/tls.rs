//! TLS by rustls and ring: which certificates count, and a connection as bytes in and out.
//!
//! ring asks getrandom(2) for every random byte, so nothing random outlives a fork. The roots are
//! read when the first secured connection is made, in the worker:
//! `SSL_CERT_FILE` and `SSL_CERT_DIR` if they are set, else the system's bundle, else (a sandbox
//! often has no `/etc/ssl`) Mozilla's roots, which the program carries.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use nix::sys::socket::{MsgFlags, recv, send};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::error::NetError;
use super::executor::{Side, Source};
use super::files::read_bounded;
use super::limits::{MAX_CERTIFICATE_FILE_BYTES, MAX_CERTIFICATE_FILES};

/// Plaintext and ciphertext that may wait for a slow socket.
const OUTPUT_BUFFER_BYTES: usize = 64 * 1024;

/// Where distributions keep their bundle of roots.
const BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Which protocols a connection offers (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// HTTP/2 and HTTP/1.1.
    Http,
    /// HTTP/1.1 only: WebSockets.
    Http1,
}

/// How secured connections are made; certificates are read when this is made.
pub struct Tls {
    http: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
}

impl Tls {
    /// Reads the roots; `variable` looks up the worker's environment.
    ///
    /// # Errors
    /// `SSL_CERT_FILE` or `SSL_CERT_DIR` gives no certificate.
    pub fn new(variable: impl Fn(&str) -> Option<String>) -> Result<Tls, NetError> {
        let roots = Arc::new(roots(variable)?);
        let config = |protocols: &[&[u8]]| {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
            let builder = builder.map_err(|error| failed(&error))?;
            let mut config = builder.with_root_certificates(roots.clone()).with_no_client_auth();
            config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            Ok::<_, NetError>(Arc::new(config))
        };
        Ok(Tls { http: config(&[b"h2", b"http/1.1"])?, http1: config(&[b"http/1.1"])? })
    }

    /// Secures a connection to a host, which must prove its name.
    ///
    /// # Errors
    /// The host's certificate does not prove it, or TLS cannot be agreed on.
    pub async fn secure(&self, socket: Source, host: &str, offer: Offer) -> Result<TlsStream, NetError> {
        let config = match offer {
            Offer::Http => &self.http,
            Offer::Http1 => &self.http1,
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
        let name = ServerName::try_from(bare.to_owned()).map_err(|_| {
            NetError::new("ERR_TLS", format!("{host} is no name that a certificate can prove"))
        })?;
        let mut session = ClientConnection::new(config.clone(), name).map_err(|error| failed(&error))?;
        session.set_buffer_limit(Some(OUTPUT_BUFFER_BYTES));
        let mut stream = TlsStream { socket, session };
        std::future::poll_fn(|context| stream.poll_handshake(context))
            .await
            .map_err(|error| explain(&error).during(format_args!("secure the connection to {host}")))?;
        Ok(stream)
    }
}

fn failed(error: &rustls::Error) -> NetError {
    let code = match error {
        rustls::Error::InvalidCertificate(_) => "ERR_TLS_CERT",
        _ => "ERR_TLS",
    };
    NetError::new(code, error.to_string())
}

/// The reason of rustls in an I/O error, or the error itself.
fn explain(error: &io::Error) -> NetError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(inner) => failed(inner),
        None => NetError::io("exchange data", error),
    }
}

fn roots(variable: impl Fn(&str) -> Option<String>) -> Result<RootCertStore, NetError> {
    let mut store = RootCertStore::empty();
    let (file, directory) = (variable("SSL_CERT_FILE"), variable("SSL_CERT_DIR"));
    if file.is_some() || directory.is_some() {
        let wrong =
            |what: &str, path: &str, error: &io::Error| NetError::io(format_args!("{what}={path}"), error);
        if let Some(path) = &file {
            add_file(&mut store, Path::new(path)).map_err(|error| wrong("SSL_CERT_FILE", path, &error))?;
        }
        for path in directory.iter().flat_map(|list| list.split(':')).filter(|path| !path.is_empty()) {
            add_directory(&mut store, Path::new(path))
                .map_err(|error| wrong("SSL_CERT_DIR", path, &error))?;
        }
        if store.is_empty() {
            let text = "SSL_CERT_FILE and SSL_CERT_DIR give no usable certificate";
            return Err(NetError::new("ERR_TLS_CERT", text));
        }
        return Ok(store);
    }
    for bundle in BUNDLES {
        // One that is missing or broken leaves the others.
        if add_file(&mut store, Path::new(bundle)).is_ok() && !store.is_empty() {
            return Ok(store);
        }
    }
    store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    Ok(store)
}

/// Adds the certificates of a PEM file; those that webpki cannot use are left out, as everywhere.
fn add_file(store: &mut RootCertStore, path: &Path) -> io::Result<()> {
    let text = read_bounded(path, MAX_CERTIFICATE_FILE_BYTES)?;
    let certificates = CertificateDer::pem_slice_iter(&text).filter_map(Result::ok);
    store.add_parsable_certificates(certificates);
    Ok(())
}

fn add_directory(store: &mut RootCertStore, path: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(path)?.take(MAX_CERTIFICATE_FILES) {
        // Directories made by c_rehash hold links and other things besides.
        let _ = add_file(store, &entry?.path());
    }
    Ok(())
}

/// A secured connection.
pub struct TlsStream {
    socket: Source,
    session: ClientConnection,
}

impl TlsStream {
    /// Whether the server has chosen HTTP/2.
    pub fn is_http2(&self) -> bool {
        self.session.alpn_protocol() == Some(b"h2")
    }

    fn poll_handshake(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_send(context))?;
            if !self.session.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if ready!(self.poll_receive(context))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Takes ciphertext from the socket; the number of bytes.
    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let session = &mut self.session;
        let received = self.socket.poll_io(context, Side::Read, |fd| session.read_tls(&mut Raw(fd)));
        let count = ready!(received)?;
        if let Err(error) = self.session.process_new_packets() {
            // The alert that says why goes out if there is room for it.
            let _ = self.poll_send(context);
            return Poll::Ready(Err(io::Error::other(error)));
        }
        Poll::Ready(Ok(count))
    }

    /// Gives the socket all ciphertext there is.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.wants_write() {
            let session = &mut self.session;
            ready!(self.socket.poll_io(context, Side::Write, |fd| session.write_tls(&mut Raw(fd))))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads plaintext; nothing means the peer has ended the connection properly.
    pub fn poll_read(&mut self, context: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.session.reader().read(room) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // An end without TLS's own is a cut-off connection: `UnexpectedEof`.
                done => return Poll::Ready(done),
            }
            ready!(self.poll_receive(context))?;
            // Answers to the peer's own messages (a key update) go out by the way.
            if let Poll::Ready(Err(error)) = self.poll_send(context) {
                return Poll::Ready(Err(error));
            }
        }
    }

    /// Takes plaintext, as much as there is room for.
    pub fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let count = self.session.writer().write(bytes)?;
            let sent = self.poll_send(context);
            if let Poll::Ready(Err(error)) = sent {
                return Poll::Ready(Err(error));
            }
            if count > 0 || bytes.is_empty() {
                return Poll::Ready(Ok(count));
            }
            ready!(sent)?;
        }
    }

    /// Sends what was taken.
    pub fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(context)
    }

    /// Sends what was taken and TLS's end of the connection.
    pub fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.session.send_close_notify();
        ready!(self.poll_send(context))?;
        Poll::Ready(shut_down(&self.socket))
    }
}

/// Says to the peer that nothing more comes.
pub fn shut_down(socket: &Source) -> io::Result<()> {
    match nix::sys::socket::shutdown(socket.fd().as_raw_fd(), nix::sys::socket::Shutdown::Write) {
        Ok(()) | Err(nix::errno::Errno::ENOTCONN) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// A socket's receive and send as rustls wants them.
struct Raw<'a>(BorrowedFd<'a>);

impl Read for Raw<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        Ok(recv(self.0.as_raw_fd(), room, MsgFlags::empty())?)
    }
}

impl Write for Raw<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(self.0.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
