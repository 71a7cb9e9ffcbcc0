//! Compiles the protocol: messages, their JSON, and, with the feature `grpc`, clients and servers. No program has to be
//! installed for it.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

use prost::Message;

const FILES: &[&str] = &[
    "google/longrunning/operations.proto",
    "google/rpc/error_details.proto",
    "google/rpc/status.proto",
    "longrun/v1/operation.proto",
    "yandex/cloud/compute/v1/snapshot_service.proto",
    "yandex/cloud/endpoint/api_endpoint_service.proto",
    "yandex/cloud/operation/operation_service.proto",
];

/// Well-known types, and where their Rust is: those whose JSON pbjson does not write as the protocol wants it are ours.
const WELL_KNOWN: &[(&str, &str)] = &[
    (".google.protobuf.Any", "crate::well_known::Any"),
    (".google.protobuf.Duration", "::pbjson_types::Duration"),
    (".google.protobuf.Empty", "::pbjson_types::Empty"),
    (".google.protobuf.FieldMask", "crate::well_known::FieldMask"),
    (".google.protobuf.Timestamp", "crate::well_known::Timestamp"),
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let descriptors = protox::compile(FILES, [Path::new("proto")])?;
    let encoded = descriptors.encode_to_vec();
    fs::write(out.join("descriptors.bin"), &encoded)?;

    let grpc = env::var_os("CARGO_FEATURE_GRPC").is_some();
    let mut prost = tonic_prost_build::Config::new();
    prost.enable_type_names().btree_map(["."]);
    let mut services = tonic_prost_build::configure()
        .build_client(grpc)
        .build_server(grpc)
        .build_transport(false)
        .compile_well_known_types(true)
        .codec_path("crate::codec::Codec");
    for (proto, rust) in WELL_KNOWN {
        services = services.extern_path(*proto, *rust);
    }
    services.compile_fds_with_config(descriptors, prost)?;

    let json = |prefix: &str, emit_fields: bool| -> Result<(), Box<dyn Error>> {
        let mut builder = pbjson_build::Builder::new();
        builder.register_descriptors(&encoded)?.btree_map(["."]);
        for (proto, rust) in WELL_KNOWN {
            builder.extern_path(*proto, *rust);
        }
        if emit_fields {
            builder.emit_fields();
        }
        Ok(builder.build(&[prefix])?)
    };
    for prefix in
        [".google.rpc", ".google.longrunning", ".longrun", ".yandex.cloud.compute", ".yandex.cloud.endpoint"]
    {
        json(prefix, false)?;
    }
    // Clients look at `"done": false`, so it is written out.
    json(".yandex.cloud.operation", true)
}
