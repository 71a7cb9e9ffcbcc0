//! Requests from strangers: from their bytes to what the snapshot service makes of them.

use std::any::Any;
use std::fmt::Debug;

use longrun_api::google::longrunning;
use longrun_api::well_known::FieldMask;
use longrun_api::yandex::cloud::{compute::v1 as compute, endpoint, operation};
use longrun_snapshot::service::{self, Filter, Limits, Violations};
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What became of bytes that are taken for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They are no message.
    Unreadable,
    /// They are a message that breaks rules.
    Refused,
    /// They are a request.
    Accepted,
}

/// How bytes are read.
#[derive(Clone, Copy)]
enum Form {
    Json,
    Protobuf,
}

/// JSON from a stranger gives a request or an error, whichever method it was sent to. What is read, and is written again, reads
/// the same; what breaks rules says so within its bounds.
pub fn json_request(data: &[u8]) {
    judge(data, Form::Json);
}

/// The same of protobuf.
pub fn protobuf_request(data: &[u8]) {
    judge(data, Form::Protobuf);
}

/// What every method that asks something of the service makes of JSON.
pub fn judge_json(data: &[u8]) -> Vec<Verdict> {
    judge(data, Form::Json)
}

/// What every method that asks something of the service makes of protobuf.
pub fn judge_protobuf(data: &[u8]) -> Vec<Verdict> {
    judge(data, Form::Protobuf)
}

fn judge(data: &[u8], form: Form) -> Vec<Verdict> {
    read::<operation::GetOperationRequest>(data, form);
    read::<operation::CancelOperationRequest>(data, form);
    read::<endpoint::GetApiEndpointRequest>(data, form);
    read::<endpoint::ListApiEndpointsRequest>(data, form);
    read::<longrunning::GetOperationRequest>(data, form);
    read::<longrunning::ListOperationsRequest>(data, form);
    read::<longrunning::CancelOperationRequest>(data, form);
    read::<longrunning::DeleteOperationRequest>(data, form);
    read::<longrunning::WaitOperationRequest>(data, form);
    vec![
        verdict(read(data, form), |request: compute::GetSnapshotRequest| {
            service::GetSnapshotRequest::from(request).check()
        }),
        verdict(read(data, form), list),
        verdict(read(data, form), create),
        verdict(read(data, form), update),
        verdict(read(data, form), |request: compute::DeleteSnapshotRequest| {
            service::DeleteSnapshotRequest::from(request).check()
        }),
        verdict(read(data, form), |request: compute::ListSnapshotOperationsRequest| {
            service::ListSnapshotOperationsRequest::from(request).check()
        }),
    ]
}

fn read<M>(data: &[u8], form: Form) -> Option<M>
where
    M: Message + Default + Serialize + DeserializeOwned + PartialEq + 'static,
{
    let message = match form {
        Form::Json => serde_json::from_slice::<M>(data).ok()?,
        Form::Protobuf => M::decode(data).ok()?,
    };
    let again = M::decode(message.encode_to_vec().as_slice()).expect("what was read can be written");
    assert!(again == message, "not the same after a second reading of bytes");
    match form {
        Form::Json => comes_back(&message),
        // An enum value that nobody knows, or a time beyond all bounds, has bytes and no JSON. That is for the caller to see.
        Form::Protobuf => _ = serde_json::to_vec(&message),
    }
    Some(message)
}

fn comes_back<M: Serialize + DeserializeOwned + PartialEq + 'static>(message: &M) {
    let json = serde_json::to_vec(message).expect("what came as JSON can be shown");
    let mut again: M = serde_json::from_slice(&json).expect("what was shown can be read");
    let update = (message as &dyn Any).downcast_ref::<compute::UpdateSnapshotRequest>();
    if let Some(mask) = update.and_then(|update| update.update_mask.as_ref()).filter(|mask| is_strange(mask))
    {
        let again = (&mut again as &mut dyn Any).downcast_mut::<compute::UpdateSnapshotRequest>();
        again.expect("of the same type").update_mask = Some(mask.clone());
    }
    assert!(again == *message, "not the same after a second reading of JSON");
}

/// A path that is not in the protocol's spelling has no other in JSON, and a mask of one empty path none but that of the empty
/// mask. No request with one is accepted.
fn is_strange(mask: &FieldMask) -> bool {
    let strange = |path: &String| {
        let mut after = path.split('_').skip(1);
        after.any(|word| !word.starts_with(|first: char| first.is_ascii_lowercase()))
    };
    mask.paths.iter().any(strange) || mask.paths == [""]
}

fn verdict<M, T>(message: Option<M>, check: impl FnOnce(M) -> Result<T, Violations>) -> Verdict {
    match message.map(check) {
        None => Verdict::Unreadable,
        Some(Err(violations)) => {
            bounded(violations);
            Verdict::Refused
        }
        Some(Ok(_)) => Verdict::Accepted,
    }
}

/// What is said of a wrong request is finite, plain, and can be sent.
fn bounded(violations: Violations) {
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    assert!(violations.iter().len() > 0 && violations.iter().len() <= service::VIOLATIONS_MAX);
    for violation in violations.iter() {
        assert!(plain(&violation.field) && plain(&violation.rule), "{violation}");
    }
    let status = longrun_api::ApiError::from(violations).to_status("fuzz");
    assert!(status.code == 3 && status.message.len() < 4096);
    serde_json::to_vec(&status).expect("an error can be shown");
}

fn list(request: compute::ListSnapshotsRequest) -> Result<(), Violations> {
    let list = service::ListSnapshotsRequest::from(request).check(Limits::default())?;
    // A filter is stored in page tokens by its text: that has to mean the same.
    let text = list.filter.to_string();
    same(Filter::parse(&text, Limits::default()).ok(), Some(list.filter), &text);
    Ok(())
}

fn create(request: compute::CreateSnapshotRequest) -> Result<(), Violations> {
    match service::CreateSnapshotRequest::try_from(request) {
        Ok(request) => request.check(Limits::default()),
        Err(_) => Ok(()),
    }
}

/// An update that is accepted survives being stored.
fn update(request: compute::UpdateSnapshotRequest) -> Result<(), Violations> {
    let request = service::UpdateSnapshotRequest::from(request);
    request.check(Limits::default())?;
    let stored = serde_json::to_vec(&request).expect("a request can be stored");
    same(serde_json::from_slice(&stored).ok(), Some(request), "an update");
    Ok(())
}

fn same<T: PartialEq + Debug>(found: Option<T>, expected: Option<T>, what: &str) {
    assert_eq!(found, expected, "{what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_is_strange_exactly_when_it_does_not_come_back() {
        let texts = [
            "", "name", "diskSize", "_name", "a_1", "a__b", "name_", "_", " ", "a b", "a_ b", "a,, b",
            "a,_,b",
        ];
        for text in texts {
            let json = serde_json::to_vec(text).unwrap();
            let mask: FieldMask = serde_json::from_slice(&json).unwrap();
            let json = serde_json::to_vec(&mask).unwrap();
            let again: FieldMask = serde_json::from_slice(&json).unwrap();
            assert_eq!(is_strange(&mask), again != mask, "{mask:?} came back as {again:?}");
        }
    }
}
