//! The `Date` field in IMF-fixdate form (RFC 9110, section 5.6.7), formatted
//! once per second at most.

use std::time::{SystemTime, UNIX_EPOCH};

/// Length of an IMF-fixdate.
pub const DATE_LEN: usize = 29;

/// `Sun, 06 Nov 1994 08:49:37 GMT`, kept until the second is over.
#[derive(Debug)]
pub struct DateCache {
    text: [u8; DATE_LEN],
    valid_until_ms: u64,
}

impl Default for DateCache {
    fn default() -> Self {
        DateCache { text: [b' '; DATE_LEN], valid_until_ms: 0 }
    }
}

impl DateCache {
    /// The date now; `now_ms` is any monotonic clock in milliseconds, always the same one.
    pub fn get(&mut self, now_ms: u64) -> &[u8; DATE_LEN] {
        if now_ms >= self.valid_until_ms {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.text = format(since.as_secs());
            self.valid_until_ms = now_ms + 1000 - u64::from(since.subsec_millis());
        }
        &self.text
    }

    /// Forgets the date: the monotonic clock may have been reset or the process forked.
    pub fn reset(&mut self) {
        self.valid_until_ms = 0;
    }
}

/// IMF-fixdate of a Unix time in seconds, for years up to 9999.
pub fn format(seconds: u64) -> [u8; DATE_LEN] {
    const DAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
    const MONTHS: [&[u8; 3]; 12] =
        [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil_from_days(days);
    let mut text = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    text[..3].copy_from_slice(DAYS[(days % 7) as usize]);
    put_decimal(&mut text[5..7], day);
    text[8..11].copy_from_slice(MONTHS[(month - 1) as usize]);
    put_decimal(&mut text[12..16], year);
    put_decimal(&mut text[17..19], time / 3600);
    put_decimal(&mut text[20..22], time / 60 % 60);
    put_decimal(&mut text[23..25], time % 60);
    text
}

fn put_decimal(field: &mut [u8], mut number: u64) {
    for digit in field.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Year, month and day of a day number since 1970-01-01. The year is reckoned
/// from March, so that the leap day is its last day.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    const DAYS_OF_400_YEARS: u64 = 146_097;
    // Days from 0000-03-01 to 1970-01-01.
    let days = days + 719_468;
    let (era, day_of_era) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_formatted_as_the_rfc_shows() {
        let table: &[(u64, &str)] = &[
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_399, "Mon, 28 Feb 2000 23:59:59 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_709_164_800, "Thu, 29 Feb 2024 00:00:00 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
        ];
        for (seconds, text) in table {
            assert_eq!(std::str::from_utf8(&format(*seconds)).unwrap(), *text);
        }
    }

    #[test]
    fn the_cache_is_refreshed_when_the_second_is_over() {
        let mut cache = DateCache::default();
        let first = *cache.get(5);
        assert!(cache.valid_until_ms > 5 && cache.valid_until_ms <= 1005);
        cache.text = [b'x'; DATE_LEN];
        assert_eq!(cache.get(5)[0], b'x');
        cache.reset();
        assert_eq!(cache.get(5)[25..], first[25..]);
    }
}
