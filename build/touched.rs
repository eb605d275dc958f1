// How the build scripts of `turf-seed` and `aworker` lay the functions that their list `touched.txt` names beside each other. Included
// by both, as `static_link.rs`.
//
// The kernel maps text by windows of 64 kB around what is touched: strewn over the program's 32 MB, what is called needs 200
// windows, a page fault for each. A name that is missing or wrong costs nothing but its place. `cargo xtask touched` writes
// the lists: one name a line, those of the linker, with `*` for what differs from build to build.

/// Lays the functions of a list beside each other in the program.
fn lay_touched(program: &str, list: &str) {
    println!("cargo::rerun-if-changed={list}");
    let names = std::fs::read_to_string(list).expect("the list of functions can be read");
    let (ours, of_v8): (Vec<&str>, Vec<&str>) = names
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .partition(|name| name.contains('*'));
    println!("cargo::rustc-link-arg-bin={program}=-Wl,-T,{}", touched_script(&ours).display());
    // lld's option: rustc links with it by itself on this architecture only.
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|architecture| architecture == "x86_64") {
        let order = touched_order(&of_v8);
        println!("cargo::rustc-link-arg-bin={program}=-Wl,--symbol-ordering-file={}", order.display());
        println!("cargo::rustc-link-arg-bin={program}=-Wl,--no-warn-symbol-ordering");
    }
}

/// Rust's functions are in sections of their names, which a linker script can match. `INSERT` adds it to the linker's own.
fn touched_script(names: &[&str]) -> std::path::PathBuf {
    let sections: String =
        names.iter().map(|name| format!("    *(.text.{name} .text.unlikely.{name})\n")).collect();
    write_touched(
        "touched.ld",
        &format!("SECTIONS {{\n  .text.touched : {{\n{sections}  }}\n}}\nINSERT BEFORE .text;\n"),
    )
}

/// V8's functions are in sections that all have the same name: they are told apart by their symbols.
fn touched_order(names: &[&str]) -> std::path::PathBuf {
    write_touched("touched.order", &names.iter().map(|name| format!("{name}\n")).collect::<String>())
}

fn write_touched(file: &str, text: &str) -> std::path::PathBuf {
    let path = std::path::PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join(file);
    std::fs::write(&path, text).expect("the output directory can be written");
    path
}
