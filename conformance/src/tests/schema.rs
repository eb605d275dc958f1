//! What Turf writes fits the JSON schemas of the OCI runtime specification; the specification's own examples are
//! accepted, and its bad ones refused.
//!
//! The schemas are data that the repository does not hold: they are looked for in `$OCI_SCHEMA`, else in
//! `../shared/data/oci-schema` beside the checkout. Without them the tests are skipped.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use boon::{Compiler, Draft, SchemaIndex, Schemas};
use serde_json::{Value, json};

use crate::case::{Case, text};
use crate::suite::{skip, tests};

tests! { "schema";
    Turf:
        the_bundles_that_spec_writes_fit_the_schema,
        the_state_fits_the_schema,
        the_features_fit_the_schema,
        good_configurations_are_accepted,
        bad_configurations_are_refused;
}

fn directory() -> Result<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/oci-schema");
    let found = std::env::var_os("OCI_SCHEMA").map_or(beside, PathBuf::from);
    match found.join("config-schema.json").exists() {
        true => Ok(found),
        false => Err(skip(format!("no OCI schemas in {} (OCI_SCHEMA names another place)", found.display()))),
    }
}

/// A compiled schema.
struct Schema {
    schemas: Schemas,
    index: SchemaIndex,
}

impl Schema {
    fn load(name: &str) -> Result<Schema> {
        let path = directory()?.join(name).canonicalize()?;
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.set_default_draft(Draft::V4);
        let index = compiler.compile(text(&path)?, &mut schemas).map_err(|error| anyhow!("{error:#}"))?;
        Ok(Schema { schemas, index })
    }

    fn check(&self, value: &Value) -> Result<()> {
        self.schemas.validate(value, self.index).map_err(|error| anyhow!("{error:#}"))
    }
}

fn the_bundles_that_spec_writes_fit_the_schema(case: &mut Case) -> Result<()> {
    let schema = Schema::load("config-schema.json")?;
    for flags in [&[][..], &["--worker"]] {
        let bundle = case.bundle_path();
        fs::create_dir_all(&bundle)?;
        let arguments: Vec<&str> =
            ["spec", "--bundle", text(&bundle)?].iter().chain(flags).copied().collect();
        case.runtime.ok(&arguments)?;
        let written: Value = serde_json::from_slice(&fs::read(bundle.join("config.json"))?)?;
        schema.check(&written).with_context(|| format!("spec {flags:?}"))?;
        // A schema that takes everything would prove nothing.
        let mut broken = written.clone();
        broken["process"]["cwd"] = json!(7);
        ensure!(schema.check(&broken).is_err(), "the schema accepts a number for a path");
    }
    Ok(())
}

fn the_state_fits_the_schema(case: &mut Case) -> Result<()> {
    let schema = Schema::load("state-schema.json")?;
    let mut bundle = case.shell("exit 0")?;
    bundle.set("/annotations", json!({"org.example": "x"}));
    let container = case.create(&bundle)?;
    schema.check(&case.runtime.state(&container.id)?).context("created")?;
    case.runtime.ok(&["start", &container.id])?;
    case.wait(&container)?;
    let state = case.runtime.state(&container.id)?;
    schema.check(&state).context("stopped")?;
    let mut broken = state;
    broken["status"] = json!(7);
    ensure!(schema.check(&broken).is_err(), "the schema accepts a number for a status");
    Ok(())
}

fn the_features_fit_the_schema(case: &mut Case) -> Result<()> {
    let schema = Schema::load("features-schema.json")?;
    let printed = case.runtime.ok(&["features"])?.stdout;
    let features: Value = serde_json::from_str(&printed)?;
    schema.check(&features)?;
    for list in ["hooks", "mountOptions"] {
        ensure!(features[list].as_array().is_some_and(|list| !list.is_empty()), "no {list}: {features}");
    }
    Ok(())
}

/// The examples of one kind.
fn examples(kind: &str) -> Result<Vec<PathBuf>> {
    let directory = directory()?.join("test/config").join(kind);
    let entries = fs::read_dir(&directory).with_context(|| format!("read {}", directory.display()))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    ensure!(!paths.is_empty(), "no examples in {}", directory.display());
    Ok(paths)
}

/// A bundle of an example; the roots that examples name are made.
fn bundle_of(case: &mut Case, path: &Path) -> Result<PathBuf> {
    let bundle = case.bundle_path();
    fs::create_dir_all(bundle.join("rootfs"))?;
    fs::copy(path, bundle.join("config.json"))?;
    Ok(bundle)
}

fn good_configurations_are_accepted(case: &mut Case) -> Result<()> {
    for path in examples("good")? {
        let bundle = bundle_of(case, &path)?;
        let id = case.id("good");
        let arguments = ["create", "--dry-run", "--bundle", text(&bundle)?, &id];
        let finished = case.runtime.call(&arguments)?;
        // An example may need what this machine or this test has not; it says so after everything was understood.
        let needs = [
            "AppArmor is not enabled",
            "SELinux is not enabled",
            "no resctrl file system",
            "--console-socket",
        ];
        let missing = needs.iter().any(|words| finished.stderr.contains(words));
        ensure!(finished.status.success() || missing, "{}: {finished}", path.display());
    }
    Ok(())
}

fn bad_configurations_are_refused(case: &mut Case) -> Result<()> {
    for path in examples("bad")? {
        let bundle = bundle_of(case, &path)?;
        let id = case.id("bad");
        let arguments = ["create", "--bundle", text(&bundle)?, &id];
        let refused = case.runtime.refused(&arguments, &["config.json"]);
        refused.with_context(|| path.display().to_string())?;
        case.runtime.refused(&["state", &id], &["does not exist"])?;
    }
    Ok(())
}
