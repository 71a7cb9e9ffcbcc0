//! Every bound of the engine, in one place, with the relations between them checked when it compiles.
//!
//! Lengths of text count characters; sizes count bytes. The bounds on what a caller of the reference API may
//! send are those of the API's specification.

/// Characters in an operation id: a prefix and a body. Source: the API.
pub const OPERATION_ID_CHARS: usize = 20;
/// Characters in the prefix of a generated id, naming the service that made it.
pub const ID_PREFIX_CHARS: usize = 3;
/// Characters in any other id: of a resource, a folder, a disk. Source: the API.
pub const ID_CHARS_MAX: usize = 50;
/// Characters in the name of a kind, a step or a resource kind.
pub const NAME_CHARS_MAX: usize = 64;
/// Characters in the description of an operation. Source: the API.
pub const DESCRIPTION_CHARS_MAX: usize = 256;
/// Characters in the identity of a caller.
pub const CALLER_CHARS_MAX: usize = 128;
/// Characters in an idempotency key.
pub const IDEMPOTENCY_KEY_CHARS_MAX: usize = 128;
/// Characters in a type URL.
pub const TYPE_URL_CHARS_MAX: usize = 200;
/// Characters in the display name of a resource row.
pub const ROW_NAME_CHARS_MAX: usize = 256;
/// Bytes in the id of an item.
pub const ITEM_ID_BYTES_MAX: usize = 64;
/// Bytes of an operator's reason.
pub const REASON_BYTES_MAX: usize = 512;

/// Bytes of one user-owned payload: request, metadata, response, step output, checkpoint, resource body.
pub const PAYLOAD_BYTES_MAX: usize = 32 * 1024;
/// Bytes of the message in a status; longer messages are cut.
pub const STATUS_MESSAGE_BYTES_MAX: usize = 2 * 1024;
/// Bytes of all details of a status; details beyond it are dropped.
pub const STATUS_DETAILS_BYTES_MAX: usize = 8 * 1024;

/// Steps in a plan.
pub const STEPS_MAX: usize = 1024;
/// Bytes of a plan: names, literal inputs and edges.
pub const PLAN_BYTES_MAX: usize = 64 * 1024;
/// Steps of one operation that run at the same time, unless the plan says less.
pub const PARALLEL_STEPS_MAX: u16 = 64;
/// Steps of one operation that run at the same time when the plan says nothing.
pub const PARALLEL_STEPS_DEFAULT: u16 = 8;
/// Resources that one operation creates, changes or deletes.
pub const CLAIMS_MAX: usize = 8;
/// What an operation demands of other resources when it is accepted.
pub const CONDITIONS_MAX: usize = 16;
/// Bytes of all rows kept with an operation: before-images and the rows it makes.
pub const CLAIM_BYTES_MAX: usize = 80 * 1024;
/// Times operators may step into one operation.
pub const INTERVENTIONS_MAX: usize = 64;
/// Times in a row that a process may die while the same step runs before the step counts as failed.
/// A saved checkpoint starts the count anew, so a long copy is not punished for restarts.
pub const INTERRUPTIONS_MAX: u32 = 10;
/// Interruptions in a row after which the next attempt waits, so that a step that kills its process
/// does not keep the whole service down.
pub const INTERRUPTIONS_FREE: u32 = 2;

/// Bytes of one stored record. Every backend takes values of this size.
pub const RECORD_BYTES_MAX: usize = 256 * 1024;
/// Bytes of events that one journal entry may carry before the driver starts another.
pub const ENTRY_BYTES_TARGET: usize = 128 * 1024;

/// Items on a page when the caller does not say. Source: the API.
pub const PAGE_SIZE_DEFAULT: usize = 100;
/// Items on a page. Source: the API.
pub const PAGE_SIZE_MAX: usize = 1000;
/// Characters in a page token. Source: the API.
pub const PAGE_TOKEN_CHARS_MAX: usize = 100;

/// The longest duration a policy may name: 366 days, in milliseconds.
pub const DURATION_MILLIS_MAX: u64 = 366 * 24 * 60 * 60 * 1000;

// An accepted operation fits a record: request, metadata, plan and claims, with room for the header.
const _: () =
    assert!(2 * PAYLOAD_BYTES_MAX + PLAN_BYTES_MAX + CLAIM_BYTES_MAX + 16 * 1024 <= RECORD_BYTES_MAX);
// So does a finished one: request, metadata, response or error, a line for each step and each intervention.
const _: () = assert!(
    3 * PAYLOAD_BYTES_MAX
        + STATUS_MESSAGE_BYTES_MAX
        + STATUS_DETAILS_BYTES_MAX
        + STEPS_MAX * 16
        + INTERVENTIONS_MAX * (REASON_BYTES_MAX + CALLER_CHARS_MAX + 64)
        + 16 * 1024
        <= RECORD_BYTES_MAX
);
// A journal entry over its target by one payload, and the events that follow from it, still fits.
const _: () = assert!(ENTRY_BYTES_TARGET + 2 * PAYLOAD_BYTES_MAX + 32 * 1024 <= RECORD_BYTES_MAX);
const _: () = assert!(STEPS_MAX <= u16::MAX as usize);
const _: () = assert!(PARALLEL_STEPS_DEFAULT <= PARALLEL_STEPS_MAX);
const _: () = assert!(PAGE_SIZE_DEFAULT <= PAGE_SIZE_MAX);
const _: () = assert!(ID_PREFIX_CHARS < OPERATION_ID_CHARS && OPERATION_ID_CHARS <= ID_CHARS_MAX);
