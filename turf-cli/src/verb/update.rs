//! `turf update`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use turf_core::container::{self, Limits, RESOURCES_BYTES, Schemas};
use turf_core::root::StateRoot;

use crate::command::Update;

/// Changes the limits of the container.
pub fn run(root: &StateRoot, update: Update) -> Result<()> {
    let id = update.id.parse()?;
    let schemas =
        Schemas { l3_cache: update.l3_cache_schema.clone(), memory_bandwidth: update.mem_bw_schema.clone() };
    let resources = match &update.resources {
        Some(path) => read(path)?,
        None => limits(update)?.to_json(),
    };
    Ok(container::update(root, &id, &resources, &schemas)?)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(RESOURCES_BYTES + 1).read_to_end(&mut text)
    } else {
        let file = File::open(path).with_context(|| format!("--resources: open {}", path.display()))?;
        file.take(RESOURCES_BYTES + 1).read_to_end(&mut text)
    };
    let length = read.with_context(|| format!("--resources: read {}", path.display()))?;
    ensure!(length as u64 <= RESOURCES_BYTES, "--resources: is larger than {RESOURCES_BYTES} bytes");
    Ok(text)
}

fn limits(update: Update) -> Result<Limits> {
    let bytes = |text: Option<String>, flag: &str| text.map(|text| bytes(&text, flag)).transpose();
    // Judged, and without effect: see the flags' description.
    bytes(update.kernel_memory, "--kernel-memory")?;
    bytes(update.kernel_memory_tcp, "--kernel-memory-tcp")?;
    Ok(Limits {
        memory: bytes(update.memory, "--memory")?,
        memory_swap: bytes(update.memory_swap, "--memory-swap")?,
        memory_reservation: bytes(update.memory_reservation, "--memory-reservation")?,
        cpu_shares: update.cpu_share,
        cpu_quota: update.cpu_quota,
        cpu_period: update.cpu_period,
        cpu_burst: update.cpu_burst,
        cpu_idle: update.cpu_idle,
        cpu_realtime_period: update.cpu_rt_period,
        cpu_realtime_runtime: update.cpu_rt_runtime,
        block_io_weight: update.blkio_weight,
        cpuset_cpus: update.cpuset_cpus,
        cpuset_mems: update.cpuset_mems,
        pids: update.pids_limit,
    })
}

/// A number of bytes: `-1` for no limit, else digits and perhaps `k`, `m`, `g` or `t`.
fn bytes(text: &str, flag: &str) -> Result<i64> {
    if text == "-1" {
        return Ok(-1);
    }
    let lower = text.to_ascii_lowercase();
    let number = lower.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let power = match &lower[number.len()..] {
        "" | "b" => Some(0),
        "k" | "kb" | "kib" => Some(1),
        "m" | "mb" | "mib" => Some(2),
        "g" | "gb" | "gib" => Some(3),
        "t" | "tb" | "tib" => Some(4),
        _ => None,
    };
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    let value = number.parse::<i64>().ok().filter(|_| digits).zip(power);
    value
        .and_then(|(value, power)| value.checked_mul(1 << (10 * power)))
        .with_context(|| format!("{flag} {text:?}: must be a number of bytes like 64m, or -1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_the_units_of_runc() {
        for (text, value) in
            [("-1", -1), ("0", 0), ("5", 5), ("2k", 2048), ("64M", 64 << 20), ("1GiB", 1 << 30)]
        {
            assert_eq!(bytes(text, "--memory").unwrap(), value, "{text}");
        }
        for text in ["", "-2", "k", "1x", "1.5g", "9999999999g", "+1", "m1"] {
            assert!(bytes(text, "--memory").is_err(), "{text}");
        }
    }
}
