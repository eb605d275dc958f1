//! One HTTP/1.x connection as a state machine that is fed with bytes and
//! writes bytes: no socket, no clock, no JavaScript.
//!
//! ```text
//!            head complete               response ended, body read
//!   +------+ ------------> +----------+ ---------------------------> Idle
//!   | Idle |               | Exchange |    response ended, rest of the body is small
//!   +------+               +----------+ ---------------------------> Discard --> Idle
//!       | refused               | response ended without keep-alive, body broken
//!       v                       v
//!    Closing  <-----------------+       (linger: the client may still be sending)
//! ```
//!
//! One exchange at a time: a pipelined request waits, unparsed, until the
//! response before it has ended, so responses cannot change places.

use std::ops::Range;

use super::chunked::ChunkedDecoder;
use super::date::DATE_LEN;
use super::head::{self, BodyFraming, Head, HeaderSpans, Parsed};
use super::limits::MAX_DISCARD_BYTES;
use super::response::{
    self, BadField, BodySize, DefaultType, FieldBlock, Framing, Promise, RequestTraits, ResponseHead,
};

/// What the input turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing more can be made of this input; what was not consumed must be kept.
    NeedInput,
    /// A request; an exchange has begun.
    Request(Head),
    /// Bytes of the request's body, as a range of the input.
    Data(Range<usize>),
    /// The request's body is complete.
    BodyEnd,
    /// The input must wait for [`Connection::want_body`] or the end of the response.
    Hold,
    /// The head is refused with this status; answer with [`Connection::refuse`].
    Refuse(u16),
    /// The request's body is broken or too large. The exchange goes on, its
    /// response may have this status, and the connection cannot be kept.
    BodyFailed(u16),
    /// The connection is closing: input is of no interest.
    Ignore,
}

/// An event and how much of the input is done with.
#[derive(Debug, PartialEq, Eq)]
pub struct Advance {
    /// Bytes the caller must not present again.
    pub consumed: usize,
    /// What they were.
    pub event: Event,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Exchange,
    /// The response has ended; at most so many more bytes of the body are dropped.
    Discard(u64),
    Closing,
}

/// Delimits the request's body.
#[derive(Debug)]
enum BodyDecoder {
    Done,
    Length(u64),
    Chunked(ChunkedDecoder),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Response {
    NotStarted,
    Started(Framing),
    Ended,
}

/// What is to be done with the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Go on feeding.
    Open,
    /// Close once the output is sent: the client has nothing left to say.
    Close,
    /// Send the output, shut down writing, drop input until the client closes.
    Linger,
}

/// The response's body was not what its head promised; the connection must be
/// cut, so that the client sees an incomplete message.
#[derive(Debug, PartialEq, Eq)]
pub struct BrokenPromise;

/// See the module's documentation.
#[derive(Debug)]
pub struct Connection {
    phase: Phase,
    body: BodyDecoder,
    body_wanted: bool,
    body_bytes: u64,
    traits: RequestTraits,
    /// The client waits for `100 Continue` and has not got it.
    awaits_continue: bool,
    response: Response,
    linger: bool,
}

impl Default for Connection {
    fn default() -> Self {
        Connection {
            phase: Phase::Idle,
            body: BodyDecoder::Done,
            body_wanted: false,
            body_bytes: 0,
            traits: RequestTraits { minor: 1, is_head: false, keep_alive: true },
            awaits_continue: false,
            response: Response::NotStarted,
            linger: false,
        }
    }
}

impl Connection {
    /// Takes one event out of `input`. `headers` is filled for [`Event::Request`].
    pub fn advance(&mut self, input: &[u8], headers: &mut HeaderSpans, max_body: u64) -> Advance {
        match self.phase {
            Phase::Idle => self.advance_head(input, headers, max_body),
            Phase::Exchange => self.advance_body(input, max_body),
            Phase::Discard(budget) => self.advance_discard(input, budget),
            Phase::Closing => Advance { consumed: input.len(), event: Event::Ignore },
        }
    }

    fn advance_head(&mut self, input: &[u8], headers: &mut HeaderSpans, max_body: u64) -> Advance {
        if input.is_empty() {
            return Advance { consumed: 0, event: Event::NeedInput };
        }
        let head = match head::parse(input, headers) {
            Parsed::Partial => return Advance { consumed: 0, event: Event::NeedInput },
            Parsed::Refused(status) => return Advance { consumed: 0, event: Event::Refuse(status) },
            Parsed::Complete(head) => head,
        };
        self.traits = RequestTraits { minor: head.minor, is_head: head.is_head, keep_alive: head.keep_alive };
        self.body = match head.framing {
            BodyFraming::None => BodyDecoder::Done,
            BodyFraming::Length(length) if length > max_body => {
                return Advance { consumed: head.len, event: Event::Refuse(413) };
            }
            BodyFraming::Length(length) => BodyDecoder::Length(length),
            BodyFraming::Chunked => BodyDecoder::Chunked(ChunkedDecoder::default()),
        };
        self.phase = Phase::Exchange;
        self.body_wanted = false;
        self.body_bytes = 0;
        self.awaits_continue = head.expects_continue;
        self.response = Response::NotStarted;
        Advance { consumed: head.len, event: Event::Request(head) }
    }

    fn advance_body(&mut self, input: &[u8], max_body: u64) -> Advance {
        if matches!(self.body, BodyDecoder::Done) || !self.body_wanted {
            let event = if input.is_empty() { Event::NeedInput } else { Event::Hold };
            return Advance { consumed: 0, event };
        }
        let (consumed, data, done) = match self.decode_body(input) {
            Ok(step) => step,
            Err(status) => return self.fail_body(status),
        };
        self.body_bytes += data.len() as u64;
        if self.body_bytes > max_body {
            return self.fail_body(413);
        }
        let event = match (data.is_empty(), done) {
            // The end of the data is reported by the next call, without input.
            (false, _) => Event::Data(data),
            (true, true) => Event::BodyEnd,
            (true, false) => Event::NeedInput,
        };
        if event == Event::BodyEnd {
            self.body = BodyDecoder::Done;
        }
        Advance { consumed, event }
    }

    /// Bytes consumed, the data among them, and whether the body is at its end.
    fn decode_body(&mut self, input: &[u8]) -> Result<(usize, Range<usize>, bool), u16> {
        match &mut self.body {
            BodyDecoder::Done => Ok((0, 0..0, true)),
            BodyDecoder::Length(left) => {
                let len = (*left).min(input.len() as u64) as usize;
                *left -= len as u64;
                Ok((len, 0..len, *left == 0))
            }
            BodyDecoder::Chunked(decoder) => {
                let step = decoder.decode(input).map_err(|_| 400u16)?;
                Ok((step.consumed, step.data, step.done))
            }
        }
    }

    fn fail_body(&mut self, status: u16) -> Advance {
        self.body = BodyDecoder::Done;
        self.traits.keep_alive = false;
        self.linger = true;
        Advance { consumed: 0, event: Event::BodyFailed(status) }
    }

    fn advance_discard(&mut self, input: &[u8], budget: u64) -> Advance {
        let mut consumed = 0;
        while let Ok((used, _, done)) = self.decode_body(&input[consumed..]) {
            consumed += used;
            if done {
                self.body = BodyDecoder::Done;
                self.phase = Phase::Idle;
                return Advance { consumed, event: Event::BodyEnd };
            }
            if consumed as u64 > budget {
                break;
            }
            if consumed == input.len() {
                self.phase = Phase::Discard(budget - consumed as u64);
                return Advance { consumed, event: Event::NeedInput };
            }
        }
        self.close(Fate::Linger);
        Advance { consumed: input.len(), event: Event::Ignore }
    }

    /// The handler asks for the body; `true` if it is not complete yet.
    /// Appends `100 Continue` if the client waits for it.
    pub fn want_body(&mut self, out: &mut Vec<u8>) -> bool {
        if self.phase != Phase::Exchange || matches!(self.body, BodyDecoder::Done) {
            return false;
        }
        self.body_wanted = true;
        if self.awaits_continue && self.response == Response::NotStarted {
            self.awaits_continue = false;
            out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        true
    }

    /// The handler's buffer is full: body input waits until [`Self::want_body`].
    pub fn hold_body(&mut self) {
        self.body_wanted = false;
    }

    /// The bytes of the body that are still to come, where that is known.
    pub fn body_left(&self) -> Option<u64> {
        match self.body {
            BodyDecoder::Done => Some(0),
            BodyDecoder::Length(left) => Some(left),
            BodyDecoder::Chunked(_) => None,
        }
    }

    /// Input for this connection is of use: its bytes would be parsed.
    pub fn is_hungry(&self) -> bool {
        match self.phase {
            Phase::Idle | Phase::Discard(_) | Phase::Closing => true,
            Phase::Exchange => self.body_wanted && !matches!(self.body, BodyDecoder::Done),
        }
    }

    /// A request is being answered.
    pub fn in_exchange(&self) -> bool {
        self.phase == Phase::Exchange
    }

    /// Between two requests, or before the first.
    pub fn is_idle(&self) -> bool {
        self.phase == Phase::Idle
    }

    /// The head of the response has not been written.
    pub fn may_respond(&self) -> bool {
        self.phase == Phase::Exchange && self.response == Response::NotStarted
    }

    /// The head is written and the end of the body is not.
    pub fn is_responding(&self) -> bool {
        self.phase == Phase::Exchange && matches!(self.response, Response::Started(_))
    }

    /// The connection is not to be kept after this exchange (drain).
    pub fn forbid_keep_alive(&mut self) {
        self.traits.keep_alive = false;
    }

    /// Writes the head of the response. The body follows by [`Self::write_body`]
    /// (or by the caller, exactly `Framing::Length`), then [`Self::end_response`].
    pub fn respond(
        &mut self,
        out: &mut Vec<u8>,
        head: &ResponseHead<'_>,
        date: &[u8; DATE_LEN],
    ) -> Result<Framing, BadField> {
        assert!(self.may_respond(), "a response has already begun");
        // A stream's source may still read the body: that is decided at its end.
        if head.body != BodySize::Stream && self.must_close() {
            self.traits.keep_alive = false;
        }
        let Promise { framing, keep_alive } = response::write_head(out, head, self.traits, date)?;
        self.traits.keep_alive = keep_alive;
        self.response = Response::Started(framing);
        Ok(framing)
    }

    /// The body cannot be read to its end after the response: it was never
    /// asked for with `100 Continue`, or it is too long to drop.
    fn must_close(&self) -> bool {
        let too_long = self.body_left().is_some_and(|left| left > MAX_DISCARD_BYTES);
        !matches!(self.body, BodyDecoder::Done) && (self.awaits_continue || too_long)
    }

    /// Writes a piece of the response's body in the promised framing.
    pub fn write_body(&mut self, out: &mut Vec<u8>, data: &[u8]) -> Result<(), BrokenPromise> {
        let Response::Started(framing) = &mut self.response else { return Err(BrokenPromise) };
        match framing {
            Framing::NoBody => {}
            Framing::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(BrokenPromise)?;
                out.extend_from_slice(data);
            }
            Framing::Chunked if data.is_empty() => {}
            Framing::Chunked => {
                response::write_chunk_size(out, data.len());
                out.extend_from_slice(data);
                out.extend_from_slice(b"\r\n");
            }
            Framing::UntilClose => out.extend_from_slice(data),
        }
        Ok(())
    }

    /// The caller has written the whole body of `Framing::Length` itself.
    pub fn body_was_written(&mut self) {
        if let Response::Started(Framing::Length(left)) = &mut self.response {
            *left = 0;
        }
    }

    /// Ends the response and decides what becomes of the connection.
    pub fn end_response(&mut self, out: &mut Vec<u8>) -> Result<Fate, BrokenPromise> {
        match self.response {
            Response::Started(Framing::Length(left)) if left > 0 => return Err(BrokenPromise),
            Response::Started(Framing::Chunked) => out.extend_from_slice(b"0\r\n\r\n"),
            Response::Started(_) => {}
            Response::NotStarted | Response::Ended => return Err(BrokenPromise),
        }
        self.response = Response::Ended;
        let body_done = matches!(self.body, BodyDecoder::Done);
        Ok(match (self.traits.keep_alive, body_done) {
            (true, true) => {
                self.phase = Phase::Idle;
                Fate::Open
            }
            (true, false) if !self.must_close() => {
                self.phase = Phase::Discard(MAX_DISCARD_BYTES);
                Fate::Open
            }
            (false, true) if !self.linger => self.close(Fate::Close),
            (true, false) | (false, _) => self.close(Fate::Linger),
        })
    }

    fn close(&mut self, fate: Fate) -> Fate {
        self.phase = Phase::Closing;
        fate
    }

    /// Writes a complete answer of the server's own and closes: to a head that
    /// was refused, or to a request whose handler will not answer any more.
    pub fn refuse(&mut self, out: &mut Vec<u8>, status: u16, date: &[u8; DATE_LEN]) -> Fate {
        let text = response::reason_phrase(status).as_bytes();
        let head = ResponseHead {
            status,
            reason: b"",
            fields: FieldBlock::EMPTY,
            default_type: DefaultType::Text,
            body: BodySize::Known(text.len() as u64),
        };
        let traits = RequestTraits { keep_alive: false, ..self.traits };
        let written = response::write_head(out, &head, traits, date);
        assert!(written.is_ok(), "the server's own head is valid");
        if !traits.is_head {
            out.extend_from_slice(text);
        }
        self.response = Response::Ended;
        self.body = BodyDecoder::Done;
        self.close(Fate::Linger)
    }

    /// Gives up in the middle of a response: the connection is closed after the
    /// output so far, and the client sees an incomplete message.
    pub fn cut(&mut self) -> Fate {
        self.response = Response::Ended;
        self.close(Fate::Close)
    }

    /// `true` once [`Self::advance`] or a response has decided to close.
    pub fn is_closing(&self) -> bool {
        self.phase == Phase::Closing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &[u8; DATE_LEN] = b"Sun, 06 Nov 1994 08:49:37 GMT";
    const MAX_BODY: u64 = 64;

    /// A server that answers each request with its target and body, and keeps
    /// what a real one keeps between two receives.
    #[derive(Default)]
    struct Echo {
        connection: Connection,
        kept: Vec<u8>,
        target: Vec<u8>,
        body: Vec<u8>,
        out: Vec<u8>,
        trace: Vec<String>,
    }

    impl Echo {
        fn feed(&mut self, bytes: &[u8]) {
            self.kept.extend_from_slice(bytes);
            let mut headers = Vec::new();
            for _ in 0..10_000 {
                let input = std::mem::take(&mut self.kept);
                let Advance { consumed, event } = self.connection.advance(&input, &mut headers, MAX_BODY);
                assert!(consumed <= input.len());
                self.kept = input[consumed..].to_vec();
                match event {
                    Event::NeedInput => return,
                    Event::Ignore => return,
                    Event::Request(head) => {
                        self.target = head.target.get(&input).to_vec();
                        self.body.clear();
                        if !self.connection.want_body(&mut self.out) {
                            self.answer(200);
                        }
                    }
                    Event::Data(range) => self.body.extend_from_slice(&input[range]),
                    Event::BodyEnd => self.answer_if_open(),
                    Event::BodyFailed(status) => {
                        self.body.clear();
                        self.answer(status);
                    }
                    Event::Refuse(status) => {
                        self.connection.refuse(&mut self.out, status, DATE);
                        self.trace.push(format!("refused {status}"));
                    }
                    Event::Hold => panic!("the body is always wanted"),
                }
            }
            panic!("the connection does not come to rest");
        }

        fn answer_if_open(&mut self) {
            if self.connection.may_respond() {
                self.answer(200);
            }
        }

        fn answer(&mut self, status: u16) {
            let body = BodySize::Known(self.body.len() as u64);
            let head = ResponseHead {
                status,
                reason: b"",
                fields: FieldBlock::EMPTY,
                default_type: DefaultType::None,
                body,
            };
            self.connection.respond(&mut self.out, &head, DATE).unwrap();
            self.connection.write_body(&mut self.out, &self.body).unwrap();
            let fate = self.connection.end_response(&mut self.out).unwrap();
            let target = String::from_utf8_lossy(&self.target).into_owned();
            let body = String::from_utf8_lossy(&self.body).into_owned();
            self.trace.push(format!("{status} {target} {body:?} {fate:?}"));
        }
    }

    fn run(input: &[u8], pieces: impl Iterator<Item = usize>) -> (Vec<String>, Vec<u8>) {
        let mut echo = Echo::default();
        let mut rest = input;
        for size in pieces {
            let (now, later) = rest.split_at(size.min(rest.len()));
            echo.feed(now);
            rest = later;
        }
        echo.feed(rest);
        (echo.trace, echo.out)
    }

    const CONVERSATIONS: &[&str] = &[
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET /2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nX",
        "POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: u\r\n\r\nGET /2 HTTP/1.0\r\n\r\n",
        "POST /1 HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
        "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 65\r\n\r\nx",
        "POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n41\r\n0123456789012345678901234567890123456789012345678901234567890123x\r\n0\r\n\r\n",
        "POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n",
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
        "HEAD /1 HTTP/1.1\r\nHost: a\r\n\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
    ];

    #[test]
    fn any_split_of_the_input_gives_the_same_answers() {
        for text in CONVERSATIONS {
            let input = text.as_bytes();
            let whole = run(input, std::iter::empty());
            assert!(!whole.0.is_empty(), "{text:?}");
            for at in 0..input.len() {
                assert_eq!(run(input, std::iter::once(at)), whole, "{text:?} split at {at}");
            }
            assert_eq!(run(input, std::iter::repeat_n(1, input.len())), whole, "{text:?} byte by byte");
        }
    }

    #[test]
    fn conversations_end_as_documented() {
        let traces: Vec<_> =
            CONVERSATIONS.iter().map(|text| run(text.as_bytes(), std::iter::empty()).0.join("; ")).collect();
        assert_eq!(
            traces,
            [
                "200 /1 \"\" Open; 200 /2 \"\" Open",
                "200 /1 \"hello\" Open; 200 /2 \"\" Close",
                "200 /1 \"abcde\" Open; 200 /2 \"\" Close",
                "200 /1 \"x\" Open",
                "refused 413",
                "413 /1 \"\" Linger",
                "400 /1 \"\" Linger",
                "200 /1 \"\" Open; refused 400",
                "200 /1 \"\" Open; 200 /2 \"\" Open",
            ]
        );
        let (_, out) = run(CONVERSATIONS[3].as_bytes(), std::iter::empty());
        assert!(out.starts_with(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"));
    }

    /// xorshift64: the same sequence in every run.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % bound as u64) as usize
        }
    }

    #[test]
    fn mutated_input_never_panics_and_does_not_depend_on_its_pieces() {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for _ in 0..20_000 {
            let mut input = CONVERSATIONS[random.below(CONVERSATIONS.len())].as_bytes().to_vec();
            for _ in 0..=random.below(3) {
                let at = random.below(input.len());
                match random.below(4) {
                    0 => input[at] = random.below(256) as u8,
                    1 => input[at] = b"\r\n :;0"[random.below(6)],
                    2 => input.truncate(at.max(1)),
                    _ => {
                        let byte = input[random.below(input.len())];
                        input.insert(at, byte);
                    }
                }
            }
            let whole = run(&input, std::iter::empty());
            let sizes: Vec<usize> = (0..8).map(|_| random.below(40)).collect();
            let pieces = run(&input, sizes.into_iter());
            // A head that can never be completed may be refused early when it
            // comes in one piece and is waited for when its end is missing.
            if whole.0.last().is_none_or(|last| !last.starts_with("refused"))
                || pieces.0.len() == whole.0.len()
            {
                assert_eq!(pieces, whole, "{:?}", String::from_utf8_lossy(&input));
            } else {
                assert_eq!(pieces.0, whole.0[..pieces.0.len()], "{:?}", String::from_utf8_lossy(&input));
            }
        }
    }

    fn begin(text: &str) -> Connection {
        let mut connection = Connection::default();
        let step = connection.advance(text.as_bytes(), &mut Vec::new(), u64::MAX);
        assert!(matches!(step.event, Event::Request(_)), "{step:?}");
        connection
    }

    fn stream() -> ResponseHead<'static> {
        ResponseHead {
            status: 200,
            reason: b"",
            fields: FieldBlock::EMPTY,
            default_type: DefaultType::None,
            body: BodySize::Stream,
        }
    }

    #[test]
    fn a_pipelined_request_waits_for_the_response_before_it() {
        let mut connection = begin("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n");
        let next = b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n";
        let held = Advance { consumed: 0, event: Event::Hold };
        assert_eq!(connection.advance(next, &mut Vec::new(), 0), held);
        let mut out = Vec::new();
        connection.respond(&mut out, &stream(), DATE).unwrap();
        assert_eq!(connection.advance(next, &mut Vec::new(), 0), held);
        connection.write_body(&mut out, b"abc").unwrap();
        connection.write_body(&mut out, b"").unwrap();
        assert_eq!(connection.end_response(&mut out), Ok(Fate::Open));
        assert!(out.ends_with(b"\r\n\r\n3\r\nabc\r\n0\r\n\r\n"));
        assert!(matches!(connection.advance(next, &mut Vec::new(), 0).event, Event::Request(_)));
    }

    #[test]
    fn an_unread_body_is_dropped_if_small_and_ends_the_connection_if_large() {
        let mut out = Vec::new();
        let mut small = begin("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n");
        small.respond(&mut out, &stream(), DATE).unwrap();
        assert_eq!(small.end_response(&mut out), Ok(Fate::Open));
        assert!(!small.is_idle());
        let step = small.advance(b"bodyGET", &mut Vec::new(), 9);
        assert_eq!(step, Advance { consumed: 4, event: Event::BodyEnd });
        assert!(small.is_idle());

        out.clear();
        let length = MAX_DISCARD_BYTES + 1;
        let mut large = begin(&format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"));
        let empty = ResponseHead { body: BodySize::Known(0), ..stream() };
        large.respond(&mut out, &empty, DATE).unwrap();
        assert!(String::from_utf8_lossy(&out).contains("connection: close"));
        assert_eq!(large.end_response(&mut out), Ok(Fate::Linger));
        assert_eq!(large.advance(b"x", &mut Vec::new(), 9).event, Event::Ignore);

        out.clear();
        let mut piped = begin(&format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"));
        piped.respond(&mut out, &stream(), DATE).unwrap();
        assert!(!String::from_utf8_lossy(&out).contains("connection: close"));
        assert_eq!(piped.end_response(&mut out), Ok(Fate::Linger));

        let mut endless = begin("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        endless.respond(&mut out, &stream(), DATE).unwrap();
        assert_eq!(endless.end_response(&mut out), Ok(Fate::Open));
        let chunk = format!("{:x}\r\n{}\r\n", MAX_DISCARD_BYTES, "x".repeat(MAX_DISCARD_BYTES as usize));
        assert_eq!(endless.advance(chunk.as_bytes(), &mut Vec::new(), 9).event, Event::Ignore);
        assert!(endless.is_closing());
    }

    #[test]
    fn a_client_that_waits_for_continue_and_gets_an_answer_is_closed() {
        let mut out = Vec::new();
        let mut connection =
            begin("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
        connection.respond(&mut out, &stream(), DATE).unwrap();
        assert_eq!(connection.end_response(&mut out), Ok(Fate::Linger));
        assert!(!String::from_utf8_lossy(&out).contains("100 Continue"));
    }

    #[test]
    fn a_body_that_breaks_its_promise_is_noticed() {
        let mut out = Vec::new();
        let fields = FieldBlock { bytes: b"content-length\n3\n", count: 1 };
        let promised = ResponseHead { fields, ..stream() };
        let mut connection = begin("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        connection.respond(&mut out, &promised, DATE).unwrap();
        assert_eq!(connection.write_body(&mut out, b"abcd"), Err(BrokenPromise));
        assert_eq!(connection.write_body(&mut out, b"ab"), Ok(()));
        assert_eq!(connection.end_response(&mut out), Err(BrokenPromise));
    }

    #[test]
    fn a_head_response_and_an_old_client_are_framed_by_the_rules() {
        let mut out = Vec::new();
        let mut head = begin("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(head.respond(&mut out, &stream(), DATE), Ok(Framing::NoBody));
        head.write_body(&mut out, b"never sent").unwrap();
        assert_eq!(head.end_response(&mut out), Ok(Fate::Open));
        assert!(out.ends_with(b"\r\n\r\n"));
        let mut old = begin("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(old.respond(&mut out, &stream(), DATE), Ok(Framing::UntilClose));
        assert_eq!(old.end_response(&mut out), Ok(Fate::Close));
    }
}
