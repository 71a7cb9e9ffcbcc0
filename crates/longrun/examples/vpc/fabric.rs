//! What the service works on: a fake network fabric, and the blocks of addresses that it routes. Nothing here knows of
//! operations.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fmt, io};

use longrun::ResourceId;
use serde::{Deserialize, Serialize};

/// Gives out numbers and routes blocks. Its calls name an owner, so that asking twice is no more than asking once.
#[derive(Clone, Default)]
pub(crate) struct Fabric(Arc<Mutex<State>>);

#[derive(Default)]
pub(crate) struct State {
    /// Route tables and VLANs, by owner.
    pub(crate) numbers: BTreeMap<ResourceId, u16>,
    /// Routed blocks, by owner.
    pub(crate) routes: BTreeMap<ResourceId, Cidr>,
    /// How calls end, by their name; well unless said.
    pub(crate) mood: Option<Temper>,
}

/// Says how a call of a name ends.
pub(crate) type Temper = Box<dyn FnMut(&str) -> Mood + Send>;

/// How a call ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Well,
    /// With an error, without an effect.
    Refuses,
    /// With an error, although it had its effect.
    LosesTheAnswer,
}

impl Fabric {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn call<T>(&self, name: &str, act: impl FnOnce(&mut State) -> T) -> io::Result<T> {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut state = self.state();
        match state.mood.as_mut().map_or(Mood::Well, |mood| mood(name)) {
            Mood::Well => return Ok(act(&mut state)),
            Mood::LosesTheAnswer => _ = act(&mut state),
            Mood::Refuses => {}
        }
        Err(io::Error::other(format!("the fabric failed to {name}")))
    }

    /// The number of an owner: the lowest free one from `first` on, if it has none yet.
    pub(crate) async fn allocate(&self, owner: &ResourceId, first: u16) -> io::Result<u16> {
        self.call("allocate", |State { numbers, .. }| {
            let free = || (first..u16::MAX).find(|number| !numbers.values().any(|taken| taken == number));
            let number = numbers.get(owner).copied().or_else(free).unwrap_or(u16::MAX);
            numbers.insert(owner.clone(), number);
            number
        })
        .await
    }

    /// Takes from an owner all that it has.
    pub(crate) async fn release(&self, owner: &ResourceId) -> io::Result<()> {
        self.call("release", |State { numbers, routes, .. }| {
            numbers.remove(owner);
            routes.remove(owner);
        })
        .await
    }

    pub(crate) async fn route(&self, owner: &ResourceId, block: Cidr) -> io::Result<()> {
        self.call("route", |state| _ = state.routes.insert(owner.clone(), block)).await
    }

    pub(crate) async fn unroute(&self, owner: &ResourceId) -> io::Result<()> {
        self.call("unroute", |state| _ = state.routes.remove(owner)).await
    }
}

/// A block of IPv4 addresses, written like 10.0.1.0/24.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Cidr {
    first: u32,
    bits: u32,
}

impl Cidr {
    const fn last(self) -> u32 {
        self.first | u32::MAX.unbounded_shr(self.bits)
    }

    pub(crate) const fn overlaps(self, other: Self) -> bool {
        self.first <= other.last() && other.first <= self.last()
    }
}

impl TryFrom<String> for Cidr {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let parse = || {
            let (first, bits) = text.split_once('/')?;
            let block = Self { first: first.parse::<Ipv4Addr>().ok()?.to_bits(), bits: bits.parse().ok()? };
            (block.bits <= 32 && block.first & u32::MAX.unbounded_shr(block.bits) == 0).then_some(block)
        };
        parse().ok_or("must be the first address of a block and its length, like 10.0.1.0/24")
    }
}

impl From<Cidr> for String {
    fn from(block: Cidr) -> Self {
        format!("{}/{}", Ipv4Addr::from_bits(block.first), block.bits)
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from(*self))
    }
}
