//! What a store asks of an engine before it opens, and what it leaves behind when it is dropped.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use longrun_core::limits::RECORD_BYTES_MAX;
use longrun_store::faulty::Small;
use longrun_store::{KvStore, MemoryKv, OpenError, Store};

#[test]
fn an_engine_must_take_the_largest_record() {
    let open = |bytes| KvStore::open_inline(Small::values(MemoryKv::new(), bytes), [7; 32]);
    let Err(OpenError::SmallValues { found }) = open(RECORD_BYTES_MAX - 1) else {
        unreachable!("it is open")
    };
    assert_eq!(found, RECORD_BYTES_MAX - 1);
    assert!(open(RECORD_BYTES_MAX).is_ok() && open(RECORD_BYTES_MAX + 1).is_ok());
}

#[test]
fn the_secret_of_page_tokens_is_drawn_once_for_ever() {
    let kv = Arc::new(MemoryKv::new());
    for secret in [[9; 32], [5; 32]] {
        let store = KvStore::open_inline(Arc::clone(&kv), secret).unwrap();
        assert_eq!(store.page_secret(), [9; 32]);
    }
}

/// So that whoever closes a store may open it again at once, in the same folder.
#[test]
fn a_store_that_is_dropped_has_let_go_of_its_engine() {
    for _ in 0..100 {
        let kv = Arc::new(MemoryKv::new());
        let store = KvStore::open(Arc::clone(&kv)).unwrap();
        assert!(Arc::strong_count(&kv) > 1);
        drop(store);
        assert_eq!(Arc::strong_count(&kv), 1);
    }
}

#[test]
fn a_store_shows_what_is_below_it() {
    assert!(format!("{:?}", KvStore::memory().unwrap()).contains("memory"));
}
