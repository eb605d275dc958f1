// How the build scripts of `turf`, `turf-seed` and `aworker` link their program statically. Included by each: no crate of its own,
// for it would be compiled before everything else.
//
// The flag for it (`target-feature=+crt-static`) exists per build, not per program, and the compiler's plug-ins must stay
// dynamic. So the linker is led to the static libraries: it takes the first of `libX.so` and `libX.a` that it finds on
// its path, and the path begins with a directory that has only the latter, as linker scripts.

/// Links the program statically and at a fixed address, if the machine has those libraries (what the compiler names on its
/// command line) in static form. `instead` names functions in whose place the program has its own, `__wrap_NAME`.
fn link_statically(program: &str, libraries: &[&str], instead: &[&str]) {
    match static_libraries(libraries) {
        Ok(directory) => {
            println!("cargo::rustc-link-arg-bin={program}=-L{}", directory.display());
            println!("cargo::rustc-link-arg-bin={program}=-static");
            println!("cargo::rustc-link-arg-bin={program}=-no-pie");
            for function in instead {
                println!("cargo::rustc-link-arg-bin={program}=-Wl,--wrap={function}");
            }
        }
        Err(missing) => println!("cargo::warning={program} is linked dynamically: there is no {missing}"),
    }
}

/// Makes the directory; the error is the library that is missing.
fn static_libraries(libraries: &[&str]) -> Result<std::path::PathBuf, String> {
    let out = std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    let directory = std::path::PathBuf::from(out).join("static");
    std::fs::create_dir_all(&directory).expect("the output directory can be written");
    let write = |file: &str, script: &str| {
        std::fs::write(directory.join(file), script).expect("the output directory can be written");
    };
    for name in libraries {
        let file = format!("lib{name}.a");
        write(&file, &format!("INPUT({})\n", find_library(&file)?));
    }
    // The unwinder, which exists as a shared library under one name and as a static one under another.
    let unwinder = find_library("libgcc_eh.a")?;
    write("libgcc_s.a", &format!("GROUP({unwinder} -lgcc -lc)\n"));
    Ok(directory)
}

/// The absolute path at which the C compiler finds a library; it answers with the bare name if there is none.
fn find_library(file: &str) -> Result<String, String> {
    let asked = std::process::Command::new("cc").arg(format!("-print-file-name={file}")).output();
    let answer = asked.map_err(|error| format!("{file} (cc: {error})"))?;
    let path = String::from_utf8_lossy(&answer.stdout).trim().to_owned();
    let found = std::path::Path::new(&path);
    if found.is_absolute() && found.exists() { Ok(path) } else { Err(file.to_owned()) }
}
