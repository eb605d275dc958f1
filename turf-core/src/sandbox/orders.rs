//! Writing orders: what a process inside the sandbox is to do to itself, as one block of memory.
//!
//! The form is `turf_init::orders`. Everything is decided here: a call has its number and its arguments, a
//! failure its words. Who performs them is init's small program, or a forked worker.

use std::os::fd::{AsRawFd, RawFd};

use turf_init::calls::{self, Failure};
use turf_init::orders::{Call, Kind, MARK, Orders, Task};
use turf_init::sys::{Block, Errno};

use super::enter::HandOver;
use super::step::StepError;

/// An argument of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Argument {
    /// As it stands.
    Number(u64),
    /// A place in the block.
    Pointer(Place),
}

/// Where in the block something lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(u32);

impl From<Place> for Argument {
    fn from(place: Place) -> Argument {
        Argument::Pointer(place)
    }
}

impl From<u64> for Argument {
    fn from(number: u64) -> Argument {
        Argument::Number(number)
    }
}

impl From<u32> for Argument {
    fn from(number: u32) -> Argument {
        Argument::Number(u64::from(number))
    }
}

impl From<i32> for Argument {
    /// Signed numbers go to the kernel with their sign.
    fn from(number: i32) -> Argument {
        Argument::Number(i64::from(number) as u64)
    }
}

impl From<usize> for Argument {
    fn from(number: usize) -> Argument {
        Argument::Number(number as u64)
    }
}

/// Orders in the making.
#[derive(Debug)]
pub(crate) struct Builder {
    /// The block so far; its beginning is filled in at the end.
    bytes: Vec<u8>,
    /// Offsets of the pointers in the block.
    pointers: Vec<u32>,
    calls: Vec<PendingCall>,
}

#[derive(Debug)]
struct PendingCall {
    kind: Kind,
    number: i64,
    arguments: Vec<Argument>,
    step: (Place, u32),
    tolerated: i32,
}

/// A program to become, with everything execve(2) takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProgramOrders {
    programs: Place,
    arguments: Place,
    environment: Place,
}

/// What the beginning of orders says besides the calls.
#[derive(Debug)]
pub(crate) struct Head {
    /// What to do.
    pub(crate) task: Task,
    /// The gate's listener.
    pub(crate) listener: Option<RawFd>,
    /// Whom to talk to.
    pub(crate) talk: Option<RawFd>,
    /// The program to become.
    pub(crate) program: Option<ProgramOrders>,
}

impl Head {
    /// Of orders that are performed where they are written.
    fn in_place() -> Head {
        Head { task: Task::Join, listener: None, talk: None, program: None }
    }
}

/// No descriptor.
const NONE: RawFd = -1;

impl Builder {
    pub(crate) fn new() -> Builder {
        Builder { bytes: vec![0; size_of::<Orders>()], pointers: Vec::new(), calls: Vec::new() }
    }

    /// Puts data into the block, aligned to eight bytes.
    pub(crate) fn data(&mut self, data: &[u8]) -> Place {
        self.align();
        self.place(data)
    }

    /// Puts words into the block.
    pub(crate) fn words(&mut self, words: &[u64]) -> Place {
        self.align();
        let place = self.place(&[]);
        words.iter().for_each(|word| self.bytes.extend_from_slice(&word.to_le_bytes()));
        place
    }

    /// Puts a terminated string into the block; what is behind a zero byte is refused.
    pub(crate) fn string(&mut self, step: &str, text: &[u8]) -> Result<Place, StepError> {
        if text.contains(&0) {
            return Err(StepError::refused(step, "holds a zero byte"));
        }
        let place = self.place(text);
        self.bytes.push(0);
        Ok(place)
    }

    /// Puts pointers into the block.
    fn list(&mut self, places: &[Place]) -> Place {
        self.align();
        let list = self.place(&[]);
        for place in places {
            self.pointer(*place);
        }
        self.bytes.extend_from_slice(&0_u64.to_le_bytes());
        list
    }

    /// Puts a structure that begins with a number and ends with a pointer into the block (`struct sock_fprog`).
    pub(crate) fn number_and_pointer(&mut self, number: u64, pointer: Place) -> Place {
        let place = self.words(&[number]);
        self.pointer(pointer);
        place
    }

    /// A system call, by its `SYS_*` number. Answers a handle to say what it tolerates.
    pub(crate) fn system(&mut self, step: &str, number: i64, arguments: &[Argument]) -> &mut Builder {
        self.call(Kind::System, step, number, arguments)
    }

    /// A call of another kind than [`Kind::System`].
    pub(crate) fn call(
        &mut self,
        kind: Kind,
        step: &str,
        number: i64,
        arguments: &[Argument],
    ) -> &mut Builder {
        let place = self.place(step.as_bytes());
        let step = (place, u32::try_from(step.len()).unwrap_or(0));
        let arguments = arguments.to_vec();
        self.calls.push(PendingCall { kind, number, arguments, step, tolerated: 0 });
        self
    }

    /// Lets the last call fail with this error number.
    pub(crate) fn tolerate(&mut self, errno: i32) {
        if let Some(call) = self.calls.last_mut() {
            call.tolerated = errno;
        }
    }

    /// The program to become: its paths in the order they are tried, arguments and environment.
    pub(crate) fn program<'a>(
        &mut self,
        programs: impl Iterator<Item = &'a [u8]>,
        arguments: impl Iterator<Item = &'a [u8]>,
        environment: impl Iterator<Item = &'a [u8]>,
    ) -> Result<ProgramOrders, StepError> {
        let step = "prepare the program";
        let mut list = |texts: &mut dyn Iterator<Item = &'a [u8]>| -> Result<Place, StepError> {
            let places = texts.map(|text| self.string(step, text)).collect::<Result<Vec<_>, _>>()?;
            Ok(self.list(&places))
        };
        let (mut programs, mut arguments, mut environment) = (programs, arguments, environment);
        Ok(ProgramOrders {
            programs: list(&mut programs)?,
            arguments: list(&mut arguments)?,
            environment: list(&mut environment)?,
        })
    }

    /// The finished block.
    pub(crate) fn finish(mut self, head: &Head) -> Vec<u64> {
        let calls = self.write_calls();
        let beginning = self.write_relocations_and_head(head, calls);
        self.bytes[..beginning.len()].copy_from_slice(&beginning);
        self.align();
        let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        self.bytes.chunks(8).map(word).collect()
    }

    /// Performs the calls in this process.
    pub(crate) fn perform(self, agent: HandOver<'_>) -> Result<(), StepError> {
        let mut words = self.finish(&Head::in_place());
        let block = Block::relocate(&mut words);
        let block = block.ok_or_else(|| StepError::refused("read orders", "they are of another form"))?;
        let mut hand_over = |fd| {
            // Only an error number travels from a process that the filter may have in its grip already.
            agent(fd).map_err(|error| Errno(error.raw_os_error().unwrap_or(libc::EIO)))
        };
        calls::perform(&block, &mut hand_over).map_err(|failure| step_error(&failure))
    }

    /// Calls have the layout of [`Call`]: two halves of a word, seven words, two halves.
    fn write_calls(&mut self) -> (Place, u64) {
        const _: () = assert!(size_of::<Call>() == 72 && size_of::<Orders>() == 80);
        let calls = std::mem::take(&mut self.calls);
        self.align();
        let place = self.place(&[]);
        for call in &calls {
            self.bytes.extend_from_slice(&(call.kind as u32).to_le_bytes());
            self.bytes.extend_from_slice(&(call.number as u32).to_le_bytes());
            for index in 0..6 {
                match call.arguments.get(index).copied().unwrap_or(Argument::Number(0)) {
                    Argument::Number(number) => self.bytes.extend_from_slice(&number.to_le_bytes()),
                    Argument::Pointer(place) => self.pointer(place),
                }
            }
            self.pointer(call.step.0);
            self.bytes.extend_from_slice(&call.step.1.to_le_bytes());
            self.bytes.extend_from_slice(&call.tolerated.to_le_bytes());
        }
        (place, calls.len() as u64)
    }

    /// The beginning has the layout of [`Orders`]; its pointers are the last relocations.
    fn write_relocations_and_head(&mut self, head: &Head, (calls, call_count): (Place, u64)) -> Vec<u8> {
        let program = head.program;
        let pointers = [
            (5, Some(calls)),
            (7, program.map(|program| program.programs)),
            (8, program.map(|program| program.arguments)),
            (9, program.map(|program| program.environment)),
        ];
        let mut words = [0_u64; 10];
        for (index, place) in pointers {
            if let Some(Place(offset)) = place {
                words[index] = u64::from(offset);
                self.pointers.push(8 * index as u32);
            }
        }
        let half = |low: i32, high: i32| u64::from(low as u32) | u64::from(high as u32) << 32;
        let fd = |fd: Option<RawFd>| fd.unwrap_or(NONE);
        let relocations: Vec<u8> = self.pointers.iter().flat_map(|offset| offset.to_le_bytes()).collect();
        words[0] = MARK;
        words[1] = u64::from(self.data(&relocations).0);
        words[2] = self.pointers.len() as u64;
        words[3] = half(head.task as i32, fd(head.listener));
        words[4] = half(fd(head.talk), 0);
        words[6] = call_count;
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn place(&mut self, data: &[u8]) -> Place {
        // A block is as large as a bundle's arguments, environment and filter: far below 4 GiB.
        let place = Place(self.bytes.len() as u32);
        self.bytes.extend_from_slice(data);
        place
    }

    fn pointer(&mut self, place: Place) {
        self.pointers.push(self.bytes.len() as u32);
        self.bytes.extend_from_slice(&u64::from(place.0).to_le_bytes());
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
    }
}

fn step_error(failure: &Failure<'_>) -> StepError {
    let step = String::from_utf8_lossy(failure.step).into_owned();
    if failure.text.is_empty() {
        return StepError::new(step, std::io::Error::from_raw_os_error(failure.errno));
    }
    StepError { step, errno: failure.errno, text: String::from_utf8_lossy(failure.text).into_owned() }
}

/// A descriptor as an argument; it must stay open until the call.
pub(crate) fn descriptor(fd: &impl AsRawFd) -> Argument {
    Argument::from(fd.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(block: &Block<'_>, list: u64) -> Vec<String> {
        let word = |index: u64| u64::from_le_bytes(block.words(list + 8 * index, 8).try_into().unwrap());
        let pointers = (0_u64..).map(word).take_while(|pointer| *pointer != 0);
        pointers.map(|pointer| String::from_utf8_lossy(block.string(pointer)).into_owned()).collect()
    }

    #[test]
    fn what_was_written_is_read_wherever_the_block_lies() {
        let mut builder = Builder::new();
        let text = builder.string("x", b"/some/where").unwrap();
        builder.system("change", libc::SYS_chdir, &[text.into(), Argument::from(-1)]).tolerate(libc::EPERM);
        let program = builder
            .program(
                [&b"/bin/sh"[..], b"/sh"].into_iter(),
                [&b"sh"[..]].into_iter(),
                [&b"A=1"[..], b"B=2"].into_iter(),
            )
            .unwrap();
        let head = Head { task: Task::Worker, listener: Some(5), talk: Some(7), program: Some(program) };
        // Moved once before it is relocated.
        let mut words = builder.finish(&head).clone();
        let block = Block::relocate(&mut words).unwrap();
        let orders = block.orders();
        assert_eq!((orders.task, orders.listener, orders.talk), (1, 5, 7));
        let [call] = block.calls() else { panic!("{:?}", block.calls()) };
        assert_eq!((call.kind, i64::from(call.number), call.tolerated), (0, libc::SYS_chdir, libc::EPERM));
        assert_eq!(
            (block.step(call), block.string(call.arguments[0])),
            (&b"change"[..], &b"/some/where"[..])
        );
        assert_eq!(call.arguments[1..], [u64::MAX, 0, 0, 0, 0]);
        let programs: Vec<_> = block.programs().map(|pointer| block.string(pointer)).collect();
        assert_eq!(programs, [&b"/bin/sh"[..], b"/sh"]);
        assert_eq!(strings(&block, orders.arguments), ["sh"]);
        assert_eq!(strings(&block, orders.environment), ["A=1", "B=2"]);
    }

    #[test]
    fn a_zero_byte_is_refused() {
        assert!(Builder::new().string("x", b"a\0b").is_err());
    }

    #[test]
    fn a_block_of_another_form_is_refused() {
        let mut words = Builder::new().finish(&Head::in_place());
        words[0] += 1;
        assert!(Block::relocate(&mut words).is_none());
        assert!(Block::relocate(&mut [MARK]).is_none());
    }

    #[test]
    fn pointers_that_lead_out_are_refused() {
        let written = || {
            let mut builder = Builder::new();
            let text = builder.string("x", b"/").unwrap();
            builder.system("change", libc::SYS_chdir, &[text.into()]);
            builder.finish(&Head::in_place())
        };
        let beginning = size_of::<Orders>() / 8;
        let mut refused = 0;
        for index in 0..written().len() {
            for value in [u64::MAX, 1 << 40, 0x7fff_ffff] {
                let mut words = written();
                words[index] = value;
                refused += usize::from(Block::relocate(&mut words).is_none());
                // What is accepted can be read without leaving the block.
                let mut words = written();
                words[index] = value;
                if let Some(block) = Block::relocate(&mut words) {
                    let seen: usize = block.calls().iter().map(|call| block.step(call).len()).sum();
                    assert!(seen < 8 * words.len());
                }
            }
        }
        assert!(refused > 3 * beginning / 2, "{refused}");
    }

    #[test]
    fn the_first_call_that_fails_is_named_and_tolerated_ones_are_not() {
        let mut builder = Builder::new();
        builder.system("close nothing", libc::SYS_close, &[Argument::from(-1)]).tolerate(libc::EBADF);
        builder.call(Kind::SystemOrNext, "one way", libc::SYS_getpid, &[]);
        builder.system("the other way", libc::SYS_close, &[Argument::from(-1)]);
        builder.call(Kind::SystemOrNext, "a way that fails", libc::SYS_close, &[Argument::from(-1)]);
        builder.system("close again", libc::SYS_close, &[Argument::from(-1)]);
        let error = builder.perform(&mut |_| Ok(())).unwrap_err();
        assert_eq!((error.step.as_str(), error.errno), ("close again", libc::EBADF));
    }
}
