//! A worker that serves becomes the next seed of a name: `turf seed promote`.
//!
//! ```text
//!   client                         worker                       its clone
//!     | connect ------------------> |                              |
//!     |                             | holds its clients, drains    |
//!     | <------------- Quiet -----  |                              |
//!     | Terms, descriptors -------> | fork ----------------------> |
//!     |                             | serves on                    | forgets listeners, clients, environment
//!     | <---------------------------------------------- Born ----- |
//!     | control groups, state.json                                 |
//!     | go on ---------------------------------------------------> |
//!     |                                                            | `serialize`, garbage, rehearsal
//!     | <---------------------------------------------- Ready ---- |
//!     | go on ---------------------------------------------------> | serves forks
//!     | asks it how it is, gives it the name, ends the old seed
//! ```
//!
//! Nothing is taken from the worker: the seed is a clone of its process. Until the name changes hands the old seed has it; a clone
//! whose client is gone ends. Each message is a packet as in [`super::protocol`]; `Refused` may come in the place of any answer.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::client::{ClientError, SeedClient, receive_from_process};
use super::directory::{NameDir, Recipe, SeedDir, SeedSource, SeedState};
use super::groups::{self, Member};
use super::name::SeedName;
use super::protocol::{self, MAX_PACKET, ProtocolError, Refusal};
use super::registry::Registry;
use super::spawn;
use crate::error::{Error, Operation, Result};
use crate::fault::{self, Point};
use crate::limits;
use crate::sandbox::seccomp_agent;
use crate::sys::socket;

/// The socket's name in the container's directory.
pub const SOCKET_NAME: &str = "promote.sock";

/// One asks at a time.
const BACKLOG: i32 = 1;

/// What the worker or its clone says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The worker may be cloned.
    Quiet,
    /// The clone exists and waits.
    Born,
    /// The clone can be forked, and waits.
    Ready,
    /// There will be no seed; the worker serves as before.
    Refused(Refusal),
}

/// What kind of seed the clone is to be. With it come [`TermsFds`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// The seed's name.
    pub name: String,
    /// Its directory, for messages.
    pub directory: PathBuf,
    /// How it is described, and when it is due.
    pub recipe: Recipe,
}

/// The descriptors that come with [`Terms`], in this order.
#[derive(Debug)]
pub struct TermsFds {
    /// Where the seed listens.
    pub control: OwnedFd,
    /// The lock that says that it lives.
    pub alive: OwnedFd,
    /// Its log.
    pub log: OwnedFd,
    /// `/dev/null`.
    pub null: OwnedFd,
}

/// Listens where the worker of a container is asked; in place of a former worker's socket.
pub fn listen(directory: &Path) -> Result<OwnedFd> {
    let path = directory.join(SOCKET_NAME);
    let failed = || format!("listen on {}", path.display());
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        removed => removed.operation(failed)?,
    }
    let listener = socket::seqpacket().operation(failed)?;
    // The directory is its owner's alone.
    socket::bind_long(listener.as_fd(), &path).operation(failed)?;
    socket::listen(listener.as_fd(), BACKLOG).operation(failed)?;
    Ok(listener)
}

/// Connects to a worker that may become a seed.
pub fn connect(directory: &Path) -> Result<OwnedFd> {
    let path = directory.join(SOCKET_NAME);
    let failed = || format!("connect to the worker at {}", path.display());
    let connection = socket::seqpacket().operation(failed)?;
    nix::sys::socket::setsockopt(&connection, nix::sys::socket::sockopt::PassCred, &true)
        .operation(failed)?;
    // A full queue is somebody else's promotion: waited for as long as that may take.
    socket::set_timeout(connection.as_fd(), limits::PROMOTION_QUIET).operation(failed)?;
    socket::connect_long(connection.as_fd(), &path).operation(failed)?;
    Ok(connection)
}

/// The worker's side: takes the terms. The connection does not wait longer than [`limits::PROMOTION_TERMS`].
pub fn receive_terms(connection: BorrowedFd<'_>) -> std::result::Result<(Terms, TermsFds), Refusal> {
    const STEP: &str = "receive terms";
    let failed = |error: std::io::Error| Refusal::from_io(STEP, "receive the terms of a promotion", &error);
    let refused = |error: ProtocolError| Refusal::new(STEP, error.to_string());
    socket::set_timeout(connection, limits::PROMOTION_TERMS).map_err(failed)?;
    let buffer = &mut vec![0; MAX_PACKET];
    let packet = socket::recv_packet(connection, buffer).map_err(failed)?;
    if packet.len == 0 {
        return Err(Refusal::new(STEP, "the client has gone"));
    }
    if packet.truncated || packet.fds_truncated {
        return Err(refused(if packet.truncated { ProtocolError::TooLong } else { ProtocolError::FdsLost }));
    }
    let terms = protocol::decode(&buffer[..packet.len]).map_err(refused)?;
    let carried = packet.fds.len();
    match <[OwnedFd; 4]>::try_from(packet.fds) {
        Ok([control, alive, log, null]) => Ok((terms, TermsFds { control, alive, log, null })),
        Err(_) => Err(refused(ProtocolError::FdCount { named: 4, carried })),
    }
}

/// The worker's side, or the clone's: answers.
pub fn answer(connection: BorrowedFd<'_>, answer: &Answer) -> std::io::Result<()> {
    let packet = protocol::encode(answer).map_err(std::io::Error::other)?;
    socket::send_packet(connection, &packet, &[])
}

/// The clone's side: answers, and returns when it is told to go on.
pub fn answer_and_wait(connection: BorrowedFd<'_>, answer: &Answer) -> std::io::Result<()> {
    let packet = protocol::encode(answer).map_err(std::io::Error::other)?;
    seccomp_agent::hand_over(connection, &packet)
}

impl Registry {
    /// Makes the worker at the other end of `worker` the seed of a name. The old seed of the name, if there is one, serves
    /// until the new one does.
    pub fn promote(&self, name: &SeedName, container: &str, worker: OwnedFd) -> Result<SeedState> {
        let _lock = self.lock(name)?;
        let directory = self.directory(name);
        let known = directory.recipe()?;
        if known.as_ref().is_some_and(|recipe| recipe.source == SeedSource::BuiltIns) {
            let reason = "was started without user code: what was created for it could not be entered";
            return Err(Error::invalid(format!("seed {name}"), reason));
        }
        // What another seed of the name would be made from is kept, and so is when that is to be.
        let source = SeedSource::Promoted(container.to_owned());
        let recipe = match known {
            Some(known) => Recipe { source, ..known },
            None => source.into(),
        };
        self.end_all_but(name, directory.current_generation()?.as_ref())?;
        let generation = directory.make_generation()?;
        let promotion = Promotion { worker, name, generation: &generation, recipe };
        let state = match promotion.run(&directory, self.tenant(name)?.owner()) {
            Ok(state) => state,
            Err(error) => return Err(error.and_clean_up(self.end(name, &generation))),
        };
        directory.switch_to(&generation)?;
        fault::at(Point::PromoteNamed)?;
        self.end_all_but(name, Some(&generation))?;
        Ok(state)
    }
}

/// A promotion on its way.
struct Promotion<'a> {
    worker: OwnedFd,
    name: &'a SeedName,
    generation: &'a SeedDir,
    recipe: Recipe,
}

impl Promotion<'_> {
    /// When it returns nobody of this process holds anything of the seed's.
    fn run(self, directory: &NameDir, tenant: u32) -> Result<SeedState> {
        self.expect(&Answer::Quiet, limits::PROMOTION_QUIET)?;
        fault::at(Point::PromoteQuiet)?;
        self.send_terms(directory)?;
        let (pid, uid) = self.expect(&Answer::Born, limits::SEED_ANSWER)?;
        if uid != tenant {
            let reason = format!("is user {uid} and not {tenant}, its tenant's");
            return Err(Error::invalid("the worker's clone", reason));
        }
        let state = SeedState { pid, source: self.recipe.source.clone() };
        self.generation.write_state(&state)?;
        fault::at(Point::PromoteBorn)?;
        let group = groups::name_of_tenant(self.name.as_str(), tenant, self.generation.path());
        let groups = groups::enter(Member::Process(pid), &group, &limits::SEED_WARMING);
        self.generation.write_groups(&groups.directories)?;
        if !groups.left.is_empty() {
            // In its container's groups it would end with the container.
            return Err(Error::invalid(format!("process {pid}"), groups.left.join("; ")));
        }
        self.go_on()?;
        let limit = self.recipe.start_timeout_ms.map_or(limits::SEED_START, Duration::from_millis);
        self.expect(&Answer::Ready, limit)?;
        spawn::serve(&groups.directories)?;
        fault::at(Point::PromoteReady)?;
        self.go_on()?;
        let client = SeedClient::connect_within(&self.generation.control(), limits::SEED_STAT)?;
        client.stat()?;
        fault::at(Point::PromoteServing)?;
        Ok(state)
    }

    fn send_terms(&self, directory: &NameDir) -> Result<()> {
        let context = || format!("make the files of {}", self.generation.path().display());
        let control = self.generation.control();
        let listener = socket::seqpacket().operation(context)?;
        socket::bind_long(listener.as_fd(), &control).operation(context)?;
        socket::listen(listener.as_fd(), super::SEED_BACKLOG).operation(context)?;
        let alive = self.generation.claim()?;
        let log = directory.open_log()?;
        let null = OpenOptions::new().read(true).write(true).open("/dev/null");
        let null: File = null.operation(|| "open /dev/null")?;
        let terms = Terms {
            name: self.name.as_str().to_owned(),
            directory: self.generation.path().to_owned(),
            recipe: self.recipe.clone(),
        };
        let packet = protocol::encode(&terms).map_err(ClientError::from)?;
        let fds = [listener.as_fd(), alive.as_fd(), log.as_fd(), null.as_fd()];
        socket::send_packet(self.worker.as_fd(), &packet, &fds)
            .operation(|| "send the worker the terms of its promotion")
    }

    /// Waits for this answer; who has given it, as the kernel knows: pid and user.
    fn expect(&self, wanted: &Answer, limit: Duration) -> Result<(i32, u32)> {
        const WHO: &str = "the worker that is to become a seed";
        let (answer, pid, uid) = receive_from_process::<Answer>(self.worker.as_fd(), limit, WHO)?;
        match answer {
            Answer::Refused(refusal) => Err(Error::Remote { text: refusal.text }),
            answer if answer == *wanted => Ok((pid, uid)),
            Answer::Quiet | Answer::Born | Answer::Ready => Err(ClientError::Unexpected.into()),
        }
    }

    fn go_on(&self) -> Result<()> {
        seccomp_agent::go_on(self.worker.as_fd()).operation(|| "tell the worker's clone to go on")
    }
}
