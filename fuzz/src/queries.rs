//! Filters and orders of lists, from strangers.

use longrun_snapshot::service::{Filter, Limits, OrderBy};

/// Names to try a filter on: those in its text, and some that are not.
fn names(text: &str) -> Vec<&str> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-' && letter != '_');
    words.chain(["", "abc", "nothing"]).collect()
}

/// Text from a stranger gives a filter, or an error at one of its characters. A filter prints as a text that gives the same
/// filter, and agrees with itself on what passes. The same for an order.
pub fn filter(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let within = 1..=text.chars().count() + 1;
    match Filter::parse(text, Limits::default()) {
        Ok(filter) => check(text, &filter),
        Err(error) => {
            assert!(within.contains(&error.position), "{error}");
            assert!(!error.to_string().is_empty());
        }
    }
    match OrderBy::parse(text) {
        Ok(order) => assert_eq!(OrderBy::parse(&order.to_string()), Ok(order)),
        Err(error) => assert!(within.contains(&error.position), "{error}"),
    }
}

fn check(text: &str, filter: &Filter) {
    let printed = filter.to_string();
    assert_eq!(Filter::parse(&printed, Limits::default()).as_ref(), Ok(filter), "{printed}");
    let names = names(text);
    let passing = names.iter().filter(|name| filter.matches(name)).count();
    if filter.is_everything() {
        assert_eq!(passing, names.len());
    }
    if filter.is_nothing() {
        assert_eq!(passing, 0);
    }
    if let Some(name) = filter.exact_name() {
        assert!(names.iter().all(|other| filter.matches(other) == (*other == name)));
    }
    // One condition more never lets more pass.
    let narrower = format!("{printed} AND name != abc");
    if !filter.is_everything() {
        let narrower = Filter::parse(&narrower, Limits::default()).expect("two filters make one");
        assert!(names.iter().all(|name| narrower.matches(name) == (filter.matches(name) && *name != "abc")));
    }
}

/// Whether the text is a filter, and whether it is an order.
pub fn judge_query(data: &[u8]) -> (bool, bool) {
    let text = String::from_utf8_lossy(data);
    (Filter::parse(&text, Limits::default()).is_ok(), OrderBy::parse(&text).is_ok())
}
