//! `Aworker.files`: what is read, what is refused, and that the event loop goes on meanwhile.

mod script_support;
mod temporary;

use std::fs::File;
use std::io::Write;
use std::path::Path;

use script_support::{Directory, Run, aworker};

/// Writes a file and takes it out of the page cache; false if the file system keeps it there (tmpfs).
fn write_cold(path: &Path, bytes: &[u8]) -> bool {
    let mut file = File::create(path).expect("a file");
    file.write_all(bytes).expect("written");
    file.sync_all().expect("on the device");
    nix::fcntl::posix_fadvise(&file, 0, 0, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED)
        .expect("dropped");
    let is_cold = is_cold(path);
    if !is_cold {
        println!("skipped: the file system of {} keeps every page", path.display());
    }
    is_cold
}

/// Whether no byte is in the page cache: fincore(1) is in util-linux.
fn is_cold(path: &Path) -> bool {
    let arguments = ["--bytes", "--noheadings", "-o", "RES"];
    let output = std::process::Command::new("fincore").args(arguments).arg(path).output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim() == "0")
}

const READ_ALL: &str = "
    const path = Aworker.args[0];
    let turns = 0;
    const tick = setInterval(() => { turns += 1; }, 0);
    const bytes = await Aworker.files.bytes(path);
    let sum = 0, length = 0;
    for await (const chunk of Aworker.files.stream(path)) {
      if (chunk.length > 65536) throw new Error('a large chunk');
      length += chunk.length;
      sum += chunk[0];
    }
    clearInterval(tick);
    console.log(bytes.length, bytes[bytes.length - 1], length, sum > 0);";

#[test]
fn files_are_read_as_bytes_text_blob_and_stream() {
    let directory = Directory::new("files", &[
        ("main.js", "
            const files = Aworker.files;
            console.log(await files.bytes('data.txt'), await files.text('data.txt'));
            const blob = await files.blob('data.txt', { type: 'text/plain' });
            console.log(blob.type, blob.size, await blob.text(), (await files.bytes('empty')).length);
            console.log(await new Response(files.stream('data.txt')).text());
            console.log(await new Response(files.stream('data.txt', { start: 1, end: 3 })).text());
            console.log(await new Response(files.stream('data.txt', { start: 99 })).text() === '');
            console.log(await files.text(new URL('data.txt', import.meta.url)));
            const reader = files.stream('data.txt').getReader({ mode: 'byob' });
            console.log((await reader.read(new Uint8Array(3))).value, (await reader.read(new Uint8Array(9))).value.length,
              (await reader.read(new Uint8Array(9))).done);
            await files.stream('data.txt').cancel();
            console.log((await files.text('/proc/self/status')).includes('Name:'), (await files.text('link')));"),
        ("data.txt", "hällo"),
        ("empty", ""),
    ]);
    std::os::unix::fs::symlink("data.txt", directory.0.join("link")).expect("a link");
    directory.run(&["main.js"]).prints(
        "Uint8Array(6) [ 104, 195, 164, 108, 108, 111 ] hällo\ntext/plain 6 hällo 0\nhällo\nä\ntrue\nhällo\n\
         Uint8Array(3) [ 104, 195, 164 ] 3 true\ntrue hällo\n",
    );
}

#[test]
fn metadata_and_directories_are_read() {
    let directory = Directory::new("stat", &[
        ("main.js", "
            const files = Aworker.files;
            for (const path of ['dir/b', 'dir', 'dir/link', 'dir/fifo']) {
              const { kind, size, lastModified, mode } = await files.stat(path);
              console.log(kind, kind === 'file' ? size : '', Math.abs(Date.now() - lastModified) < 60_000, (mode & 0o400) !== 0);
            }
            console.log((await files.stat('dir/link', { followLinks: false })).kind);
            console.log((await files.list('dir')).map((entry) => `${entry.name}:${entry.kind}`).join(' '));"),
        ("dir/b", "four"),
        ("dir/sub/x", ""),
    ]);
    std::os::unix::fs::symlink("b", directory.0.join("dir/link")).expect("a link");
    nix::unistd::mkfifo(&directory.0.join("dir/fifo"), nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    directory.run(&["main.js"]).prints(
        "file 4 true true\ndirectory  true true\nfile 4 true true\nother  true true\nsymlink\n\
         b:file fifo:other link:symlink sub:directory\n",
    );
}

#[test]
fn what_is_no_readable_file_is_refused_and_blocks_nothing() {
    let directory = Directory::new(
        "refused",
        &[(
            "main.js",
            "
            const files = Aworker.files;
            const attempt = async (action) => {
              try { await action(); console.log('done'); } catch (e) { console.log(e.name, e.message); }
            };
            await attempt(() => files.bytes('none'));
            await attempt(() => files.bytes('main.js/none'));
            await attempt(() => files.bytes('.'));
            await attempt(() => files.bytes('fifo'));
            await attempt(() => files.bytes('/dev/zero'));
            await attempt(() => files.bytes('loop'));
            await attempt(() => files.bytes('huge'));
            await attempt(() => files.stat('none'));
            await attempt(() => files.list('main.js'));
            await attempt(() => new Response(files.stream('none')).text());
            await attempt(() => files.bytes(''));
            await attempt(() => files.bytes('a\\0b'));
            await attempt(() => files.text('file://host/a'));
            await attempt(() => files.bytes());
            await attempt(() => files.stream('main.js', { start: -1 }));
            await attempt(() => files.stream('main.js', 5));",
        )],
    );
    nix::unistd::mkfifo(&directory.0.join("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    std::os::unix::fs::symlink("loop", directory.0.join("loop")).expect("a link");
    File::create(directory.0.join("huge")).and_then(|file| file.set_len(600 << 20)).expect("a sparse file");
    directory.run(&["main.js"]).prints(
        "NotFoundError open none: no such file or directory\n\
         NotFoundError open main.js/none: not a directory\n\
         TypeMismatchError open .: it is no regular file\n\
         TypeMismatchError open fifo: it is no regular file\n\
         TypeMismatchError open /dev/zero: it is no regular file\n\
         NotAllowedError open loop: too many symbolic links encountered\n\
         QuotaExceededError open huge: file too large\n\
         NotFoundError look at none: no such file or directory\n\
         NotFoundError list main.js: not a directory\n\
         NotFoundError open none: no such file or directory\n\
         TypeError Failed to execute 'bytes' on 'Aworker.files': a path must not be empty or contain a zero byte\n\
         TypeError Failed to execute 'bytes' on 'Aworker.files': a path must not be empty or contain a zero byte\n\
         TypeError Failed to execute 'text' on 'Aworker.files': file://host/a names a host\n\
         NotFoundError open undefined: no such file or directory\n\
         TypeError Failed to execute 'stream' on 'Aworker.files': start must be a whole number of bytes\n\
         TypeError Aworker.files: the options must be an object\n",
    );
}

/// Reads a file that is not in the page cache, with or without io_uring.
fn read_cold(name: &str, ring: &str) -> Option<Run> {
    let directory = Directory::new(name, &[("main.js", READ_ALL)]);
    let path = directory.0.join("large");
    let bytes: Vec<u8> = (0..12_000_000_u32).map(|index| (index % 251) as u8).collect();
    if !write_cold(&path, &bytes) {
        return None;
    }
    let mut command = aworker();
    let run = Run::of(
        command.current_dir(&directory.0).env("AWORKER_IO_URING", ring).args(["run", "main.js", "large"]),
    );
    run.prints(&format!("12000000 {} 12000000 true\n", bytes[bytes.len() - 1]));
    Some(run)
}

#[test]
fn what_is_not_in_the_page_cache_is_read_with_and_without_io_uring() {
    for ring in ["1", "0"] {
        if read_cold(&format!("cold-{ring}"), ring).is_none() {
            return;
        }
    }
}

#[test]
fn a_ring_is_made_only_when_a_file_is_not_in_the_page_cache() {
    let directory = Directory::new(
        "ring",
        &[(
            "main.js",
            "
            const rings = async () => {
              const names = await Aworker.files.list('/proc/self/fd');
              return names.length;
            };
            await Aworker.files.bytes('main.js');
            const before = await rings();
            await Aworker.files.bytes('large');
            console.log(await rings() - before);",
        )],
    );
    if !write_cold(&directory.0.join("large"), &vec![7; 3_000_000]) {
        return;
    }
    let run = |ring: &str| {
        Run::of(aworker().current_dir(&directory.0).env("AWORKER_IO_URING", ring).args(["run", "main.js"]))
    };
    // Without a ring there is no epoll instance either: only a timer is waited for.
    run("0").prints("0\n");
    write_cold(&directory.0.join("large"), &vec![7; 3_000_000]);
    run("1").prints("2\n");
}

#[test]
fn the_loop_turns_while_files_are_read() {
    let directory = Directory::new(
        "turns",
        &[(
            "main.js",
            "
            let turns = 0;
            const tick = setInterval(() => { turns += 1; }, 0);
            const bytes = await Aworker.files.bytes('large');
            clearInterval(tick);
            console.log(bytes.length, turns > 2);",
        )],
    );
    std::fs::write(directory.0.join("large"), vec![1; 64_000_000]).expect("written");
    directory.run(&["main.js"]).prints("64000000 true\n");
}

#[test]
fn many_reads_at_once_are_all_answered_in_spite_of_the_limits() {
    let directory = Directory::new("many", &[
        ("main.js", "
            const reads = [];
            for (let i = 0; i < 500; i++) reads.push(Aworker.files.bytes(`f/${i % 100}`));
            const all = await Promise.all(reads);
            console.log(all.length, all.every((bytes, i) => bytes.length === 100_000 && bytes[0] === i % 100));
            const readers = [];
            let refused = 0;
            for (let i = 0; i < 1100; i++) {
              const reader = Aworker.files.stream('f/1').getReader();
              await reader.read().then(() => readers.push(reader), (e) => { refused += e.name === 'QuotaExceededError'; });
            }
            console.log(readers.length + refused, refused > 0);
            await Promise.all(readers.map((reader) => reader.cancel()));
            console.log((await Aworker.files.list('/proc/self/fd')).length < 20);"),
    ]);
    std::fs::create_dir(directory.0.join("f")).expect("a directory");
    for index in 0..100_u8 {
        write_cold(&directory.0.join(format!("f/{index}")), &vec![index; 100_000]);
    }
    directory.run(&["main.js"]).prints("500 true\n1100 true\ntrue\n");
}

#[test]
fn files_may_be_read_while_a_snapshot_is_built_but_not_kept_open() {
    let directory = Directory::new(
        "build",
        &[
            (
                "main.js",
                "
            const text = await Aworker.files.text('data.txt');
            addEventListener('deserialize', (event) => event.waitUntil((async () => {
              console.log(text, await Aworker.files.text('data.txt'));
            })()));",
            ),
            (
                "open.js",
                "globalThis.reader = Aworker.files.stream('data.txt').getReader(); await reader.read();",
            ),
            ("data.txt", "built"),
        ],
    );
    directory.run(&["snapshot", "build", "main.js", "-o", "s"]).prints("");
    std::fs::write(directory.0.join("data.txt"), "run").expect("written");
    directory.run(&["run", "--snapshot", "s"]).prints("built run\n");
    directory.run(&["snapshot", "build", "open.js", "-o", "s2"]).fails_with(&["an open file"]);
}
