//! [`Types`]: from the JSON that users keep in operations to the messages that clients get.

use std::collections::BTreeMap;
use std::fmt;

use longrun_core::{Code, Payload, Status};
use prost::{Message, Name};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::google;
use crate::well_known::{Any, MessageType, Struct, register};

/// What is told of a failure of the service itself.
const SERVICE_FAILED: &str = "the service failed at this; its log tells more under the operation's id";

/// Turns a payload's JSON into the bytes of a message.
type Convert = fn(&Payload) -> Result<Vec<u8>, serde_json::Error>;

/// Which message stands for which payload.
///
/// A payload whose type is not here goes out as `google.protobuf.Struct`: nothing is lost, and clients see the same JSON.
#[derive(Clone)]
pub struct Types(BTreeMap<String, Convert>);

impl fmt::Debug for Types {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Default for Types {
    fn default() -> Self {
        Self(BTreeMap::from([(
            "google.protobuf.Empty".to_owned(),
            (|_: &Payload| Ok(Vec::new())) as Convert,
        )]))
    }
}

impl Types {
    /// Payloads under the type URL of message `M` hold a `D`, which is turned into an `M`.
    ///
    /// Also makes `M` known to every [`Any`] of this process; a second message of the same name replaces the first.
    #[must_use]
    pub fn with<D, M>(mut self) -> Self
    where
        D: DeserializeOwned,
        M: From<D> + Message + Name + Default + Serialize + DeserializeOwned + 'static,
    {
        register(M::full_name(), MessageType::of::<M>());
        self.0.insert(M::full_name(), |payload| Ok(M::from(payload.decode::<D>()?).encode_to_vec()));
        self
    }

    /// The message of a payload.
    pub fn any(&self, payload: &Payload) -> Any {
        let type_url = payload.type_url();
        let name = type_url.rsplit_once('/').map_or(type_url, |(_, name)| name);
        let Some(convert) = self.0.get(name) else { return as_struct(payload) };
        match convert(payload) {
            Ok(bytes) => Any { type_url: type_url.to_owned(), value: bytes.into() },
            // Written by a program that had another idea of the type. What it wrote can still be shown.
            Err(_) => as_struct(payload),
        }
    }

    /// The status of an operation. Of failures of the service itself, which may name its files or what it panicked with,
    /// clients get a fixed text; the engine puts their messages on its log.
    pub fn status(&self, status: &Status) -> google::rpc::Status {
        let message = match status.code() {
            Code::Internal | Code::Unknown | Code::Unavailable => SERVICE_FAILED,
            _ => status.message(),
        };
        google::rpc::Status {
            code: i32::from(status.code().number()),
            message: message.to_owned(),
            details: status.details().iter().map(|detail| self.any(detail)).collect(),
        }
    }
}

fn as_struct(payload: &Payload) -> Any {
    let value = payload.decode::<Value>().unwrap_or_default();
    let message = match value {
        Value::Null => {
            return Any {
                type_url: "type.googleapis.com/google.protobuf.Empty".to_owned(),
                ..Any::default()
            };
        }
        Value::Object(fields) => Struct::from(fields),
        other => Struct::from(Map::from_iter([("value".to_owned(), other)])),
    };
    Any {
        type_url: "type.googleapis.com/google.protobuf.Struct".to_owned(),
        value: message.encode_to_vec().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_failure_of_the_service_itself_clients_see_the_code_alone() {
        for code in Code::ALL {
            let shown = Types::default().status(&Status::new(*code, "cannot write /var/lib/secret"));
            let is_own = matches!(code, Code::Internal | Code::Unknown | Code::Unavailable);
            assert_eq!(shown.code, i32::from(code.number()));
            assert_eq!(shown.message.contains("secret"), !is_own, "{code}");
        }
    }
}
