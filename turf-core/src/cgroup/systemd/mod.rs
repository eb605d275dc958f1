//! systemd as the maker of control groups: a scope for each container, by calls over D-Bus.
//!
//! ```text
//!  create                                   systemd
//!   placeholder = a child that waits
//!   StartTransientUnit(name, PIDs=[child]) -> makes the group, moves the child in, writes its properties
//!   JobRemoved(done)                      <-
//!   make the other groups, write the files
//!   init joins; the placeholder ends          a scope without processes would be gone at once
//! ```
//!
//! The rest of a life is that of any group; the end is StopUnit. org.freedesktop.systemd1(5); runc asks for the same.

mod bus;
mod message;
mod unit;
pub(super) mod variant;

use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

use super::{CgroupPlan, Version};
use crate::error::{Error, Result};
use crate::sys::fork::{Fork, fork};
use bus::{Bus, Refused};
use message::Value;
pub use unit::Unit;
use unit::{device_properties, properties, resource_properties};

/// Which systemd: the machine's, or that of the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Manager {
    /// pid 1.
    System,
    /// `systemd --user`.
    User,
}

/// The unit of a container that was located on this machine; kept in state.json.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Located {
    /// The unit.
    pub unit: Unit,
    /// Whose unit it is.
    pub manager: Manager,
    /// The description's last word.
    id: String,
}

const SYSTEMD: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
const INTERFACE: &str = "org.freedesktop.systemd1.Manager";

/// Names of errors.
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// Where it can be seen that systemd runs (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";

impl Manager {
    /// Root's containers are the machine's, those of others the user's.
    pub fn of_caller() -> Manager {
        if nix::unistd::geteuid().is_root() { Manager::System } else { Manager::User }
    }

    /// The slice of a unit that names none, as in runc.
    fn usual_slice(self) -> &'static str {
        match self {
            Manager::System => "system.slice",
            Manager::User => "user.slice",
        }
    }

    /// Where its bus is.
    fn addresses(self) -> Result<String> {
        let given = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        match self {
            Manager::System => Ok(given("DBUS_SYSTEM_BUS_ADDRESS")
                .unwrap_or_else(|| "unix:path=/run/dbus/system_bus_socket".to_owned())),
            Manager::User => given("DBUS_SESSION_BUS_ADDRESS")
                .or_else(|| Some(format!("unix:path={}/bus", given("XDG_RUNTIME_DIR")?)))
                .ok_or_else(|| {
                    Error::invalid(
                        "--systemd-cgroup",
                        "needs the user's D-Bus: DBUS_SESSION_BUS_ADDRESS or XDG_RUNTIME_DIR must be set",
                    )
                }),
        }
    }

    fn connect(self) -> Result<Bus> {
        Bus::connect(&self.addresses()?)
    }
}

/// Asks a property of the manager.
fn property(bus: &mut Bus, name: &str) -> Result<String> {
    let arguments = [Value::Text(INTERFACE.to_owned()), Value::Text(name.to_owned())];
    let answer = bus.call(SYSTEMD, OBJECT, "org.freedesktop.DBus.Properties", "Get", &arguments)?;
    let values = answer.map_err(|refused| error("ask systemd", name, refused))?;
    values
        .into_iter()
        .next()
        .ok_or_else(|| Error::invalid(format!("systemd's property {name}"), "is no text"))
}

fn error(operation: &str, object: &str, refused: Refused) -> Error {
    Error::invalid(format!("{operation} {object}"), format!("{} ({})", refused.text, refused.name))
}

/// The leading number of a version like `252.39-1~deb12u2` or `v255`; old ones lack properties.
fn version_number(text: &str) -> u32 {
    let digits: String =
        text.chars().skip_while(|letter| !letter.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

impl Located {
    /// Finds out where the unit will be: its path below the mount of the control groups.
    pub fn locate(unit: &Unit, id: &str) -> Result<(Located, PathBuf)> {
        let manager = Manager::of_caller();
        if std::env::var_os("DBUS_SYSTEM_BUS_ADDRESS").is_none() && !Path::new(BOOTED).is_dir() {
            return Err(Error::invalid(
                "--systemd-cgroup",
                "needs systemd, which does not run on this machine; leave the flag out",
            ));
        }
        let below = match manager {
            Manager::System => PathBuf::new(),
            Manager::User => {
                let group = property(&mut manager.connect()?, "ControlGroup")?;
                PathBuf::from(group.trim_start_matches('/'))
            }
        };
        let path = below.join(unit.path(manager.usual_slice()));
        Ok((Located { unit: unit.clone(), manager, id: id.to_owned() }, path))
    }

    /// Starts the unit around a placeholder, which keeps it there until the container's init has joined.
    pub(super) fn start(&self, plan: &CgroupPlan, version: Version) -> Result<Placeholder> {
        let placeholder = Placeholder::new()?;
        self.start_on(&mut self.manager.connect()?, plan, version, placeholder.pid)?;
        Ok(placeholder)
    }

    fn start_on(&self, bus: &mut Bus, plan: &CgroupPlan, version: Version, pid: i32) -> Result<()> {
        let systemd = version_number(&property(bus, "Version")?);
        let mut all = properties(&self.unit, self.manager.usual_slice(), &self.id, pid);
        all.extend(device_properties(&plan.devices));
        all.extend(resource_properties(&plan.resources, version, systemd)?);
        // Of two values the last one counts, so the bundle's own words stand above ours.
        all.extend(variant::properties(&plan.unit_properties)?);
        let arguments = [
            Value::Text(self.unit.name.clone()),
            Value::Text("replace".to_owned()),
            Value::Properties(all),
            Value::NoUnits,
        ];
        let mut started = self.job(bus, "StartTransientUnit", &arguments)?;
        if started.as_ref().is_err_and(|refused| refused.name == UNIT_EXISTS) {
            // One that failed, of a container with this name before, is still known.
            self.reset(bus)?;
            started = self.job(bus, "StartTransientUnit", &arguments)?;
        }
        started.map_err(|refused| error("start unit", &self.unit.name, refused))
    }

    /// Lets systemd move a process into the unit. An ordinary user may not do that from a login session: the kernel asks
    /// for the right to the group above both.
    pub(crate) fn attach(&self, pid: i32) -> Result<()> {
        self.attach_on(&mut self.manager.connect()?, pid)
    }

    fn attach_on(&self, bus: &mut Bus, pid: i32) -> Result<()> {
        let arguments = [
            Value::Text(self.unit.name.clone()),
            Value::Text("/".to_owned()),
            Value::Numbers(vec![pid.cast_unsigned()]),
        ];
        let answer = bus.call(SYSTEMD, OBJECT, INTERFACE, "AttachProcessesToUnit", &arguments)?;
        answer.map(drop).map_err(|refused| error("move a process into unit", &self.unit.name, refused))
    }

    /// Tells systemd of other limits.
    pub(super) fn update(&self, resources: &LinuxResources, version: Version) -> Result<()> {
        self.update_on(&mut self.manager.connect()?, resources, version)
    }

    fn update_on(&self, bus: &mut Bus, resources: &LinuxResources, version: Version) -> Result<()> {
        let systemd = version_number(&property(bus, "Version")?);
        let properties = resource_properties(resources, version, systemd)?;
        if properties.is_empty() {
            return Ok(());
        }
        let arguments =
            [Value::Text(self.unit.name.clone()), Value::Bool(true), Value::Properties(properties)];
        let answer = bus.call(SYSTEMD, OBJECT, INTERFACE, "SetUnitProperties", &arguments)?;
        answer.map(drop).map_err(|refused| error("change unit", &self.unit.name, refused))
    }

    /// Ends the unit. One that is gone, as scopes are when their last process is, is no error.
    pub(super) fn stop(&self) -> Result<()> {
        self.stop_on(&mut self.manager.connect()?)
    }

    fn stop_on(&self, bus: &mut Bus) -> Result<()> {
        let arguments = [Value::Text(self.unit.name.clone()), Value::Text("replace".to_owned())];
        match self.job(bus, "StopUnit", &arguments)? {
            Ok(()) => self.reset(bus),
            Err(refused) if refused.name == NO_SUCH_UNIT => Ok(()),
            Err(refused) => Err(error("stop unit", &self.unit.name, refused)),
        }
    }

    /// Makes systemd forget that the unit failed, if it did.
    fn reset(&self, bus: &mut Bus) -> Result<()> {
        let arguments = [Value::Text(self.unit.name.clone())];
        // Refused when there is nothing to forget.
        bus.call(SYSTEMD, OBJECT, INTERFACE, "ResetFailedUnit", &arguments).map(drop)
    }

    /// Calls a method that makes a job of the manager, and waits for the job's end.
    fn job(
        &self,
        bus: &mut Bus,
        method: &str,
        arguments: &[Value],
    ) -> Result<std::result::Result<(), Refused>> {
        bus.listen(INTERFACE, "JobRemoved")?;
        let path = match bus.call(SYSTEMD, OBJECT, INTERFACE, method, arguments)? {
            Ok(answer) => answer.into_iter().next().unwrap_or_default(),
            Err(refused) => return Ok(Err(refused)),
        };
        // Number, path, unit, result.
        let what = format!("{method} {}", self.unit.name);
        let removed = bus.wait_for_signal(&what, |signal| {
            signal.member == "JobRemoved" && signal.arguments.get(1) == Some(&path)
        })?;
        match removed.arguments.get(3).map_or("", String::as_str) {
            "done" => Ok(Ok(())),
            result => Err(Error::invalid(what, format!("ended with {result:?}"))),
        }
    }
}

/// A child that does nothing until it is dropped.
#[derive(Debug)]
pub struct Placeholder {
    pid: i32,
}

impl Placeholder {
    fn new() -> Result<Placeholder> {
        let forked = fork().map_err(|error| Error::io("fork a process for systemd's scope", error.source))?;
        match forked {
            Fork::Parent { pid } => Ok(Placeholder { pid }),
            Fork::Child => {
                // It goes when its parent does, who may be killed.
                let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
                loop {
                    nix::unistd::pause();
                }
            }
        }
    }
}

impl Drop for Placeholder {
    fn drop(&mut self) {
        // Both cannot fail: it is our child, and nobody else waits for it.
        let _ = crate::sys::process::kill(self.pid, libc::SIGKILL);
        let _ = crate::sys::process::wait_for(self.pid);
    }
}

#[cfg(test)]
mod tests;
