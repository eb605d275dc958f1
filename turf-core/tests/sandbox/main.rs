//! Sandboxes for real: as root, from a bundle to init, gate, program and worker, looked at from inside.
//!
//! A program of its own with one thread, because init is cloned from it. Every test has its bundle and its
//! container's directory below a temporary directory; everything it makes ends with it.

mod programs;
mod support;
mod workers;

use nix::sched::CloneFlags;
use std::fs;
use turf_core::sys::process::wait_for;

fn main() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: needs root to make namespaces");
        return;
    }
    // What the tests mount must not reach the machine.
    nix::sched::unshare(CloneFlags::CLONE_NEWNS).unwrap();
    use nix::mount::MsFlags;
    nix::mount::mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .unwrap();
    let wanted = std::env::args().nth(1).filter(|argument| !argument.starts_with('-'));
    let (mut passed, mut failed) = (0, 0);
    for (name, test) in TESTS {
        if wanted.as_ref().is_some_and(|wanted| !name.contains(wanted.as_str())) {
            continue;
        }
        let before = Leftovers::count();
        let outcome = std::panic::catch_unwind(|| {
            test();
            assert_eq!(before, Leftovers::count(), "{name} left something behind");
        });
        if outcome.is_ok() {
            println!("test {name} ... ok");
            passed += 1;
        } else {
            println!("test {name} ... FAILED");
            kill_children();
            failed += 1;
        }
    }
    println!("{passed} passed, {failed} failed");
    std::process::exit(i32::from(failed > 0));
}

macro_rules! tests {
    ($($room:ident::$name:ident),* $(,)?) => {
        const TESTS: &[(&str, fn())] = &[$((stringify!($name), $room::$name as fn())),*];
    };
}

tests![
    programs::a_program_sees_its_own_sandbox,
    programs::a_program_has_only_what_its_plan_gives,
    programs::masked_and_read_only_paths_are,
    programs::attributes_of_mounts_hold,
    programs::a_program_that_cannot_be_found_fails_create,
    programs::a_program_that_the_user_may_not_execute_fails_start,
    programs::the_status_changes_with_execve,
    programs::links_in_the_root_do_not_lead_out,
    programs::a_mount_that_a_link_leads_into_proc_is_refused,
    programs::a_working_directory_outside_is_refused,
    programs::a_failing_step_is_named,
    programs::hooks_run_in_their_order_and_place,
    programs::a_failing_hook_leaves_nothing,
    programs::a_created_container_can_be_ended,
    programs::a_killed_create_leaves_no_init,
    programs::a_mount_of_a_dead_server_ends_create_at_the_limit,
    programs::a_program_runs_without_a_pid_namespace,
    programs::a_program_runs_in_a_user_namespace,
    programs::a_program_runs_in_a_joined_namespace,
    programs::a_program_runs_without_a_mount_namespace,
    programs::a_time_namespace_has_its_offset,
    programs::seccomp_returns_its_error_number,
    workers::a_worker_runs_and_init_exits_with_its_status,
    workers::a_worker_that_dies_by_a_signal_shows_it,
    workers::a_worker_that_ends_before_it_runs_is_reported,
    workers::a_start_that_dies_before_the_worker_leaves_init_waiting,
    workers::a_worker_is_adopted_when_start_dies,
    workers::signals_are_passed_on_to_the_worker,
    workers::a_relayed_worker_ends_init_with_its_status,
    workers::a_relay_that_dies_takes_the_worker_along,
    workers::a_bundle_without_an_image_has_a_root,
    programs::control_groups_are_mounted,
    programs::a_terminal_is_made_and_given_away,
];

/// What a test could leave behind.
#[derive(Debug, PartialEq)]
struct Leftovers {
    descriptors: usize,
    mounts: usize,
    children: String,
}

impl Leftovers {
    fn count() -> Leftovers {
        let pid = std::process::id();
        Leftovers {
            descriptors: fs::read_dir("/proc/self/fd").unwrap().count(),
            mounts: fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count(),
            children: fs::read_to_string(format!("/proc/self/task/{pid}/children")).unwrap(),
        }
    }
}

/// Ends what a failed test left running.
fn kill_children() {
    for child in Leftovers::count().children.split_whitespace() {
        let pid = child.parse().unwrap();
        let _ = turf_core::sys::process::kill(pid, libc::SIGKILL);
        let _ = wait_for(pid);
    }
}
