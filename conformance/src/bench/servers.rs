//! JavaScript runtimes as HTTP servers of their own process: Aworker, and beside it Node, bun, deno and workerd where
//! they are installed: in `PATH`, or under the directory of `--peers` as npm's packages of their programs lay them
//! down (`npm install --prefix DIR @oven/bun-linux-x64-baseline @deno/linux-x64-glibc @cloudflare/workerd-linux-64`).

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::BenchArgs;
use super::series::Report;
use crate::case::text;
use crate::http;

/// How long a server may take to its first response.
const START_LIMIT: Duration = Duration::from_secs(10);

/// What one kind of server does with a request, once for Web-interoperable runtimes and once for Node's `http`.
#[derive(Clone, Copy)]
pub(super) struct Page {
    /// An expression: a function from a Request to a Response or a promise of one.
    pub(super) web: &'static str,
    /// An expression: a function of Node's request and response.
    pub(super) node: &'static str,
}

/// A short text.
pub(super) const HELLO: Page = Page {
    web: "() => new Response('hello')",
    node: "(request, response) => { response.setHeader('content-type', 'text/plain;charset=UTF-8'); response.end('hello'); }",
};

/// A runtime that serves a module or a script.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    /// As the rows of the report call it.
    pub(super) name: &'static str,
    /// The program's name in `PATH`.
    program: &'static str,
    /// Where npm's package lays the program down, from the directory of `--peers`.
    package: Option<&'static str>,
    /// The script's file name.
    file: &'static str,
    /// The script around a page, to which `page` is bound.
    frame: &'static str,
    /// Words after the program: `SCRIPT` and `PORT` are replaced.
    words: &'static [&'static str],
}

/// The runtimes beside Aworker.
const PEERS: [Kind; 4] = [
    Kind {
        name: "node",
        program: "node",
        package: None,
        file: "node.cjs",
        frame: "require('http').createServer(page).listen(Number(process.argv[2]), '127.0.0.1');\n",
        words: &["SCRIPT", "PORT"],
    },
    Kind {
        name: "bun",
        program: "bun",
        package: Some("node_modules/@oven/bun-linux-x64-baseline/bin/bun"),
        file: "bun.mjs",
        frame: "Bun.serve({ port: Number(process.argv[2]), hostname: '127.0.0.1', fetch: page });\n",
        words: &["SCRIPT", "PORT"],
    },
    Kind {
        name: "deno",
        program: "deno",
        package: Some("node_modules/@deno/linux-x64-glibc/deno"),
        file: "deno.mjs",
        frame: "Deno.serve({ port: Number(Deno.args[0]), hostname: '127.0.0.1', onListen() {} }, (request) => page(request));\n",
        words: &["run", "--allow-net", "--quiet", "SCRIPT", "PORT"],
    },
    Kind {
        name: "workerd",
        program: "workerd",
        package: Some("node_modules/@cloudflare/workerd-linux-64/bin/workerd"),
        file: "workerd.mjs",
        frame: "export default { fetch: (request) => page(request) };\n",
        words: &["serve", "--socket-addr=http=127.0.0.1:PORT", "SCRIPT.capnp"],
    },
];

/// Aworker, as a program of its own.
pub(super) const AWORKER: Kind = Kind {
    name: "aworker",
    program: "aworker",
    package: None,
    file: "aworker.mjs",
    frame: "export default { fetch: page };\n",
    words: &["run", "SCRIPT", "--listen=127.0.0.1:PORT"],
};

/// workerd is told by a file what it serves; `SCRIPT` is the module's file name.
const WORKERD: &str = "\
using Workerd = import \"/workerd/workerd.capnp\";
const config :Workerd.Config = (services = [(name = \"main\", worker = .main)], sockets = [(name = \"http\", address = \"127.0.0.1:0\", http = (), service = \"main\")]);
const main :Workerd.Worker = (modules = [(name = \"page\", esModule = embed \"SCRIPT\")], compatibilityDate = \"2025-01-01\");
";

/// The peers that are there, with the path of their programs; each that is not is a note of the report.
pub(super) fn peers(arguments: &BenchArgs, report: &mut Report) -> Vec<(Kind, PathBuf)> {
    let mut found = Vec::new();
    for kind in PEERS {
        match locate(kind, arguments.peers.as_deref()) {
            Some(path) => found.push((kind, path)),
            None => report.note(format!("no comparison with {}: it is not installed", kind.name)),
        }
    }
    found
}

fn locate(kind: Kind, directory: Option<&Path>) -> Option<PathBuf> {
    let packaged = directory.zip(kind.package).map(|(directory, package)| directory.join(package));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::split_paths(&path).map(|directory| directory.join(kind.program));
    packaged.into_iter().chain(installed).find(|file| file.is_file())
}

/// A server of its own process; it ends with this value.
pub(super) struct Program {
    child: Child,
    /// Where it serves.
    pub(super) address: SocketAddr,
}

impl Program {
    /// Starts a runtime with a page and waits until something answers `/` with status 200.
    pub(super) fn start(kind: Kind, program: &Path, page: Page, directory: &Path) -> Result<Program> {
        let address = http::free_address()?;
        let script = write_script(kind, page, directory)?;
        let port = address.port().to_string();
        let word = |word: &&str| word.replace("SCRIPT", &script).replace("PORT", &port);
        let words: Vec<String> = kind.words.iter().map(word).collect();
        let mut command = Command::new(program);
        command.args(&words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().with_context(|| format!("run {}", program.display()))?;
        let program = Program { child, address };
        let begun = Instant::now();
        loop {
            // Until it listens, a connection is refused at once: looking again and again is what measures.
            match http::get(address, "/") {
                Ok(response) if response.status == 200 => return Ok(program),
                Ok(response) => bail!("{} answered {response:?}", kind.name),
                Err(error) if begun.elapsed() > START_LIMIT => {
                    return Err(error.context(format!("{} does not answer", kind.name)));
                }
                Err(_) => std::thread::yield_now(),
            }
        }
    }

    /// The server's process.
    pub(super) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes the script, and what else the runtime needs; its path.
fn write_script(kind: Kind, page: Page, directory: &Path) -> Result<String> {
    let body = if kind.name == "node" { page.node } else { page.web };
    let script = directory.join(kind.file);
    fs::write(&script, format!("const page = {body};\n{}", kind.frame))
        .with_context(|| format!("write {}", script.display()))?;
    let script = text(&script)?.to_owned();
    if kind.name == "workerd" {
        fs::write(format!("{script}.capnp"), WORKERD.replace("SCRIPT", kind.file))?;
    }
    Ok(script)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_binds_its_page() {
        let directory = tempfile::tempdir().unwrap();
        let script = write_script(AWORKER, HELLO, directory.path()).unwrap();
        let written = fs::read_to_string(&script).unwrap();
        assert_eq!(written, "const page = () => new Response('hello');\nexport default { fetch: page };\n");
        let script = write_script(PEERS[3], HELLO, directory.path()).unwrap();
        let configuration = fs::read_to_string(format!("{script}.capnp")).unwrap();
        assert!(configuration.contains("embed \"workerd.mjs\""), "{configuration}");
    }

    #[test]
    fn a_package_is_found_before_the_path() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(locate(Kind { program: "no such program", ..PEERS[1] }, Some(directory.path())), None);
        let packaged = directory.path().join(PEERS[1].package.unwrap());
        fs::create_dir_all(packaged.parent().unwrap()).unwrap();
        fs::write(&packaged, "").unwrap();
        assert_eq!(locate(PEERS[1], Some(directory.path())), Some(packaged));
    }
}
