//! The last look at an engine, when everything is done.

use longrun::{Engine, OperationId, OperationQuery, PageRequest};

use super::invariants::Verdict;
use super::invariants::answers::{answered, check_complete};
use super::invariants::calm::{check_done, check_held, check_none_counted};

/// It holds nothing, counts nothing as unfinished, and lists all that anybody was told of, as done.
pub(super) async fn check_engine(engine: &Engine, known: &[OperationId]) -> Verdict {
    check_held(&engine.held())?;
    check_none_counted(engine.unfinished())?;
    let page = PageRequest { size: 1000, token: String::new() };
    let listed = answered(engine.list_operations(&OperationQuery::All, &page).await)?.items;
    let ids: Vec<_> = listed.iter().map(longrun::Operation::id).collect();
    check_complete(known, &ids)?;
    check_done(&listed)
}
