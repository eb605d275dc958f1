//! What a user namespace, and a caller who is not root, cannot have: refused before anything is made, with the
//! place in config.json, instead of by an error number of the kernel.
//!
//! Pure, except for the caller's own OOM score. user_namespaces(7), mount_namespaces(7).

use std::fs;

use nix::unistd::Uid;

use crate::error::{Error, Result};
use crate::root::is_unprivileged;
use crate::sandbox::plan::{IdMapping, InitPlan, NamespaceKind, Plan, ProcessPlan};
use crate::sandbox::step::{MountSource, MountStep, Step};

/// Who creates a container.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    /// The user.
    pub(super) uid: Uid,
    /// Whether it is not the host's root: another user, or the root of a user namespace, as under rootless podman.
    pub(super) restricted: bool,
}

impl Caller {
    /// This process.
    pub(super) fn own() -> Caller {
        Caller { uid: nix::unistd::geteuid(), restricted: is_unprivileged() }
    }
}

/// Checks the plan, and changes what a restricted caller gets otherwise than asked: as in runc, an OOM score below
/// the caller's own becomes the caller's own, and devices are bound from the host.
pub(super) fn check(plan: &mut Plan, Caller { uid: caller, restricted }: Caller) -> Result<()> {
    let user = plan.init.namespace(NamespaceKind::User);
    if user.is_none() && !caller.is_root() {
        return Err(Error::invalid(
            "config.json: $.linux.namespaces",
            "must have one of type \"user\": the caller is not root; `turf spec --rootless` writes such a configuration",
        ));
    }
    if user.is_some_and(|user| user.path.is_none()) {
        ids(&plan.init, &plan.process)?;
        setgroups(&plan.init, &plan.process, caller)?;
        for step in &plan.init.steps {
            if let Step::Mount(mount) = step {
                mounted(&plan.init, mount)?;
            }
        }
    }
    if restricted {
        for step in &mut plan.init.steps {
            if let Step::Device(device) = step {
                device.bind = true;
            }
        }
    }
    if restricted && plan.process.oom_score_adj.is_some() {
        let own =
            fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|text| text.trim().parse().ok());
        plan.process.oom_score_adj = plan.process.oom_score_adj.max(own);
    }
    Ok(())
}

/// Checks that the ids of a process exist in the sandbox's user namespace; `exec` asks this as well.
pub(super) fn ids(init: &InitPlan, process: &ProcessPlan) -> Result<()> {
    let (users, groups) = (&init.uid_mappings, &init.gid_mappings);
    let check = |mappings: &[IdMapping], id: u32, place: &str, list: &str| {
        if mappings.is_empty() || is_mapped(mappings, id) {
            return Ok(());
        }
        let reason = format!("{id} is not mapped by $.linux.{list}");
        Err(Error::invalid(format!("config.json: $.process.user.{place}"), reason))
    };
    check(users, process.uid, "uid", "uidMappings")?;
    check(groups, process.gid, "gid", "gidMappings")?;
    process.additional_gids.iter().try_for_each(|gid| check(groups, *gid, "additionalGids", "gidMappings"))
}

fn is_mapped(mappings: &[IdMapping], id: u32) -> bool {
    mappings.iter().any(|mapping| id.checked_sub(mapping.inside).is_some_and(|offset| offset < mapping.count))
}

/// Who maps only the own group has to give up setgroups(2) for it.
fn setgroups(init: &InitPlan, process: &ProcessPlan, caller: Uid) -> Result<()> {
    let denied = !caller.is_root() && init.gid_mappings.iter().map(|mapping| mapping.count).sum::<u32>() == 1;
    if denied && !process.additional_gids.is_empty() {
        return Err(Error::invalid(
            "config.json: $.process.user.additionalGids",
            "must be empty: an unprivileged user who maps one group may not set any",
        ));
    }
    Ok(())
}

fn mounted(init: &InitPlan, mount: &MountStep) -> Result<()> {
    let MountSource::Filesystem { kind, parameters, .. } = &mount.source else { return Ok(()) };
    let place = || format!("config.json: $.mounts: {kind} on {}", mount.target.display());
    let network = init.namespace(NamespaceKind::Network);
    if kind == "sysfs" && network.is_none_or(|network| network.path.is_some()) {
        return Err(Error::invalid(
            place(),
            "a new user namespace may mount sysfs only beside a new network namespace; bind the host's /sys instead",
        ));
    }
    for (name, mappings) in [("uid", &init.uid_mappings), ("gid", &init.gid_mappings)] {
        let value =
            parameters.iter().find(|parameter| parameter.key == name).and_then(|found| found.value.as_ref());
        if let Some(id) = value.and_then(|value| value.parse::<u32>().ok())
            && !is_mapped(mappings, id)
        {
            let reason = format!("the option {name}={id} is an id that $.linux.{name}Mappings does not map");
            return Err(Error::invalid(place(), reason));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::{Bundle, default};
    use crate::sandbox::compile::{Context, Keyring, RootEntry, compile};
    use serde_json::{Value, json};

    const SOMEBODY: Caller = Caller { uid: Uid::from_raw(1000), restricted: true };
    const ROOT: Caller = Caller { uid: Uid::from_raw(0), restricted: false };
    const ROOT_OF_A_USER_NAMESPACE: Caller = Caller { restricted: true, ..ROOT };

    /// What becomes of the rootless default bundle after a change.
    fn checked(caller: Caller, change: impl FnOnce(&mut Value)) -> Result<Plan> {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("rootfs")).unwrap();
        let mut json: Value = serde_json::from_str(&default::rootless(default::PROGRAM).unwrap()).unwrap();
        change(&mut json);
        fs::write(dir.path().join("config.json"), json.to_string()).unwrap();
        let bundle = Bundle::load(dir.path())?;
        let context = Context { id: "box", keyring: Keyring::New, root_entry: RootEntry::Pivot };
        let mut plan = compile(&bundle, context)?;
        check(&mut plan, caller).map(|()| plan)
    }

    #[test]
    fn what_spec_rootless_writes_is_possible() {
        assert!(checked(SOMEBODY, |_| {}).is_ok());
        assert!(checked(ROOT, |_| {}).is_ok());
    }

    #[test]
    fn what_the_kernel_would_refuse_is_refused_by_its_place() {
        let refused = |caller: Caller, change: fn(&mut Value), words: &str| {
            let error = checked(caller, change).unwrap_err().to_string();
            assert!(error.contains(words), "{error} lacks {words}");
        };
        let without_user = |json: &mut Value| {
            json["linux"]["namespaces"].as_array_mut().unwrap().retain(|ns| ns["type"] != "user");
            json["linux"].as_object_mut().unwrap().retain(|key, _| !key.ends_with("Mappings"));
        };
        refused(SOMEBODY, without_user, "$.linux.namespaces: must have one of type \"user\"");
        assert!(checked(ROOT, without_user).is_ok());
        refused(
            ROOT,
            |json| json["process"]["user"]["uid"] = json!(7),
            "$.process.user.uid: 7 is not mapped",
        );
        refused(
            ROOT,
            |json| json["process"]["user"]["gid"] = json!(7),
            "$.process.user.gid: 7 is not mapped",
        );
        let groups = |json: &mut Value| json["process"]["user"]["additionalGids"] = json!([0]);
        refused(SOMEBODY, groups, "additionalGids: must be empty");
        assert!(checked(ROOT, groups).is_ok());
        let sysfs = |json: &mut Value| {
            json["mounts"]
                .as_array_mut()
                .unwrap()
                .push(json!({"destination": "/s", "type": "sysfs", "source": "sysfs"}));
        };
        refused(ROOT, sysfs, "sysfs on /s: a new user namespace");
        let option = |json: &mut Value| {
            let mount =
                json!({"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["gid=5"]});
            json["mounts"].as_array_mut().unwrap().push(mount);
        };
        refused(ROOT, option, "the option gid=5");
    }

    #[test]
    fn an_oom_score_below_the_callers_own_becomes_the_callers() {
        let own: i32 = fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap();
        let lowest = |json: &mut Value| json["process"]["oomScoreAdj"] = json!(-1000);
        assert_eq!(checked(SOMEBODY, lowest).unwrap().process.oom_score_adj, Some(own));
        assert_eq!(checked(ROOT_OF_A_USER_NAMESPACE, lowest).unwrap().process.oom_score_adj, Some(own));
        assert_eq!(checked(ROOT, lowest).unwrap().process.oom_score_adj, Some(-1000));
    }

    #[test]
    fn devices_are_bound_for_who_may_not_make_them() {
        let without_user = |json: &mut Value| {
            json["linux"]["namespaces"].as_array_mut().unwrap().retain(|ns| ns["type"] != "user");
            json["linux"].as_object_mut().unwrap().retain(|key, _| !key.ends_with("Mappings"));
        };
        let bound = |caller: Caller| {
            let plan = checked(caller, without_user).unwrap();
            let devices = plan.init.steps.into_iter().filter_map(|step| match step {
                Step::Device(device) => Some(device.bind),
                _ => None,
            });
            devices.collect::<Vec<bool>>()
        };
        assert!(bound(ROOT_OF_A_USER_NAMESPACE).iter().all(|bind| *bind));
        assert!(bound(ROOT).len() > 5 && bound(ROOT).iter().all(|bind| !*bind));
    }

    #[test]
    fn an_id_is_mapped_by_the_range_it_lies_in() {
        let mappings =
            [IdMapping { inside: 10, outside: 0, count: 5 }, IdMapping { inside: 20, outside: 9, count: 1 }];
        for (id, mapped) in
            [(9, false), (10, true), (14, true), (15, false), (20, true), (21, false), (u32::MAX, false)]
        {
            assert_eq!(is_mapped(&mappings, id), mapped, "{id}");
        }
    }
}
