//! `google.protobuf.Timestamp`.

use std::ops::RangeInclusive;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An instant. In JSON as RFC 3339 with a `Z`, as `2018-08-29T18:31:15.311Z`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct Timestamp {
    /// Seconds since 1970.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds of the second, 0 to 999,999,999.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl From<longrun_core::Timestamp> for Timestamp {
    fn from(instant: longrun_core::Timestamp) -> Self {
        let micros = instant.unix_micros();
        let rest = i32::try_from(micros.rem_euclid(1_000_000)).unwrap_or(0);
        Self { seconds: micros.div_euclid(1_000_000), nanos: rest * 1000 }
    }
}

/// The years 1 to 9999. chrono knows more of them.
const SECONDS: RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
const NANOS_MAX: i32 = 999_999_999;

impl Timestamp {
    /// This, if it is an instant that protobuf has. A leap second, of more nanoseconds, is none.
    fn checked(self) -> Option<Self> {
        (SECONDS.contains(&self.seconds) && (0..=NANOS_MAX).contains(&self.nanos)).then_some(self)
    }

    fn date_time(self) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp(self.seconds, u32::try_from(self.checked()?.nanos).ok()?)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let instant = self.date_time().ok_or_else(|| serde::ser::Error::custom("timestamp: out of range"))?;
        serializer.serialize_str(&instant.to_rfc3339_opts(SecondsFormat::AutoSi, true))
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        let instant = DateTime::parse_from_rfc3339(&text).map_err(serde::de::Error::custom)?;
        let nanos = i32::try_from(instant.timestamp_subsec_nanos()).map_err(serde::de::Error::custom)?;
        let timestamp = Self { seconds: instant.timestamp(), nanos };
        timestamp.checked().ok_or_else(|| serde::de::Error::custom("timestamp: out of range"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_as_rfc_3339_with_a_z_and_as_many_digits_as_it_takes() {
        for (micros, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_535_567_475_311_000, "2018-08-29T18:31:15.311Z"),
            (1_535_567_475_311_001, "2018-08-29T18:31:15.311001Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
            (longrun_core::Timestamp::MAX.unix_micros(), "9999-12-31T23:59:59.999999Z"),
            (longrun_core::Timestamp::MIN.unix_micros(), "0001-01-01T00:00:00Z"),
        ] {
            let timestamp = Timestamp::from(longrun_core::Timestamp::from_unix_micros(micros).unwrap());
            assert_eq!(serde_json::to_value(timestamp).unwrap(), text);
            assert_eq!(serde_json::from_value::<Timestamp>(text.into()).unwrap(), timestamp);
        }
    }

    #[test]
    fn what_is_no_instant_is_refused() {
        assert!(serde_json::to_string(&Timestamp { seconds: i64::MAX, nanos: 0 }).is_err());
        assert!(serde_json::to_string(&Timestamp { seconds: 0, nanos: -1 }).is_err());
        assert!(serde_json::from_str::<Timestamp>(r#""yesterday""#).is_err());
        assert!(serde_json::from_str::<Timestamp>("5").is_err());
    }
}
