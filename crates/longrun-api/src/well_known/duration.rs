//! `google.protobuf.Duration` and std's.

use std::time::Duration as Time;

use pbjson_types::Duration;

/// Seconds in a duration, at most. Source: protobuf, where it is the time from year 1 to year 10000.
pub const DURATION_SECONDS_MAX: u64 = 315_576_000_000;

/// A time as the protocol has it; the longest that it has, if it is longer.
pub fn duration(time: Time) -> Duration {
    let time = time.min(Time::from_secs(DURATION_SECONDS_MAX));
    // Both fit by what they are at most.
    let seconds = i64::try_from(time.as_secs()).unwrap_or_default();
    let nanos = i32::try_from(time.subsec_nanos()).unwrap_or_default();
    Duration { seconds, nanos }
}

/// The time of a duration; `None` for one that is negative, or none at all.
pub fn time(duration: &Duration) -> Option<Time> {
    let seconds = u64::try_from(duration.seconds).ok().filter(|seconds| *seconds <= DURATION_SECONDS_MAX)?;
    let nanos = u32::try_from(duration.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Time::new(seconds, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_goes_there_and_back_and_what_is_none_does_not() {
        let longest = Time::from_secs(DURATION_SECONDS_MAX);
        for there in [Time::ZERO, Time::from_nanos(1), Time::new(5, 999_999_999), longest] {
            assert_eq!(time(&duration(there)), Some(there));
        }
        assert_eq!(time(&duration(Time::MAX)), Some(longest));
        for (seconds, nanos) in [(-1, 0), (0, -1), (0, 1_000_000_000), (i64::MAX, 0)] {
            assert_eq!(time(&Duration { seconds, nanos }), None);
        }
    }
}
