//! The server that a checkout of web-platform-tests brings along (`tools/serve`, in Python): it runs the tests' handlers,
//! fills in what `.sub.` files leave open and speaks TLS. It listens on the loopback alone, under names below `localhost`
//! (RFC 6761), so nothing of the machine has to be set up.
//! <https://web-platform-tests.org/tools/wptserve/docs/>

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::json;

use crate::http;

/// The name that tests are loaded from, and one that is another site.
const HOST: &str = "web.localhost";
const OTHER_HOST: &str = "alt.localhost";

/// How long the server may take to make its certificates and to listen.
const START: Duration = Duration::from_secs(60);

/// Starts the server of the checkout in the working directory. It asks for nothing that is not in the checkout.
const PROGRAM: &str = "\
import sys
sys.path.insert(0, '.')
from tools import localpaths
from tools.serve import serve
if __name__ == '__main__':
    sys.exit(serve.main())
";

/// A started server; ended when dropped.
pub struct OwnServer {
    child: Child,
    /// The base of its URLs.
    pub http: String,
    /// The certificate that its own is signed with.
    pub authority: PathBuf,
}

/// Starts the server of a checkout; certificates and configuration go to `scratch`.
pub fn start(tests: &Path, scratch: &Path) -> Result<OwnServer> {
    ensure!(tests.join("tools/serve/serve.py").is_file(), "{} has no tools/serve", tests.display());
    let certificates = scratch.join("certificates");
    fs::create_dir(&certificates).context("make a directory for certificates")?;
    let ports = free_ports::<4>()?;
    let config = scratch.join("config.json");
    fs::write(&config, configuration(ports, &certificates).to_string())
        .context("write the server's configuration")?;
    let program = scratch.join("serve.py");
    fs::write(&program, PROGRAM).context("write the server's start")?;
    let mut child = Command::new("python3")
        .arg(&program)
        .arg("--config")
        .arg(&config)
        .current_dir(tests)
        .env("PYTHONPATH", tests)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .context("start python3")?;
    let output = child.stdout.take().context("the server's output")?;
    let server = OwnServer {
        child,
        http: format!("http://{HOST}:{}", ports[0]),
        authority: certificates.join("cacert.pem"),
    };
    listening(output, ports)?;
    Ok(server)
}

/// Loopback ports that were free a moment ago.
fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut ports = [0; N];
    for port in &mut ports {
        *port = http::free_address()?.port();
    }
    ensure!(ports.iter().collect::<BTreeSet<_>>().len() == N, "free ports repeat: {ports:?}");
    Ok(ports)
}

fn configuration(ports: [u16; 4], certificates: &Path) -> serde_json::Value {
    json!({
        "browser_host": HOST,
        "alternate_hosts": { "alt": OTHER_HOST },
        "server_host": "127.0.0.1",
        "check_subdomains": false,
        "ports": {
            "http": [ports[0], ports[1]], "http-private": ["auto"], "http-public": ["auto"],
            "https": [ports[2], ports[3]], "https-private": ["auto"], "https-public": ["auto"],
            "ws": ["auto"], "wss": ["auto"], "h2": ["auto"],
        },
        "ssl": { "type": "openssl", "openssl": {
            "openssl_binary": "openssl", "base_path": certificates, "password": "tests", "force_regenerate": false,
            "duration": 30, "base_conf_path": null,
        } },
    })
}

/// Waits until the log has said of each port that it is served, and goes on reading: nobody else does.
fn listening(output: impl std::io::Read + Send + 'static, ports: [u16; 4]) -> Result<()> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            sender.send(line).ok();
        }
    });
    let end = Instant::now() + START;
    let mut missing: BTreeSet<u16> = ports.into();
    let mut last = String::new();
    while !missing.is_empty() {
        let Ok(line) = receiver.recv_timeout(end.saturating_duration_since(Instant::now())) else {
            bail!("the tests' own server does not listen on {missing:?}; it said last: {last}");
        };
        missing.retain(|port| {
            !line.contains("Starting http") || !line.trim_end().ends_with(&format!(":{port}"))
        });
        last = line;
    }
    Ok(())
}

impl OwnServer {
    /// Where it listens without TLS.
    pub fn address(&self) -> Result<SocketAddr> {
        let port = self.http.rsplit(':').next().and_then(|port| port.parse().ok());
        Ok(SocketAddr::from(([127, 0, 0, 1], port.context("a port in the server's URL")?)))
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        // Its servers are processes of the same group.
        if let Ok(id) = i32::try_from(self.child.id()) {
            killpg(Pid::from_raw(id), Signal::SIGKILL).ok();
        }
        self.child.wait().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_says_when_it_listens() {
        let log = |ports: &[u16]| {
            let line = |port: &u16| {
                format!("[time http on port {port}] INFO - Starting http server on http://127.0.0.1:{port}\n")
            };
            std::io::Cursor::new(ports.iter().map(line).collect::<String>())
        };
        assert!(listening(log(&[5, 1, 2, 3, 4]), [1, 2, 3, 4]).is_ok());
        let error = listening(log(&[1, 2, 13]), [1, 2, 3, 4]).expect_err("two ports are missing");
        assert!(error.to_string().contains("{3, 4}"), "{error}");
    }
}
