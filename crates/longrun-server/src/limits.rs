//! Every bound on what may come over the wire, and how long it may take. Those of a connection are
//! [`listen::Limits`](crate::listen::Limits).

use std::time::Duration;

/// Bytes of a message or a body, also once it is decompressed.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of a message to a service that strangers may ask: where the services are, how they are, what they have.
pub const ASK_BYTES_MAX: usize = 16 * 1024;
/// How long the body of a request may take to come in, unless [said](crate::Faces::body_time).
pub const BODY_TIME: Duration = Duration::from_secs(30);
/// Characters in the id of a request. A longer one is passed over, and another made.
pub const REQUEST_ID_CHARS_MAX: usize = 128;
/// The longest that one request waits for an operation.
pub const WAIT_MAX: Duration = Duration::from_secs(5 * 60);
/// How long a request waits that names no time.
pub const WAIT_DEFAULT: Duration = Duration::from_secs(60);

const _: () = assert!(WAIT_DEFAULT.as_secs() <= WAIT_MAX.as_secs());
