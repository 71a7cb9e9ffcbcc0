//! States that a loss of power may leave.

use std::collections::{BTreeMap, HashMap};

use super::disk::{Content, Names, Node, Tree};
use super::history::{ABOVE, History, NEVER, Op, What};
use crate::crash::dice::Dice;

/// What the kernel writes to a disk at once, and what a disk does.
const PAGE: u64 = 4096;
const SECTOR: u64 = 512;
/// The write that is torn is mostly one of so many of the newest.
const NEWEST: usize = 8;

/// What becomes of that which was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    /// All of it is there, as after a kill.
    Kept,
    /// None of it is.
    Dropped,
    /// Each change is there or is not.
    Subset,
    /// Each page is as it was after some of the writes to it; the kernel writes pages back in any order.
    Pages,
    /// Everything up to a write, and of that the first bytes.
    TornAtByte,
    /// The same, to the end of a sector or of a page.
    TornAtSector,
    /// Files are as long as they were, and have zeros instead of the bytes.
    Zeroed,
    /// Each name is there or is not; the bytes all, or none, or by chance.
    Names,
}

impl Kind {
    pub(super) const ALL: [Self; 8] = [
        Self::Kept,
        Self::Dropped,
        Self::Subset,
        Self::Pages,
        Self::TornAtByte,
        Self::TornAtSector,
        Self::Zeroed,
        Self::Names,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Kept => "whole",
            Self::Dropped => "dropped",
            Self::Subset => "subset",
            Self::Pages => "pages",
            Self::TornAtByte => "torn at a byte",
            Self::TornAtSector => "torn at a sector",
            Self::Zeroed => "zeroed",
            Self::Names => "names",
        }
    }

    /// True when there is something for it to decide.
    fn applies(self, unsynced: &[&Op]) -> bool {
        let writes = |check: fn(u64, u64) -> bool| {
            unsynced
                .iter()
                .any(|op| matches!(&op.what, What::Write { at, bytes } if check(*at, bytes.len() as u64)))
        };
        match self {
            Self::Kept => true,
            Self::Dropped | Self::Subset => !unsynced.is_empty(),
            Self::Pages | Self::Zeroed => writes(|_, _| true),
            Self::TornAtByte => writes(|_, len| len > 1),
            Self::TornAtSector => writes(|at, len| at / SECTOR != (at + len - 1) / SECTOR),
            Self::Names => unsynced.iter().any(|op| op.of_names()),
        }
    }
}

/// One state: a moment of a run, and what becomes of that which was not synced then. Gives the same tree each time.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) moment: usize,
    pub(super) kind: Kind,
    pub(super) seed: u64,
}

/// When each write ended that was synced later, and when its sync did.
pub(super) fn synced_writes(history: &History) -> Vec<(usize, usize)> {
    let writes = history.ops.iter().filter(|op| matches!(op.what, What::Write { .. }));
    writes.filter(|op| op.durable != NEVER).map(|op| (op.end, op.durable)).collect()
}

/// Draws `count` states, as many of each kind that there is, spread over the run, by their moments.
pub(super) fn draw(history: &History, count: usize, dice: &mut Dice) -> Vec<State> {
    let mut moments: BTreeMap<Kind, Vec<usize>> = BTreeMap::new();
    let mut unsynced: Vec<&Op> = Vec::new();
    let mut next = 0;
    for &moment in &history.moments {
        while let Some(op) = history.ops.get(next).filter(|op| op.begin <= moment) {
            unsynced.push(op);
            next += 1;
        }
        unsynced.retain(|op| op.durable > moment);
        for kind in Kind::ALL.into_iter().filter(|kind| kind.applies(&unsynced)) {
            moments.entry(kind).or_default().push(moment);
        }
    }
    let mut states = Vec::with_capacity(count);
    let kinds = moments.len();
    let ready = history.facts.iter().find(|(_, line)| line == "ready").map_or(0, |(at, _)| *at);
    for (place, (kind, moments)) in moments.into_iter().enumerate() {
        let share = count / kinds + usize::from(place < count % kinds);
        // The open is short, and more is at stake in each of its moments.
        let (open, later) = moments.split_at(moments.partition_point(|moment| *moment <= ready));
        let of_open = if later.is_empty() { share } else { share.div_ceil(2).min(open.len()) };
        for (moments, share) in [(open, of_open), (later, share - of_open)] {
            for number in 0..share {
                // Every moment has its turn when there are fewer than states; if not, kinds take others.
                let moment = moments[(number * kinds + place) * moments.len() / (share * kinds)];
                states.push(State { moment, kind, seed: dice.next() });
            }
        }
    }
    states.sort_by_key(|state| state.moment);
    states
}

/// What becomes of one change.
enum Fate {
    Whole,
    Gone,
    /// The first bytes of a write.
    First(usize),
    /// The length alone.
    Length,
    /// Those pages of a write of which this says so.
    Pages(Vec<bool>),
}

/// Builds the trees of states whose moments do not go back.
pub(super) struct Builder<'h> {
    history: &'h History,
    /// By file: what it holds for sure, and how many of its changes that takes in.
    settled: HashMap<usize, (Content, usize)>,
    /// By file: its changes.
    of_file: HashMap<usize, Vec<usize>>,
    of_names: Vec<usize>,
}

impl<'h> Builder<'h> {
    pub(super) fn new(history: &'h History) -> Self {
        let mut of_file: HashMap<usize, Vec<usize>> = HashMap::new();
        let mut of_names = Vec::new();
        for (number, op) in history.ops.iter().enumerate() {
            if op.of_names() {
                of_names.push(number);
            } else {
                of_file.entry(op.node).or_default().push(number);
            }
        }
        Self { history, settled: HashMap::new(), of_file, of_names }
    }

    /// All that was done.
    pub(super) fn end(history: &History) -> anyhow::Result<Tree> {
        Builder::new(history).build(&State { moment: NEVER - 1, kind: Kind::Kept, seed: 0 })
    }

    pub(super) fn build(&mut self, state: &State) -> anyhow::Result<Tree> {
        let mut dice = Dice::new(state.seed);
        let fates = fates(self.history, state, &mut dice);
        let names = self.names(state.moment, &fates);
        let mut folders: BTreeMap<usize, Vec<(&str, usize)>> = BTreeMap::new();
        for ((folder, name), node) in &names {
            folders.entry(*folder).or_default().push((name, *node));
        }
        let mut tree = Tree::new();
        let mut left = vec![(ABOVE, String::new())];
        while let Some((folder, path)) = left.pop() {
            for (name, node) in folders.get(&folder).into_iter().flatten() {
                let path = if path.is_empty() { (*name).to_owned() } else { format!("{path}/{name}") };
                match &self.history.nodes[*node] {
                    Node::Folder => {
                        tree.insert(path.clone(), None);
                        left.push((*node, path));
                    }
                    Node::File(_) => {
                        tree.insert(path, Some(self.content(*node, state.moment, &fates)?));
                    }
                }
            }
        }
        Ok(tree)
    }

    fn names(&self, moment: usize, fates: &HashMap<usize, Fate>) -> Names {
        let mut names = self.history.names.clone();
        for number in &self.of_names {
            let op = &self.history.ops[*number];
            if op.begin > moment {
                break;
            }
            if !matches!(fates.get(number), None | Some(Fate::Whole)) {
                continue;
            }
            match &op.what {
                What::Make { folder, name } => _ = names.insert((*folder, name.clone()), op.node),
                // What a change needs may not have happened: then it has not happened either.
                What::Remove { folder, name } => {
                    let key = (*folder, name.clone());
                    if names.get(&key) == Some(&op.node) {
                        names.remove(&key);
                    }
                }
                What::Rename { from, to } if names.get(from) == Some(&op.node) => {
                    names.remove(from);
                    names.insert(to.clone(), op.node);
                }
                _ => {}
            }
        }
        names
    }

    fn content(
        &mut self,
        file: usize,
        moment: usize,
        fates: &HashMap<usize, Fate>,
    ) -> anyhow::Result<Content> {
        let history = self.history;
        let numbers = self.of_file.get(&file).map_or(&[][..], Vec::as_slice);
        let (settled, taken) = self.settled.entry(file).or_insert_with(|| match &history.nodes[file] {
            Node::File(content) => (content.clone(), 0),
            Node::Folder => (Content::default(), 0),
        });
        while let Some(op) = numbers.get(*taken).map(|number| &history.ops[*number]) {
            // What is sure at one moment is so later.
            if op.begin > moment || op.durable > moment {
                break;
            }
            apply(settled, &op.what, &Fate::Whole)?;
            *taken += 1;
        }
        let mut content = settled.clone();
        for number in &numbers[*taken..] {
            let op = &history.ops[*number];
            if op.begin > moment {
                break;
            }
            apply(&mut content, &op.what, fates.get(number).unwrap_or(&Fate::Whole))?;
        }
        Ok(content)
    }
}

fn apply(content: &mut Content, what: &What, fate: &Fate) -> anyhow::Result<()> {
    match (what, fate) {
        (What::Write { at, bytes }, Fate::Whole) => content.write(*at, bytes),
        (What::Write { at, bytes }, Fate::First(len)) => content.write(*at, &bytes[..*len]),
        (What::Write { at, bytes }, Fate::Length) => {
            content.reach(at + bytes.len() as u64);
            Ok(())
        }
        (What::Write { at, bytes }, Fate::Pages(kept)) => {
            let (mut from, mut kept) = (0, kept.iter());
            while from < bytes.len() {
                let left = usize::try_from(PAGE - (at + from as u64) % PAGE)?;
                let until = bytes.len().min(from + left);
                if kept.next() == Some(&true) {
                    content.write(at + from as u64, &bytes[from..until])?;
                }
                from = until;
            }
            Ok(())
        }
        (What::SetLen(len), Fate::Whole | Fate::Length) => content.set_len(*len),
        _ => Ok(()),
    }
}

/// What becomes of all that is not synced at a moment. What is not in it is whole.
fn fates(history: &History, state: &State, dice: &mut Dice) -> HashMap<usize, Fate> {
    let unsynced = |(_, op): &(usize, &Op)| op.durable > state.moment;
    let begun = history.ops.iter().enumerate().take_while(|(_, op)| op.begin <= state.moment);
    let unsynced: Vec<(usize, &Op)> = begun.filter(unsynced).collect();
    let whole = |kept: bool| if kept { Fate::Whole } else { Fate::Gone };
    match state.kind {
        Kind::Kept => HashMap::new(),
        Kind::Dropped => unsynced.iter().map(|(number, _)| (*number, Fate::Gone)).collect(),
        Kind::Subset => {
            // Few are kept, or half, or most.
            let of_eight = [1, 4, 7][usize::try_from(dice.within(0..3)).unwrap_or(1)];
            unsynced.iter().map(|(number, _)| (*number, whole(dice.within(0..8) < of_eight))).collect()
        }
        Kind::Pages => pages(&unsynced, dice),
        Kind::TornAtByte | Kind::TornAtSector => torn(&unsynced, state.kind, dice),
        Kind::Zeroed => unsynced
            .iter()
            .filter(|(_, op)| !op.of_names())
            .map(|(number, _)| (*number, Fate::Length))
            .collect(),
        Kind::Names => {
            let bytes = dice.within(0..3);
            let fate = |(number, op): &(usize, &Op)| {
                let chance = dice.one_in(2);
                (*number, whole(if op.of_names() || bytes == 2 { chance } else { bytes == 1 }))
            };
            unsynced.iter().map(fate).collect()
        }
    }
}

/// The pages that a write touches.
fn pages_of(at: u64, len: usize) -> impl Iterator<Item = u64> {
    at / PAGE..(at + len as u64).div_ceil(PAGE)
}

/// Of the writes to each page the first few are in it.
fn pages(unsynced: &[(usize, &Op)], dice: &mut Dice) -> HashMap<usize, Fate> {
    let mut writers: BTreeMap<(usize, u64), u64> = BTreeMap::new();
    for (_, op) in unsynced {
        if let What::Write { at, bytes } = &op.what {
            pages_of(*at, bytes.len()).for_each(|page| *writers.entry((op.node, page)).or_default() += 1);
        }
    }
    let mut left: BTreeMap<(usize, u64), u64> = BTreeMap::new();
    for (page, count) in writers {
        // Mostly all or none: of a page with hundreds of writes, such as that of the tail, too.
        let kept = if dice.one_in(3) { dice.within(0..count + 1) } else { count * u64::from(dice.one_in(2)) };
        left.insert(page, kept);
    }
    let mut fates = HashMap::new();
    for (number, op) in unsynced {
        if let What::Write { at, bytes } = &op.what {
            let keep = |page| {
                let left = left.entry((op.node, page)).or_default();
                let kept = *left > 0;
                *left = left.saturating_sub(1);
                kept
            };
            fates.insert(*number, Fate::Pages(pages_of(*at, bytes.len()).map(keep).collect()));
        }
    }
    fates
}

/// One write is torn, what came before it is there, what came after it is not.
fn torn(unsynced: &[(usize, &Op)], kind: Kind, dice: &mut Dice) -> HashMap<usize, Fate> {
    let tearable = |(number, op): &(usize, &Op)| match &op.what {
        What::Write { at, bytes } if kind.applies(&[*op]) => Some((*number, *at, bytes.len() as u64)),
        _ => None,
    };
    let mut candidates: Vec<_> = unsynced.iter().filter_map(tearable).collect();
    if !dice.one_in(4) {
        candidates.drain(..candidates.len().saturating_sub(NEWEST));
    }
    let Some((torn, at, len)) = dice.take(&mut candidates) else { return HashMap::new() };
    let unit = match kind {
        Kind::TornAtByte => 1,
        // Mostly a page, if the write goes beyond one.
        _ if at / PAGE != (at + len - 1) / PAGE && !dice.one_in(4) => PAGE,
        _ => SECTOR,
    };
    let ends = at / unit + 1..(at + len).div_ceil(unit);
    let first = usize::try_from(dice.within(ends) * unit - at).unwrap_or(0);
    let later = unsynced.iter().filter(|(number, _)| *number > torn).map(|(number, _)| (*number, Fate::Gone));
    later.chain([(torn, Fate::First(first))]).collect()
}
