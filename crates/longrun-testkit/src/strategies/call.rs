//! Who calls, and with what.

use longrun::{Call, Caller, IdempotencyKey};
use proptest::prelude::*;
use serde_json::{Map, Number, Value};

/// A caller and a key, by number: a few of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallShape {
    /// Who calls.
    pub caller: u8,
    /// The idempotency key, if there is one.
    pub key: Option<u8>,
}

impl CallShape {
    /// The caller.
    #[allow(clippy::expect_used)] // A number after a letter fits the rule.
    pub fn by(self) -> Caller {
        Caller::new(format!("caller-{}", self.caller)).expect("a caller")
    }

    /// The call.
    #[allow(clippy::expect_used)]
    pub fn call(self) -> Call {
        let call = Call::by(self.by());
        match self.key {
            Some(key) => call.key(IdempotencyKey::new(format!("key-{key}")).expect("a key")),
            None => call,
        }
    }
}

/// Two callers, who use three keys, or none.
pub fn calls() -> impl Strategy<Value = CallShape> {
    (0..2_u8, proptest::option::of(0..3_u8)).prop_map(|(caller, key)| CallShape { caller, key })
}

/// JSON values of up to 16 parts, three deep: with empty ones, texts in any script, and numbers that JavaScript cannot count to.
pub fn bodies() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(|number| Value::Number(Number::from(number))),
        any::<u64>().prop_map(|number| Value::Number(Number::from(number))),
        "\\PC{0,12}".prop_map(Value::String),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            proptest::collection::btree_map("[a-zA-Z_]{1,8}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect::<Map<_, _>>())),
        ]
    })
}
