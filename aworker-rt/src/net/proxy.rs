//! HTTP proxies, as the environment names them: `http_proxy`, `https_proxy`, `no_proxy`, in small or capital letters.
//!
//! A plain request is sent to its proxy in absolute form (RFC 9112, section 3.2.2); what is secured, and WebSockets,
//! go through a tunnel (RFC 9110, section 9.3.6), so that the proxy sees a host's name and nothing else. The proxy
//! itself is spoken to in plain HTTP.

use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use url::Url;

use super::Net;
use super::connect::connect_host;
use super::data_url::percent_decode;
use super::error::NetError;
use super::executor::Source;
use super::limits::{MAX_PROXY_HEAD_BYTES, MAX_RESPONSE_HEADERS};
use super::stream::Stream;

/// The port of a proxy that says none.
const DEFAULT_PORT: u16 = 80;

/// One proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    host: String,
    port: u16,
    /// What its `Proxy-Authorization` field says.
    pub authorization: Option<String>,
}

/// What the environment says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    plain: Option<Result<Proxy, String>>,
    secure: Option<Result<Proxy, String>>,
    /// Hosts that are reached directly: a name or its end, and a port or all.
    direct: Vec<(String, Option<u16>)>,
}

impl Proxies {
    /// Reads the variables.
    pub fn new(variable: impl Fn(&str) -> Option<String>) -> Proxies {
        let either = |small: &str, capital: &str| variable(small).or_else(|| variable(capital));
        let proxy = |small: &str, capital: &str| {
            let value = either(small, capital).filter(|value| !value.is_empty())?;
            Some(
                parse(&value)
                    .ok_or_else(|| format!("{small} must be http://HOST:PORT, not a proxy of another kind")),
            )
        };
        let direct = either("no_proxy", "NO_PROXY").unwrap_or_default();
        Proxies {
            plain: proxy("http_proxy", "HTTP_PROXY"),
            secure: proxy("https_proxy", "HTTPS_PROXY"),
            direct: direct
                .split([',', ' '])
                .map(str::trim)
                .filter(|word| !word.is_empty())
                .map(exception)
                .collect(),
        }
    }

    /// The proxy for a host, if it has one.
    ///
    /// # Errors
    /// The environment names one that cannot be used: nothing is sent around it.
    pub fn of(&self, is_secure: bool, host: &str, port: u16) -> Result<Option<&Proxy>, NetError> {
        let proxy = if is_secure { &self.secure } else { &self.plain };
        match proxy {
            None => Ok(None),
            Some(_) if self.is_direct(host, port) => Ok(None),
            Some(Ok(proxy)) => Ok(Some(proxy)),
            Some(Err(text)) => Err(NetError::new("ERR_PROXY", text.clone())),
        }
    }

    fn is_direct(&self, host: &str, port: u16) -> bool {
        let host = bare(host).to_ascii_lowercase();
        self.direct.iter().any(|(name, only)| {
            let is_within = || host.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'));
            only.is_none_or(|only| only == port) && (name == "*" || host == *name || is_within())
        })
    }
}

/// `http://NAME:PASSWORD@HOST:PORT`, the scheme and all but the host may be missing.
fn parse(value: &str) -> Option<Proxy> {
    let url = match value.contains("://") {
        true => Url::parse(value).ok()?,
        false => Url::parse(&format!("http://{value}")).ok()?,
    };
    if url.scheme() != "http" {
        return None;
    }
    let authorization = credentials(&url);
    Some(Proxy { host: url.host_str()?.to_owned(), port: url.port().unwrap_or(DEFAULT_PORT), authorization })
}

/// What a URL's name and password are in an `Authorization` field (RFC 7617), if it has any.
pub fn credentials(url: &Url) -> Option<String> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let mut text = percent_decode(url.username().as_bytes());
    text.push(b':');
    text.extend(percent_decode(url.password().unwrap_or_default().as_bytes()));
    Some(format!("Basic {}", STANDARD.encode(text)))
}

/// One word of `no_proxy`.
fn exception(word: &str) -> (String, Option<u16>) {
    let is_ipv6 = word.starts_with('[') || word.matches(':').count() > 1;
    let (name, port) = match word.rsplit_once(':') {
        Some((name, port)) if !is_ipv6 || name.ends_with(']') => match port.parse() {
            Ok(port) => (name, Some(port)),
            Err(_) => (word, None),
        },
        _ => (word, None),
    };
    let name = bare(name).to_ascii_lowercase();
    (name.trim_start_matches("*.").trim_start_matches('.').to_owned(), port)
}

/// A host without the brackets of an IPv6 address.
fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// How bytes get to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A proxy is handed requests in absolute form.
    Forwarded,
    /// A proxy is asked for a tunnel.
    Tunnelled,
}

/// Connects to a host, or to the proxy that leads to it.
///
/// # Errors
/// No connection, or the proxy refuses.
pub async fn reach(
    net: &Rc<Net>,
    way: Way,
    is_secure: bool,
    host: &str,
    port: u16,
) -> Result<Source, NetError> {
    let Some(proxy) = net.options.proxies.of(is_secure, host, port)? else {
        return connect_host(&net.executor, &net.options.files, host, port).await;
    };
    let named = |error: NetError| error.during(format_args!("by the proxy {}:{}", proxy.host, proxy.port));
    let socket =
        connect_host(&net.executor, &net.options.files, &proxy.host, proxy.port).await.map_err(named)?;
    match way {
        Way::Forwarded => Ok(socket),
        Way::Tunnelled => tunnel(proxy, socket, host, port).await.map_err(named),
    }
}

/// Asks for a tunnel; nothing of the host is read here.
async fn tunnel(proxy: &Proxy, socket: Source, host: &str, port: u16) -> Result<Source, NetError> {
    let failed = |error| NetError::io("ask for a tunnel", &error);
    let mut request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n");
    if let Some(authorization) = &proxy.authorization {
        request.push_str(&format!("Proxy-Authorization: {authorization}\r\n"));
    }
    request.push_str("\r\n");
    let mut stream = Stream::Plain(socket);
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut head = Vec::new();
    loop {
        let mut room = [0; 2048];
        let count = stream.read(&mut room).await.map_err(failed)?;
        if count == 0 {
            return Err(NetError::new("ECONNRESET", "the proxy has closed instead of an answer"));
        }
        head.extend_from_slice(&room[..count]);
        if is_tunnel(&head, host, port)? {
            break;
        }
        if head.len() > MAX_PROXY_HEAD_BYTES {
            return Err(NetError::new("ERR_PROXY", "the proxy's answer is too long"));
        }
    }
    match stream {
        Stream::Plain(socket) => Ok(socket),
        Stream::Secured(_) => unreachable!("it was made above"),
    }
}

/// Whether a proxy's whole answer opens a tunnel; `false` if more of it is to come.
fn is_tunnel(head: &[u8], host: &str, port: u16) -> Result<bool, NetError> {
    let refused = |text: String| Err(NetError::new("ERR_PROXY", text));
    let mut fields = vec![httparse::EMPTY_HEADER; MAX_RESPONSE_HEADERS];
    let mut response = httparse::Response::new(&mut fields);
    let length = match response.parse(head) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(false),
        Err(error) => return refused(format!("the answer is no HTTP: {error}")),
    };
    match response.code {
        Some(200..=299) if length == head.len() => Ok(true),
        // The client speaks first in TLS and in HTTP.
        Some(200..=299) => refused("something was said in the tunnel before us".to_owned()),
        code => refused(format!("it answered with status {} to CONNECT {host}:{port}", code.unwrap_or(0))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        Proxies::new(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn a_host_has_the_proxy_of_its_scheme() {
        let found = proxies(&[("http_proxy", "http://p:1"), ("HTTPS_PROXY", "us%3Aer:pa@[::1]:3128/")]);
        let of = |is_secure| found.of(is_secure, "h", 80).expect("usable").cloned();
        assert_eq!(of(false), Some(Proxy { host: "p".into(), port: 1, authorization: None }));
        let authorization = Some(format!("Basic {}", STANDARD.encode("us:er:pa")));
        assert_eq!(of(true), Some(Proxy { host: "[::1]".into(), port: 3128, authorization }));
        assert_eq!(proxies(&[("http_proxy", "p")]).of(true, "h", 80), Ok(None));
        assert_eq!(
            proxies(&[("http_proxy", ""), ("HTTP_PROXY", "q")]).of(false, "h", 80),
            Ok(None),
            "small counts"
        );
        for other in ["socks5://p:1", "https://p", "http://", "ftp://x"] {
            assert!(proxies(&[("http_proxy", other)]).of(false, "h", 80).is_err(), "{other}");
        }
    }

    #[test]
    fn exceptions_are_reached_directly() {
        let found = proxies(&[
            ("http_proxy", "p"),
            ("no_proxy", "example.com, .inner,*.star 10.0.0.1,[fe80::1]:81,::1,port.only:8080"),
        ]);
        for (host, port, is_direct) in [
            ("example.com", 80, true),
            ("a.EXAMPLE.com", 80, true),
            ("notexample.com", 80, false),
            ("inner", 80, true),
            ("x.inner", 80, true),
            ("x.star", 80, true),
            ("10.0.0.1", 9, true),
            ("10.0.0.10", 9, false),
            ("[::1]", 80, true),
            ("[fe80::1]", 81, true),
            ("[fe80::1]", 80, false),
            ("port.only", 8080, true),
            ("port.only", 80, false),
        ] {
            assert_eq!(found.of(false, host, port).expect("usable").is_none(), is_direct, "{host}:{port}");
        }
        assert_eq!(proxies(&[("http_proxy", "p"), ("NO_PROXY", "*")]).of(false, "h", 1), Ok(None));
    }

    #[test]
    fn only_a_success_is_a_tunnel() {
        assert_eq!(is_tunnel(b"HTTP/1.1 200 Connection established\r\n\r\n", "h", 1), Ok(true));
        assert_eq!(is_tunnel(b"HTTP/1.1 200 OK\r\nVia: x\r\n", "h", 1), Ok(false));
        for answer in [
            "HTTP/1.1 407 No\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\nhello",
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 302 F\r\n\r\n",
        ] {
            assert!(is_tunnel(answer.as_bytes(), "h", 1).is_err(), "{answer}");
        }
    }
}
