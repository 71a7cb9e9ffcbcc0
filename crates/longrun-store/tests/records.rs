//! What a store that is not made of ordered keys keeps of an operation, and gets back of it.

#![allow(clippy::unwrap_used, clippy::panic)]

use longrun_core::limits::{PAYLOAD_BYTES_MAX, RECORD_BYTES_MAX};
use longrun_core::{Attempt, Command, Fence, Json, Revision, Row, StepIndex, StepReport};
use longrun_store::conformance::sample::{Draft, creates, operation_id, row};
use longrun_store::records::{self, Records};
use longrun_store::{CommitError, StoreError};

const FENCE: Fence = Fence(3);
/// Far more than any token holds.
const LONG_NAME_CHARS: usize = 4096;

#[test]
fn an_operation_is_its_head_and_its_journal_until_it_is_done() {
    let (mut live, accepted) = Draft::chain(1, 2).with(creates("a", "folder")).accept(FENCE);
    let first = Records::of(accepted).unwrap();
    assert_eq!((first.operation_id(), first.expect), (operation_id(1), None));
    let head = first.head.clone().unwrap();
    assert!(first.journal.is_none() && first.rows.len() == 1);
    let row = first.rows[0].record.clone().unwrap();
    assert_eq!(first.byte_len(), head.len() + row.len());
    assert_eq!(
        records::row(&first.rows[0].write.key, row).unwrap().name,
        first.rows[0].write.put.as_ref().unwrap().name
    );

    let second = Records::of(live.done(FENCE, 0)).unwrap();
    assert_eq!((second.head.is_none(), second.expect), (true, Some(Revision(1))));
    let journal = second.journal.clone().unwrap();
    assert_eq!(second.byte_len(), journal.len());
    let restored = records::operation(operation_id(1), head.clone(), [journal.clone()]).unwrap();
    assert_eq!((restored.revision(), restored.is_done()), (Revision(2), false));

    let last = Records::of(live.done(FENCE, 1)).unwrap();
    assert!(last.journal.is_none());
    let done = last.head.unwrap();
    assert!(records::operation(operation_id(1), done.clone(), []).unwrap().is_done());

    // S15: the end takes the journal away, so whoever left an entry there was not a store.
    let error = records::operation(operation_id(1), done, [journal]).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    // And the head of one operation is not that of another.
    let error = records::operation(operation_id(2), head, []).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
}

#[test]
fn a_record_may_be_as_large_as_every_store_takes_and_no_larger() {
    // Outputs that are all in one entry: most as long as may be, and one of so many bytes.
    let full = u16::try_from(RECORD_BYTES_MAX / PAYLOAD_BYTES_MAX - 1).unwrap();
    let output = |bytes: usize| Json::encode("output", &"x".repeat(bytes - 2)).unwrap();
    let with_last = |length: usize| {
        let mut draft = Draft::wide(1, full + 3);
        draft.parts.parallel = full + 3;
        let (mut live, _) = draft.accept(FENCE);
        let reports: Vec<_> = (0..=full)
            .map(|step| Command::Report {
                step: StepIndex(step),
                attempt: Attempt(1),
                report: StepReport::Done(output(if step < full { PAYLOAD_BYTES_MAX } else { length })),
            })
            .collect();
        Records::of(live.turn(FENCE, &reports))
    };
    let half = PAYLOAD_BYTES_MAX / 2;
    let fits = half + RECORD_BYTES_MAX - with_last(half).unwrap().byte_len();
    assert_eq!(with_last(fits).unwrap().byte_len(), RECORD_BYTES_MAX);
    match with_last(fits + 1) {
        Err(CommitError::TooLarge { bytes, limit }) => {
            assert_eq!((bytes, limit), (RECORD_BYTES_MAX + 1, RECORD_BYTES_MAX));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_name_counts_for_the_order_as_far_as_a_page_token_holds_it() {
    let named = |name: String| Row { name, ..row("a", "folder", 1) };
    let short = named("short".to_owned());
    assert_eq!(records::sort_name(&short), "short");
    assert!(records::is_whole_in_order("short"));
    // Cut between characters, each of which has two bytes here.
    let long = named("\u{e9}".repeat(LONG_NAME_CHARS));
    let cut = records::sort_name(&long);
    assert!(long.name.starts_with(cut) && cut.len() < long.name.len(), "{}", cut.len());
    assert!(!records::is_whole_in_order(&long.name));
    assert!(!records::is_whole_in_order("with\0end"));
}
