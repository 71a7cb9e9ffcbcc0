//! Bad inputs: what a stranger may send, and what exactly comes of it, over gRPC and over REST.
//!
//! Each test sends its inputs to a server on real sockets and checks the code, the HTTP status, the reason, the field where
//! one is to be named; that what was sent is not repeated, that the server goes on, and that nothing stored has changed.

//!
//! | | input | outcome |
//! |---|---|---|
//! | b01 | an unknown id | NOT_FOUND |
//! | b02 | an id of another folder | the same bytes as b01 |
//! | b03 | an id that is huge, or has `../`, NUL or a newline in it | INVALID_ARGUMENT, the field named |
//! | b04 | no message, or an empty one | INVALID_ARGUMENT, every missing field named |
//! | b05 | a message over the limit | RESOURCE_EXHAUSTED, 413 |
//! | b06 | a small message that decompresses to a huge one | the same, before it is there |
//! | b07 | JSON nested 100,000 deep | INVALID_ARGUMENT |
//! | b08 | protobuf with a length of 2^63 | INVALID_ARGUMENT |
//! | b09 | text that is not UTF-8 | INVALID_ARGUMENT |
//! | b10, b11 | a page size below 0 or above 1000 | INVALID_ARGUMENT |
//! | b12-b15 | a page token that was changed, is of another list, or of another server | INVALID_ARGUMENT |
//! | b16, b17 | a filter of 100,000 parentheses, on an unknown field, or of the wrong type | INVALID_ARGUMENT, the position told |
//! | b18 | 65 labels, or a key with a newline | INVALID_ARGUMENT |
//! | b19 | 1,000 equal requests at once under one key | one operation |
//! | b20 | another request under a used key | ALREADY_EXISTS |
//! | b21 | a key that is empty, too long or not printable | INVALID_ARGUMENT |
//! | b22 | more changes than a folder's share | RESOURCE_EXHAUSTED with RetryInfo, others unaffected |
//! | b23, b24 | cancel of what is done; twice at once | as it is; one rollback |
//! | b25 | a change of what is being made | ABORTED, the operation in the way named |
//! | b26 | no credential, a bad one, one without the right | UNAUTHENTICATED, PERMISSION_DENIED |
//! | b27 | headers, a body or reading that never ends | closed after a time |
//! | b28 | a record that is damaged, of a newer version, of an unknown kind | DATA_LOSS, UNIMPLEMENTED, held |

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod access;
mod canary;
mod changes;
mod client;
mod connections;
mod damage;
mod ids;
mod lists;
mod log;
mod messages;
mod protocol;
mod refusal;
mod server;
