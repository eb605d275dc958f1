//! `turf seed start|replace|promote|list|stop`.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;
use turf_core::root::StateRoot;
use turf_core::seed::registry::{Recipe, Registry, SeedEntry, SeedSource};

use crate::command::{Format, Seed, SeedList, SeedPromote, SeedStart};

/// Runs a verb on seeds.
pub fn run(root: &StateRoot, command: Seed) -> Result<()> {
    let registry = Registry::new(root);
    match command {
        Seed::Start(start) => self::start(&registry, &start),
        Seed::Replace(replace) => Ok(registry.replace(&replace.name.parse()?).map(drop)?),
        Seed::Promote(promote) => self::promote(root, &promote),
        Seed::List(list) => self::list(&registry, &list),
        Seed::Stop(stop) => Ok(registry.stop(&stop.name.parse()?)?),
    }
}

fn start(registry: &Registry, start: &SeedStart) -> Result<()> {
    // The seed does not run in our directory.
    let absolute =
        |flag: &str, path: &Path| path.canonicalize().with_context(|| format!("{flag} {}", path.display()));
    let source = match (&start.script, &start.bundle, &start.snapshot) {
        (None, None, None) => SeedSource::BuiltIns,
        (Some(script), _, _) => SeedSource::Script(absolute("--script", script)?),
        (None, Some(bundle), _) => SeedSource::Script(turf_core::seed::bundle::script(bundle)?),
        (None, None, Some(snapshot)) => SeedSource::Snapshot(absolute("--snapshot", snapshot)?),
    };
    let recipe = Recipe {
        source,
        max_forks: start.max_forks,
        max_age_ms: start.max_age.map(|time| time.0),
        start_timeout_ms: start.timeout.map(|time| time.0),
    };
    registry.start(&start.name.parse()?, &recipe)?;
    Ok(())
}

fn promote(root: &StateRoot, promote: &SeedPromote) -> Result<()> {
    let name = promote.name.as_deref().map(str::parse).transpose()?;
    turf_core::container::promote(root, &promote.id.parse()?, name.as_ref())?;
    Ok(())
}

fn list(registry: &Registry, list: &SeedList) -> Result<()> {
    let seeds = registry.list()?;
    match (list.quiet, list.format) {
        (true, _) => super::print(&seeds.iter().map(|seed| format!("{}\n", seed.name)).collect::<String>()),
        (false, Format::Json) => {
            let all: Vec<_> = seeds.iter().map(describe).collect();
            super::print(&format!("{}\n", serde_json::to_string(&all)?))
        }
        (false, Format::Table) => {
            let mut rows =
                vec![["NAME", "PID", "SCRIPT", "FORKS", "RSS", "STATUS"].map(str::to_owned).to_vec()];
            rows.extend(seeds.iter().map(row));
            super::print(&super::table(&rows))
        }
    }
}

fn script(seed: &SeedEntry) -> Option<String> {
    seed.state.source.file().map(|path| path.display().to_string())
}

fn describe(seed: &SeedEntry) -> serde_json::Value {
    let mut value = json!({ "name": seed.name.as_str(), "pid": seed.state.pid, "script": script(seed) });
    if let SeedSource::Promoted(container) = &seed.state.source {
        value["promotedFrom"] = json!(container);
    }
    match &seed.stat {
        Ok(stat) => {
            value["status"] = json!("ready");
            value["forks"] = json!(stat.forks);
            value["refusals"] = json!(stat.refusals);
            value["maxForks"] = json!(stat.max_forks);
            value["ageMs"] = json!(stat.age_ms);
            value["maxAgeMs"] = json!(stat.max_age_ms);
            value["rssBytes"] = json!(stat.rss_bytes);
        }
        Err(error) => {
            value["status"] = json!("unreachable");
            value["error"] = json!(error.to_string());
        }
    }
    value
}

fn row(seed: &SeedEntry) -> Vec<String> {
    let (forks, rss, status) = match &seed.stat {
        Ok(stat) => (stat.forks.to_string(), format!("{} KiB", stat.rss_bytes / 1024), "ready".to_owned()),
        Err(error) => ("-".to_owned(), "-".to_owned(), format!("unreachable: {error}")),
    };
    let script = match &seed.state.source {
        SeedSource::Promoted(container) => format!("(container {container})"),
        SeedSource::BuiltIns | SeedSource::Script(_) | SeedSource::Snapshot(_) => {
            script(seed).unwrap_or_else(|| "-".to_owned())
        }
    };
    vec![seed.name.to_string(), seed.state.pid.to_string(), script, forks, rss, status]
}
