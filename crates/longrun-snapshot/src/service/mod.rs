//! What callers may ask of the service, and what they may not: requests, their limits, and the two small languages in
//! them.
//!
//! All of it is pure: nothing here waits, reads or writes, and no type of a wire protocol comes in. A request is a
//! plain struct that a transport fills in; its `check` says everything that is wrong with it at once, as
//! [`Violations`], and hands back what the request means:
//!
//! ```text
//! GetSnapshotRequest, CreateSnapshotRequest, DeleteSnapshotRequest -> ()
//! ListSnapshotsRequest          -> SnapshotList: a page, a Filter, an OrderBy
//! ListSnapshotOperationsRequest -> a page
//! UpdateSnapshotRequest         -> SnapshotChange, which applied to a snapshot gives the new one
//! ```
//!
//! ```
//! use longrun_snapshot::service::{Limits, ListSnapshotsRequest};
//!
//! let mut request = ListSnapshotsRequest {
//!     folder_id: "b1g0000000000000000f".to_owned(),
//!     filter: r#"name != "scratch" AND name NOT IN ("old", "older")"#.to_owned(),
//!     ..ListSnapshotsRequest::default()
//! };
//! let list = request.check(Limits::documented())?;
//! assert!(list.filter.matches("daily") && !list.filter.matches("old"));
//! assert_eq!((list.page.size, list.order_by.to_string()), (100, "id asc".to_owned()));
//!
//! request.page_size = -1;
//! request.filter = "name == daily".to_owned();
//! let violations = request.check(Limits::documented()).unwrap_err();
//! assert_eq!(
//!     violations.to_string(),
//!     "invalid request: page_size: must be 0 to 1000; filter: at character 7: expected a value",
//! );
//! # Ok::<(), longrun_snapshot::service::Violations>(())
//! ```

mod api;
mod collect;
mod filter;
mod mask;
mod order;
mod requests;
mod scrub;
mod text;
mod validate;

pub use api::{Access, Action, Admission, ServiceError, SnapshotService, Throttled, Verification};
pub use collect::Collected;
pub use filter::{Filter, FilterError, FilterProblem};
pub use mask::{SnapshotChange, UpdateSnapshotRequest};
pub use order::{OrderBy, OrderByError, OrderByProblem, OrderField};
pub use requests::{
    CreateSnapshotRequest, DeleteSnapshotRequest, GetSnapshotRequest, ListSnapshotOperationsRequest,
    ListSnapshotsRequest, SnapshotList,
};
pub use scrub::Scrubbed;
pub use validate::{
    FILTER_CHARS_MAX, LABELS_MAX, Limits, ORDER_BY_CHARS_MAX, VIOLATIONS_MAX, Violation, Violations,
};
