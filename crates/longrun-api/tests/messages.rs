//! Properties of every message: through bytes and JSON it comes back as it was, another implementation of both reads and
//! writes the same, and no bytes make a decoder panic.
//!
//! The other implementation is prost-reflect, which knows messages from their descriptors alone. So do the strategies here.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fmt::Debug;

use longrun_api::yandex::cloud::{compute::v1 as compute, endpoint, operation};
use longrun_api::{DESCRIPTORS, google, longrun};
use proptest::collection::{hash_map, vec};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use prost::{Message, Name};
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage, Value,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What is known of one type of message.
struct Probe {
    name: String,
    check: fn(&DynamicMessage) -> Result<(), TestCaseError>,
    read: fn(&[u8]),
}

impl Probe {
    fn of<M>() -> Self
    where
        M: Message + Name + Default + Serialize + DeserializeOwned + PartialEq + Debug,
    {
        Self { name: M::full_name(), check: check::<M>, read: read::<M> }
    }
}

macro_rules! probes {
    ($($message:ty),* $(,)?) => { vec![$(Probe::of::<$message>()),*] };
}

fn probes() -> Vec<Probe> {
    probes![
        compute::CreateSnapshotMetadata,
        compute::CreateSnapshotRequest,
        compute::DeleteSnapshotMetadata,
        compute::DeleteSnapshotRequest,
        compute::Generation2HardwareFeatures,
        compute::GetSnapshotRequest,
        compute::HardwareGeneration,
        compute::KmsKey,
        compute::LegacyHardwareFeatures,
        compute::ListSnapshotOperationsRequest,
        compute::ListSnapshotOperationsResponse,
        compute::ListSnapshotsRequest,
        compute::ListSnapshotsResponse,
        compute::Snapshot,
        compute::UpdateSnapshotMetadata,
        compute::UpdateSnapshotRequest,
        endpoint::ApiEndpoint,
        endpoint::GetApiEndpointRequest,
        endpoint::ListApiEndpointsRequest,
        endpoint::ListApiEndpointsResponse,
        google::longrunning::CancelOperationRequest,
        google::longrunning::DeleteOperationRequest,
        google::longrunning::GetOperationRequest,
        google::longrunning::ListOperationsRequest,
        google::longrunning::ListOperationsResponse,
        google::longrunning::Operation,
        google::longrunning::WaitOperationRequest,
        google::rpc::BadRequest,
        google::rpc::ErrorInfo,
        google::rpc::RequestInfo,
        google::rpc::RetryInfo,
        google::rpc::Status,
        google::rpc::bad_request::FieldViolation,
        longrun::v1::BlockedStep,
        longrun::v1::OperationMetadata,
        longrun::v1::Progress,
        operation::CancelOperationRequest,
        operation::GetOperationRequest,
        operation::Operation,
    ]
}

fn check<M>(dynamic: &DynamicMessage) -> Result<(), TestCaseError>
where
    M: Message + Default + Serialize + DeserializeOwned + PartialEq + Debug,
{
    let bytes = dynamic.encode_to_vec();
    let message = M::decode(bytes.as_slice()).unwrap();
    let again = message.encode_to_vec();
    prop_assert_eq!(again.len(), bytes.len());
    prop_assert_eq!(&M::decode(again.as_slice()).unwrap(), &message);
    let decoded = DynamicMessage::decode(dynamic.descriptor(), again.as_slice());
    prop_assert_eq!(decoded.as_ref(), Ok(&plain(dynamic)));

    let json = serde_json::to_string(&message).unwrap();
    prop_assert_eq!(&serde_json::from_str::<M>(&json).unwrap(), &message, "{}", json);
    let mut read = serde_json::Deserializer::from_str(&json);
    let others = DynamicMessage::deserialize(dynamic.descriptor(), &mut read);
    let others = others.map(|message| plain(&message)).map_err(|error| error.to_string());
    prop_assert_eq!(others, Ok(plain(dynamic)), "{}", json);
    let others = serde_json::to_string(dynamic).unwrap();
    prop_assert_eq!(&serde_json::from_str::<M>(&others).unwrap(), &message, "{}", others);
    // Operations write out what is empty, too, so their text may be longer.
    if !dynamic.descriptor().full_name().contains("peration") {
        let [ours, others] =
            [json, others].map(|json| serde_json::from_str::<serde_json::Value>(&json).unwrap());
        prop_assert_eq!(ours, others);
    }
    Ok(())
}

/// Without what is set to its default, which makes a difference to nobody else.
fn plain(message: &DynamicMessage) -> DynamicMessage {
    DynamicMessage::decode(message.descriptor(), message.encode_to_vec().as_slice()).unwrap()
}

/// Whatever the bytes are: a message or an error. What is a message can be shown, or says why not.
fn read<M>(bytes: &[u8])
where
    M: Message + Default + Serialize + DeserializeOwned + PartialEq + Debug,
{
    if let Ok(message) = M::decode(bytes) {
        assert_eq!(M::decode(message.encode_to_vec().as_slice()).as_ref(), Ok(&message));
        if let Ok(json) = serde_json::to_string(&message) {
            // An `Any` of a type that nobody knows is shown, and cannot be read.
            _ = serde_json::from_str::<M>(&json);
        }
    }
    _ = serde_json::from_slice::<M>(bytes);
}

fn pool() -> DescriptorPool {
    // The well-known types and ours.
    let mut pool = DescriptorPool::global();
    pool.decode_file_descriptor_set(DESCRIPTORS).unwrap();
    pool
}

/// What may stand in an `Any` here. Maps have one entry at most: bytes are compared, and their order is not fixed.
/// Empty is not here: prost-reflect demands a `value` of it, which the API's own samples do not have.
const PACKED: &[&str] = &[
    "google.rpc.BadRequest",
    "google.rpc.ErrorInfo",
    "google.rpc.RequestInfo",
    "google.rpc.RetryInfo",
    "yandex.cloud.compute.v1.CreateSnapshotMetadata",
    "yandex.cloud.compute.v1.Snapshot",
    "yandex.cloud.compute.v1.UpdateSnapshotMetadata",
];

fn message(descriptor: &MessageDescriptor, entries_max: usize) -> BoxedStrategy<DynamicMessage> {
    let numbers = |numbers: BoxedStrategy<(i64, i32)>| {
        let values =
            numbers.prop_map(|(seconds, nanos)| vec![(1, Value::I64(seconds)), (2, Value::I32(nanos))]);
        made(descriptor, values.boxed())
    };
    match descriptor.full_name() {
        "google.protobuf.Timestamp" => {
            numbers((-62_135_596_800..=253_402_300_799_i64, 0..1_000_000_000_i32).boxed())
        }
        "google.protobuf.Duration" => numbers((0..=315_576_000_000_i64, 0..1_000_000_000_i32).boxed()),
        "google.protobuf.FieldMask" => {
            let paths = vec("[a-z]{1,5}(_[a-z]{1,5}){0,2}".prop_map(Value::String), 0..4);
            made(descriptor, paths.prop_map(|paths| vec![(1, Value::List(paths))]).boxed())
        }
        "google.protobuf.Any" => any_message(descriptor),
        _ => {
            let fields: Vec<_> = descriptor.fields().map(|field| value(&field, entries_max)).collect();
            made(descriptor, fields.prop_map(|fields| fields.into_iter().flatten().collect()).boxed())
        }
    }
}

/// A message of these values, by the numbers of their fields.
fn made(
    descriptor: &MessageDescriptor,
    values: BoxedStrategy<Vec<(u32, Value)>>,
) -> BoxedStrategy<DynamicMessage> {
    let descriptor = descriptor.clone();
    let make = move |values: Vec<(u32, Value)>| {
        let mut message = DynamicMessage::new(descriptor.clone());
        for (number, value) in values {
            message.set_field_by_number(number, value);
        }
        message
    };
    values.prop_map(make).boxed()
}

fn any_message(descriptor: &MessageDescriptor) -> BoxedStrategy<DynamicMessage> {
    let pool = descriptor.parent_pool();
    let of_name = |name: &&str| message(&pool.get_message_by_name(name).unwrap(), 1);
    let packed = proptest::strategy::Union::new(PACKED.iter().map(of_name).collect::<Vec<_>>());
    let fields = packed.prop_map(|packed| {
        let type_url = format!("type.googleapis.com/{}", packed.descriptor().full_name());
        vec![(1, Value::String(type_url)), (2, Value::Bytes(packed.encode_to_vec().into()))]
    });
    made(descriptor, fields.boxed())
}

/// A value of a field, or none.
fn value(field: &FieldDescriptor, entries_max: usize) -> BoxedStrategy<Option<(u32, Value)>> {
    let (number, kind) = (field.number(), field.kind());
    let values = match kind.as_message() {
        Some(entry) if field.is_map() => {
            let key = any::<String>().prop_map(MapKey::String);
            let value = single(&entry.map_entry_value_field().kind(), entries_max);
            hash_map(key, value, 0..=entries_max).prop_map(Value::Map).boxed()
        }
        _ if field.is_list() => vec(single(&kind, entries_max), 0..3).prop_map(Value::List).boxed(),
        _ => single(&kind, entries_max),
    };
    proptest::option::of(values.prop_map(move |value| (number, value))).boxed()
}

fn single(kind: &Kind, entries_max: usize) -> BoxedStrategy<Value> {
    match kind {
        Kind::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        Kind::Int32 => any::<i32>().prop_map(Value::I32).boxed(),
        Kind::Int64 => any::<i64>().prop_map(Value::I64).boxed(),
        Kind::String => any::<String>().prop_map(Value::String).boxed(),
        Kind::Enum(of) => {
            let numbers: Vec<i32> = of.values().map(|value| value.number()).collect();
            prop::sample::select(numbers).prop_map(Value::EnumNumber).boxed()
        }
        Kind::Message(of) => message(of, entries_max).prop_map(Value::Message).boxed(),
        other => unimplemented!("the protocol has no {other:?}"),
    }
}

/// Runs a property with every message, fewer times each.
fn with_every_message(property: impl Fn(&Probe, DynamicMessage) -> Result<(), TestCaseError>) {
    let pool = pool();
    for probe in probes() {
        let descriptor = pool.get_message_by_name(&probe.name).unwrap();
        let config = ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() };
        let found =
            TestRunner::new(config).run(&message(&descriptor, 3), |dynamic| property(&probe, dynamic));
        assert!(found.is_ok(), "{}: {}", probe.name, found.unwrap_err());
    }
}

#[test]
fn every_message_of_the_protocol_is_looked_at() {
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let is_ours =
        |message: &MessageDescriptor| !message.is_map_entry() && message.package_name() != "google.protobuf";
    let all: BTreeSet<String> =
        pool.all_messages().filter(is_ours).map(|message| message.full_name().to_owned()).collect();
    assert_eq!(probes().into_iter().map(|probe| probe.name).collect::<BTreeSet<_>>(), all);
}

#[test]
fn every_message_comes_back_as_it_was_and_others_read_the_same() {
    with_every_message(|probe, dynamic| (probe.check)(&dynamic));
}

#[test]
fn no_change_to_the_bytes_of_a_message_makes_a_decoder_panic() {
    with_every_message(|probe, dynamic| {
        let bytes = dynamic.encode_to_vec();
        for place in (0..bytes.len()).step_by(1 + bytes.len() / 64) {
            (probe.read)(&bytes[..place]);
            for change in [1, 4, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[place] ^= change;
                (probe.read)(&changed);
            }
        }
        Ok(())
    });
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in vec(any::<u8>(), 0..256)) {
        for probe in probes() {
            (probe.read)(&bytes);
        }
    }
}
