//! Models: every order in which clients, driver, store and crashes can act, checked by stateright.
//!
//! A model is small, and all of it is visited; a test that draws its cases at random is large, and meets some of it. Each model here has
//! variants with one mistake planted, which the checker must refute: it tells how, move by move.
//!
//! `cargo test -p longrun-testkit --test models -- --nocapture` prints how many states there were.
//! `cargo test --release -p longrun-testkit --test models -- --ignored --nocapture` visits the large ones.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod cancel;
mod lease;

use std::fmt::Debug;
use std::hash::Hash;

use stateright::{Checker, Expectation, HasDiscoveries, Model};

/// Visits all of a model. Whatever must hold always does, and whatever must be met sometimes is. Gives the number of states.
fn holds<M>(name: &str, model: M) -> usize
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq + Send + Sync + 'static,
{
    let checker = model.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    println!("{name}: {states} states, up to {depth} moves deep");
    for property in checker.model().properties() {
        match (property.expectation, checker.discovery(property.name)) {
            (Expectation::Sometimes, None) => panic!("{name}: never met: {}", property.name),
            (Expectation::Always, Some(path)) => {
                panic!("{name}: does not hold: {}\n{:#?}", property.name, path.into_actions());
            }
            (_, _) => {}
        }
    }
    states
}

/// Visits a model with a mistake, which has to come to light as this.
fn is_refuted<M>(name: &str, model: M, property: &'static str)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq + Send + Sync + 'static,
{
    let found = HasDiscoveries::AnyOf([property].into());
    let checker = model.checker().finish_when(found).spawn_bfs().join();
    let states = checker.unique_state_count();
    let Some(path) = checker.discovery(property) else {
        panic!("{name}: not refuted in {states} states: {property}");
    };
    println!("{name}: after {states} states, against '{property}':");
    path.into_actions().iter().for_each(|action| println!("    {action:?}"));
}
