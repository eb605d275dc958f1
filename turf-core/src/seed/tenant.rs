//! Who a seed with user code is: a tenant, with user and group ids of its own.
//!
//! ```text
//!   first .. first + 65534    ids of the tenant's containers: 0 .. 65534 inside
//!   first + 65535             the seed itself, and the owner of the user namespaces of its containers
//! ```
//!
//! A process has all rights over the user namespaces that its user has made (user_namespaces(7), "Capabilities"): so
//! a seed without any privilege over the host can enter the sandboxes that were made for it, and no others. The ids lie
//! where neither users, nor /etc/subuid, nor systemd's ranges are. They belong to a name of a state directory; the
//! table of all is one per machine, because ids are.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::error::{Error, Operation, Result};
use crate::limits;
use crate::root::create_private_dir_all;
use crate::sandbox::plan::IdMapping;

/// The table: a link for each number, to the directory of the name that has it.
const TABLE: &str = "/run/turf-tenants";
/// The first id of the first tenant: behind those of systemd's containers, which end below 1,879,048,192.
const FIRST: u32 = 1_900_000_000;
/// Ids of one tenant.
const IDS: u32 = 65_536;
/// Tenants, so that all ids are below 2^31, which some programs take for negative.
const TENANTS: u32 = (i32::MAX as u32 - FIRST) / IDS;

/// The ids of one tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenant {
    first: u32,
}

impl Tenant {
    /// The tenant of the name whose directory this is; it is given ids if it has none.
    pub fn of(directory: &Path) -> Result<Tenant> {
        Tenant::in_table(Path::new(TABLE), directory, Tenant::has_processes)
    }

    fn in_table(
        table: &Path,
        directory: &Path,
        is_in_use: impl Fn(Tenant) -> Result<bool>,
    ) -> Result<Tenant> {
        create_private_dir_all(table)?;
        let _lock = lock(&table.join("lock"))?;
        let entries = entries(table)?;
        let own = entries.iter().find(|(_, owner)| owner.as_path() == directory);
        if let Some((&number, _)) = own {
            return Ok(Tenant::number(number));
        }
        for number in 0..TENANTS {
            let tenant = Tenant::number(number);
            let entry = table.join(number.to_string());
            match entries.get(&number) {
                Some(owner) if owner.exists() || is_in_use(tenant)? => continue,
                Some(_) => fs::remove_file(&entry).operation(|| format!("remove {}", entry.display()))?,
                None => {}
            }
            std::os::unix::fs::symlink(directory, &entry)
                .operation(|| format!("link {}", entry.display()))?;
            return Ok(tenant);
        }
        Err(Error::invalid(table.display().to_string(), format!("has {TENANTS} names of seeds already")))
    }

    fn number(number: u32) -> Tenant {
        Tenant { first: FIRST + number * IDS }
    }

    /// The user and group id of the seed.
    pub fn owner(self) -> u32 {
        self.first + IDS - 1
    }

    /// The ids of the tenant's containers.
    pub fn mapping(self) -> IdMapping {
        IdMapping { inside: 0, outside: self.first, count: IDS - 1 }
    }

    /// Whether somebody still runs with these ids.
    fn has_processes(self) -> Result<bool> {
        let entries = fs::read_dir("/proc").operation(|| "read /proc")?;
        let ids = self.first..self.first + IDS;
        // A process that ends meanwhile has no ids.
        Ok(entries.flatten().any(|entry| entry.metadata().is_ok_and(|found| ids.contains(&found.uid()))))
    }
}

/// Who has which number.
fn entries(table: &Path) -> Result<BTreeMap<u32, PathBuf>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(table).operation(|| format!("read directory {}", table.display()))? {
        let entry = entry.operation(|| format!("read directory {}", table.display()))?;
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let path = entry.path();
        found.insert(number, fs::read_link(&path).operation(|| format!("read the link {}", path.display()))?);
    }
    Ok(found)
}

/// Held for some system calls by each command.
fn lock(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(path).operation(|| format!("open {}", path.display()))?;
    let deadline = Instant::now() + limits::TENANT_LOCK;
    while let Err(error) = file.try_lock() {
        match error {
            fs::TryLockError::WouldBlock if Instant::now() < deadline => {
                std::thread::sleep(limits::TENANT_LOCK / 1000);
            }
            error => return Err(Error::io(format!("lock {}", path.display()), error)),
        }
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_ids_and_shares_them_with_nobody() {
        let root = tempfile::tempdir().unwrap();
        let table = root.path().join("table");
        let names = ["a", "b", "c"].map(|name| root.path().join(name));
        for name in &names {
            fs::create_dir(name).unwrap();
        }
        let unused = |name: &Path| Tenant::in_table(&table, name, |_| Ok(false));
        let tenants = names.each_ref().map(|name| unused(name).unwrap());
        for (index, tenant) in tenants.iter().enumerate() {
            assert_eq!(unused(&names[index]).unwrap(), *tenant);
            let mapping = tenant.mapping();
            assert_eq!(mapping.outside + mapping.count, tenant.owner(), "no container has the seed's own id");
            assert!(tenants.iter().all(|other| other == tenant || other.owner() != tenant.owner()));
            assert!(i32::try_from(tenant.owner()).is_ok());
        }
        // The ids of a name that is gone, and of which nothing runs, are given to another.
        fs::remove_dir(&names[1]).unwrap();
        assert_eq!(unused(&names[2]).unwrap(), tenants[2], "a number below has come free");
        let late = root.path().join("late");
        fs::create_dir(&late).unwrap();
        let used = Tenant::in_table(&table, &late, |tenant| Ok(tenant == tenants[1])).unwrap();
        assert!(!tenants.contains(&used), "somebody still runs with those ids");
        let last = root.path().join("last");
        fs::create_dir(&last).unwrap();
        assert_eq!(unused(&last).unwrap(), tenants[1]);
    }
}
