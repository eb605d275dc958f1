//! Moving network devices of the host into the container (config-linux.md, "Network Devices"): done by the creator,
//! who has rights in both network namespaces, before init goes on.
//!
//! A device loses its addresses when it changes the namespace; those that were configured for the world are given
//! back. When the container ends, the kernel gives real devices back to the host and removes virtual ones.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;

use nix::sched::{CloneFlags, setns};

use super::netlink::{self, Connection, NLM_F_CREATE_NEW, NLM_F_DUMP};
use crate::error::{Error, Operation, Result};
use crate::sandbox::plan::NetDevicePlan;

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_F_PERMANENT: u32 = 0x80;
const IFF_UP: u32 = 1;
/// `struct ifaddrmsg`.
const ADDRESS_BYTES: usize = 8;

/// Moves the devices into the network namespace of init.
pub(super) fn move_all(devices: &[NetDevicePlan], init_pid: i32) -> Result<()> {
    if devices.is_empty() {
        return Ok(());
    }
    let inode = |path: &str| {
        let metadata = std::fs::metadata(path).operation(|| format!("look at {path}"))?;
        Ok::<_, Error>((metadata.dev(), metadata.ino()))
    };
    let path = format!("/proc/{init_pid}/ns/net");
    if inode(&path)? == inode("/proc/self/ns/net")? {
        let reason = "needs a network namespace that is not the host's in $.linux.namespaces";
        return Err(Error::invalid("config.json: $.linux.netDevices", reason));
    }
    let namespace = File::open(&path).operation(|| format!("open {path}"))?;
    let mut host = Connection::open().operation(|| "open a netlink socket")?;
    let mut inside = connect_inside(&namespace).operation(|| "open a netlink socket in the container")?;
    for device in devices {
        move_one(device, &namespace, &mut host, &mut inside).operation(|| {
            format!("move the network device {} into the container as {}", device.host_name, device.name)
        })?;
    }
    Ok(())
}

/// A connection in another namespace; the caller is back in its own when this returns.
fn connect_inside(namespace: &File) -> io::Result<Connection> {
    let own = File::open("/proc/self/ns/net")?;
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    let connection = Connection::open();
    setns(own, CloneFlags::CLONE_NEWNET)?;
    connection
}

fn move_one(
    device: &NetDevicePlan,
    namespace: &File,
    host: &mut Connection,
    inside: &mut Connection,
) -> io::Result<()> {
    let index = index(host, &device.host_name)?;
    // The kernel would move the device first, and only then find that it cannot have this name.
    if self::index(inside, &device.name).is_ok() {
        return Err(io::Error::from_raw_os_error(libc::EEXIST));
    }
    let addresses = addresses(host, index)?;
    let mut link = link(index, 0);
    netlink::put(&mut link, IFLA_NET_NS_FD, &namespace.as_fd().as_raw_fd().to_ne_bytes());
    netlink::put(&mut link, IFLA_IFNAME, &terminated(&device.name));
    host.ask(RTM_NEWLINK, 0, &link)?;
    let index = self::index(inside, &device.name)?;
    for mut address in addresses {
        // The index may be another one there.
        address[4..ADDRESS_BYTES].copy_from_slice(&index.to_ne_bytes());
        inside.ask(RTM_NEWADDR, NLM_F_CREATE_NEW, &address)?;
    }
    inside.ask(RTM_NEWLINK, 0, &self::link(index, IFF_UP)).map(drop)
}

fn index(connection: &mut Connection, name: &str) -> io::Result<u32> {
    let mut request = link(0, 0);
    netlink::put(&mut request, IFLA_IFNAME, &terminated(name));
    let answer = connection.ask(RTM_GETLINK, 0, &request)?;
    let message = answer.iter().find(|message| message.kind == RTM_NEWLINK);
    message.and_then(|message| netlink::number(&message.body, 4)).ok_or(io::ErrorKind::NotFound.into())
}

/// The device's lasting addresses of global scope, as requests to make them anew.
fn addresses(connection: &mut Connection, index: u32) -> io::Result<Vec<Vec<u8>>> {
    let all = connection.ask(RTM_GETADDR, NLM_F_DUMP, &[0; ADDRESS_BYTES])?;
    let of_device = all.iter().filter(|message| message.kind == RTM_NEWADDR);
    Ok(of_device.filter_map(|message| lasting(&message.body, index)).collect())
}

fn lasting(body: &[u8], index: u32) -> Option<Vec<u8>> {
    let [family, prefix, flags, scope] = *body.first_chunk()?;
    let attributes = netlink::attributes(body, ADDRESS_BYTES);
    let value = |kind| attributes.iter().find(|(known, _)| *known == kind).map(|(_, value)| *value);
    let flags = value(IFA_FLAGS).and_then(|flags| netlink::number(flags, 0)).unwrap_or(u32::from(flags));
    if netlink::number(body, 4)? != index || scope != 0 || flags & IFA_F_PERMANENT == 0 {
        return None;
    }
    let mut request = vec![family, prefix, 0, scope, 0, 0, 0, 0];
    for kind in [IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST] {
        if let Some(value) = value(kind) {
            netlink::put(&mut request, kind, value);
        }
    }
    Some(request)
}

/// `struct ifinfomsg`; `flags` are switched on.
fn link(index: u32, flags: u32) -> Vec<u8> {
    let mut message = vec![0; 4];
    for word in [index, flags, flags] {
        message.extend_from_slice(&word.to_ne_bytes());
    }
    message
}

fn terminated(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(index: u32, scope: u8, flags: u32) -> Vec<u8> {
        let mut body = vec![2, 24, 0, scope];
        body.extend_from_slice(&index.to_ne_bytes());
        netlink::put(&mut body, IFA_LOCAL, &[10, 0, 0, 1]);
        netlink::put(&mut body, IFA_FLAGS, &flags.to_ne_bytes());
        body
    }

    #[test]
    fn lasting_global_addresses_of_the_device_are_kept() {
        let kept = lasting(&address(3, 0, IFA_F_PERMANENT), 3).unwrap();
        assert_eq!(netlink::attributes(&kept, ADDRESS_BYTES), [(IFA_LOCAL, &[10, 0, 0, 1][..])]);
        assert_eq!(&kept[..4], [2, 24, 0, 0]);
        assert!(lasting(&address(4, 0, IFA_F_PERMANENT), 3).is_none());
        assert!(lasting(&address(3, 253, IFA_F_PERMANENT), 3).is_none());
        assert!(lasting(&address(3, 0, 0), 3).is_none());
        assert!(lasting(&[2, 24], 3).is_none());
    }
}
