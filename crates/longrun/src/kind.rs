//! [`Kind`]: a type of operation, and [`Resource`]: a type of what operations act on.

use async_trait::async_trait;
use longrun_core::{Invalid, ResourceId, ResourceKey, ResourceKind, Status};

use crate::plan::{Out, PlanBuilder};
use crate::step::Value;

/// The type of values that have no type of their own in the protocol.
pub const STRUCT_TYPE: &str = "type.googleapis.com/google.protobuf.Struct";

/// The type of a response that says nothing, such as that of a deletion: the response `()`.
pub const EMPTY_TYPE: &str = "type.googleapis.com/google.protobuf.Empty";

/// What a kind answers when it is asked for a plan: what the caller learns at once, and where the response will
/// come from. An error refuses the request; nothing is stored then.
pub type Planned<K> = Result<(<K as Kind>::Metadata, Out<<K as Kind>::Response>), Status>;

/// A type of operation.
#[async_trait]
pub trait Kind: Send + Sync + 'static {
    /// Its name, such as `compute.snapshot.create`. Never change it while operations of it are unfinished.
    const NAME: &'static str;
    /// Raise it when plans of older versions can no longer be finished by this code.
    const VERSION: u32 = 1;
    /// The oldest version whose plans this code still finishes.
    const OLDEST_VERSION: u32 = 1;
    /// The type URL of the metadata.
    const METADATA_TYPE: &'static str = STRUCT_TYPE;
    /// The type URL of the response.
    const RESPONSE_TYPE: &'static str = STRUCT_TYPE;

    /// What is asked.
    type Request: Value;
    /// What the caller learns at once (C6).
    type Metadata: Value;
    /// What the caller learns in the end.
    type Response: Value;

    /// Decides what to do about a request: which resources to claim and which steps to take. Called once, when the
    /// operation is submitted; what it decides is stored. It may look things up, but must change nothing.
    async fn plan(&self, request: &Self::Request, plan: &mut PlanBuilder) -> Planned<Self>
    where
        Self: Sized;
}

/// A type of resource: rows that users see, changed only by operations.
pub trait Resource: Value {
    /// The name of the type, such as `compute.snapshot`.
    const KIND: &'static str;
    /// The type URL under which it is shown.
    const TYPE_URL: &'static str;

    /// The key of a resource of this type, as [`OperationQuery::OfResource`](crate::OperationQuery::OfResource) takes it. An
    /// error if [`KIND`](Self::KIND) is not a name.
    fn key(id: &ResourceId) -> Result<ResourceKey, Invalid> {
        Ok(ResourceKey { kind: ResourceKind::new(Self::KIND)?, id: id.clone() })
    }
}
