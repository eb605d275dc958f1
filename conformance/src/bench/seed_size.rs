//! What a start costs over the size of the seed: userland seeds whose scripts hold more and more data, in turns.

use std::fs;

use anyhow::Result;
use serde_json::json;

use super::BenchArgs;
use super::series::Report;
use super::start::{Timelines, add_timeline};
use crate::bundle::Bundle;
use crate::case::{Case, text};
use crate::host;
use crate::http;
use crate::tests::seed_pid;

const SECTION: &str = "Cost over the size of the seed";
/// Megabytes of JavaScript's heap that the seeds hold.
const SIZES_MB: [usize; 4] = [1, 4, 16, 64];
/// Objects of a megabyte: each has two fields, an array and a text of its own.
const OBJECTS_PER_MB: usize = 9_700;
/// The steps of a start that are shown.
const STEPS: [&str; 2] = ["fork call alone", "fork call to first JavaScript result"];
const KB_PER_MB: f64 = 1024.0;

fn script(megabytes: usize) -> String {
    let objects = megabytes * OBJECTS_PER_MB;
    format!(
        "const data = [];\n\
         for (let i = 0; i < {objects}; i++) data.push({{ id: i, name: `user ${{i}}`, list: [i, i + 1, 1.5 * i] }});\n\
         addEventListener('fetch', (event) => event.respondWith(new Response(data[{objects} - 1].name)));\n"
    )
}

/// As many starts of each size as the arguments say, one size after the other, again and again.
pub fn starts(case: &mut Case, arguments: &BenchArgs, report: &mut Report) -> Result<()> {
    let mut bundles: Vec<(usize, Bundle)> = Vec::new();
    for megabytes in SIZES_MB {
        let (name, source) = (format!("size-{megabytes}"), script(megabytes));
        let file = case.directory().join(format!("{name}.js"));
        fs::write(&file, &source)?;
        case.runtime.ok(&["seed", "start", &name, "--script", text(&file)?])?;
        let seed = seed_pid(case, &name)?;
        let mut add =
            |what: &str, unit, value| report.add(SECTION, &format!("{megabytes} MB: {what}"), unit, value);
        add("PSS of the seed", "MB", host::kilobytes(seed, "smaps_rollup", "Pss")? as f64 / KB_PER_MB);
        add("page tables of the seed", "kB", host::kilobytes(seed, "status", "VmPTE")? as f64);
        let mut bundle = case.worker(&source)?;
        bundle.set("/annotations", json!({"io.turf.seed": name}));
        bundles.push((megabytes, bundle));
    }
    let log = case.directory().join("start.log");
    for _ in 0..arguments.starts {
        for (megabytes, bundle) in &bundles {
            let container = case.create(bundle)?;
            let address = http::free_address()?;
            let listen = format!("tcp://{address}");
            let flags = ["--debug", "--log", text(&log)?, "--log-format", "json"];
            case.runtime.ok(&[&flags[..], &["start", "--listen", &listen, &container.id]].concat())?;
            http::get(address, "/")?;
            let rows = Timelines { section: SECTION, prefix: &format!("{megabytes} MB: "), steps: &STEPS };
            add_timeline(&log, report, &rows)?;
            case.remove(&container)?;
        }
    }
    SIZES_MB.iter().try_for_each(|size| case.runtime.ok(&["seed", "stop", &format!("size-{size}")]).map(drop))
}
