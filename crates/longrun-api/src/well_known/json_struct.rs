//! `google.protobuf.Struct`: JSON as a message.

use std::collections::BTreeMap;

use prost::Name;
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Up to this every whole number is a double: 2^53.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// A JSON object.
///
/// Its fields are in order, so that what is the same has the same bytes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Struct {
    /// The fields, by name.
    #[prost(btree_map = "string, message", tag = "1")]
    pub fields: BTreeMap<String, Value>,
}

impl Name for Struct {
    const NAME: &'static str = "Struct";
    const PACKAGE: &'static str = "google.protobuf";
}

/// A JSON value.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Value {
    /// Which; unset is null.
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6")]
    pub kind: Option<Kind>,
}

/// The kinds of JSON values.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Kind {
    /// Null: always 0.
    #[prost(int32, tag = "1")]
    Null(i32),
    /// A number.
    #[prost(double, tag = "2")]
    Number(f64),
    /// A text.
    #[prost(string, tag = "3")]
    String(String),
    /// True or false.
    #[prost(bool, tag = "4")]
    Bool(bool),
    /// An object.
    #[prost(message, tag = "5")]
    Struct(Struct),
    /// An array.
    #[prost(message, tag = "6")]
    List(ListValue),
}

/// A JSON array.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListValue {
    /// Its values.
    #[prost(message, repeated, tag = "1")]
    pub values: Vec<Value>,
}

impl From<serde_json::Map<String, serde_json::Value>> for Struct {
    fn from(fields: serde_json::Map<String, serde_json::Value>) -> Self {
        Self { fields: fields.into_iter().map(|(name, value)| (name, value.into())).collect() }
    }
}

impl From<serde_json::Value> for Value {
    fn from(value: serde_json::Value) -> Self {
        use serde_json::Value as Json;
        let kind = match value {
            Json::Null => Kind::Null(0),
            // Every number of JSON has a double near it.
            Json::Number(number) => Kind::Number(number.as_f64().unwrap_or_default()),
            Json::String(text) => Kind::String(text),
            Json::Bool(truth) => Kind::Bool(truth),
            Json::Object(fields) => Kind::Struct(fields.into()),
            Json::Array(values) => {
                Kind::List(ListValue { values: values.into_iter().map(Into::into).collect() })
            }
        };
        Self { kind: Some(kind) }
    }
}

impl Serialize for Struct {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(&self.fields)
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.kind {
            None | Some(Kind::Null(_)) => serializer.serialize_unit(),
            Some(Kind::Number(number)) if number.is_finite() => serialize_number(*number, serializer),
            Some(Kind::Number(_)) => Err(S::Error::custom("a number that JSON does not have")),
            Some(Kind::String(text)) => serializer.serialize_str(text),
            Some(Kind::Bool(truth)) => serializer.serialize_bool(*truth),
            Some(Kind::Struct(fields)) => fields.serialize(serializer),
            Some(Kind::List(list)) => serializer.collect_seq(&list.values),
        }
    }
}

/// Whole numbers as such: `2` and not `2.0`.
fn serialize_number<S: Serializer>(number: f64, serializer: S) -> Result<S::Ok, S::Error> {
    if number.fract() == 0.0 && number.abs() < WHOLE_MAX {
        #[allow(clippy::cast_possible_truncation)] // Whole, and within the range.
        return serializer.serialize_i64(number as i64);
    }
    serializer.serialize_f64(number)
}

impl<'de> Deserialize<'de> for Struct {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::Object(fields) => Ok(fields.into()),
            _ => Err(D::Error::custom("must be an object")),
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use serde_json::json;

    use super::*;

    #[test]
    fn is_any_json_object_and_the_same_bytes_each_time() {
        let object = json!({ "z": null, "a": [true, "x", 1.5, {}], "m": { "b": -2, "a": [1e300] } });
        let message: Struct = serde_json::from_value(object.clone()).unwrap();
        assert_eq!(serde_json::to_value(&message).unwrap(), object);
        let bytes = message.encode_to_vec();
        assert_eq!(Struct::decode(bytes.as_slice()).unwrap(), message);
        let names: Vec<_> = message.fields.keys().collect();
        assert_eq!(names, ["a", "m", "z"]);
        // The fields of the protocol, as another implementation has them.
        let theirs = pbjson_types::Struct::decode(bytes.as_slice()).unwrap();
        assert_eq!(theirs.fields.len(), 3);
        assert_eq!(Struct::decode(theirs.encode_to_vec().as_slice()).unwrap(), message);
    }

    #[test]
    fn what_is_no_object_is_refused_and_what_json_has_no_number_for_is_not_shown() {
        assert!(serde_json::from_str::<Struct>("[]").is_err());
        let value = Value { kind: Some(Kind::Number(f64::NAN)) };
        assert!(serde_json::to_string(&value).is_err());
        assert_eq!(serde_json::to_string(&Value::default()).unwrap(), "null");
    }
}
