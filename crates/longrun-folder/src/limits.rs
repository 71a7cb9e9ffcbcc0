//! What a batch may hold.

use longrun_store::Batch;

use crate::error::BatchTooLarge;

/// Largest key.
pub const KEY_BYTES_MAX: usize = 4 << 10;
/// Largest value.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// Most bytes of keys and values in one batch.
pub const BATCH_BYTES_MAX: usize = 4 << 20;

/// The limits of a [`FolderKv`](crate::FolderKv).
pub(crate) const LIMITS: Limits =
    Limits { key: KEY_BYTES_MAX, value: VALUE_BYTES_MAX, batch: BATCH_BYTES_MAX };

/// The most that a store takes, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// In a key.
    pub key: usize,
    /// In a value.
    pub value: usize,
    /// In the keys and values of a batch.
    pub batch: usize,
}

impl Limits {
    /// Refuses what is larger.
    pub fn check(&self, batch: &Batch) -> Result<(), BatchTooLarge> {
        for write in &batch.writes {
            let (key, value) = (write.key.len(), write.value.as_ref().map_or(0, Vec::len));
            if key > self.key {
                return Err(BatchTooLarge::Key { len: key, max: self.key });
            }
            if value > self.value {
                return Err(BatchTooLarge::Value { len: value, max: self.value });
            }
        }
        let len = batch.byte_len();
        if len > self.batch {
            return Err(BatchTooLarge::Batch { len, max: self.batch });
        }
        Ok(())
    }
}
