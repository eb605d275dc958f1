//! `run` of a static program that ends at once, beside the distribution's runtimes.

use std::path::Path;

use anyhow::Result;

use super::BenchArgs;
use super::series::Report;
use crate::case::{Case, text};
use crate::runtime::Runtime;
use crate::suite;

/// Where Debian puts the other runtimes.
const PEERS: [&str; 2] = ["/usr/bin/crun", "/usr/sbin/runc"];
/// A number that no container of the other sections has.
const FIRST_NUMBER: usize = 1000;

/// The same bundle through each runtime in turn.
pub fn programs(case: &mut Case, arguments: &BenchArgs, report: &mut Report) -> Result<()> {
    let mut bundle = case.shell("")?;
    bundle.set("/process/args", serde_json::json!(["/bin/true"]));
    bundle.write()?;
    let path = text(&bundle.path)?.to_owned();
    let mut others = Vec::new();
    for (number, program) in PEERS.into_iter().enumerate() {
        match suite::admit(Path::new(program)) {
            Ok(found) => others.push((program, Case::new(&found, FIRST_NUMBER + number)?)),
            Err(error) => report.note(format!("no comparison with {program}: {error:#}")),
        }
    }
    for number in 0..arguments.starts {
        measure(&mut case.runtime, "turf", &path, number, report)?;
        for (program, other) in &mut others {
            measure(&mut other.runtime, program, &path, number, report)?;
        }
    }
    others.iter_mut().try_for_each(|(_, other)| other.finish())
}

fn measure(
    runtime: &mut Runtime,
    name: &str,
    bundle: &str,
    number: usize,
    report: &mut Report,
) -> Result<()> {
    let id = format!("peer{}-{number}", std::process::id());
    let ran = runtime.ok(&["run", "--bundle", bundle, &id])?;
    let name = name.rsplit('/').next().unwrap_or(name);
    report.add(
        "Plain programs",
        &format!("`{name} run` of /bin/true"),
        "ms",
        ran.elapsed.as_secs_f64() * 1e3,
    );
    Ok(())
}
