//! Times as a person types and reads them.

use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ZonedDateTime};

/// What is said of a time that cannot be read.
const FORMS: &str = "neither a time (18:30, \"2026-05-01 18:30\", 2026-05-01) nor how long ago (10m, 2h, 3d)";

/// Reads a time as seconds since 1970: a time of today or (where that is still to come) of yesterday, a date with or
/// without a time, both local; one with its zone; how long ago it was; or `@` and the seconds themselves.
pub fn parse(text: &str) -> Result<i64, String> {
    let now = Timestamp::now().to_zoned_datetime(TimeZone::system());
    parse_at(text, &now)
}

fn parse_at(text: &str, now: &ZonedDateTime) -> Result<i64, String> {
    let text = text.trim();
    let at = read(text, now).ok_or(FORMS)?;
    if at > now.timestamp().as_second() {
        return Err("a time that is still to come".into());
    }
    Ok(at)
}

fn read(text: &str, now: &ZonedDateTime) -> Option<i64> {
    if let Some(seconds) = text.strip_prefix('@') {
        return seconds.parse().ok();
    }
    let local = |at: DateTime| Some(at.to_zoned_datetime(now.time_zone().clone()).ok()?.timestamp());
    let at = if let Ok(at) = text.parse::<Timestamp>() {
        at
    } else if let Ok(at) = text.parse::<DateTime>() {
        local(at)?
    } else if let Ok(time) = text.parse::<Time>() {
        let today = local(now.date().to_datetime(time))?;
        if today <= now.timestamp() { today } else { local(now.date().yesterday().ok()?.to_datetime(time))? }
    } else {
        let ago: Span = text.strip_suffix("ago").unwrap_or(text).trim().parse().ok()?;
        now.checked_sub(ago.abs()).ok()?.timestamp()
    };
    Some(at.as_second())
}

/// A time, local, to the second.
pub fn shown(seconds: i64) -> String {
    match Timestamp::from_second(seconds) {
        Ok(at) => at.to_zoned_datetime(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => format!("@{seconds}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let now: ZonedDateTime = "2026-11-23T18:00:00+01:00[+01:00]".parse().unwrap();
        let parsed = |text: &str| {
            parse_at(text, &now).map(|s| {
                let at = Timestamp::from_second(s).unwrap().to_zoned_datetime(now.time_zone().clone());
                at.strftime("%m-%d %H:%M:%S").to_string()
            })
        };
        for (text, meant) in [
            ("17:30", "11-23 17:30:00"),
            ("18:30", "11-22 18:30:00"),
            ("2026-05-01", "05-01 00:00:00"),
            ("2026-05-01 18:30", "05-01 18:30:00"),
            ("2026-05-01T18:30:05", "05-01 18:30:05"),
            ("2026-05-01T18:30:05Z", "05-01 19:30:05"),
            ("10m", "11-23 17:50:00"),
            ("10 minutes ago", "11-23 17:50:00"),
            ("2h 30m", "11-23 15:30:00"),
            ("3d", "11-20 18:00:00"),
            ("@1795000000", "11-18 12:06:40"),
        ] {
            assert_eq!(parsed(text).as_deref(), Ok(meant), "{text}");
        }
        assert!(parsed("2027-01-01").unwrap_err().contains("still to come"));
        for text in ["", "soon", "25:00", "2026-13-01", "@", "-"] {
            assert_eq!(parsed(text), Err(FORMS.into()), "{text}");
        }
    }
}
