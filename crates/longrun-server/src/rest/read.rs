//! Reads what a request asks: strictly, within limits, and without repeating what a stranger wrote.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use http::request::Parts;
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use longrun_api::{ApiError, Reason};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::each_once::EachOnce;
use crate::limits::MESSAGE_BYTES_MAX;

/// Characters of a field's name, escaped, that an error repeats.
const NAME_CHARS_MAX: usize = 80;

/// Where a request has its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// In the query; a body is not looked at.
    Query,
    /// In the body; a query is refused, for it would be passed over.
    Body,
}

pub(super) async fn read<Q: DeserializeOwned>(
    parts: &Parts,
    body: Body,
    time: Duration,
    source: Source,
) -> Result<Q, ApiError> {
    let query = parts.uri.query().unwrap_or_default();
    match source {
        Source::Query => from_query(query),
        Source::Body if query.is_empty() => {
            check_encoding(&parts.headers)?;
            from_body(&whole(body, time).await?)
        }
        Source::Body => {
            Err(ApiError::violation("query", "must be empty: this method's fields are in the body"))
        }
    }
}

/// Puts the id from the path into the message. The message may have it, too, if it is the same.
pub(super) fn set_id(field: &'static str, place: &mut String, id: String) -> Result<(), ApiError> {
    if !place.is_empty() && *place != id {
        return Err(ApiError::violation(field, "must be that of the path"));
    }
    *place = id;
    Ok(())
}

/// What was decompressed has no encoding any more.
fn check_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    match headers.get(CONTENT_ENCODING) {
        Some(encoding) if encoding != "identity" => {
            Err(ApiError::violation("content-encoding", "must be gzip, identity or none"))
        }
        _ => Ok(()),
    }
}

async fn whole(body: Body, time: Duration) -> Result<Bytes, ApiError> {
    let too_large =
        || ApiError::new(Reason::TooLarge, format!("the body is larger than {MESSAGE_BYTES_MAX} bytes"));
    // A length that is announced is believed: nothing is waited for.
    if usize::try_from(body.size_hint().lower()).map_or(true, |length| length > MESSAGE_BYTES_MAX) {
        return Err(too_large());
    }
    let collected = tokio::time::timeout(time, Limited::new(body, MESSAGE_BYTES_MAX).collect()).await;
    let late = |_| ApiError::new(Reason::DeadlineExceeded, "the body took too long to come");
    match collected.map_err(late)? {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        // The client went away, or what it compressed is damaged.
        Err(_) => Err(ApiError::violation("body", "could not be read to its end")),
    }
}

fn from_query<Q: DeserializeOwned>(query: &str) -> Result<Q, ApiError> {
    let rule = || ApiError::violation("query", "must be name=value, joined by &, percent-encoded UTF-8");
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query).map_err(|_| rule())?;
    let mut fields = Map::new();
    for (name, value) in pairs {
        // Stands for bytes that are no text; no field has it otherwise.
        if [&name, &value].iter().any(|text| text.contains(char::REPLACEMENT_CHARACTER)) {
            return Err(rule());
        }
        if fields.contains_key(&name) {
            return Err(ApiError::violation(shown(&name), "must be given once"));
        }
        fields.insert(name, Value::String(value));
    }
    serde_json::from_value(Value::Object(fields)).map_err(|error| wrong(&error, "query"))
}

fn from_body<Q: DeserializeOwned>(body: &[u8]) -> Result<Q, ApiError> {
    // No body is a message without fields.
    let body = if body.is_empty() { b"{}" } else { body };
    // Of a key that a map has twice, the message would have the last.
    serde_json::from_slice::<EachOnce>(body).map_err(|error| wrong(&error, "body"))?;
    serde_json::from_slice(body).map_err(|error| wrong(&error, "body"))
}

/// What is wrong with JSON. serde's own words may repeat a value.
fn wrong(error: &serde_json::Error, place: &'static str) -> ApiError {
    if !error.is_data() {
        let rule = format!("is not JSON, at line {} column {}", error.line(), error.column());
        return ApiError::violation(place, rule);
    }
    let text = error.to_string();
    let named = |kind: &str| Some(text.strip_prefix(kind)?.split_once('`')?.0);
    if let Some(name) = named("unknown field `") {
        ApiError::violation(shown(name), "is not a field of this request")
    } else if let Some(name) = named("duplicate field `") {
        ApiError::violation(shown(name), "must be given once")
    } else if error.line() > 0 {
        let rule = format!("has a value of another type, at line {} column {}", error.line(), error.column());
        ApiError::violation(place, rule)
    } else {
        ApiError::violation(place, "has a value of another type")
    }
}

/// A name that a stranger wrote, escaped to plain ASCII and, if long, cut.
fn shown(name: &str) -> String {
    let mut shown: String = name.chars().flat_map(char::escape_default).take(NAME_CHARS_MAX + 1).collect();
    if shown.len() > NAME_CHARS_MAX {
        shown.truncate(NAME_CHARS_MAX);
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use longrun_api::yandex::cloud::compute::v1::{CreateSnapshotRequest, ListSnapshotsRequest};

    use super::*;

    fn violation(error: &ApiError) -> (String, String) {
        let status = serde_json::to_value(error.to_status("r")).unwrap();
        let details = status["details"].as_array().unwrap();
        let found = details.iter().find_map(|detail| detail["fieldViolations"].get(0)).unwrap();
        let text = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
        (text("field"), text("description"))
    }

    #[test]
    fn a_query_has_the_fields_of_its_message_once_each() {
        let query = "folderId=b1g&pageSize=50&filter=name%3D%22a%20b%22";
        let request: ListSnapshotsRequest = from_query(query).unwrap();
        assert_eq!(
            (request.folder_id.as_str(), request.page_size, request.filter.as_str()),
            ("b1g", 50, "name=\"a b\"")
        );
        assert_eq!(from_query::<ListSnapshotsRequest>("").unwrap(), ListSnapshotsRequest::default());
        for (query, field) in [
            ("folder=b1g", "folder"),
            ("folderId=a&folderId=b", "folderId"),
            ("pageSize=many", "query"),
            ("filter=%ff", "query"),
            ("%0a%1b[31m=1", "\\n\\u{1b}[31m"),
        ] {
            let error = from_query::<ListSnapshotsRequest>(query).unwrap_err();
            assert_eq!(violation(&error).0, field, "{query}");
            assert!(!error.message().contains("many"));
        }
    }

    #[test]
    fn b07_a_body_is_strict_json_and_its_faults_are_named_without_its_values() {
        let request: CreateSnapshotRequest =
            from_body(br#"{"folderId": "b1g", "labels": {"a": "b"}}"#).unwrap();
        assert_eq!(request.labels["a"], "b");
        assert_eq!(from_body::<CreateSnapshotRequest>(b"").unwrap(), CreateSnapshotRequest::default());
        let deep = "[".repeat(100_000);
        let deep_value = format!(r#"{{"labels": {}"#, r#"{"a":"#.repeat(100_000));
        for (body, field, rule) in [
            (r#"{"nam": "x"}"#, "nam", "is not a field of this request"),
            (r#"{"name": "x", "name": "y"}"#, "name", "must be given once"),
            (r#"{"labels": {"a": "x", "b": "y", "a": "z"}}"#, "a", "must be given once"),
            (r#"{"name": 5}"#, "body", "has a value of another type, at line 1 column 10"),
            (r#"{"name": "hush""#, "body", "is not JSON, at line 1 column 15"),
            (r#"{"name": "hush"} x"#, "body", "is not JSON, at line 1 column 18"),
            (deep.as_str(), "body", ""),
            (deep_value.as_str(), "body", ""),
        ] {
            let error = from_body::<CreateSnapshotRequest>(body.as_bytes()).unwrap_err();
            let (found, why) = violation(&error);
            assert_eq!(found, field, "{why}");
            assert!(rule.is_empty() || why == rule, "{why}");
            assert!(!error.message().contains("hush"));
        }
        assert!(from_body::<CreateSnapshotRequest>(b"{\"name\": \"\xff\"}").is_err());
    }

    #[test]
    fn the_id_of_the_path_and_that_of_the_body_are_the_same() {
        let mut place = String::new();
        set_id("snapshot_id", &mut place, "a".to_owned()).unwrap();
        set_id("snapshot_id", &mut place, "a".to_owned()).unwrap();
        assert!(set_id("snapshot_id", &mut place, "b".to_owned()).is_err());
        assert_eq!(place, "a");
    }
}
