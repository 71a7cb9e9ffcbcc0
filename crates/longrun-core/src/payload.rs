//! What users own: JSON bytes, with the URL of their type where others read them.

use std::fmt;

use bytes::Bytes;
use bytestring::ByteString;
use serde::de::DeserializeOwned;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Invalid;
use crate::limits::{PAYLOAD_BYTES_MAX, TYPE_URL_CHARS_MAX};

/// JSON text, within the payload limit. Cheap to clone.
///
/// Self-describing on purpose: bytes written by an old program meet a new struct with serde's defaults.
#[derive(Clone, PartialEq, Eq)]
pub struct Json(Bytes);

impl Json {
    /// Encodes a value.
    pub fn encode<T: Serialize + ?Sized>(field: &'static str, value: &T) -> Result<Self, Invalid> {
        let bytes = serde_json::to_vec(value).map_err(|error| Invalid::new(field, error.to_string()))?;
        Self::limited(field, bytes.into())
    }

    /// Takes bytes that are said to be JSON. They are checked when somebody decodes them, not here.
    pub fn from_stored(bytes: Bytes) -> Result<Self, Invalid> {
        Self::limited("payload", bytes)
    }

    fn limited(field: &'static str, bytes: Bytes) -> Result<Self, Invalid> {
        if bytes.len() <= PAYLOAD_BYTES_MAX {
            Ok(Self(bytes))
        } else {
            Err(Invalid::new(field, format!("takes {} bytes, the limit is {PAYLOAD_BYTES_MAX}", bytes.len())))
        }
    }

    /// Several values as one JSON array: the input of a step. Each part is within the limit, the array may be
    /// larger; it is never stored.
    pub fn array(parts: Vec<&Self>) -> Self {
        let mut text = Vec::with_capacity(2 + parts.iter().map(|part| part.0.len() + 1).sum::<usize>());
        text.push(b'[');
        for (place, part) in parts.iter().enumerate() {
            if place > 0 {
                text.push(b',');
            }
            text.extend_from_slice(&part.0);
        }
        text.push(b']');
        Self(text.into())
    }

    /// Decodes the value.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.0)
    }

    /// The bytes.
    pub const fn bytes(&self) -> &Bytes {
        &self.0
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value: serde_json::Value = self.decode().map_err(serde::ser::Error::custom)?;
        value.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        Self::encode("payload", &value).map_err(serde::de::Error::custom)
    }
}

/// A type URL needs a `/` with a name after it, and is printable ASCII.
pub(crate) fn check_type_url(field: &'static str, type_url: &str) -> Result<(), Invalid> {
    let named = type_url.bytes().any(|byte| byte == b'/') && !type_url.ends_with('/');
    let printable = type_url.bytes().all(|byte| byte.is_ascii_graphic());
    if named && printable && type_url.len() <= TYPE_URL_CHARS_MAX {
        Ok(())
    } else {
        let rule = format!("must be a URL ending in a type's name, at most {TYPE_URL_CHARS_MAX} characters");
        Err(Invalid::new(field, rule))
    }
}

/// A typed payload, like `google.protobuf.Any`: a type URL and JSON.
///
/// Serializes as the protocol writes it: the fields of the value beside an `@type`; a value that is not an
/// object stands under `value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    type_url: ByteString,
    json: Json,
}

impl Payload {
    /// Puts a type URL to JSON. The URL needs a `/` with a name after it, and is printable ASCII.
    pub fn new(type_url: impl Into<ByteString>, json: Json) -> Result<Self, Invalid> {
        let type_url = type_url.into();
        check_type_url("type_url", &type_url)?;
        Ok(Self { type_url, json })
    }

    /// Encodes a value under a type URL.
    pub fn encode<T: Serialize + ?Sized>(
        field: &'static str,
        type_url: impl Into<ByteString>,
        value: &T,
    ) -> Result<Self, Invalid> {
        Self::new(type_url, Json::encode(field, value)?)
    }

    /// The type URL.
    pub fn type_url(&self) -> &str {
        &self.type_url
    }

    /// The value.
    pub const fn json(&self) -> &Json {
        &self.json
    }

    /// Decodes the value. Whether it is of type `T` is told by [`type_url`](Self::type_url).
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        self.json.decode()
    }

    /// Bytes that the payload takes.
    pub fn byte_len(&self) -> usize {
        self.type_url.len() + self.json.0.len()
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value: serde_json::Value = self.json.decode().map_err(serde::ser::Error::custom)?;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("@type", &*self.type_url)?;
        match &value {
            serde_json::Value::Object(fields) => {
                for (name, value) in fields {
                    map.serialize_entry(name, value)?;
                }
            }
            serde_json::Value::Null => {}
            other => map.serialize_entry("value", other)?,
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let mut fields = serde_json::Map::deserialize(deserializer)?;
        let Some(serde_json::Value::String(type_url)) = fields.remove("@type") else {
            return Err(D::Error::custom("@type: must be a string"));
        };
        Self::encode("payload", type_url, &fields).map_err(D::Error::custom)
    }
}

/// How far a long step has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Units done.
    pub done: u64,
    /// Units in all, as far as is known.
    pub total: u64,
    /// What is counted.
    pub unit: ProgressUnit,
}

/// What progress counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ProgressUnit {
    /// Bytes.
    Bytes,
    /// Things.
    Items,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_written_like_any() {
        let payload = Payload::encode("metadata", "type.googleapis.com/t.M", &serde_json::json!({"a": 1}));
        let text = serde_json::to_string(&payload.unwrap()).unwrap();
        assert_eq!(text, r#"{"@type":"type.googleapis.com/t.M","a":1}"#);
        let back: Payload = serde_json::from_str(&text).unwrap();
        assert_eq!(back.type_url(), "type.googleapis.com/t.M");
    }

    #[test]
    fn payloads_hold_their_limits() {
        let text = "x".repeat(PAYLOAD_BYTES_MAX - 2);
        assert!(Json::encode("request", &text).is_ok());
        let error = Json::encode("request", &(text + "x")).unwrap_err();
        assert_eq!(error.field, "request");
        assert!(Payload::encode("m", "no-slash", &1).is_err());
        assert!(Payload::encode("m", "ends/", &1).is_err());
    }

    #[test]
    fn parts_join_to_an_array() {
        let parts = [Json::encode("a", &1).unwrap(), Json::encode("b", "x").unwrap()];
        assert_eq!(
            Json::array(parts.iter().collect()).decode::<(u8, String)>().unwrap(),
            (1, "x".to_owned())
        );
    }
}
