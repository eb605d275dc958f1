//! Which command lines are understood.

use super::*;
use clap::CommandFactory;

#[test]
fn the_command_line_is_consistent() {
    Arguments::command().debug_assert();
}

#[test]
fn engines_command_lines_are_understood() {
    for line in [
        "turf --log-format=json --log /l create --bundle /b --pid-file /p --console-socket /s ID",
        "turf --root /r --log /l --log-format json create --bundle /b --pid-file /p ID",
        "turf create --bundle /b --pid-file /p --preserve-fds 1 ID",
        "turf start ID",
        "turf delete --force ID",
        "turf kill ID 15",
        "turf kill --all ID 9",
        "turf kill ID",
        "turf ps --format json ID",
        "turf list --format json",
        "turf list -q",
        "turf start --listen tcp://127.0.0.1:0,unix:///a --listen tcp://[::1]:1 ID",
        "turf run --detach --keep --bundle /b ID",
        "turf seed start web --script /w.js",
        "turf seed start web --bundle /b",
        "turf seed start web --snapshot /w.snap",
        "turf exec --pid-file /p --process /f --detach --tty --console-socket /s ID",
        "turf exec --process /f --console-socket /s --detach --pid-file /p ID",
        "turf exec --cwd / --env A=b -e C=d --user 1:2 --cap CAP_KILL ID sh -c x",
        "turf exec ID ls -l --all",
        "turf update --resources - ID",
        "turf update --resources=- ID",
        "turf update --memory 64m --memory-swap -1 --cpu-shares 7 --pids-limit -1 ID",
        "turf update --blkio-weight 10 --cpu-rt-period 5 --cpu-rt-runtime -1 --cpu-burst 1 --cpu-idle 1 ID",
        "turf update --kernel-memory 5m --kernel-memory-tcp -1 --l3-cache-schema L3:0=f --mem-bw-schema MB:0=5 ID",
        "turf features",
        "turf --systemd-cgroup --rootless=true create --no-pivot --no-new-keyring --no-subreaper ID",
        "turf --cgroup-manager disabled --rootless auto --criu /criu run --keep --no-subreaper -d ID",
        "turf --cgroup-manager=systemd --debug create --pidfd-socket /s ID",
        "turf exec --apparmor p --process-label l --ignore-paused --cgroup a --cgroup cpu:b --user 1 ID true",
        "turf exec -t -d -e A=b -u 1:1 -g 5 -c CAP_CHOWN --preserve-fds 2 --pidfd-socket /s ID true",
        "turf events --stats ID",
        "turf events --interval 200ms ID",
        "turf spec --rootless --bundle /b",
        "turf spec --file /b/config.json",
        "turf ps ID -ef",
        "turf ps -f table ID -o pid,cmd",
        "turf checkpoint --image-path /i --leave-running ID",
        "turf restore --image-path /i ID",
    ] {
        let parsed = Arguments::try_parse_from(line.split(' '));
        assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
    }
    for line in [
        "turf",
        "turf create",
        "turf fly",
        "turf state",
        "turf exec ID",
        "turf update -r - --memory 5 ID",
        "turf exec --process /f ID ls",
        "turf --log-format xml state a",
        "turf --rootless maybe state a",
        "turf --cgroup-manager docker state a",
        "turf delete a b",
        "turf seed start web --bundle /b --script /w.js",
    ] {
        assert!(Arguments::try_parse_from(line.split(' ')).is_err(), "{line}");
    }
}

#[test]
fn the_log_is_found_on_a_line_that_is_not_understood() {
    let line = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
    for text in ["turf --log /l --log-format json fly", "turf --log=/l --log-format=json create"] {
        let log = log_of_unparsed(&line(text));
        assert_eq!(log, Log::new(Some("/l".into()), LogFormat::Json, false), "{text}");
    }
    assert_eq!(log_of_unparsed(&line("turf fly --log")), Log::new(None, LogFormat::Text, false));
}

#[test]
fn help_and_version_are_no_errors() {
    for line in ["turf --version", "turf -v", "turf --help", "turf -h", "turf help", "turf help create"]
        .into_iter()
        .chain(["turf checkpoint --help", "turf restore --help", "turf exec --help"])
    {
        use clap::error::ErrorKind::{DisplayHelp, DisplayVersion};
        let kind = Arguments::try_parse_from(line.split(' ')).unwrap_err().kind();
        assert!(matches!(kind, DisplayHelp | DisplayVersion), "{line}: {kind:?}");
    }
}

#[test]
fn one_manager_makes_the_control_groups() {
    let manager = |line: &str| Arguments::try_parse_from(line.split(' ')).unwrap().globals.cgroup_manager();
    assert_eq!(manager("turf state a"), CgroupManager::Cgroupfs);
    assert_eq!(manager("turf --systemd-cgroup state a"), CgroupManager::Systemd);
    assert_eq!(manager("turf --cgroup-manager=systemd state a"), CgroupManager::Systemd);
    assert_eq!(manager("turf --cgroup-manager=disabled --systemd-cgroup state a"), CgroupManager::Disabled);
}
