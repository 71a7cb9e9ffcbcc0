//! [`Trace`]: the digest by which two runs are compared.

use longrun_store::Batch;

/// The digest of everything that happened in a run, in order: the same seed has to give the same (L9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trace(u64);

impl Default for Trace {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Trace {
    /// Takes one fact in.
    pub(super) const fn add(&mut self, fact: u64) {
        let mixed = (self.0.rotate_left(5) ^ fact).wrapping_mul(0x517c_c1b7_2722_0a95);
        self.0 = mixed ^ (mixed >> 29);
    }

    /// Takes bytes in, and how many they are.
    pub(super) fn add_bytes(&mut self, bytes: &[u8]) {
        self.add(bytes.len() as u64);
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.add(u64::from_le_bytes(word));
        }
    }

    /// Takes the changes of a commit in.
    pub(super) fn add_batch(&mut self, batch: &Batch) {
        for write in &batch.writes {
            self.add(write.table.index() as u64);
            self.add_bytes(&write.key);
            self.add_bytes(write.value.as_deref().unwrap_or_default());
        }
    }

    /// The digest.
    pub(super) const fn digest(self) -> u64 {
        self.0
    }
}
