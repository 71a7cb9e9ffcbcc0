//! What to list.

use longrun::{ResourceId, ResourceList, ResourceOrder, ResourceStatus};
use proptest::prelude::*;

/// A list of resources, as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListShape {
    /// In which order.
    pub order: ResourceOrder,
    /// In reverse.
    pub descending: bool,
    /// Only those with this status.
    pub status: Option<ResourceStatus>,
    /// Only those with this name.
    pub name: Option<String>,
}

impl ListShape {
    /// The list of what is under a parent.
    pub fn under(&self, parent: ResourceId) -> ResourceList {
        let list = ResourceList::of(parent).order(self.order).descending(self.descending);
        let list = self.status.into_iter().fold(list, ResourceList::status);
        self.name.iter().fold(list, |list, name| list.name(name))
    }
}

/// All orders, both directions, with and without a status and one of these names.
pub fn lists(names: &'static [&'static str]) -> impl Strategy<Value = ListShape> {
    let order =
        prop_oneof![Just(ResourceOrder::Id), Just(ResourceOrder::Creation), Just(ResourceOrder::Name)];
    let status = prop_oneof![
        3 => Just(None),
        1 => Just(Some(ResourceStatus::Ready)),
        1 => Just(Some(ResourceStatus::Creating)),
    ];
    let none = Just(None::<&'static str>).boxed();
    let name =
        if names.is_empty() { none } else { proptest::option::of(proptest::sample::select(names)).boxed() };
    (order, any::<bool>(), status, name).prop_map(|(order, descending, status, name)| {
        let name = name.map(str::to_owned);
        ListShape { order, descending, status, name }
    })
}

/// Sizes of pages: small ones, at which a page ends everywhere.
pub fn page_sizes() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 1..5_usize, 1 => 5..50_usize]
}
