//! The OpenAPI document against what it describes: the router, the protocol, the limits and the table of errors.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};

use axum::Router;
use axum::body::Body;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use longrun::core::limits::{
    DESCRIPTION_CHARS_MAX, ID_CHARS_MAX, PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, PAGE_TOKEN_CHARS_MAX,
};
use longrun::{Caller, Code, Engine, KvStore};
use longrun_api::yandex::cloud::{compute::v1 as compute, endpoint, operation};
use longrun_api::{DESCRIPTORS, Types, google, http_status};
use longrun_server::auth::{Anonymous, Tokens};
use longrun_server::{Faces, rest};
use longrun_snapshot::data::{ChunkFolder, DiskFolder};
use longrun_snapshot::service::{FILTER_CHARS_MAX, LABELS_MAX, Limits, ORDER_BY_CHARS_MAX};
use longrun_snapshot::{DataPlane, SnapshotService};
use prost::Name;
use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tower::ServiceExt;

/// What else a path has beside its methods.
const NOT_METHODS: &[&str] = &["parameters"];
/// The operation of the document that is no method of the protocol.
const ITSELF: &str = "openapi";
/// Its fields are ignored by the API, so they are not offered.
const IGNORED: &str = "yandex.cloud.endpoint.ListApiEndpointsRequest";

fn document() -> Value {
    serde_json::from_str(rest::OPENAPI).unwrap()
}

fn pool() -> DescriptorPool {
    DescriptorPool::decode(DESCRIPTORS).unwrap()
}

fn object(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// What a reference stands for, or the value itself.
fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let Some(reference) = value.get("$ref").and_then(Value::as_str) else { return value };
    let found = reference.strip_prefix('#').and_then(|pointer| document.pointer(pointer));
    found.unwrap_or_else(|| panic!("{reference} refers to nothing"))
}

/// One method of a path of the document.
struct Operation<'a> {
    path: &'a str,
    method: Method,
    value: &'a Value,
    /// Of the path and of the method.
    parameters: Vec<&'a Value>,
}

impl Operation<'_> {
    fn id(&self) -> &str {
        self.value["operationId"].as_str().unwrap()
    }

    fn needs_a_token(&self) -> bool {
        self.value.get("security").is_none()
    }

    fn names_of(&self, place: &str) -> BTreeSet<String> {
        let here = self.parameters.iter().filter(|parameter| parameter["in"] == place);
        here.map(|parameter| parameter["name"].as_str().unwrap().to_owned()).collect()
    }

    /// The method of the protocol: its service and its name are the first two words of the id.
    fn method_of_protocol(&self, pool: &DescriptorPool) -> Option<MethodDescriptor> {
        let mut words = self.id().split('_');
        let (service, name) = (words.next().unwrap(), words.next()?);
        let service = pool.services().find(|found| found.name() == service).unwrap();
        Some(service.methods().find(|found| found.name() == name).unwrap())
    }
}

fn operations(document: &Value) -> Vec<Operation<'_>> {
    let mut operations = Vec::new();
    for (path, item) in object(&document["paths"]) {
        for (method, value) in object(item).filter(|(name, _)| !NOT_METHODS.contains(name)) {
            let parameters = array(&item["parameters"]).chain(array(&value["parameters"]));
            let parameters = parameters.map(|parameter| resolve(document, parameter)).collect();
            let method = method.to_uppercase().parse().unwrap();
            operations.push(Operation { path, method, value, parameters });
        }
    }
    operations
}

/// The router of a snapshot service that knows nobody, with the folder that it needs.
async fn faces() -> (Faces, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let chunks = ChunkFolder::open(folder.path().join("chunks")).unwrap();
    let plane = DataPlane::new(DiskFolder::new(folder.path()), chunks);
    let builder = Engine::builder(KvStore::memory().unwrap());
    let engine = SnapshotService::register(builder, &plane, Limits::default()).start().await.unwrap();
    let snapshots = SnapshotService::new(engine, plane, Limits::default());
    let tokens = Tokens::parse("s3cret alice *").unwrap();
    (Faces::of_snapshots(snapshots, tokens), folder)
}

async fn ask(router: &Router, method: &Method, path: &str) -> (StatusCode, Value) {
    let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    assert!(response.headers().contains_key("x-request-id"), "{method} {path}");
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

/// A path with values in the place of its parameters.
fn filled(path: &str) -> String {
    let values = [("{snapshotId}", "fd8a"), ("{operationId}", "fd8b"), ("{apiEndpointId}", "compute")];
    values.iter().fold(path.to_owned(), |path, (name, value)| path.replace(name, value))
}

/// A path whose parameters have no names, as the router knows it: verbs are not part of its paths.
fn anonymous(path: &str) -> String {
    let path = path.strip_suffix(":cancel").unwrap_or(path);
    let segment = |segment: &str| if segment.starts_with('{') { "{}".to_owned() } else { segment.to_owned() };
    path.split('/').map(segment).collect::<Vec<_>>().join("/")
}

#[tokio::test]
async fn every_method_of_the_document_is_served_and_its_paths_have_no_other() {
    let (document, (faces, _folder)) = (document(), faces().await);
    let router = rest::router(&faces);
    let operations = operations(&document);
    assert_eq!(operations.len(), 12);
    let methods = [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
        Method::TRACE,
    ];
    for (path, _) in object(&document["paths"]) {
        for method in &methods {
            let (status, body) = ask(&router, method, &filled(path)).await;
            let found = operations.iter().find(|found| found.path == path && found.method == *method);
            let expected = match found {
                // Who calls is asked before anything else, so this tells the two apart as well.
                Some(operation) if operation.needs_a_token() => StatusCode::UNAUTHORIZED,
                Some(_) => StatusCode::OK,
                None => StatusCode::METHOD_NOT_ALLOWED,
            };
            assert_eq!(status, expected, "{method} {path}: {body}");
            assert!(status == StatusCode::OK || body["code"].as_i64() > Some(0), "{method} {path}: {body}");
        }
    }
    let (status, body) = ask(&router, &Method::GET, "/compute/v1/disks").await;
    assert_eq!((status, body["code"].as_i64()), (StatusCode::NOT_FOUND, Some(5)));
}

#[tokio::test]
async fn every_path_of_the_router_is_in_the_document() {
    let (document, (faces, _folder)) = (document(), faces().await);
    let served: BTreeSet<String> = rest::paths(&faces).into_iter().map(anonymous).collect();
    let written: BTreeSet<String> = object(&document["paths"]).map(|(path, _)| anonymous(path)).collect();
    assert_eq!(served, written);
    // Without snapshots there are fewer.
    let engine = Engine::builder(KvStore::memory().unwrap()).start().await.unwrap();
    let nobody = Anonymous::as_caller(Caller::new("nobody").unwrap());
    let fewer = rest::paths(&Faces::of_operations(engine, Types::default(), nobody));
    assert!(fewer.iter().all(|path| served.contains(&anonymous(path)) && !path.starts_with("/compute")));
}

#[tokio::test]
async fn the_document_is_served_as_it_is() {
    let (faces, _folder) = faces().await;
    let (status, served) = ask(&rest::router(&faces), &Method::GET, "/openapi.json").await;
    assert_eq!((status, served), (StatusCode::OK, document()));
}

#[tokio::test]
async fn a_body_in_an_encoding_that_is_not_known_is_refused_as_all_is() {
    let (faces, _folder) = faces().await;
    for (encoding, expected) in [("zstd", 400), ("br", 400), ("identity", 400), ("gzip", 400)] {
        let request = Request::post("/compute/v1/snapshots")
            .header("authorization", "Bearer s3cret")
            .header("content-encoding", encoding)
            .body(Body::from("{}"))
            .unwrap();
        let response = rest::router(&faces).oneshot(request).await.unwrap();
        assert_eq!(response.status(), expected, "{encoding}");
        assert!(response.headers().contains_key("x-request-id"), "{encoding}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let status: google::rpc::Status = serde_json::from_slice(&body).unwrap();
        // What is said of the fields is said only of a body that could be read.
        assert_eq!(
            status.message.contains("folder_id"),
            encoding == "identity",
            "{encoding}: {}",
            status.message
        );
    }
}

#[test]
fn every_method_of_the_protocol_has_its_operations() {
    let (document, pool) = (document(), pool());
    let services = pool.services().filter(|service| service.package_name().starts_with("yandex."));
    let expected: BTreeSet<String> = services
        .flat_map(|service| service.methods().map(|found| found.full_name().to_owned()).collect::<Vec<_>>())
        .collect();
    let found: Vec<_> =
        operations(&document).iter().filter_map(|found| found.method_of_protocol(&pool)).collect();
    assert_eq!(found.iter().map(|method| method.full_name().to_owned()).collect::<BTreeSet<_>>(), expected);
    let ids: BTreeSet<String> = operations(&document).iter().map(|found| found.id().to_owned()).collect();
    assert_eq!(ids.len(), operations(&document).len(), "an id stands twice");
    assert!(ids.contains(ITSELF));
}

#[test]
fn parameters_and_bodies_are_the_fields_of_the_request() {
    let (document, pool) = (document(), pool());
    for operation in operations(&document) {
        let Some(method) = operation.method_of_protocol(&pool) else { continue };
        let (input, output) = (method.input(), method.output());
        let answer = &operation.value["responses"]["200"]["content"]["application/json"]["schema"];
        assert_eq!(resolve(&document, answer)["x-protobuf"], output.full_name(), "{}", operation.id());
        let (path, query) = (operation.names_of("path"), operation.names_of("query"));
        let fields: BTreeSet<String> = input.fields().map(|field| field.json_name().to_owned()).collect();
        if let Some(body) = operation.value.get("requestBody") {
            let schema = resolve(&document, &body["content"]["application/json"]["schema"]);
            assert_eq!(schema["x-protobuf"], input.full_name(), "{}", operation.id());
            assert!(query.is_empty() && path.is_subset(&fields), "{}", operation.id());
        } else if input.full_name() != IGNORED {
            assert_eq!(&path | &query, fields, "{}", operation.id());
        }
        for parameter in operation.parameters.iter().filter(|parameter| parameter["in"] != "header") {
            let field = input.get_field_by_json_name(parameter["name"].as_str().unwrap()).unwrap();
            let expected = match field.kind() {
                Kind::String => "string",
                Kind::Int64 => "integer",
                other => panic!("a parameter of type {other:?}"),
            };
            assert_eq!(parameter["schema"]["type"], expected, "{}", operation.id());
        }
    }
}

#[test]
fn paths_have_their_parameters_and_changes_a_key() {
    let document = document();
    let tags: BTreeSet<&str> = array(&document["tags"]).map(|tag| tag["name"].as_str().unwrap()).collect();
    for operation in operations(&document) {
        let id = operation.id();
        let in_path =
            operation.path.split('{').skip(1).map(|rest| rest.split('}').next().unwrap().to_owned());
        assert_eq!(operation.names_of("path"), in_path.collect(), "{id}");
        let required = operation.parameters.iter().filter(|parameter| parameter["in"] == "path");
        assert!(required.into_iter().all(|parameter| parameter["required"] == true), "{id}");
        let takes_a_key = operation.names_of("header").contains("Idempotency-Key");
        let is_change = operation.method != Method::GET && !operation.path.ends_with(":cancel");
        assert_eq!(takes_a_key, is_change, "{id}");
        assert!(operation.names_of("header").contains("x-request-id"), "{id}");
        assert!(tags.contains(operation.value["tags"][0].as_str().unwrap()), "{id}");
        for text in ["summary", "description"] {
            assert!(operation.value[text].as_str().is_some_and(|text| !text.is_empty()), "{id}");
        }
    }
    let parameters = object(&document["components"]["parameters"]).map(|(_, parameter)| parameter);
    let written: Vec<_> =
        operations(&document).into_iter().flat_map(|found| found.parameters).chain(parameters).collect();
    assert!(written.iter().all(|parameter| parameter["description"].is_string()));
}

/// The schema that a field of the protocol has to have; descriptions and limits aside.
fn schema_of(field: &FieldDescriptor) -> Value {
    let kind = field.kind();
    if field.is_map() {
        return json!({ "type": "object", "additionalProperties": { "type": "string" } });
    }
    let single = match &kind {
        Kind::String => json!({ "type": "string" }),
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Int32 => json!({ "type": "integer", "format": "int32" }),
        Kind::Int64 => json!({ "type": "string", "format": "int64" }),
        Kind::Enum(of) => json!({ "x-protobuf": of.full_name() }),
        Kind::Message(of) => match of.full_name() {
            "google.protobuf.Timestamp" => json!({ "type": "string", "format": "date-time" }),
            "google.protobuf.FieldMask" | "google.protobuf.Duration" => json!({ "type": "string" }),
            name => json!({ "x-protobuf": name }),
        },
        other => panic!("no field here is {other:?}"),
    };
    if field.is_list() { json!({ "type": "array", "items": single }) } else { single }
}

/// What of a schema is about its type.
fn type_of(document: &Value, schema: &Value) -> Value {
    let schema = resolve(document, schema);
    if let Some(name) = schema.get("x-protobuf") {
        return json!({ "x-protobuf": name });
    }
    let mut found = BTreeMap::new();
    for (name, value) in object(schema) {
        match name {
            "type" | "format" => _ = found.insert(name, value.clone()),
            "items" | "additionalProperties" => _ = found.insert(name, type_of(document, value)),
            _ => {}
        }
    }
    json!(found)
}

fn check_message(document: &Value, schema: &Value, message: &MessageDescriptor) {
    let name = message.full_name();
    assert_eq!(schema["type"], "object", "{name}");
    let properties: BTreeMap<&str, &Value> = object(&schema["properties"]).collect();
    let fields: BTreeSet<String> = message.fields().map(|field| field.json_name().to_owned()).collect();
    assert_eq!(properties.keys().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>(), fields, "{name}");
    for field in message.fields() {
        let property = properties[field.json_name()];
        assert_eq!(type_of(document, property), schema_of(&field), "{name}: {}", field.name());
        let described =
            property.get("description").or_else(|| resolve(document, property).get("description"));
        assert!(described.is_some(), "{name}: {}", field.name());
    }
    // What a request may not have is refused.
    let closed = schema.get("additionalProperties") == Some(&json!(false));
    assert_eq!(closed, name.starts_with("yandex.") && name.ends_with("Request"), "{name}");
    assert!(array(&schema["required"]).all(|name| properties.contains_key(name.as_str().unwrap())), "{name}");
}

#[test]
fn schemas_are_the_messages_and_enums_of_the_protocol() {
    let (document, pool) = (document(), pool());
    for (key, schema) in object(&document["components"]["schemas"]) {
        let name = schema["x-protobuf"].as_str().unwrap_or_else(|| panic!("{key} is of no type"));
        if name == "google.protobuf.Any" {
            assert_eq!((&schema["type"], &schema["required"]), (&json!("object"), &json!(["@type"])));
        } else if let Some(message) = pool.get_message_by_name(name) {
            check_message(&document, schema, &message);
        } else {
            let of = pool.get_enum_by_name(name).unwrap_or_else(|| panic!("{name} is not in the protocol"));
            let names: Vec<Value> = of.values().map(|value| json!(value.name())).collect();
            assert_eq!((&schema["type"], &schema["enum"]), (&json!("string"), &json!(names)), "{name}");
        }
    }
}

#[test]
fn every_message_that_goes_in_or_out_has_a_schema() {
    let (document, pool) = (document(), pool());
    let schemas = object(&document["components"]["schemas"]);
    let written: BTreeSet<&str> = schemas.map(|(_, schema)| schema["x-protobuf"].as_str().unwrap()).collect();
    for message in pool.all_messages().filter(|message| !message.is_map_entry()) {
        let name = message.full_name();
        let by_parameters = name.contains(".Get") || name.contains(".List") || name.contains(".Delete");
        let expected = match message.package_name() {
            "google.protobuf" => name == "google.protobuf.Any",
            // Over gRPC only.
            "google.longrunning" | "longrun.v1" => false,
            _ => !(by_parameters && name.ends_with("Request")),
        };
        assert_eq!(written.contains(name), expected, "{name}");
    }
}

#[test]
fn limits_are_those_that_are_checked() {
    let document = document();
    let at =
        |pointer: &str| document.pointer(pointer).unwrap_or_else(|| panic!("{pointer}")).as_u64().unwrap();
    let parameter = |name: &str, limit: &str| at(&format!("/components/parameters/{name}/schema/{limit}"));
    let field = |name: &str, limit: &str| {
        let limits = ["Snapshot", "CreateSnapshotRequest", "UpdateSnapshotRequest"]
            .map(|schema| at(&format!("/components/schemas/{schema}/properties/{name}/{limit}")));
        assert!(limits.iter().all(|limit| *limit == limits[0]), "{name}");
        limits[0]
    };
    let list = &document["paths"]["/compute/v1/snapshots"]["get"]["parameters"];
    let of_list = |name: &str| {
        let found = array(list).find(|parameter| parameter["name"] == name).unwrap();
        found["schema"]["maxLength"].as_u64().unwrap()
    };
    let limits = [
        (parameter("PageSize", "maximum"), PAGE_SIZE_MAX),
        (parameter("PageSize", "default"), PAGE_SIZE_DEFAULT),
        (parameter("PageToken", "maxLength"), PAGE_TOKEN_CHARS_MAX),
        (parameter("SnapshotId", "maxLength"), ID_CHARS_MAX),
        (parameter("OperationId", "maxLength"), ID_CHARS_MAX),
        (of_list("folderId"), ID_CHARS_MAX),
        (of_list("filter"), FILTER_CHARS_MAX),
        (of_list("orderBy"), ORDER_BY_CHARS_MAX),
        (field("description", "maxLength"), DESCRIPTION_CHARS_MAX),
        (field("name", "maxLength"), 63),
        (field("labels", "maxProperties"), LABELS_MAX),
        (field("labels", "additionalProperties/maxLength"), 63),
    ];
    for (place, (written, checked)) in limits.into_iter().enumerate() {
        assert_eq!(written, u64::try_from(checked).unwrap(), "limit {place}");
    }
}

#[test]
fn errors_are_those_of_the_table() {
    let document = document();
    for (status, response) in object(&document["components"]["responses"]) {
        let of_status = |code: &&Code| http_status(**code).to_string() == status;
        let mut codes: Vec<&str> = Code::ALL.iter().filter(of_status).map(|code| code.name()).collect();
        if status == "413" {
            // HTTP has a status for what is too large; the table, by code, does not.
            codes = vec![Code::ResourceExhausted.name()];
        }
        assert_eq!(response["x-codes"], json!(codes), "{status}");
        let content = &response["content"]["application/json"];
        assert_eq!(content["schema"]["$ref"], "#/components/schemas/Status", "{status}");
        for (_, example) in object(&content["examples"]) {
            let code = u8::try_from(example["value"]["code"].as_u64().unwrap()).unwrap();
            assert!(codes.contains(&Code::from_number(code).unwrap().name()), "{status}");
        }
    }
    for operation in operations(&document) {
        let responses = &operation.value["responses"];
        assert!(object(responses).all(|(status, answer)| {
            status == "200" || answer["$ref"] == format!("#/components/responses/{status}")
        }));
        let may_be_unknown = responses.get("401").is_some() && responses.get("500").is_some();
        assert_eq!(may_be_unknown, operation.needs_a_token(), "{}", operation.id());
        // A body may be too large or too slow.
        let has_body = operation.value.get("requestBody").is_some();
        for status in ["413", "504"] {
            assert_eq!(responses.get(status).is_some(), has_body, "{}: {status}", operation.id());
        }
    }
}

/// Reads a message of a type, and writes it again.
fn rewrite(name: &str, example: &Value) -> Value {
    fn of<M: Serialize + DeserializeOwned>(example: &Value) -> Value {
        let message: M =
            serde_json::from_value(example.clone()).unwrap_or_else(|error| panic!("{error}: {example}"));
        serde_json::to_value(message).unwrap()
    }
    macro_rules! rewrite {
        ($($message:ty),* $(,)?) => {
            match name {
                $(found if found == <$message>::full_name() => of::<$message>(example),)*
                "google.protobuf.Any" => of::<longrun_api::well_known::Any>(example),
                other => panic!("nothing reads examples of {other}"),
            }
        };
    }
    rewrite!(
        compute::CreateSnapshotRequest,
        compute::ListSnapshotOperationsResponse,
        compute::ListSnapshotsResponse,
        compute::Snapshot,
        compute::UpdateSnapshotRequest,
        endpoint::ApiEndpoint,
        endpoint::ListApiEndpointsResponse,
        google::rpc::ErrorInfo,
        google::rpc::Status,
        operation::CancelOperationRequest,
        operation::Operation,
    )
}

/// Every value under a key, with what it stands in, wherever it is.
fn everywhere<'a>(value: &'a Value, key: &str, found: &mut Vec<(&'a Value, &'a Value)>) {
    if let Some(here) = value.get(key) {
        found.push((value, here));
    }
    let inner = object(value).map(|(_, inner)| inner).chain(array(value));
    inner.for_each(|inner| everywhere(inner, key, found));
}

#[test]
fn examples_are_what_the_wire_types_read_and_write() {
    let (document, mut found, mut examples) = (document(), Vec::new(), 0);
    everywhere(&document, "examples", &mut found);
    for (holder, here) in found {
        let schema = resolve(&document, holder.get("schema").unwrap_or(holder));
        let Some(name) = schema["x-protobuf"].as_str() else { continue };
        for example in object(here).map(|(_, example)| &example["value"]).chain(array(here)) {
            let again = rewrite(name, example);
            // Requests are read, and never written.
            assert!(name.ends_with("Request") || again == *example, "{again:#} is not {example:#}");
            examples += 1;
        }
    }
    assert!(examples > 30, "{examples}");
}

#[test]
fn every_reference_refers_to_something_and_every_part_is_referred_to() {
    let (document, mut found) = (document(), Vec::new());
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
    everywhere(&document, "$ref", &mut found);
    let used: BTreeSet<&str> = found.iter().map(|(_, reference)| reference.as_str().unwrap()).collect();
    found.iter().for_each(|(holder, _)| _ = resolve(&document, holder));
    for kind in ["parameters", "headers", "responses"] {
        for (name, _) in object(&document["components"][kind]) {
            assert!(used.contains(format!("#/components/{kind}/{name}").as_str()), "{kind}: {name}");
        }
    }
}
