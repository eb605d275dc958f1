//! What must hold for input that an enemy chose, whatever it is: one function for each kind of
//! input, which panics when something does not hold. Two users: the targets of cargo-fuzz
//! (`aworker-rt/fuzz`), and the bounded run of the tests below, the same in every run.
//! Compiled for those two only.

use std::sync::OnceLock;

use url::Url;

use crate::engine::{Engine, V8Flags, initialize, typed};
use crate::http::chunked::ChunkedDecoder;
use crate::http::head::{BodyFraming, HeaderSpans, Parsed, parse};
use crate::http::limits::{MAX_HEAD_BYTES, MAX_HEADERS};
use crate::http::target::{OriginCache, host_and_path, write_url};
use crate::typescript::Goal;
use crate::web::{crypto, multipart, structured_clone, url as web_url};

/// The head of a request, and the URL that a script sees of it.
pub fn http_request(data: &[u8]) {
    let mut fields = HeaderSpans::new();
    let parsed = parse(data, &mut fields);
    let Parsed::Complete(head) = parsed else {
        if let Parsed::Refused(status) = parsed {
            assert!((400..600).contains(&status), "refused with {status}");
        }
        return;
    };
    assert!(head.len <= data.len().min(MAX_HEAD_BYTES) && fields.len() <= MAX_HEADERS);
    let bytes = &data[..head.len];
    assert!(bytes.ends_with(b"\r\n\r\n"), "the head ends with an empty line");
    let (method, target) = (head.method.get(bytes), head.target.get(bytes));
    assert!(!method.is_empty() && method.iter().all(u8::is_ascii_graphic));
    assert!(!target.is_empty() && target.iter().all(u8::is_ascii_graphic));
    assert_eq!(head.is_head, method == b"HEAD");
    for (name, value) in &fields {
        let (name, value) = (name.get(bytes), value.get(bytes));
        assert!(!name.is_empty() && name.iter().all(|byte| byte.is_ascii_graphic() && *byte != b':'));
        assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)), "no line breaks in values");
    }
    let has = |wanted: &str| {
        fields.iter().filter(|(name, _)| name.get(bytes).eq_ignore_ascii_case(wanted.as_bytes())).count()
    };
    // The framing that a proxy would find must be ours: never two answers.
    let (lengths, codings) = (has("content-length"), has("transfer-encoding"));
    assert!(lengths + codings <= 1 && has("host") <= 1);
    match head.framing {
        BodyFraming::Chunked => assert_eq!(codings, 1),
        BodyFraming::Length(length) => assert!(lengths == 1 && length > 0),
        BodyFraming::None => assert_eq!(codings, 0),
    }

    // What follows the head changes nothing, and no beginning of it is a head.
    let mut again = HeaderSpans::new();
    assert_eq!(parse(bytes, &mut again), Parsed::Complete(head));
    assert_eq!(fields, again);
    for length in [0, head.len / 2, head.len - 1] {
        assert!(!matches!(parse(&bytes[..length], &mut again), Parsed::Complete(_)), "{length} bytes");
    }
    let (host, path) = host_and_path(&head, bytes);
    if let Some(origin) = OriginCache::default().get(host) {
        let mut url = Vec::new();
        write_url(&mut url, origin, path);
        let url = String::from_utf8(url).expect("a URL is ASCII");
        assert_eq!(Url::parse(&url).map(String::from).as_deref(), Ok(&*url), "the URL is serialised");
    }
}

/// A chunked body, whole and in pieces whose sizes come from the data.
pub fn chunked_body(data: &[u8]) {
    let whole = decode(data, std::iter::repeat(usize::MAX));
    let sizes = data.iter().map(|byte| 1 + usize::from(byte & 15)).cycle();
    assert_eq!(decode(data, sizes), whole, "pieces make no difference");
    if let Some((body, Some(used))) = whole {
        assert!(body.len() < used && used <= data.len());
        // The next request begins right here, whatever it is.
        let mut longer = data[..used].to_vec();
        longer.extend_from_slice(b"GET / HTTP/1.1\r\n");
        assert_eq!(decode(&longer, std::iter::repeat(usize::MAX)), Some((body, Some(used))));
    }
}

/// Body and, if it ended, the bytes it took; `None` if it is malformed.
fn decode(data: &[u8], sizes: impl Iterator<Item = usize>) -> Option<(Vec<u8>, Option<usize>)> {
    let (mut decoder, mut body, mut used) = (ChunkedDecoder::default(), Vec::new(), 0_usize);
    for size in sizes {
        let piece = &data[used..data.len().min(used.saturating_add(size))];
        if piece.is_empty() {
            break;
        }
        let step = decoder.decode(piece).ok()?;
        assert!(step.consumed <= piece.len() && step.consumed > 0);
        body.extend_from_slice(&piece[step.data]);
        used += step.consumed;
        if step.done {
            return Some((body, Some(used)));
        }
    }
    Some((body, None))
}

/// A form: the first line is the content type, the rest the body.
pub fn multipart_form(data: &[u8]) {
    let line = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let content_type = String::from_utf8_lossy(&data[..line]);
    let Some(multipart::Form::Multipart(boundary)) = multipart::form_of(&content_type) else { return };
    assert!(!boundary.is_empty() && !boundary.contains(['\r', '\n']));
    let body = data.get(line + 1..).unwrap_or_default();
    let Ok(parts) = multipart::parse(body, &boundary) else { return };
    assert!(parts.len() <= multipart::MAX_PARTS);
    let delimiter = format!("\r\n--{boundary}");
    let mut end = 0;
    for part in &parts {
        let content = body.get(part.body.clone()).expect("the content lies in the body");
        assert!(part.body.start >= end, "parts follow each other");
        end = part.body.end;
        assert!(!content.windows(delimiter.len()).any(|window| window == delimiter.as_bytes()));
    }
    // An epilogue changes nothing.
    assert_eq!(multipart::parse(&[body, b"\r\nmore"].concat(), &boundary).as_ref(), Ok(&parts));
}

/// A URL and, after a line break, what to resolve against it.
pub fn url(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (base, relative) = text.split_once('\n').unwrap_or((&text, ""));
    let Ok(base) = Url::parse(base) else { return };
    serialised(&base);
    if let Ok(joined) = base.join(relative) {
        serialised(&joined);
    }
}

/// A parsed URL comes back from its text, and its parts are where JavaScript looks for them.
fn serialised(url: &Url) {
    let text = url.as_str();
    assert!(text.is_ascii(), "positions are bytes and characters at once");
    // The crate drops the host before a drive letter, as an older standard said, but not wherever one can come about.
    if url.scheme() != "file" {
        assert_eq!(Url::parse(text).as_ref().map(Url::as_str), Ok(text), "the text is a fixed point");
    }
    let [scheme, user, host, host_end, port, path, query, fragment] = web_url::positions(url);
    let known = |position: u32| position != web_url::NONE;
    let length = u32::try_from(text.len()).expect("a short text");
    assert!(scheme < length && scheme < user && user <= host && host <= host_end && host_end <= path);
    assert!(path <= length && (!known(port) || port <= 65_535));
    assert!(!known(query) || (query >= path && text.as_bytes()[query as usize] == b'?'));
    assert!(!known(fragment) || (fragment >= path && text.as_bytes()[fragment as usize] == b'#'));
    assert!(!known(query) || !known(fragment) || query < fragment);
}

/// A key: the first byte chooses the kind, the rest is its encoding.
pub fn crypto_key(data: &[u8]) {
    if let Some((kind, encoding)) = data.split_first() {
        crypto::check_hostile_key(*kind, encoding);
    }
}

/// A TypeScript source: what is left of it has its lines and columns, and nothing that it had not.
pub fn typescript(data: &[u8]) {
    let source = String::from_utf8_lossy(data);
    for goal in [Goal::Module, Goal::Script, Goal::Either] {
        match typed::javascript("fuzz.ts", &source, goal) {
            Ok(stripped) => {
                let (before, after) = (source.encode_utf16(), stripped.text.encode_utf16());
                assert_eq!(before.clone().count(), after.clone().count(), "columns");
                // What ends a line is in the same places; the rest stays, becomes white space, or one of three characters.
                let is_end = |unit: u16| matches!(unit, 0x0a | 0x0d | 0x2028 | 0x2029);
                let may_become = |unit: u16| matches!(unit, 0x20 | 0x28 | 0x29 | 0x3b);
                assert!(before.zip(after).all(|(old, new)| old == new || !is_end(old) && may_become(new)));
            }
            Err(refusal) => {
                let lines: Vec<&str> = source.split(['\n', '\r', '\u{2028}', '\u{2029}']).collect();
                assert!((1..=lines.len()).contains(&refusal.line), "a line of the source");
                assert!(refusal.column <= refusal.text.encode_utf16().count() + 1, "a column of the line");
                assert!(lines.contains(&&*refusal.text), "the line");
            }
        }
    }
}

/// Reads structured clones.
pub struct CloneReader(Engine);

impl Default for CloneReader {
    fn default() -> CloneReader {
        initialize(&V8Flags { max_heap_mb: Some(512), extra: vec![] });
        CloneReader(Engine::new())
    }
}

impl CloneReader {
    /// Bytes as V8's serialiser would write them. What can be read can be written and read again.
    pub fn check(&mut self, data: &[u8]) {
        self.0.with_scope(|scope| structured_clone::check_hostile(scope, data));
    }
}

/// The seeds of a target: files that the run begins with.
pub fn seeds(target: &str) -> &'static [(String, Vec<u8>)] {
    static SEEDS: OnceLock<Vec<(String, Vec<u8>)>> = OnceLock::new();
    let all = SEEDS.get_or_init(|| {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
        let mut all = Vec::new();
        for directory in std::fs::read_dir(root).expect("the seeds") {
            for file in std::fs::read_dir(directory.expect("a directory").path()).expect("a target's seeds") {
                let path = file.expect("a seed").path();
                let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).expect("below").to_string_lossy();
                all.push((name.into_owned(), std::fs::read(&path).expect("read a seed")));
            }
        }
        all.sort();
        all
    });
    let start = all.partition_point(|(name, _)| name.as_str() < format!("fuzz/seeds/{target}/").as_str());
    let count = all[start..]
        .iter()
        .take_while(|(name, _)| name.starts_with(&format!("fuzz/seeds/{target}/")))
        .count();
    &all[start..start + count]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// xorshift64: the same sequence in every run.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 >> 33).expect("31 bits") % bound
        }
    }

    /// Bytes that parsers look for.
    const TELLING: &[u8] = b"\r\n :;=,\"%-_/?#@[]\\0123456789abcdefABCDEF{}\x00\x01\x7f\x80\xff";

    /// One change: a byte, a bit, a piece more, less, twice, elsewhere, or of another seed.
    fn change(random: &mut Random, data: &mut Vec<u8>, other: &[u8]) {
        let at = random.below(data.len() + 1);
        let until = at + random.below(data.len() - at + 1).min(32);
        match random.below(8) {
            0 if at < data.len() => data[at] = TELLING[random.below(TELLING.len())],
            1 if at < data.len() => data[at] ^= 1 << random.below(8),
            2 if at < data.len() => data[at] = u8::try_from(random.below(256)).expect("a byte"),
            3 => data.insert(at, TELLING[random.below(TELLING.len())]),
            4 => drop(data.drain(at..until)),
            5 => {
                let piece = data[at..until].to_vec();
                let place = random.below(data.len() + 1);
                data.splice(place..place, piece);
            }
            6 if !other.is_empty() => {
                let start = random.below(other.len());
                let piece = &other[start..start + random.below(other.len() - start + 1)];
                data.splice(at..until, piece.iter().copied());
            }
            _ => data.truncate(at),
        }
    }

    /// Checks the seeds of a target and `rounds` changes of them.
    fn run(target: &str, rounds: usize, mut check: impl FnMut(&[u8])) {
        let seeds = seeds(target);
        assert!(!seeds.is_empty(), "{target} has no seeds");
        for (_, seed) in seeds {
            check(seed);
        }
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for _ in 0..rounds {
            let mut data = seeds[random.below(seeds.len())].1.clone();
            for _ in 0..=random.below(5) {
                let other = &seeds[random.below(seeds.len())].1;
                change(&mut random, &mut data, other);
            }
            check(&data);
        }
    }

    #[test]
    fn random_requests_hold_no_surprise() {
        run("http_request", 40_000, http_request);
    }

    #[test]
    fn random_chunked_bodies_hold_no_surprise() {
        run("chunked_body", 40_000, chunked_body);
    }

    #[test]
    fn random_forms_hold_no_surprise() {
        run("multipart_form", 20_000, multipart_form);
    }

    #[test]
    fn random_urls_hold_no_surprise() {
        run("url", 20_000, url);
    }

    #[test]
    fn random_keys_hold_no_surprise() {
        run("crypto_key", 3_000, crypto_key);
    }

    #[test]
    fn random_typescript_holds_no_surprise() {
        run("typescript", 10_000, typescript);
    }

    #[test]
    fn random_structured_clones_hold_no_surprise() {
        let mut reader = CloneReader::default();
        run("structured_clone", 5_000, |data| reader.check(data));
    }
}
