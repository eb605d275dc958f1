//! The event loop goes on while a file system does not answer: a server in this process (FUSE) keeps each operation waiting until another
//! request has been answered.

mod fuse_support;
mod http_support;
mod temporary;

use fuse_support::{SLOW, Slow};
use http_support::{PATIENCE, Server};

const SCRIPT: &str = "
    const { files } = Aworker;
    addEventListener('fetch', (event) => {
      const [, what, name] = new URL(event.request.url).pathname.split('/');
      const path = `PATH/${name}`;
      const work = {
        quick: async () => 'quick',
        bytes: () => files.text(path),
        stat: async () => { const { kind, size } = await files.stat(path); return `${kind} ${size}`; },
        list: async () => (await files.list(path)).map(({ name, kind }) => `${name} ${kind}`).join(),
      };
      event.respondWith(work[what]().then((text) => new Response(text)));
    });";

#[test]
fn requests_are_answered_while_a_file_system_does_not_answer() {
    // The mount namespace is one thread's.
    let test = std::thread::spawn(|| {
        let place = std::env::temp_dir().join(format!("aworker-slow-{}", std::process::id()));
        std::fs::create_dir_all(&place).expect("a directory");
        if let Some(slow) = Slow::mount(&place) {
            let script = SCRIPT.replace("PATH", place.to_str().expect("UTF-8"));
            let server = Server::start("slow", &script);
            for (name, _) in SLOW {
                let (target, text) = match name {
                    "attributes" => ("stat", "file 4"),
                    "directory" => ("list", "x file"),
                    _ => ("bytes", "late"),
                };
                let mut waiting = server.connect();
                waiting.send(&format!("GET /{target}/{name} HTTP/1.1\r\nHost: a\r\n\r\n"));
                assert_eq!(slow.asked.recv_timeout(PATIENCE).as_deref(), Ok(name));
                assert_eq!(server.get("/quick/").text(), "quick", "while {name} waits");
                slow.go_on.send(()).expect("the server lives");
                assert_eq!(waiting.receive().text(), text, "{name}");
            }
            server.stop();
        }
        std::fs::remove_dir(&place).expect("the directory is empty");
    });
    test.join().expect("the test has not failed");
}
