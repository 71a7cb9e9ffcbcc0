//! The registry: name to code. The one place where types are forgotten and found again.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use longrun_core::execution::Undoable as StoredUndoable;
use longrun_core::{
    Applied, Code, Condition, Execution, Invalid, Json, KindName, Payload, PlanError, PlanParts, Status,
    StepName,
};
use serde_json::Value as JsonValue;

use crate::context::{Shared, StepContext, UndoContext};
use crate::error::SubmitError;
use crate::intercept::{Intercepted, Interceptor};
use crate::kind::Kind;
use crate::plan::{Finished, PlanBuilder};
use crate::step::{Step, StepError, StepResult, UndoResult, Undoable};
use crate::turns::Turn;

/// A registered step, whatever its types.
#[async_trait]
pub(crate) trait AnyStep: Send + Sync {
    fn accepts(&self, version: u32) -> bool;
    async fn run(&self, shared: Arc<Shared>, input: Json) -> StepResult<Json>;
    async fn undo(&self, shared: Arc<Shared>, input: Json, outcome: StoredUndoable) -> UndoResult;
}

#[async_trait]
impl<S: Step> AnyStep for S {
    fn accepts(&self, version: u32) -> bool {
        (S::OLDEST_VERSION..=S::VERSION).contains(&version)
    }

    async fn run(&self, shared: Arc<Shared>, input: Json) -> StepResult<Json> {
        let input = input.decode().map_err(|error| undecodable("input", &error, Applied::No))?;
        let output = Step::run(self, &StepContext::new(shared), input).await?;
        Json::encode("output", &output).map_err(|error| undecodable("output", &error, Applied::Unknown))
    }

    async fn undo(&self, shared: Arc<Shared>, input: Json, outcome: StoredUndoable) -> UndoResult {
        let input = input.decode()?;
        let outcome = match outcome {
            StoredUndoable::Done(output) => Undoable::Done(output.decode()?),
            StoredUndoable::MayHaveRun(None) => Undoable::MayHaveRun(None),
            StoredUndoable::MayHaveRun(Some(checkpoint)) => Undoable::MayHaveRun(Some(checkpoint.decode()?)),
        };
        Step::undo(self, &UndoContext::new(shared), input, outcome).await
    }
}

fn undecodable(what: &str, error: &dyn std::fmt::Display, applied: Applied) -> StepError {
    let error = Status::new(Code::Internal, format!("the {what} of the step cannot be used: {error}"));
    StepError::from_status(error, applied).permanent()
}

/// What a kind made of a request.
pub(crate) struct Draft {
    pub(crate) metadata: Payload,
    pub(crate) response_type: &'static str,
    pub(crate) parts: PlanParts,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) description: String,
    pub(crate) turn: Option<Turn>,
}

/// A registered kind, whatever its types.
#[async_trait]
pub(crate) trait AnyKind: Send + Sync {
    fn version(&self) -> u32;
    fn accepts(&self, version: u32) -> bool;
    /// Plans a request that is still JSON, for those who take requests from a wire.
    async fn plan(&self, request: &Json, plan: PlanBuilder) -> Result<Draft, SubmitError>;
}

#[async_trait]
impl<K: Kind> AnyKind for K {
    fn version(&self) -> u32 {
        K::VERSION
    }

    fn accepts(&self, version: u32) -> bool {
        (K::OLDEST_VERSION..=K::VERSION).contains(&version)
    }

    async fn plan(&self, request: &Json, mut plan: PlanBuilder) -> Result<Draft, SubmitError> {
        let request = request.decode().map_err(|error| Invalid::new("request", error.to_string()))?;
        let (metadata, output) = Kind::plan(self, &request, &mut plan).await.map_err(SubmitError::Refused)?;
        let metadata = Payload::encode("metadata", K::METADATA_TYPE, &metadata)?;
        let Finished { parts, conditions, description, turn } = plan.finish(output.into_source())?;
        Ok(Draft { metadata, response_type: K::RESPONSE_TYPE, parts, conditions, description, turn })
    }
}

/// Everything that is registered.
#[derive(Default)]
pub(crate) struct Registry {
    pub(crate) kinds: BTreeMap<KindName, Arc<dyn AnyKind>>,
    pub(crate) steps: BTreeMap<StepName, Arc<dyn AnyStep>>,
    /// The first is the outermost.
    pub(crate) interceptors: Vec<Arc<dyn Interceptor>>,
}

/// Why this build cannot work on an operation. In words, for operators.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HoldReason {
    /// The kind is not registered.
    #[error("kind {0} is not registered")]
    UnknownKind(KindName),
    /// The kind is registered in versions that do not take this plan.
    #[error("kind {kind} is registered, but not for version {version}")]
    KindVersion {
        /// The kind.
        kind: KindName,
        /// The version that made the plan.
        version: u32,
    },
    /// A step is not registered.
    #[error("step {0} is not registered")]
    UnknownStep(StepName),
    /// A step is registered in versions that do not take this plan.
    #[error("step {step} is registered, but not for version {version}")]
    StepVersion {
        /// The step.
        step: StepName,
        /// The version that made the plan.
        version: u32,
    },
    /// The stored record cannot be read.
    #[error("the stored record cannot be used: {0}")]
    Unreadable(String),
    /// The driver of the operation failed: a fault of the engine.
    #[error("the engine failed on it: {0}")]
    Engine(String),
}

impl Registry {
    /// The code of a step, with what stands around it.
    pub(crate) fn step(&self, name: &StepName) -> Option<Arc<dyn AnyStep>> {
        let step = Arc::clone(self.steps.get(name)?);
        let around = |step, interceptor: &Arc<dyn Interceptor>| -> Arc<dyn AnyStep> {
            Arc::new(Intercepted { step, interceptor: Arc::clone(interceptor) })
        };
        Some(self.interceptors.iter().rev().fold(step, around))
    }

    /// Whether everything that an operation needs is here.
    pub(crate) fn check(&self, execution: &Execution) -> Result<(), HoldReason> {
        let header = execution.header();
        let (kind, version) = (header.kind.clone(), header.kind_version);
        match self.kinds.get(&kind) {
            None => return Err(HoldReason::UnknownKind(kind)),
            Some(known) if !known.accepts(version) => return Err(HoldReason::KindVersion { kind, version }),
            Some(_) => {}
        }
        execution.plan().map_or(Ok(()), |plan| self.check_steps(plan.steps()))
    }

    pub(crate) fn check_steps(&self, steps: &[longrun_core::StepSpec]) -> Result<(), HoldReason> {
        for spec in steps {
            let (step, version) = (spec.name.clone(), spec.version);
            match self.steps.get(&step) {
                None => return Err(HoldReason::UnknownStep(step)),
                Some(known) if !known.accepts(version) => {
                    return Err(HoldReason::StepVersion { step, version });
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}

/// A digest of a request that does not depend on the order of its fields, nor on white space.
pub(crate) fn fingerprint(request: &Json) -> Result<[u8; 32], Invalid> {
    let value: JsonValue = request.decode().map_err(|error| Invalid::new("request", error.to_string()))?;
    let mut hasher = blake3::Hasher::new();
    hash_value(&value, &mut hasher);
    Ok(*hasher.finalize().as_bytes())
}

fn hash_value(value: &JsonValue, hasher: &mut blake3::Hasher) {
    let mut tagged = |tag: &[u8], text: &[u8]| {
        hasher.update(tag);
        hasher.update(&(text.len() as u64).to_be_bytes());
        hasher.update(text);
    };
    match value {
        JsonValue::Null => tagged(b"n", b""),
        JsonValue::Bool(flag) => tagged(b"b", &[u8::from(*flag)]),
        JsonValue::Number(number) => tagged(b"#", number.to_string().as_bytes()),
        JsonValue::String(text) => tagged(b"s", text.as_bytes()),
        JsonValue::Array(items) => {
            tagged(b"[", &(items.len() as u64).to_be_bytes());
            items.iter().for_each(|item| hash_value(item, hasher));
        }
        JsonValue::Object(fields) => {
            tagged(b"{", &(fields.len() as u64).to_be_bytes());
            let sorted: BTreeMap<_, _> = fields.iter().collect();
            for (name, value) in sorted {
                hasher.update(&(name.len() as u64).to_be_bytes());
                hasher.update(name.as_bytes());
                hash_value(value, hasher);
            }
        }
    }
}

/// The digest under which the ledger knows a key: of caller, kind and key.
pub(crate) fn key_digest(caller: &str, kind: &str, key: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for part in [caller, kind, key] {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    *hasher.finalize().as_bytes()
}

impl From<PlanError> for SubmitError {
    fn from(error: PlanError) -> Self {
        Self::Plan(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_ignores_the_order_of_fields_and_nothing_else() {
        let of = |value: &JsonValue| fingerprint(&Json::encode("request", value).unwrap()).unwrap();
        let from = |text: &str| of(&serde_json::from_str::<JsonValue>(text).unwrap());
        assert_eq!(from(r#"{"a":1,"b":[1,2]}"#), from(r#"{ "b":[1,2], "a":1 }"#));
        for other in
            [r#"{"a":1,"b":[2,1]}"#, r#"{"a":"1","b":[1,2]}"#, r#"{"a":1}"#, r#"{"a":1,"b":[1,[2]]}"#]
        {
            assert_ne!(from(r#"{"a":1,"b":[1,2]}"#), from(other));
        }
        assert_ne!(key_digest("a", "bc", "d"), key_digest("ab", "c", "d"));
    }
}
