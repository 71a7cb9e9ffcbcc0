//! `google.protobuf.Any`, and the types that it can show.

use std::collections::BTreeMap;
use std::sync::{LazyLock, PoisonError, RwLock};

use bytes::Bytes;
use prost::{Message, Name};
use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::Struct;
use crate::{google, longrun, yandex};

/// A message of any type, with the URL of its type.
///
/// In JSON the fields of the message beside an `@type`. For that its type has to be known: those of this protocol are, others
/// become so by [`Types::with`](crate::Types::with). One that is not known shows as base64 under `value`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Any {
    /// `type.googleapis.com/` and the full name of the message.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The message.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

impl Any {
    /// Packs a message.
    pub fn pack<M: Message + Name>(message: &M) -> Self {
        Self { type_url: url::<M>(), value: message.encode_to_vec().into() }
    }

    /// The message, if it is of this type.
    pub fn unpack<M: Message + Name + Default>(&self) -> Option<M> {
        (self.name() == M::full_name()).then(|| M::decode(self.value.clone()).ok()).flatten()
    }

    /// The full name of the message's type.
    pub fn name(&self) -> &str {
        self.type_url.rsplit_once('/').map_or(self.type_url.as_str(), |(_, name)| name)
    }
}

const EMPTY: &str = "google.protobuf.Empty";
const STRUCT: &str = "google.protobuf.Struct";

/// `type.googleapis.com/` and the full name.
fn url<M: Name>() -> String {
    format!("type.googleapis.com/{}", M::full_name())
}

/// How the messages of one type are shown and read.
#[derive(Clone, Copy)]
pub(crate) struct MessageType {
    show: fn(Bytes) -> Result<Value, String>,
    read: fn(Value) -> Result<Bytes, String>,
}

impl MessageType {
    pub(crate) fn of<M: Message + Default + Serialize + DeserializeOwned>() -> Self {
        let show = |bytes: Bytes| {
            let message = M::decode(bytes).map_err(|error| error.to_string())?;
            serde_json::to_value(message).map_err(|error| error.to_string())
        };
        let read = |value: Value| {
            let message: M = serde_json::from_value(value).map_err(|error| error.to_string())?;
            Ok(message.encode_to_vec().into())
        };
        Self { show, read }
    }
}

/// The message types that this process knows, by full name, as every protobuf runtime keeps them: what an `Any` shows must not
/// depend on who shows it.
static KNOWN: LazyLock<RwLock<BTreeMap<String, MessageType>>> = LazyLock::new(|| {
    let mut known = BTreeMap::from(ours());
    known.insert(EMPTY.to_owned(), MessageType::of::<pbjson_types::Empty>());
    known.insert(STRUCT.to_owned(), MessageType::of::<Struct>());
    RwLock::new(known)
});

/// Declares the messages of this protocol that an `Any` may hold, once: for the table, and for a way of their own past it.
macro_rules! ours {
    ($($package:literal . $name:literal = $message:ty;)*) => {
        fn ours() -> [(String, MessageType); [$($name),*].len()] {
            [$((<$message>::full_name(), MessageType::of::<$message>())),*]
        }

        /// Shows a message of ours without building its JSON in memory first: most answers have one or two of them.
        fn show_ours<S: Serializer>(any: &Any, serializer: S) -> Result<Result<S::Ok, S::Error>, S> {
            match any.name() {
                $(concat!($package, ".", $name) => Ok(match <$message>::decode(any.value.clone()) {
                    Ok(message) => Beside { type_url: &any.type_url, message }.serialize(serializer),
                    Err(error) => Err(S::Error::custom(error)),
                }),)*
                _ => Err(serializer),
            }
        }
    };
}

ours! {
    "google.rpc"."BadRequest" = google::rpc::BadRequest;
    "google.rpc"."ErrorInfo" = google::rpc::ErrorInfo;
    "google.rpc"."RequestInfo" = google::rpc::RequestInfo;
    "google.rpc"."RetryInfo" = google::rpc::RetryInfo;
    "longrun.v1"."OperationMetadata" = longrun::v1::OperationMetadata;
    "yandex.cloud.compute.v1"."CreateSnapshotMetadata" = yandex::cloud::compute::v1::CreateSnapshotMetadata;
    "yandex.cloud.compute.v1"."DeleteSnapshotMetadata" = yandex::cloud::compute::v1::DeleteSnapshotMetadata;
    "yandex.cloud.compute.v1"."Snapshot" = yandex::cloud::compute::v1::Snapshot;
    "yandex.cloud.compute.v1"."UpdateSnapshotMetadata" = yandex::cloud::compute::v1::UpdateSnapshotMetadata;
}

/// A message with its type beside its fields.
#[derive(Serialize)]
struct Beside<'a, M> {
    #[serde(rename = "@type")]
    type_url: &'a str,
    #[serde(flatten)]
    message: M,
}

/// Makes a type known.
pub(crate) fn register(name: String, message: MessageType) {
    KNOWN.write().unwrap_or_else(PoisonError::into_inner).insert(name, message);
}

fn known(name: &str) -> Option<MessageType> {
    KNOWN.read().unwrap_or_else(PoisonError::into_inner).get(name).copied()
}

/// The `value` of a type with a JSON of its own, which stands beside `@type` alone.
fn alone<E: serde::de::Error>(mut fields: Map<String, Value>) -> Result<Option<Value>, E> {
    let value = fields.remove("value");
    if fields.is_empty() { Ok(value) } else { Err(E::custom("only value may stand beside @type")) }
}

impl Serialize for Any {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let serializer = match show_ours(self, serializer) {
            Ok(shown) => return shown,
            Err(serializer) => serializer,
        };
        let shown = match known(self.name()) {
            Some(message) => (message.show)(self.value.clone()).map_err(S::Error::custom)?,
            None => Value::String(base64::Engine::encode(&base64::prelude::BASE64_STANDARD, &self.value)),
        };
        // Types with a JSON of their own, such as Struct, stand under `value`.
        let mut fields = match shown {
            Value::Object(fields) if self.name() != STRUCT => fields,
            other => Map::from_iter([("value".to_owned(), other)]),
        };
        fields.insert("@type".to_owned(), Value::String(self.type_url.clone()));
        fields.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Any {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut fields = Map::deserialize(deserializer)?;
        let Some(Value::String(type_url)) = fields.remove("@type") else {
            return Err(D::Error::custom("@type: must be a string"));
        };
        let mut any = Self { type_url, value: Bytes::new() };
        let message = known(any.name()).ok_or_else(|| D::Error::custom("@type: not known"))?;
        let value = match any.name() {
            STRUCT => alone(fields)?.ok_or_else(|| D::Error::custom("value: is missing"))?,
            EMPTY => alone(fields)?.unwrap_or_else(|| Value::Object(Map::new())),
            _ => Value::Object(fields),
        };
        any.value = (message.read)(value).map_err(D::Error::custom)?;
        Ok(any)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn each_of_ours_is_declared_under_its_own_name() {
        for (name, _) in ours() {
            let any = Any { type_url: format!("type.googleapis.com/{name}"), value: Bytes::new() };
            assert!(show_ours(&any, serde_json::value::Serializer).is_ok(), "{name}");
        }
    }

    use super::*;

    fn round_trip(any: &Any, shown: &Value) {
        assert_eq!(&serde_json::to_value(any).unwrap(), shown);
        assert_eq!(&serde_json::from_value::<Any>(shown.clone()).unwrap(), any);
    }

    #[test]
    fn shows_the_fields_of_its_message_beside_the_type() {
        let metadata = yandex::cloud::compute::v1::CreateSnapshotMetadata {
            snapshot_id: "fd8".to_owned(),
            disk_id: "epd".to_owned(),
        };
        let any = Any::pack(&metadata);
        let url = "type.googleapis.com/yandex.cloud.compute.v1.CreateSnapshotMetadata";
        round_trip(&any, &json!({ "@type": url, "snapshotId": "fd8", "diskId": "epd" }));
        assert_eq!(any.unpack(), Some(metadata));
        assert_eq!(any.unpack::<google::rpc::RetryInfo>(), None);
    }

    #[test]
    fn empty_is_only_its_type_and_may_come_with_a_value() {
        let empty =
            Any { type_url: "type.googleapis.com/google.protobuf.Empty".to_owned(), value: Bytes::new() };
        round_trip(&empty, &json!({ "@type": "type.googleapis.com/google.protobuf.Empty" }));
        let legal = json!({ "@type": "type.googleapis.com/google.protobuf.Empty", "value": {} });
        assert_eq!(serde_json::from_value::<Any>(legal).unwrap(), empty);
    }

    #[test]
    fn what_is_not_known_shows_as_base64_and_cannot_be_read() {
        let strange = Any {
            type_url: "type.googleapis.com/test.Strange".to_owned(),
            value: Bytes::from_static(b"\x08\x01"),
        };
        let shown = json!({ "@type": "type.googleapis.com/test.Strange", "value": "CAE=" });
        assert_eq!(serde_json::to_value(&strange).unwrap(), shown);
        assert!(serde_json::from_value::<Any>(shown).is_err());
        assert!(serde_json::from_value::<Any>(json!({ "value": {} })).is_err());
    }
}
