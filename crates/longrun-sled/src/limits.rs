//! What a batch may hold.

use longrun_folder::Limits;

use crate::open::SEGMENT_BYTES;
use crate::value::PART_KEY_BYTES;

/// Largest key. Index pages hold up to 256 of them.
pub const KEY_BYTES_MAX: usize = 4 << 10;
/// Largest value. One longer than 48 KiB is stored in parts.
pub const VALUE_BYTES_MAX: usize = 256 << 10;
/// Most bytes of keys and values in one batch.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// More than that sled would not store well.
pub(crate) const LIMITS: Limits =
    Limits { key: KEY_BYTES_MAX, value: VALUE_BYTES_MAX, batch: BATCH_BYTES_MAX };

/// Free space that sled is not let near, unless [`FolderOptions::reserve_bytes`] says otherwise: the segment a
/// batch may have to start, one more for the pages it makes sled write anew, and one for the segment that the
/// next open writes anew.
///
/// [`FolderOptions::reserve_bytes`]: longrun_folder::FolderOptions::reserve_bytes
pub const RESERVE_BYTES: u64 = 3 * SEGMENT_BYTES as u64;
/// What a commit needs beyond the reserve and its batch: room for the snapshot of the next open. It was measured at 1/100
/// of `db`.
pub(crate) const DB_BYTES_PER_SNAPSHOT_BYTE: u64 = 64;

/// Largest value that is stored in one entry.
pub(crate) const WHOLE_BYTES_MAX: usize = 48 << 10;
/// Bytes of each part of a longer one but the last. May change: a stub says how many parts there are.
pub(crate) const PART_BYTES: usize = 48 << 10;

/// sled's limit for a page in the log, with a page's own overhead taken off.
const PAGE_BYTES_MAX: usize = SEGMENT_BYTES / 4 - (16 << 10);
/// A leaf is split when it has more than 16 entries and merged below 4: at most 17 and 3 before the next split.
const LEAF_ENTRIES_MAX: usize = 24;
/// An index page is split when it has more than 256 children.
const INDEX_ENTRIES_MAX: usize = 260;
/// Lengths, page numbers and a value's tag, encoded.
const ENTRY_OVERHEAD: usize = 32;

// No page can be so large that sled would put it in `blobs`: no leaf of a table, no leaf of the parts, and no
// index page of either.
const _: () = assert!(LEAF_ENTRIES_MAX * (KEY_BYTES_MAX + WHOLE_BYTES_MAX + ENTRY_OVERHEAD) < PAGE_BYTES_MAX);
const _: () = assert!(LEAF_ENTRIES_MAX * (PART_KEY_BYTES + PART_BYTES + ENTRY_OVERHEAD) < PAGE_BYTES_MAX);
const _: () = assert!(INDEX_ENTRIES_MAX * (KEY_BYTES_MAX + ENTRY_OVERHEAD) < PAGE_BYTES_MAX);
const _: () = assert!(PART_KEY_BYTES <= KEY_BYTES_MAX);
// What a batch itself says fits well into one segment. The pages that it makes sled write anew come on top.
const _: () = assert!(BATCH_BYTES_MAX < SEGMENT_BYTES / 4);
// Several of the largest values fit into a batch, and each into the fields of a stub.
const _: () = assert!(3 * (KEY_BYTES_MAX + VALUE_BYTES_MAX) <= BATCH_BYTES_MAX);
const _: () = assert!(VALUE_BYTES_MAX.div_ceil(PART_BYTES) <= u16::MAX as usize);
