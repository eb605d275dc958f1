//! Slow requests, as workers tell of them: events, so many in a second and no more.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::supervisor::Supervisor;

/// Most events in a second; the others are counted.
const PER_SECOND: u32 = 10;

/// Counts of the second that runs.
#[derive(Debug, Default)]
pub(super) struct SlowEvents {
    second: Option<Instant>,
    told: u32,
    suppressed: u64,
}

impl SlowEvents {
    /// Whether one more may be told; if so, how many were not since the last one.
    fn may_tell(&mut self, now: Instant) -> Option<u64> {
        if self.second.is_none_or(|second| now.saturating_duration_since(second) >= Duration::from_secs(1)) {
            (self.second, self.told) = (Some(now), 0);
        }
        if self.told >= PER_SECOND {
            return None;
        }
        self.told += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

/// What a packet says behind its tag; none for what is nonsense. The worker has bounded its texts; so does the packet.
fn decode(packet: &[u8]) -> Option<(Value, u64)> {
    let (state, rest) = packet.split_first()?;
    let (elapsed, rest) = rest.split_first_chunk::<4>()?;
    let (suppressed, rest) = rest.split_first_chunk::<4>()?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (request, stack) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    let request = String::from_utf8_lossy(request);
    let (state, request_is) = match state {
        1 => ("running", "request"),
        2 => ("running", "last_request"),
        3 => ("native", "request"),
        4 => ("waiting", "request"),
        _ => return None,
    };
    let mut details = json!({ "state": state, "ms": u32::from_le_bytes(*elapsed), request_is: request });
    if !stack.is_empty() {
        details["stack"] = json!(String::from_utf8_lossy(stack).trim_end());
    }
    Some((details, u64::from(u32::from_le_bytes(*suppressed))))
}

impl Supervisor {
    /// A worker tells of a slow request.
    pub(super) fn on_slow(&mut self, number: u64, packet: &[u8]) {
        let Some(id) = self.workers.get(&number).map(|worker| worker.id.as_str().to_owned()) else { return };
        let Some((mut details, not_told)) = decode(packet) else { return };
        self.slow.suppressed += not_told;
        let Some(suppressed) = self.slow.may_tell(Instant::now()) else {
            self.slow.suppressed += 1;
            return;
        };
        if suppressed > 0 {
            details["suppressed"] = json!(suppressed);
        }
        self.event("slow", Some(&id), details);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_read_and_nonsense_is_not() {
        let packet = [&[1, 232, 3, 0, 0, 2, 0, 0, 0, 5, 0][..], b"GET /    at f (a.js:1:2)\n"].concat();
        let (details, not_told) = decode(&packet).unwrap();
        assert_eq!(not_told, 2);
        let expected =
            json!({ "state": "running", "ms": 1000, "request": "GET /", "stack": "    at f (a.js:1:2)" });
        assert_eq!(details, expected);
        assert_eq!(decode(&packet[..16]).unwrap().0.get("stack"), None);
        for end in 0..16 {
            assert_eq!(decode(&packet[..end]), None, "{end} bytes");
        }
        assert_eq!(decode(&[9; 30]), None);
    }

    #[test]
    fn only_so_many_are_told_in_a_second_and_the_others_counted() {
        let now = Instant::now();
        let mut slow = SlowEvents::default();
        for _ in 0..PER_SECOND {
            assert_eq!(slow.may_tell(now), Some(0));
        }
        assert_eq!(slow.may_tell(now), None);
        slow.suppressed += 1;
        assert_eq!(slow.may_tell(now + Duration::from_secs(1)), Some(1));
    }
}
