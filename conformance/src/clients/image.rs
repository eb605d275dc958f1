//! Two images as OCI layouts in tar files: busybox, and a worker on the same layer. No registry, no daemon.
//! Image specification: <https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md>.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::suite::skip;

/// A static busybox with a shell.
pub const BUSYBOX: &str = "localhost/turf-busybox:1";
/// The same with a script, and `aworker` as its entry point.
pub const WORKER: &str = "localhost/turf-worker:1";
/// What the worker of [`WORKER`] answers.
pub const ANSWER: &str = "hello from a worker image";

/// The programs of busybox that the tests call.
const APPLETS: [&str; 9] = ["sh", "echo", "cat", "sleep", "id", "hostname", "true", "wget", "touch"];

/// Writes `busybox.tar` and `worker.tar` into `directory`.
pub fn build(directory: &Path) -> Result<()> {
    let (base, app) = (directory.join("base"), directory.join("app"));
    for path in ["bin", "etc", "tmp"] {
        fs::create_dir_all(base.join(path))?;
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    let busybox = busybox.ok_or_else(|| skip("busybox is not installed (Debian package busybox-static)"))?;
    fs::copy(busybox, base.join("bin/busybox")).context("copy busybox")?;
    for applet in APPLETS {
        symlink("busybox", base.join("bin").join(applet))?;
    }
    fs::create_dir_all(app.join("app"))?;
    let script =
        format!("addEventListener('fetch', (event) => event.respondWith(new Response('{ANSWER}')));\n");
    fs::write(app.join("app/worker.js"), script)?;
    let layout = Layout { directory: directory.join("layout") };
    fs::create_dir_all(layout.directory.join("blobs/sha256"))?;
    let layers = [layout.layer(&base)?, layout.layer(&app)?];
    let path = json!(["PATH=/bin"]);
    let busybox = layout.image(&layers[..1], &json!({"Cmd": ["sh"], "Env": path}))?;
    layout.write(&busybox, BUSYBOX, &directory.join("busybox.tar"))?;
    let worker = json!({"Entrypoint": ["aworker", "/app/worker.js"], "Env": path});
    let worker = layout.image(&layers, &worker)?;
    layout.write(&worker, WORKER, &directory.join("worker.tar"))
}

/// A directory in the form of an OCI image layout.
struct Layout {
    directory: PathBuf,
}

/// Something that the layout holds: its digest and size.
struct Blob {
    digest: String,
    size: u64,
}

impl Blob {
    fn descriptor(&self, kind: &str) -> Value {
        let kind = format!("application/vnd.oci.image.{kind}");
        json!({"mediaType": kind, "digest": format!("sha256:{}", self.digest), "size": self.size})
    }
}

impl Layout {
    /// Takes a file into the layout.
    fn add(&self, file: &Path) -> Result<Blob> {
        let output = Command::new("sha256sum").arg(file).output().context("run sha256sum")?;
        let digest = String::from_utf8_lossy(&output.stdout).split(' ').next().unwrap_or_default().to_owned();
        ensure!(output.status.success() && digest.len() == 64, "sha256sum {}: {output:?}", file.display());
        let size = fs::metadata(file)?.len();
        fs::rename(file, self.directory.join("blobs/sha256").join(&digest))?;
        Ok(Blob { digest, size })
    }

    fn add_json(&self, value: &Value) -> Result<Blob> {
        let file = self.directory.join("blob");
        fs::write(&file, serde_json::to_vec(value)?)?;
        self.add(&file)
    }

    /// A layer of all that is in a directory.
    fn layer(&self, directory: &Path) -> Result<Blob> {
        let file = self.directory.join("blob");
        tar(directory, &["."], &file)?;
        self.add(&file)
    }

    /// An image of some layers; its manifest.
    fn image(&self, layers: &[Blob], config: &Value) -> Result<Blob> {
        let digests: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", layer.digest)).collect();
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let config = self.add_json(&json!({"architecture": architecture, "os": "linux", "config": config,
            "rootfs": {"type": "layers", "diff_ids": digests}}))?;
        let layers: Vec<Value> = layers.iter().map(|layer| layer.descriptor("layer.v1.tar")).collect();
        self.add_json(&json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config.descriptor("config.v1+json"), "layers": layers}))
    }

    /// Writes the layout as a tar file in which the manifest has a name.
    fn write(&self, manifest: &Blob, name: &str, file: &Path) -> Result<()> {
        let mut entry = manifest.descriptor("manifest.v1+json");
        entry["annotations"] =
            json!({"org.opencontainers.image.ref.name": name, "io.containerd.image.name": name});
        let index = json!({"schemaVersion": 2, "manifests": [entry]});
        fs::write(self.directory.join("index.json"), serde_json::to_vec(&index)?)?;
        fs::write(self.directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        tar(&self.directory, &["oci-layout", "index.json", "blobs"], file)
    }
}

fn tar(directory: &Path, names: &[&str], file: &Path) -> Result<()> {
    let mut command = Command::new("tar");
    command.arg("-C").arg(directory).args(["--numeric-owner", "--owner=0", "--group=0", "-cf"]).arg(file);
    let output = command.args(names).output().context("run tar")?;
    ensure!(output.status.success(), "tar of {}: {output:?}", directory.display());
    Ok(())
}
