//! Every bound of this library by name, with the reason for its value.
//!
//! Nothing that a container, a seed or a file can grow is unbounded: a message, a buffer,
//! a wait. What a limit refuses is refused with an error that names the limit.

use std::time::Duration;

/// Longest container id, in bytes: it is a directory's name (`NAME_MAX`).
pub const CONTAINER_ID_BYTES: usize = 255;

/// Largest state.json that is read, in bytes. Ours are a few kilobytes; the compiled plan of a
/// bundle with hundreds of mounts and a large seccomp profile stays far below this.
pub const STATE_FILE_BYTES: u64 = 16 << 20;

/// Longest Unix socket path in bytes, without the terminating zero (unix(7): `sun_path`).
pub const SOCKET_PATH_BYTES: usize = 107;

/// How long `create` waits for init to reach the gate. Mounts of network file systems can be
/// slow; hooks have their own time limits and are not counted.
pub const INIT_READY: Duration = Duration::from_secs(60);

/// How long `start` waits until init listens to it: longer only if init is paused, or has been promised a worker by
/// somebody else.
pub const GATE_READY: Duration = Duration::from_secs(10);

/// How long `start` waits for the seed's answer to a fork request (normally about a millisecond,
/// but a busy machine may page the seed in).
pub const SEED_ANSWER: Duration = Duration::from_secs(20);

/// How long `start` waits for a forked worker to report that it runs.
pub const WORKER_RUNNING: Duration = Duration::from_secs(20);

/// How long `start` waits for an init that has closed its gate connection to have exited: the kernel
/// closes a process's descriptors just before it counts as exited.
pub const INIT_EXIT: Duration = Duration::from_secs(2);

/// How long `delete --force` and `kill --all` wait for killed processes to be gone. A process in an
/// uninterruptible system call dies only when that call returns.
pub const KILLED_PROCESSES_GONE: Duration = Duration::from_secs(10);

/// How long the removal of a control group is retried while the kernel still finds it busy: an
/// exited process leaves its group a little after its parent learns of the exit.
pub const CGROUP_REMOVAL: Duration = Duration::from_secs(5);

/// How long `pause` waits for every process to stop. A process in an uninterruptible system call
/// stops only when that call returns.
pub const FREEZE: Duration = Duration::from_secs(2);

/// How long a verb waits for the lock of a container that another verb holds. `create` holds it
/// through its hooks, so this is longer than [`INIT_READY`].
pub const CONTAINER_LOCK: Duration = Duration::from_secs(120);

/// How long a hook that helps to begin a container may go on when the container is ended by force: one that works is done
/// sooner, one that hangs shall not keep anybody for much longer.
pub const HOOK_OF_AN_ENDED_CONTAINER: Duration = Duration::from_millis(500);

/// The same for a `poststop` hook: it gives back what the others took, which may need a network.
pub const POSTSTOP_HOOK_OF_AN_ENDED_CONTAINER: Duration = Duration::from_secs(10);

/// Largest file of a control group that is read, in bytes: `cgroup.procs` of a group with
/// half a million processes.
pub const CGROUP_FILE_BYTES: u64 = 4 << 20;

/// Most listening sockets one container may be given.
pub const LISTENERS: usize = 32;

/// Longest name of a seed, in bytes: with the state directory before it and the socket's name behind
/// it, the path should fit [`SOCKET_PATH_BYTES`].
pub const SEED_NAME_BYTES: usize = 64;

/// How long a seed may take from its start until it listens: V8's warm-up takes well under a second,
/// a user's script in a userland seed may take its time.
pub const SEED_START: Duration = Duration::from_secs(60);

/// How long a command waits for another one that starts or stops the same seed; longer than
/// [`SEED_START`].
pub const SEED_LOCK: Duration = Duration::from_secs(90);

/// How long `turf seed list` waits for one seed, which may be busy forking.
pub const SEED_STAT: Duration = Duration::from_secs(5);

/// The limits of the control groups of a seed while its user code runs: memory for a large program, and no room for
/// processes, which a script has no way to make.
pub const SEED_WARMING: [(&str, u64); 3] =
    [("memory.limit_in_bytes", 1 << 30), ("memory.max", 1 << 30), ("pids.max", 8)];

/// The limits afterwards: page tables of all its workers (0.4 MB each) are charged to the seed, and those of them that are
/// just being born, or have a relay, are in its groups.
pub const SEED_SERVING: [(&str, u64); 3] =
    [("memory.limit_in_bytes", 4 << 30), ("memory.max", 4 << 30), ("pids.max", 4096)];

/// How long `turf seed promote` waits for the worker to be between two requests: longer than the worker itself, which then says
/// what stands against it.
pub const PROMOTION_QUIET: Duration = Duration::from_secs(10);

/// How long a worker that holds its clients waits for the terms of its promotion, which are on their way.
pub const PROMOTION_TERMS: Duration = Duration::from_secs(2);

/// How long a command waits for the table of tenants, which others hold for some system calls.
pub const TENANT_LOCK: Duration = Duration::from_secs(10);

/// How often a start that waits for its seed looks at it.
pub const SEED_LOOK: Duration = Duration::from_secs(1);

/// A seed that is found stopped (SIGSTOP, a debugger), and is so still at that many looks after it, is killed.
pub const SEED_LOOKS_STOPPED: u32 = 1;

/// A seed that is found asleep, and at that many looks after it has not been awake in between, is killed: requests wake it. More than the helper of a fork
/// takes in a container that is granted a thousandth of a processor; well below [`SEED_ANSWER`], so that there is time to ask another one.
pub const SEED_LOOKS_ASLEEP: u32 = 10;

/// The processor time of a seed for one request, and for what it does until the next one: a fork of a gigabyte that was written to takes a fiftieth of
/// it. A seed that uses more spins, and the kernel ends it.
pub const SEED_REQUEST_CPU: Duration = Duration::from_secs(1);

/// How many seeds a start asks, one after the other, when each ends before there is a worker.
pub const SEED_FORK_ATTEMPTS: usize = 4;

/// How long a seed that was told to stop, or killed, may take to be gone.
pub const SEED_STOP: Duration = Duration::from_secs(5);

/// How long a seed's control groups may go on having somebody in them after its end, before they are left behind.
pub const SEED_GROUPS: Duration = Duration::from_secs(1);

/// How long a seccomp agent may take to accept the descriptor of a process that waits for it.
pub const SECCOMP_AGENT: Duration = Duration::from_secs(10);

/// Longest metadata for a seccomp agent, in bytes: with the state it goes to the agent in one message, for
/// which a socket's buffer must have room.
pub const SECCOMP_METADATA_BYTES: usize = 32 << 10;

/// How long systemd may take for one call, or for the job that the call made; runc gives it as long.
pub const BUS_ANSWER: Duration = Duration::from_secs(30);

/// Longest line of a D-Bus's authentication, in bytes: a word and an identifier of 32 digits.
pub const BUS_LINE_BYTES: usize = 1024;

/// Longest message of a D-Bus that is read, in bytes: those of systemd to us are a few hundred.
pub const BUS_MESSAGE_BYTES: usize = 1 << 20;

/// Most signals that are kept while an answer is waited for: of all the units that end meanwhile, one is ours.
pub const BUS_SIGNALS: usize = 256;
