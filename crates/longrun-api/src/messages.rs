//! The generated messages, in the modules of their packages.

// Generated code has no documentation of its own where the protocol has none, and its own taste.
#![allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    clippy::restriction
)]

macro_rules! package {
    ($package:literal) => {
        include!(concat!(env!("OUT_DIR"), "/", $package, ".rs"));
        include!(concat!(env!("OUT_DIR"), "/", $package, ".serde.rs"));
    };
}

/// Google's packages.
pub mod google {
    /// `google.longrunning`: operations in Google's dialect.
    pub mod longrunning {
        package!("google.longrunning");
    }

    /// `google.rpc`: statuses and their details.
    pub mod rpc {
        package!("google.rpc");
    }
}

/// What is ours.
pub mod longrun {
    /// `longrun.v1`: what Google's dialect has no fields for.
    pub mod v1 {
        package!("longrun.v1");
    }
}

/// Yandex Cloud's packages.
pub mod yandex {
    /// `yandex.cloud`.
    pub mod cloud {
        /// `yandex.cloud.compute`.
        pub mod compute {
            /// `yandex.cloud.compute.v1`: snapshots.
            pub mod v1 {
                package!("yandex.cloud.compute.v1");
            }
        }

        /// `yandex.cloud.endpoint`: where services are.
        pub mod endpoint {
            package!("yandex.cloud.endpoint");
        }

        /// `yandex.cloud.operation`: operations.
        pub mod operation {
            package!("yandex.cloud.operation");
        }
    }
}
