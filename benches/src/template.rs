//! [`Template`]: the bytes that one operation of a workload writes, to be written again without the engine.

use longrun::store::{Batch, MemoryKv, Table, Write};
use longrun::{Call, Caller, Engine, KvStore, OperationId};
use longrun_store::conformance::records::reseal;

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
    commits: Vec<Vec<Slot>>,
}

/// A write, and where in it the id of its operation stands.
#[derive(Clone, Debug)]
struct Slot {
    write: Write,
    in_key: Option<usize>,
    in_value: Option<usize>,
}

impl Slot {
    fn new(write: Write, id: &OperationId) -> Self {
        let place = |bytes: &[u8]| bytes.windows(id.as_bytes().len()).position(|part| part == id.as_bytes());
        let (in_key, in_value) = (place(&write.key), write.value.as_deref().and_then(place));
        Self { write, in_key, in_value }
    }

    /// The write of another operation. The checksum of its record does not fit.
    fn of(&self, id: &OperationId) -> Write {
        let mut write = self.write.clone();
        let put = |bytes: &mut [u8], place: usize| {
            bytes[place..place + id.as_bytes().len()].copy_from_slice(id.as_bytes());
        };
        if let Some(place) = self.in_key {
            put(&mut write.key, place);
        }
        if let (Some(value), Some(place)) = (&mut write.value, self.in_value) {
            put(value, place);
        }
        write
    }
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
        let slots = |batch: Batch| batch.writes.into_iter().map(|write| Slot::new(write, &id)).collect();
        Ok(Self { id, commits: commits.into_iter().map(slots).collect() })
    }

    /// How many commits there are.
    pub fn commits(&self) -> usize {
        self.commits.len()
    }

    /// Bytes of all of them.
    pub fn byte_len(&self) -> usize {
        self.instance(0).iter().map(Batch::byte_len).sum()
    }

    /// The record of the operation when it is done.
    pub fn head(&self) -> Option<Vec<u8>> {
        self.net().into_iter().find(|slot| slot.write.table == Table::Operations)?.write.value
    }

    /// The same commits of another operation: as many bytes, but records whose checksums do not fit, for who does not read them.
    pub fn instance(&self, number: u64) -> Vec<Batch> {
        let id = self.id(number);
        let batch = |slots: &Vec<Slot>| Batch { writes: slots.iter().map(|slot| slot.of(&id)).collect() };
        self.commits.iter().map(batch).collect()
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
            let writes = numbers.flat_map(|number| {
                let id = self.id(number);
                last.iter().map(move |slot| sealed(slot.of(&id)))
            });
            Batch { writes: writes.collect() }
        })
    }

    /// What the commits come to: the last value of each key, without those that are removed.
    fn net(&self) -> Vec<Slot> {
        let mut slots: Vec<Slot> = Vec::new();
        for slot in self.commits.iter().flatten() {
            let place = |slot: &Slot| (slot.write.table, slot.write.key.clone());
            slots.retain(|earlier| place(earlier) != place(slot));
            slots.push(slot.clone());
        }
        slots.retain(|slot| slot.write.value.is_some());
        slots
    }
}

/// A write whose record has a checksum that fits what was changed in it. Entries of an index have no record.
fn sealed(mut write: Write) -> Write {
    if let Some(record) = write.value.as_mut().filter(|value| !value.is_empty()) {
        reseal(record);
    }
    write
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
        let writes: Vec<usize> = template.instance(0).iter().map(|batch| batch.writes.len()).collect();
        assert_eq!(
            writes,
            [2, 1, 1, 5],
            "head and place; two entries; head, both entries and the place gone, its end"
        );
        assert!(template.byte_len() < 900, "{} bytes", template.byte_len());
        let opened = stores::open(StoreName::Memory, std::path::Path::new("")).await.unwrap();
        for batch in template.settled(1001) {
            opened.kv().unwrap().commit(&batch).unwrap();
        }
        let engine =
            kinds::register(Engine::builder_shared(opened.store), &Barrier::new(true)).start().await.unwrap();
        for number in [0, 500, 1000] {
            let operation = engine.get(template.id(number)).await.unwrap();
            assert_eq!(operation.response().unwrap().decode::<u64>().unwrap(), 1_000_003);
        }
        assert!(engine.get(template.id(1001)).await.is_err());
        let page = engine.list_operations(&OperationQuery::All, &PageRequest::default()).await.unwrap();
        assert_eq!(page.items[0].id(), template.id(1000), "newest first");
    }
}
