//! What other runtimes are known not to do, so that a test of theirs that fails is no fault of the test.
//!
//! The versions are those of Debian 12: crun 1.8.1, runc 1.1.5. A test that such a version passes all the same counts
//! as passed.

use std::path::Path;

use anyhow::Result;

use crate::suite::skip;

/// A test that a runtime fails, and why.
struct Known {
    runtime: &'static str,
    test: &'static str,
    reason: &'static str,
}

const fn known(runtime: &'static str, test: &'static str, reason: &'static str) -> Known {
    Known { runtime, test, reason }
}

/// All of them, by the name of the runtime's program.
const ALL: &[Known] = &[
    known(
        "runc",
        "attacks::cve_2025_31133_masks_do_not_trust_the_containers_null",
        "closed in 1.2.8: the attack succeeds",
    ),
    known(
        "runc",
        "attacks::cve_2021_30465_a_raced_volume_leads_no_mount_outside",
        "1.1.5 loses the race at times: a directory is made outside (CVE-2024-45310)",
    ),
    known(
        "runc",
        "attacks::cve_2024_45310_a_raced_volume_leads_no_file_outside",
        "closed in 1.1.14: a file is made outside at times",
    ),
    known(
        "runc",
        "config::soft_and_hard_limits_differ",
        "the limits of the Go runtime overtake those of exec at times",
    ),
    known("runc", "config::the_domain_name_is_set", "`domainname` came with 1.2"),
    known("runc", "config::personality_changes_the_machine", "`personality` came with 1.2"),
    known("runc", "config::scheduling_policies_are_set", "`scheduler` came with 1.2"),
    known("runc", "config::the_io_priority_is_set", "`ioPriority` came with 1.2"),
    known("runc", "config::clocks_have_their_offsets", "time namespaces came with 1.2"),
    known(
        "runc",
        "config::a_device_that_is_something_else_is_refused",
        "takes whatever is there for the device",
    ),
    known(
        "runc",
        "config::the_umask_of_exec_is_the_containers",
        "1.1 gives every process of exec the same mask",
    ),
    known("crun", "hooks::container_hooks_begin_in_the_containers_root", "1.8.1: they begin in the bundle"),
    known("crun", "attacks::cve_2024_21626_no_working_directory_leads_outside", "1.8.1: the attack succeeds"),
    known(
        "crun",
        "attacks::cve_2025_31133_masks_do_not_trust_the_containers_null",
        "1.8.1: nothing of what the program prints arrives",
    ),
    known(
        "crun",
        "attacks::cve_2025_52881_no_mount_redirects_writes_to_proc",
        "mounts over /proc/sys as it is told",
    ),
    known("crun", "config::soft_and_hard_limits_differ", "1.8 gives processes of exec the caller's limits"),
    known("crun", "config::scheduling_policies_are_set", "`scheduler` came with 1.8.2"),
    known("crun", "config::the_io_priority_is_set", "`ioPriority` came with 1.8.4"),
    known("crun", "config::clocks_have_their_offsets", "1.8 fails to make time namespaces here"),
    known(
        "crun",
        "config::a_device_that_is_something_else_is_refused",
        "takes whatever is there for the device",
    ),
    known("crun", "config::sysctls_of_a_joined_host_namespace_are_refused", "sets them on the host"),
    known(
        "crun",
        "config::the_umask_of_exec_is_the_containers",
        "1.8 gives every process of exec the same mask",
    ),
    known("runc", "config::the_root_has_the_configured_propagation", "1.1 leaves a shared root private here"),
    known("runc", "seccomp::a_filter_with_flags_is_loaded", "flags came with 1.1.7"),
    known(
        "runc",
        "seccomp::a_filter_need_not_allow_what_the_runtime_does_for_the_directory",
        "enters the directory under the filter",
    ),
    known(
        "runc",
        "mounts::what_only_the_hosts_root_can_reach_is_mounted_under_mapped_ids",
        "opens the root as the mapped user",
    ),
    known(
        "runc",
        "mounts::rarer_options_are_understood",
        "1.1 takes `defaults` for a parameter of the file system",
    ),
    known(
        "runc",
        "mounts::rarer_recursive_attributes_hold_and_undo_one_another",
        "1.1 sets and clears what is undone",
    ),
    known(
        "runc",
        "mounts::locked_attributes_survive_in_a_user_namespace",
        "1.1 clears attributes it may not clear",
    ),
    known("runc", "mounts::id_mapped_mounts_show_other_owners", "id-mapped mounts came with 1.2"),
    known(
        "crun",
        "seccomp::calls_newer_than_the_profile_do_not_exist",
        "has no such rule: they are refused as any other",
    ),
    known("crun", "seccomp::notify_is_refused_where_it_cannot_work", "accepts it without an agent"),
    known(
        "crun",
        "mounts::rarer_options_are_understood",
        "1.8 does not know `nosymfollow`, and does not undo options",
    ),
    known(
        "crun",
        "mounts::rarer_recursive_attributes_hold_and_undo_one_another",
        "1.8 sets access times without clearing their field",
    ),
    known("crun", "mounts::flags_of_the_file_system_are_set", "1.8 does not know `lazytime`"),
    known(
        "crun",
        "mounts::propagation_is_that_of_the_options",
        "1.8 sets one propagation, not several in order",
    ),
    known(
        "crun",
        "mounts::locked_attributes_survive_in_a_user_namespace",
        "1.8 loses attributes of the source",
    ),
];

/// The outcome of a test of a runtime: a known failure is none.
pub fn judge(runtime: &Path, test: &str, outcome: Result<()>) -> Result<()> {
    let name = runtime.file_name().unwrap_or_default();
    let known = ALL.iter().find(|known| known.runtime == name && known.test == test);
    match (outcome, known) {
        (Err(_), Some(known)) => Err(skip(format!("known of this runtime: {}", known.reason))),
        (outcome, _) => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_failure_is_of_a_test_that_exists() {
        let names: Vec<&str> = crate::tests::all().iter().map(|test| test.name).collect();
        for known in ALL {
            assert!(names.contains(&known.test), "{}", known.test);
        }
    }

    #[test]
    fn only_failures_of_the_runtime_that_is_named_are_known() {
        let Known { runtime, test, .. } = &ALL[0];
        let failed = || Err(anyhow::anyhow!("x"));
        assert!(judge(Path::new(runtime), test, failed()).unwrap_err().to_string().starts_with("skipped"));
        assert!(judge(Path::new("/usr/bin/turf"), test, failed()).unwrap_err().to_string() == "x");
        assert!(judge(Path::new(runtime), test, Ok(())).is_ok());
    }
}
