//! [`Template`]: the bytes that one operation of a workload writes, to be written again without the engine.

use longrun::store::{Batch, MemoryKv, Table, Write};
use longrun::{Call, Caller, Engine, KvStore, OperationId};

use crate::Result;
use crate::kinds::{self, Barrier, Happy, Rollback};
use crate::metered::Metered;
use crate::workloads::Workload;

/// Digits of an id: they order as their values do.
const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
/// Characters of an id before its digits.
const PREFIX_CHARS: usize = 3;
/// Operations that one batch of [`Template::settled`] has.
const FILL: u64 = 500;

/// The commits of one operation, in their order, with its id in them.
#[derive(Clone, Debug)]
pub struct Template {
    id: OperationId,
    commits: Vec<Batch>,
}

impl Template {
    /// Runs one operation over a store in memory and keeps what it writes.
    pub async fn of(workload: Workload) -> Result<Self> {
        let (kv, meter) = Metered::new(MemoryKv::new());
        let builder = Engine::builder(KvStore::open_inline(kv, [0; 32])?);
        let engine = kinds::register(builder, &Barrier::new(true)).start().await?;
        meter.record();
        let call = Call::by(Caller::new("bench")?);
        let accepted = match workload {
            Workload::Rollback => engine.submit::<Rollback>(&1_000_000, call).await?,
            _ => engine.submit::<Happy>(&1_000_000, call).await?,
        };
        let id = engine.wait_done(accepted.id()).await?.id();
        let mut commits = meter.recorded();
        if workload == Workload::Submit {
            commits.truncate(1);
        }
        Ok(Self { id, commits })
    }

    /// How many commits there are.
    pub fn commits(&self) -> usize {
        self.commits.len()
    }

    /// Bytes of all of them.
    pub fn byte_len(&self) -> usize {
        self.commits.iter().map(Batch::byte_len).sum()
    }

    /// The record of the operation when it is done.
    pub fn head(&self) -> Option<Vec<u8>> {
        self.net().writes.into_iter().find(|write| write.table == Table::Operations)?.value
    }

    /// The same commits of another operation.
    pub fn instance(&self, number: u64) -> Vec<Batch> {
        let id = self.id(number);
        self.commits.iter().map(|batch| with_id(batch, &self.id, &id)).collect()
    }

    /// The id of the operation of that number, which orders among the others as its number does.
    pub fn id(&self, number: u64) -> OperationId {
        let mut text = self.id.as_str().as_bytes().to_vec();
        let mut rest = number;
        for place in text[PREFIX_CHARS + 4..].iter_mut().rev() {
            *place = DIGITS[usize::try_from(rest % 32).unwrap_or_default()];
            rest /= 32;
        }
        // Digits of an id, and as many as it has.
        std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok()).unwrap_or(self.id)
    }

    /// What is left of so many operations once they are done, in batches.
    pub fn settled(&self, count: u64) -> impl Iterator<Item = Batch> {
        let last = self.net();
        (0..count.div_ceil(FILL)).map(move |part| {
            let numbers = part * FILL..count.min((part + 1) * FILL);
            let writes = numbers.flat_map(|number| with_id(&last, &self.id, &self.id(number)).writes);
            Batch { writes: writes.collect() }
        })
    }

    /// What the commits come to: the last value of each key, without those that are removed.
    fn net(&self) -> Batch {
        let mut writes: Vec<Write> = Vec::new();
        for write in self.commits.iter().flat_map(|batch| &batch.writes) {
            writes.retain(|earlier| (earlier.table, &earlier.key) != (write.table, &write.key));
            writes.push(write.clone());
        }
        writes.retain(|write| write.value.is_some());
        Batch { writes }
    }
}

fn with_id(batch: &Batch, old: &OperationId, new: &OperationId) -> Batch {
    let put = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        let is_old = |part: &[u8]| part == old.as_bytes();
        if let Some(place) = bytes.windows(old.as_bytes().len()).position(is_old) {
            bytes[place..place + new.as_bytes().len()].copy_from_slice(new.as_bytes());
        }
        bytes
    };
    let changed = |write: &Write| Write {
        table: write.table,
        key: put(&write.key),
        value: write.value.as_deref().map(|value| sealed(put(value))),
    };
    Batch { writes: batch.writes.iter().map(changed).collect() }
}

/// A record whose checksum fits what was changed in it. Layout: `longrun_store::codec`.
fn sealed(mut record: Vec<u8>) -> Vec<u8> {
    if let Some((envelope, payload)) = record.split_first_chunk_mut::<12>() {
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&envelope[..8]), payload);
        envelope[8..].copy_from_slice(&checksum.to_be_bytes());
    }
    record
}

#[cfg(test)]
mod tests {
    use longrun::{OperationQuery, PageRequest};

    use super::*;
    use crate::stores::{self, StoreName};

    #[tokio::test]
    async fn what_is_settled_reads_like_what_the_engine_has_written() {
        let template = Template::of(Workload::Happy).await.unwrap();
        assert_eq!(template.commits(), 4, "S + 1");
        let opened = stores::open(StoreName::Memory, std::path::Path::new("")).unwrap();
        for batch in template.settled(1001) {
            opened.kv.commit(&batch).unwrap();
        }
        let engine =
            kinds::register(Engine::builder(opened.store), &Barrier::new(true)).start().await.unwrap();
        for number in [0, 500, 1000] {
            let operation = engine.get(template.id(number)).await.unwrap();
            assert_eq!(operation.response().unwrap().decode::<u64>().unwrap(), 1_000_003);
        }
        assert!(engine.get(template.id(1001)).await.is_err());
        let page = engine.list_operations(&OperationQuery::All, &PageRequest::default()).await.unwrap();
        assert_eq!(page.items[0].id(), template.id(1000), "newest first");
    }
}
