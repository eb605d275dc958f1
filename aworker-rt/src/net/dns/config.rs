//! What resolv.conf(5) and hosts(5) say.
//!
//! Beyond resolv.conf(5), a name server may have a port: `nameserver [127.0.0.1]:5353`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use crate::net::files::read_bounded;
use crate::net::limits::{MAX_HOSTS_BYTES, MAX_RESOLV_CONF_BYTES};

/// glibc reads no more name servers (MAXNS).
const MAX_SERVERS: usize = 3;
/// glibc had this limit for search domains, and who needs more?
const MAX_SEARCH_DOMAINS: usize = 16;
/// glibc's bound of `ndots`.
const MAX_NDOTS: usize = 15;
/// glibc's bound of `timeout`, in seconds.
const MAX_TIMEOUT_SECONDS: u64 = 30;
/// glibc's bound of `attempts`.
const MAX_ATTEMPTS: usize = 5;
/// Where DNS servers listen.
const DNS_PORT: u16 = 53;

/// The resolver's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Asked in this order.
    pub servers: Vec<SocketAddr>,
    /// Appended to names.
    pub search: Vec<String>,
    /// A name with so many dots is tried as it is first.
    pub ndots: usize,
    /// Patience with one server.
    pub timeout: Duration,
    /// Rounds over all servers.
    pub attempts: usize,
    /// Begin with another server each time.
    pub rotate: bool,
    /// Announce that answers may be longer than 512 bytes.
    pub edns: bool,
    /// Ask by TCP only.
    pub use_tcp: bool,
    /// Do not ask for IPv6 addresses.
    pub no_aaaa: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            servers: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, DNS_PORT))],
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
            rotate: false,
            edns: false,
            use_tcp: false,
            no_aaaa: false,
        }
    }
}

impl Config {
    /// Reads a file; one that is missing means the defaults, as for glibc.
    pub fn read(path: &Path) -> Config {
        read_bounded(path, MAX_RESOLV_CONF_BYTES)
            .map_or_else(|_| Config::default(), |bytes| Config::parse(&String::from_utf8_lossy(&bytes)))
    }

    /// Understands the text of a resolv.conf; what it cannot understand it skips, as glibc does.
    pub fn parse(text: &str) -> Config {
        let mut config = Config { servers: Vec::new(), ..Config::default() };
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") if config.servers.len() < MAX_SERVERS => {
                    config.servers.extend(words.next().and_then(server));
                }
                // The last of these lines counts.
                Some("search" | "domain") => {
                    config.search = words.take(MAX_SEARCH_DOMAINS).filter_map(domain).collect();
                }
                Some("options") => words.for_each(|option| config.take_option(option)),
                _ => {}
            }
        }
        if config.servers.is_empty() {
            config.servers = Config::default().servers;
        }
        config
    }

    fn take_option(&mut self, option: &str) {
        let (name, value) = option.split_once(':').unwrap_or((option, ""));
        match (name, value.parse::<u64>().ok()) {
            ("ndots", Some(dots)) => self.ndots = (dots as usize).min(MAX_NDOTS),
            ("timeout", Some(seconds)) => {
                self.timeout = Duration::from_secs(seconds.clamp(1, MAX_TIMEOUT_SECONDS));
            }
            ("attempts", Some(attempts)) => self.attempts = (attempts as usize).clamp(1, MAX_ATTEMPTS),
            ("rotate", _) => self.rotate = true,
            ("edns0", _) => self.edns = true,
            ("use-vc", _) => self.use_tcp = true,
            ("no-aaaa", _) => self.no_aaaa = true,
            _ => {}
        }
    }

    /// The names to ask for, in order: with the search list, or as it is, first.
    pub fn candidates(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let searched = self.search.iter().map(|domain| format!("{name}.{domain}"));
        let dots = name.matches('.').count();
        match dots >= self.ndots {
            true => std::iter::once(name.to_owned()).chain(searched).collect(),
            false => searched.chain(std::iter::once(name.to_owned())).collect(),
        }
    }
}

fn server(word: &str) -> Option<SocketAddr> {
    let (host, port) = match word.strip_prefix('[').and_then(|rest| rest.split_once("]:")) {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (word, DNS_PORT),
    };
    // A zone (`fe80::1%eth0`) cannot be carried without the interface's number.
    host.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, port))
}

fn domain(word: &str) -> Option<String> {
    let domain = word.trim_matches('.');
    (!domain.is_empty()).then(|| domain.to_owned())
}

/// The addresses of a name in a hosts file.
pub fn hosts_addresses(path: &Path, name: &str) -> Vec<IpAddr> {
    read_bounded(path, MAX_HOSTS_BYTES)
        .map(|bytes| parse_hosts(&String::from_utf8_lossy(&bytes), name))
        .unwrap_or_default()
}

fn parse_hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let address_of = |line: &str| {
        let mut words = line.split('#').next()?.split_ascii_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|alias| alias.eq_ignore_ascii_case(name)).then_some(address)
    };
    text.lines().filter_map(address_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolv_conf_is_read_as_glibc_does() {
        let config = Config::parse(
            "; comment\nnameserver 10.0.0.1 # first\nnameserver ::1\nnameserver nonsense\n\
             nameserver [127.0.0.1]:5353\nnameserver 10.0.0.4\ndomain old.example\nsearch a.example. b.example\n\
             options ndots:2 timeout:99 attempts:0 rotate edns0 use-vc no-aaaa unknown:1\n",
        );
        let servers = ["10.0.0.1:53", "[::1]:53", "127.0.0.1:5353"];
        assert_eq!(config.servers, servers.map(|server| server.parse().expect("an address")));
        assert_eq!(config.search, ["a.example", "b.example"]);
        assert_eq!((config.ndots, config.timeout.as_secs(), config.attempts), (2, 30, 1));
        assert!(config.rotate && config.edns && config.use_tcp && config.no_aaaa);
        assert_eq!(Config::parse("garbage\0\n\nnameserver"), Config::default());
        assert_eq!(Config::read(Path::new("/nonexistent/resolv.conf")), Config::default());
    }

    #[test]
    fn ndots_decides_whether_the_search_list_comes_first() {
        let config = Config::parse("search x.example y.example\noptions ndots:2\n");
        assert_eq!(config.candidates("a.b"), ["a.b.x.example", "a.b.y.example", "a.b"]);
        assert_eq!(config.candidates("a.b.c"), ["a.b.c", "a.b.c.x.example", "a.b.c.y.example"]);
        assert_eq!(config.candidates("a."), ["a."]);
        assert_eq!(Config::default().candidates("a"), ["a"]);
    }

    #[test]
    fn a_hosts_file_gives_all_addresses_of_a_name() {
        let text = "127.0.0.1 localhost a # b\n::1\ta\tc\n# 1.1.1.1 a\nbad a\n10.0.0.1 A.\n";
        let addresses = parse_hosts(text, "a");
        assert_eq!(addresses, ["127.0.0.1", "::1"].map(|text| text.parse::<IpAddr>().expect("valid")));
        assert!(parse_hosts(text, "b").is_empty());
        assert_eq!(parse_hosts(text, "C.").len(), 1);
    }
}
