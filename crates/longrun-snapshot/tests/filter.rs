//! The two small languages of a list: what they mean, and where they say that something is wrong.
#![allow(clippy::unwrap_used, clippy::panic)]

use longrun::ResourceOrder;
use longrun_snapshot::service::{
    Filter, FilterError, FilterProblem, Limits, OrderBy, OrderByError, OrderByProblem, OrderField,
};
use proptest::prelude::*;

fn parse(text: &str) -> Result<Filter, FilterError> {
    Filter::parse(text, Limits::documented())
}

fn filter(text: &str) -> Filter {
    parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// What of three names passes.
fn passing(text: &str) -> Vec<&'static str> {
    let filter = filter(text);
    ["abc", "abd", "abe", ""].into_iter().filter(|name| filter.matches(name)).collect()
}

#[test]
fn a_filter_means_what_it_says() {
    for (text, names) in [
        ("", ["abc", "abd", "abe", ""].as_slice()),
        (" \t\r\n", &["abc", "abd", "abe", ""]),
        (r#"name = "abc""#, &["abc"]),
        (r#"name="abc""#, &["abc"]),
        ("name='abc'", &["abc"]),
        ("name=abc", &["abc"]),
        (" \tname\n=\r\nabc ", &["abc"]),
        ("name != abc", &["abd", "abe", ""]),
        ("name!='abc'", &["abd", "abe", ""]),
        (r#"name IN ("abc", "abd")"#, &["abc", "abd"]),
        ("name in(abc,'abd')", &["abc", "abd"]),
        ("name In ( abc )", &["abc"]),
        (r#"name NOT IN ("abc", "abd")"#, &["abe", ""]),
        ("name not\tin(abc)", &["abd", "abe", ""]),
        ("name != abc AND name != abd", &["abe", ""]),
        ("name IN (abc, abd) and name != abd", &["abc"]),
        ("name != abd AND name IN (abc, abd)", &["abc"]),
        ("name IN (abc, abd) And name IN (abd, abe) AND name NOT IN (abf)", &["abd"]),
        (r#"name="abc"AND name!='abd'AND name NOT IN(abe)AND name IN(abc)"#, &["abc"]),
        ("name = abc AND name = abd", &[]),
        ("name = abc AND name != abc", &[]),
        // A word is a keyword only where one can be.
        ("name = and", &[]),
        ("name = not AND name != and", &[]),
        ("name IN (not, and, name, abc)", &["abc"]),
    ] {
        assert_eq!(passing(text), names, "{text}");
    }
}

#[test]
fn a_filter_says_when_one_name_is_enough_to_look_for() {
    let exact = |text| filter(text).exact_name().map(str::to_owned);
    for text in [
        "name=abc",
        "name IN (abc)",
        "name IN (abc, abc)",
        "name IN (abc, abd) AND name != abd",
        "name=abc AND name=abc",
    ] {
        assert_eq!(exact(text).as_deref(), Some("abc"), "{text}");
    }
    for text in ["", "name != abc", "name IN (abc, abd)", "name NOT IN (abc)", "name = abc AND name = abd"] {
        assert_eq!(exact(text), None, "{text}");
    }
    assert!(filter("").is_everything() && !filter("").is_nothing());
    assert!(filter("name=abc AND name=abd").is_nothing());
    assert!(!filter("name=abc").is_everything() && !filter("name=abc").is_nothing());
    assert!(!filter("name!=abc").is_everything() && !filter("name!=abc").is_nothing());
}

#[test]
fn filters_that_let_the_same_pass_print_the_same() {
    for (text, printed) in [
        ("", ""),
        ("name=abc", r#"name = "abc""#),
        ("name IN(abc)", r#"name = "abc""#),
        ("name!=abc", r#"name != "abc""#),
        ("name NOT IN('abc')", r#"name != "abc""#),
        ("name IN(abd,abc,abd)", r#"name IN ("abc", "abd")"#),
        ("name != abd AND name NOT IN (abe) AND name != abc", r#"name NOT IN ("abc", "abd", "abe")"#),
        ("name = abc AND name = abd", r#"name = "nothing" AND name != "nothing""#),
        ("name = abd AND name != abd", r#"name = "nothing" AND name != "nothing""#),
    ] {
        assert_eq!(filter(text).to_string(), printed, "{text}");
        assert_eq!(filter(printed), filter(text));
    }
}

#[test]
fn values_of_a_filter_are_3_to_63_characters_of_a_name() {
    let (longest, too_long) = ("x".repeat(63), "x".repeat(64));
    for good in ["abc", "a-0", "x--9", &longest] {
        assert_eq!(filter(&format!("name = {good}")).exact_name(), Some(good));
        assert_eq!(filter(&format!("name = '{good}'")).exact_name(), Some(good));
        assert!(!filter(&format!("name NOT IN (abc, \"{good}\")")).matches(good));
    }
    for bad in
        ["", "a", "ab", "aB", "Abc", "1bc", "-bc", "ab-", "a_c", "a.c", "a c", " abc", "abé", &too_long]
    {
        for text in [format!("name = '{bad}'"), format!("name!=\"{bad}\""), format!("name IN ('{bad}')")] {
            let error = parse(&text).unwrap_err();
            assert!(matches!(error.problem, FilterProblem::NotAName { .. }), "{text}: {error}");
        }
    }
}

/// Texts that are no filters, where they stop being one (in characters from 1), and what was expected there.
#[test]
fn a_filter_error_says_where_and_what_was_expected() {
    use FilterProblem::*;
    let not_a_name = || NotAName { rule: parse("name=N").unwrap_err().problem.to_string()[17..].to_owned() };
    for (text, position, problem) in [
        ("size = abc", 1, ExpectedField),
        ("  Name = abc", 3, ExpectedField),
        ("names = abc", 1, ExpectedField),
        ("= abc", 1, ExpectedField),
        ("'name' = abc", 1, ExpectedField),
        ("AND name = abc", 1, ExpectedField),
        ("(name = abc)", 1, ExpectedField),
        ("ключ = abc", 1, ExpectedField),
        ("name = abc AND", 15, ExpectedField),
        ("name = abc AND ", 16, ExpectedField),
        ("name = abc AND AND name = abc", 16, ExpectedField),
        ("name = abc AND size = abc", 16, ExpectedField),
        ("name", 5, ExpectedOperator),
        ("name ", 6, ExpectedOperator),
        ("name abc", 6, ExpectedOperator),
        ("name \u{a0}= abc", 6, ExpectedOperator),
        ("name: abc", 5, ExpectedOperator),
        ("name < abc", 6, ExpectedOperator),
        ("name <> abc", 6, ExpectedOperator),
        ("name ! = abc", 6, ExpectedOperator),
        ("name !", 6, ExpectedOperator),
        ("name NOTIN (abc)", 6, ExpectedOperator),
        ("name NOT", 9, ExpectedIn),
        ("name NOT = abc", 10, ExpectedIn),
        ("name NOT NOT IN (abc)", 10, ExpectedIn),
        ("name IN", 8, ExpectedList),
        ("name IN abc", 9, ExpectedList),
        ("name IN 'abc'", 9, ExpectedList),
        ("name IN [abc]", 9, ExpectedList),
        ("name IN ()", 10, EmptyList),
        ("name NOT IN ( )", 15, EmptyList),
        ("name IN (", 10, ExpectedValue),
        ("name IN (,abc)", 10, ExpectedValue),
        ("name IN (abc,)", 14, ExpectedValue),
        ("name IN (abc,,abd)", 14, ExpectedValue),
        ("name IN (abc, ", 15, ExpectedValue),
        ("name =", 7, ExpectedValue),
        ("name = ", 8, ExpectedValue),
        ("name == abc", 7, ExpectedValue),
        ("name != !abc", 9, ExpectedValue),
        ("name = (abc)", 8, ExpectedValue),
        ("name = \"abc", 8, UnclosedQuote),
        ("name = 'abc\"", 8, UnclosedQuote),
        ("name = \"", 8, UnclosedQuote),
        ("name = \"abc\\", 8, UnclosedQuote),
        ("name = \"abc\\\"", 8, UnclosedQuote),
        ("name IN (abc, 'abd)", 15, UnclosedQuote),
        ("name = \"a\\nc\"", 10, UnknownEscape),
        ("name = 'яя\\u0041'", 11, UnknownEscape),
        ("name = \"\"", 8, not_a_name()),
        ("name = ''", 8, not_a_name()),
        ("name = ab", 8, not_a_name()),
        ("name = Abc", 8, not_a_name()),
        ("name = AND name = abc", 8, not_a_name()),
        ("name = яяя", 8, not_a_name()),
        ("name = \\\"abc\\\"", 8, not_a_name()),
        ("name = \"a\\\"c\"", 8, not_a_name()),
        ("name = \"a\\'c\"", 8, not_a_name()),
        ("name = \"a\\\\c\"", 8, not_a_name()),
        ("name IN ('abc', 'яяя', 'abd')", 17, not_a_name()),
        ("name IN (abc", 13, ExpectedCommaOrEnd),
        ("name IN (abc abd)", 14, ExpectedCommaOrEnd),
        ("name IN ('abc''abd')", 15, ExpectedCommaOrEnd),
        ("name IN ((abc))", 10, ExpectedValue),
        ("name = abc abd", 12, ExpectedAndOrEnd),
        ("name = abc, abd", 11, ExpectedAndOrEnd),
        ("name = abc)", 11, ExpectedAndOrEnd),
        ("name = 'abc''abd'", 13, ExpectedAndOrEnd),
        ("name = abc OR name = abd", 12, ExpectedAndOrEnd),
        ("name = abc && name = abd", 12, ExpectedAndOrEnd),
        ("name = abc ANDname = abd", 12, ExpectedAndOrEnd),
        ("name = abc;", 8, not_a_name()),
        ("name IN (abc) name != abd", 15, ExpectedAndOrEnd),
        ("name IN (abc))", 14, ExpectedAndOrEnd),
    ] {
        assert_eq!(parse(text), Err(FilterError { position, problem }), "{text}");
    }
}

#[test]
fn a_filter_error_reads_well() {
    let said = |text| parse(text).unwrap_err().to_string();
    assert_eq!(said("name ~ abc"), "at character 6: expected =, !=, IN or NOT IN");
    assert_eq!(said("name = \"a\\bc\""), "at character 10: expected \\\", \\' or \\\\");
    assert_eq!(
        said("name = Abc"),
        "at character 8: expected a name: 3 to 63 of a-z, 0-9, '-', beginning with a letter, ending with a letter or \
         digit",
    );
}

/// A filter as the naive reference keeps it: conditions, each a list of names and whether they are refused.
type Conditions = Vec<(bool, Vec<String>)>;

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Quoted(String),
    Sign(char),
    Unequal,
}

/// The reference, first half: cuts the whole text into tokens before anything is understood.
fn tokens(text: &str) -> Option<Vec<Token>> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        match chars[at] {
            ' ' | '\t' | '\n' | '\r' | '\x0c' => at += 1,
            '!' if chars.get(at + 1) == Some(&'=') => {
                tokens.push(Token::Unequal);
                at += 2;
            }
            sign @ ('(' | ')' | ',' | '=' | '!') => {
                tokens.push(Token::Sign(sign));
                at += 1;
            }
            quote @ ('"' | '\'') => {
                let mut value = String::new();
                at += 1;
                while *chars.get(at)? != quote {
                    if chars[at] == '\\' {
                        at += 1;
                        if !"\"'\\".contains(*chars.get(at)?) {
                            return None;
                        }
                    }
                    value.push(chars[at]);
                    at += 1;
                }
                tokens.push(Token::Quoted(value));
                at += 1;
            }
            _ => {
                let rest = &chars[at..];
                let end = rest.iter().position(|next| " \t\n\r\x0c\"'(),=!".contains(*next));
                let word = &rest[..end.unwrap_or(rest.len())];
                tokens.push(Token::Word(word.iter().collect()));
                at += word.len();
            }
        }
    }
    Some(tokens)
}

/// The reference, second half: splits the tokens at each AND that stands where one can, then looks at each part whole.
fn reference(text: &str) -> Option<Conditions> {
    let tokens = tokens(text)?;
    if tokens.is_empty() {
        return Some(Vec::new());
    }
    let mut parts = vec![Vec::new()];
    for token in tokens {
        // As a value `and` follows an operator, a bracket or a comma, and the token before it is then a sign.
        let after_sign = match parts.last().and_then(|part| part.last()) {
            Some(Token::Sign(sign)) => *sign != ')',
            Some(Token::Unequal) => true,
            _ => false,
        };
        if keyword(&token, "and") && !after_sign {
            parts.push(Vec::new());
        } else {
            parts.last_mut()?.push(token);
        }
    }
    parts.iter().map(|part| condition(part)).collect()
}

fn keyword(token: &Token, keyword: &str) -> bool {
    matches!(token, Token::Word(word) if word.to_ascii_lowercase() == keyword)
}

fn condition(tokens: &[Token]) -> Option<(bool, Vec<String>)> {
    let (field, rest) = tokens.split_first()?;
    if *field != Token::Word("name".to_owned()) {
        return None;
    }
    match rest {
        [Token::Sign('='), value] => Some((false, vec![name_of(value)?])),
        [Token::Unequal, value] => Some((true, vec![name_of(value)?])),
        [not, word, list @ ..] if keyword(not, "not") && keyword(word, "in") => Some((true, names_of(list)?)),
        [word, list @ ..] if keyword(word, "in") => Some((false, names_of(list)?)),
        _ => None,
    }
}

fn names_of(tokens: &[Token]) -> Option<Vec<String>> {
    let [Token::Sign('('), inner @ .., Token::Sign(')')] = tokens else { return None };
    inner
        .split(|token| *token == Token::Sign(','))
        .map(|one| if let [value] = one { name_of(value) } else { None })
        .collect()
}

fn name_of(token: &Token) -> Option<String> {
    let (Token::Word(name) | Token::Quoted(name)) = token else { return None };
    let letters = "abcdefghijklmnopqrstuvwxyz";
    let ends = letters.to_owned() + "0123456789";
    let inside = ends.clone() + "-";
    let chars: Vec<char> = name.chars().collect();
    let [first, middle @ .., last] = chars.as_slice() else { return None };
    let fits = letters.contains(*first)
        && (1..=61).contains(&middle.len())
        && middle.iter().all(|next| inside.contains(*next))
        && ends.contains(*last);
    fits.then(|| name.clone())
}

/// Holds the parser against the reference, on one text.
fn compare(text: &str) -> Result<(), TestCaseError> {
    match (parse(text), reference(text)) {
        (Err(error), None) => {
            let chars = text.chars().count();
            prop_assert!((1..=chars + 1).contains(&error.position), "{text}: {error}");
        }
        (Ok(filter), Some(conditions)) => {
            let mentioned = conditions.iter().flat_map(|(_, names)| names.iter().map(String::as_str));
            let candidates: Vec<_> = mentioned.chain(["", "abc", "nothing", "zzz"]).collect();
            let passes = |name: &str| {
                conditions.iter().all(|(refused, names)| names.iter().any(|one| one == name) != *refused)
            };
            for name in &candidates {
                prop_assert_eq!(filter.matches(name), passes(name), "{}: {}", text, name);
            }
            let open = conditions.iter().all(|(refused, _)| *refused);
            let mut passing: Vec<_> = candidates.iter().filter(|name| passes(name)).collect();
            passing.sort();
            passing.dedup();
            prop_assert_eq!(filter.is_everything(), conditions.is_empty());
            prop_assert_eq!(filter.is_nothing(), !open && passing.is_empty());
            let exact = if let [one] = passing.as_slice() { (!open).then_some(**one) } else { None };
            prop_assert_eq!(filter.exact_name(), exact);
            let printed = filter.to_string();
            prop_assert_eq!(parse(&printed), Ok(filter), "{} printed as {}", text, printed);
        }
        (parsed, expected) => prop_assert!(false, "{text}: {parsed:?}, the reference says {expected:?}"),
    }
    Ok(())
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => prop::sample::select(vec!["abc", "abd", "abe", "and", "not", "name"]).prop_map(str::to_owned),
        2 => "[a-z][-a-z0-9]{1,61}[a-z0-9]",
    ]
}

fn value() -> impl Strategy<Value = String> {
    (name(), 0..3).prop_map(|(name, quotes)| match quotes {
        0 => name,
        1 => format!("'{name}'"),
        _ => format!("\"{name}\""),
    })
}

fn white() -> impl Strategy<Value = String> {
    "[ \t\n]{0,2}"
}

/// Valid conditions; white space only where it is optional, so that a space is written where it is not.
fn a_condition() -> impl Strategy<Value = String> {
    let operator = prop::sample::select(vec!["=", "!="]);
    let one = (white(), operator, white(), value())
        .prop_map(|(a, operator, b, value)| format!("name{a}{operator}{b}{value}"));
    let word = prop::sample::select(vec!["IN", "in", "iN", "NOT IN", "not  in", "Not\tIn"]);
    let values = prop::collection::vec((white(), value(), white()), 1..5);
    let many = (white(), word, white(), values).prop_map(|(a, word, b, values)| {
        let values: Vec<_> = values.into_iter().map(|(a, value, b)| format!("{a}{value}{b}")).collect();
        format!("name {a}{word}{b}({})", values.join(","))
    });
    prop_oneof![one, many]
}

fn a_filter() -> impl Strategy<Value = String> {
    let and = (white(), prop::sample::select(vec!["AND", "and", "aNd"]), white());
    let rest = prop::collection::vec((and, a_condition()), 0..4);
    (white(), a_condition(), rest, white()).prop_map(|(before, first, rest, after)| {
        let rest: String = rest.into_iter().map(|((a, and, b), one)| format!(" {a}{and} {b}{one}")).collect();
        format!("{before}{first}{rest}{after}")
    })
}

/// Takes something out of a text or puts something into it.
fn mutate(text: &str, edits: Vec<(prop::sample::Index, u8, &'static str)>) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for (place, how, piece) in edits {
        let at = place.index(chars.len() + 1);
        match how {
            0 => chars.truncate(at),
            1 if at < chars.len() => drop(chars.remove(at)),
            2 if at < chars.len() => drop(chars.splice(at..=at, piece.chars())),
            _ => drop(chars.splice(at..at, piece.chars())),
        }
    }
    chars.into_iter().collect()
}

const PIECES: &[&str] = &[
    "\"", "'", "\\", "\\\"", "\\'", "\\\\", "(", ")", ",", "=", "!", "!=", "==", " ", "\t", "\x0c", "\u{a0}",
    "\0", "AND", " and ", "IN", " not ", "name", "name=", "abc", "a", "A", "0", "-", "_", ":", ".", "я",
    "\u{202e}",
];

fn edits() -> impl Strategy<Value = Vec<(prop::sample::Index, u8, &'static str)>> {
    prop::collection::vec((any::<prop::sample::Index>(), 0..6_u8, prop::sample::select(PIECES)), 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn valid_filters_are_as_in_the_reference(text in a_filter()) {
        prop_assert!(parse(&text).is_ok(), "{text}: {:?}", parse(&text));
        compare(&text)?;
    }

    #[test]
    fn mutated_filters_are_as_in_the_reference(text in a_filter(), edits in edits()) {
        compare(&mutate(&text, edits))?;
    }

    #[test]
    fn pieces_of_filters_are_as_in_the_reference(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..12)) {
        compare(&pieces.concat())?;
    }

    #[test]
    fn any_text_is_a_filter_or_an_error(text in any::<String>()) {
        compare(&text)?;
    }

    /// The order of conditions does not matter, and saying a thing twice says it once.
    #[test]
    fn conditions_commute(conditions in prop::collection::vec(a_condition(), 1..5)) {
        let forward = conditions.join(" AND ");
        let backward: Vec<_> = conditions.into_iter().rev().collect();
        let backward = backward.join(" AND ");
        prop_assert_eq!(filter(&forward), filter(&backward));
        prop_assert_eq!(filter(&format!("{forward} AND {backward}")), filter(&forward));
    }

    /// Where a text goes wrong does not depend on what follows, unless it goes wrong because it ends.
    #[test]
    fn an_error_is_at_the_first_thing_wrong(text in a_filter(), edits in edits(), tail in "[ a-z]{0,9}") {
        let text = mutate(&text, edits);
        if let Err(error) = parse(&text)
            && error.position < text.chars().count()
            && error.problem != FilterProblem::UnclosedQuote
        {
            let longer = parse(&format!("{text} {tail}")).unwrap_err();
            prop_assert_eq!(longer, error);
        }
    }
}

// Orders.

const fn by(field: OrderField, descending: bool) -> OrderBy {
    OrderBy { field, descending }
}

#[test]
fn an_order_is_a_field_and_a_direction() {
    use OrderField::*;
    for (text, order, printed) in [
        ("", by(Id, false), "id asc"),
        ("  ", by(Id, false), "id asc"),
        ("id", by(Id, false), "id asc"),
        ("id desc", by(Id, true), "id desc"),
        ("name", by(Name, false), "name asc"),
        (" name\tASC ", by(Name, false), "name asc"),
        ("name Desc", by(Name, true), "name desc"),
        ("createdAt", by(CreatedAt, false), "createdAt asc"),
        ("createdAt desc", by(CreatedAt, true), "createdAt desc"),
        ("created_at desc", by(CreatedAt, true), "createdAt desc"),
    ] {
        assert_eq!(OrderBy::parse(text), Ok(order), "{text}");
        assert_eq!(order.to_string(), printed);
        assert_eq!(OrderBy::parse(printed), Ok(order));
    }
    assert_eq!(OrderBy::default(), by(Id, false));
    let asked_of_the_engine = [Id, Name, CreatedAt].map(ResourceOrder::from);
    assert_eq!(asked_of_the_engine, [ResourceOrder::Id, ResourceOrder::Name, ResourceOrder::Creation]);
}

#[test]
fn an_order_error_says_where_and_what_was_expected() {
    use OrderByProblem::*;
    for (text, position, problem) in [
        ("size", 1, UnknownField),
        ("  Id", 3, UnknownField),
        ("createdat", 1, UnknownField),
        ("iddesc", 1, UnknownField),
        ("desc", 1, UnknownField),
        ("-id", 1, UnknownField),
        (",", 1, UnknownField),
        ("я", 1, UnknownField),
        ("id down", 4, ExpectedDirection),
        ("id,name", 3, ExpectedDirection),
        ("id name", 4, ExpectedDirection),
        ("id  -", 5, ExpectedDirection),
        ("id ascending", 4, ExpectedDirection),
        ("id я", 4, ExpectedDirection),
        ("id asc, name", 7, TrailingText),
        ("id asc desc", 8, TrailingText),
        ("id desc.", 8, TrailingText),
    ] {
        assert_eq!(OrderBy::parse(text), Err(OrderByError { position, problem }), "{text}");
    }
    let said = OrderBy::parse("id, name").unwrap_err().to_string();
    assert_eq!(said, "at character 3: expected asc, desc or the end: one field can order a list");
}

/// The reference splits at white space.
fn naive_order(text: &str) -> Option<OrderBy> {
    let words: Vec<_> = text.split_ascii_whitespace().collect();
    let field = match words.first().copied().unwrap_or("id") {
        "id" => OrderField::Id,
        "name" => OrderField::Name,
        "createdAt" | "created_at" => OrderField::CreatedAt,
        _ => return None,
    };
    let direction = words.get(1).map_or("asc".to_owned(), |word| word.to_ascii_lowercase());
    let known = words.len() <= 2 && ["asc", "desc"].contains(&direction.as_str());
    known.then_some(by(field, direction == "desc"))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn orders_are_as_in_a_naive_reference(text in prop_oneof![
        any::<String>(),
        "[ \t]?(id|name|createdAt|created_at|Id|size|)[ ,]{0,2}(asc|desc|ASC|Desc|down|)[ ,;]?(id|name|)",
    ]) {
        match (OrderBy::parse(&text), naive_order(&text)) {
            (Ok(order), Some(expected)) => {
                prop_assert_eq!(order, expected);
                prop_assert_eq!(OrderBy::parse(&order.to_string()), Ok(order));
            }
            (Err(error), None) => prop_assert!((1..=text.chars().count() + 1).contains(&error.position)),
            (parsed, expected) => prop_assert!(false, "{text}: {parsed:?}, the reference says {expected:?}"),
        }
    }
}
