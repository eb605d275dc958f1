//! The bundle of a pool's workers, made from the user's bundle or script.
//!
//! Each generation has a bundle of its own in the pool's directory: config.json with absolute paths, so that it can be
//! elsewhere, and with what the pool's flags say. What the user's files are changed to later concerns the next
//! generation only, as far as config.json says it; a script is read where it is, when a worker starts.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::config::PoolConfig;
use crate::bundle::workload::SEED;
use crate::bundle::{CONFIG_NAME, POOL, default};
use crate::error::{Error, Operation, Result};
use crate::root::create_private_dir_all;
use crate::seed::name::{DEFAULT_SEED, SeedName};

/// The period of a processor limit in microseconds (the kernel's default).
const CPU_PERIOD_US: u64 = 100_000;

/// Writes a generation's bundle below `directory`, and returns it. `open_files` is how many files and connections a
/// worker of a script may have open; a bundle says that itself.
pub fn write(config: &PoolConfig, directory: &Path, seed: Option<&str>, open_files: u64) -> Result<PathBuf> {
    let mut spec = match config.source.is_dir() {
        true => of_bundle(&config.source)?,
        false => of_script(&config.source, open_files)?,
    };
    apply(&mut spec, config, seed)?;
    create_private_dir_all(directory)?;
    let path = directory.join(CONFIG_NAME);
    let text =
        serde_json::to_vec_pretty(&spec).map_err(|error| Error::invalid(CONFIG_NAME, error.to_string()))?;
    fs::write(&path, text).operation(|| format!("write {}", path.display()))?;
    Ok(directory.to_owned())
}

/// The script that a seed of the pool's own would run, on the host; none for a bundle with an image.
pub fn script(config: &PoolConfig) -> Option<PathBuf> {
    (!config.source.is_dir()).then(|| config.source.clone())
}

/// The seed that the workers of a bundle are forked from.
pub fn seed_of(bundle: &Path) -> Result<SeedName> {
    let spec = of_bundle(bundle)?;
    let named = spec.pointer("/annotations").and_then(|all| all.get(SEED)).and_then(Value::as_str);
    named.unwrap_or(DEFAULT_SEED).parse()
}

fn of_script(script: &Path, open_files: u64) -> Result<Value> {
    let mut spec: Value = serde_json::from_str(default::WORKER)
        .map_err(|error| Error::invalid("the default", error.to_string()))?;
    let directory = script.parent().unwrap_or(Path::new("/"));
    let name = script.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| Error::invalid("the script's name", "must be valid UTF-8"))?;
    spec["process"]["args"] = json!(["aworker", format!("/app/{name}")]);
    spec["mounts"][0]["source"] = json!(directory);
    let limit = json!({ "type": "RLIMIT_NOFILE", "soft": open_files, "hard": open_files });
    spec["process"]["rlimits"] = json!([limit]);
    Ok(spec)
}

fn of_bundle(bundle: &Path) -> Result<Value> {
    let path = bundle.join(CONFIG_NAME);
    let text = fs::read(&path).operation(|| format!("read {}", path.display()))?;
    // The whole of it is checked when a container is made of it.
    let mut spec: Value =
        serde_json::from_slice(&text).map_err(|error| Error::invalid(CONFIG_NAME, error.to_string()))?;
    if let Some(root) = spec.pointer_mut("/root/path") {
        absolute(root, bundle);
    }
    if let Some(mounts) = spec.get_mut("mounts").and_then(Value::as_array_mut) {
        for mount in mounts {
            let is_bind = mount.get("type").and_then(Value::as_str) == Some("bind")
                || mount.get("options").and_then(Value::as_array).is_some_and(|options| {
                    options.iter().any(|option| matches!(option.as_str(), Some("bind" | "rbind")))
                });
            if let (true, Some(source)) = (is_bind, mount.get_mut("source")) {
                absolute(source, bundle);
            }
        }
    }
    Ok(spec)
}

fn absolute(path: &mut Value, bundle: &Path) {
    if let Some(text) = path.as_str() {
        *path = json!(bundle.join(text));
    }
}

/// A member that is an object, made if it is not there.
fn object<'a>(value: &'a mut Value, name: &str) -> Result<&'a mut Map<String, Value>> {
    let place = || Error::invalid(format!("{CONFIG_NAME}: $.{name}"), "must be an object");
    let parent = value.as_object_mut().ok_or_else(place)?;
    parent.entry(name).or_insert_with(|| json!({})).as_object_mut().ok_or_else(place)
}

fn apply(spec: &mut Value, config: &PoolConfig, seed: Option<&str>) -> Result<()> {
    let annotations = object(spec, "annotations")?;
    annotations.insert(POOL.to_owned(), json!(config.name.as_str()));
    if let Some(seed) = seed {
        annotations.insert(SEED.to_owned(), json!(seed));
    }
    // The pool's sockets are the only ones.
    annotations.remove("io.turf.listen");
    object(spec, "linux")?;
    let linux = &mut spec["linux"];
    if let Some(limit) = config.memory {
        object(linux, "resources")?;
        let memory = object(&mut linux["resources"], "memory")?;
        memory.insert("limit".to_owned(), json!(limit));
        memory.insert("swap".to_owned(), json!(limit));
    }
    if let Some(processors) = config.cpu {
        object(linux, "resources")?;
        let cpu = object(&mut linux["resources"], "cpu")?;
        cpu.insert("period".to_owned(), json!(CPU_PERIOD_US));
        cpu.insert("quota".to_owned(), json!((processors * CPU_PERIOD_US as f64).round() as i64));
    }
    // Two workers cannot be in one group.
    if let Some(linux) = linux.as_object_mut() {
        linux.remove("cgroupsPath");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::config::PoolOptions;
    use super::*;

    fn config(source: &Path) -> PoolConfig {
        let options = PoolOptions {
            source: Some(source.to_owned()),
            name: Some("p".to_owned()),
            listen: vec!["127.0.0.1:0".to_owned()],
            memory: Some(super::super::config::Bytes(64 << 20)),
            cpu: Some(0.5),
            ..PoolOptions::default()
        };
        PoolConfig::resolve(&options, false).unwrap()
    }

    #[test]
    fn a_script_becomes_a_bundle_with_its_directory_on_app() {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("api.js");
        fs::write(&script, "").unwrap();
        let bundle = write(&config(&script), &directory.path().join("b"), Some("warm"), 5000).unwrap();
        let spec: Value = serde_json::from_slice(&fs::read(bundle.join(CONFIG_NAME)).unwrap()).unwrap();
        assert_eq!(spec["process"]["args"], json!(["aworker", "/app/api.js"]));
        assert_eq!(spec["mounts"][0]["source"], json!(directory.path().canonicalize().unwrap()));
        assert_eq!(spec["annotations"]["io.turf.seed"], "warm");
        assert_eq!(spec["process"]["rlimits"][0]["soft"], 5000);
        assert_eq!(spec["linux"]["resources"]["memory"]["limit"], 64 << 20);
        assert_eq!(spec["linux"]["resources"]["cpu"]["quota"], 50_000);
        crate::bundle::Bundle::load(&bundle).unwrap();
        assert_eq!(seed_of(&bundle).unwrap().as_str(), "warm");
    }

    #[test]
    fn a_bundles_relative_paths_become_absolute_and_nonsense_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(CONFIG_NAME);
        fs::write(&path, default::WORKER).unwrap();
        let bundle = write(&config(directory.path()), &directory.path().join("b"), None, 1024).unwrap();
        let spec: Value = serde_json::from_slice(&fs::read(bundle.join(CONFIG_NAME)).unwrap()).unwrap();
        let source = spec["mounts"][0]["source"].as_str().unwrap();
        assert!(source.starts_with('/'), "{source}");
        assert_eq!(seed_of(&bundle).unwrap().as_str(), DEFAULT_SEED);
        for text in ["[]", "{\"linux\": 1}", "{\"annotations\": []}", "{"] {
            fs::write(&path, text).unwrap();
            assert!(
                write(&config(directory.path()), &directory.path().join("b"), None, 1024).is_err(),
                "{text}"
            );
        }
    }
}
