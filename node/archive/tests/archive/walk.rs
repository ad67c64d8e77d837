//! A random walk of archiving: nodes that lead in turns or believe that they lead, crash between any two
//! writes, lose answers, and whose writes arrive late; logs that lose entries; retention. After every few
//! steps, the store must hold exactly what it should: every point that was ever there and is not too old,
//! each of them the prefix of the one history, and nothing else.
use std::collections::BTreeSet;

use node_archive::{
    decide::{self, Resume},
    documents::Base,
    keys::Keys,
    moment::Moment,
    plan::Target,
    reader::Reader,
    segment::Start,
    store::Store,
    verify::verify,
};

use crate::{
    memory::{Fault, Memory, NEXT, now},
    restore::restore,
    writer::{KEY, append, begin, database, folder, locate, put_data, put_document, time_of},
};

const NODES: usize = 3;

/// What a node's writer knows. A crash forgets it; a node that no longer leads keeps it and may go on.
#[derive(Clone, Debug, Default)]
enum Knows {
    #[default]
    Nothing,
    At(Start),
    NeedsBase,
    /// Data of a base is stored; its document is not.
    Document(Box<Base>),
}

#[derive(Clone, Debug, Default)]
struct Node {
    knows: Knows,
    applied: u64,
    log_first: u64,
}

struct Walk {
    /// State of the pseudo-random numbers.
    rng: u64,
    store: Memory,
    keys: Option<Keys>,
    nodes: Vec<Node>,
    committed: u64,
    /// Logs may lose entries that are not archived.
    bounded: bool,
    keep_since: Moment,
    /// Every point that could be restored when we last looked.
    reachable: BTreeSet<u64>,
}

impl Walk {
    fn new(seed: u64) -> Self {
        let walk = Self {
            rng: seed,
            store: Memory::default(),
            keys: seed.is_multiple_of(4).then(|| Keys::parse(KEY).unwrap()),
            nodes: vec![
                Node {
                    log_first: 1,
                    ..Node::default()
                };
                NODES
            ],
            committed: 1,
            bounded: seed.is_multiple_of(2),
            keep_since: Moment(-1),
            reachable: BTreeSet::new(),
        };
        begin(&walk.store, walk.keys.as_ref());
        walk
    }

    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.rng = self.rng.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.rng ^ (self.rng >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.random() % end
    }

    fn reader(&self) -> Reader<'_, Memory> {
        Reader {
            store: &self.store,
            keys: self.keys.as_ref(),
        }
    }

    fn step(&mut self) {
        let which = self.below(NODES as u64) as usize;
        let mut node = self.nodes[which].clone();
        match self.below(12) {
            0 | 1 => self.committed += self.below(6),
            2 => {
                node.applied = node
                    .applied
                    .max(self.committed.saturating_sub(self.below(5)))
            }
            3 => self.purge(&mut node),
            4 => node.knows = Knows::Nothing,
            5 => self.retain(),
            6 => self.store.arrive(),
            _ => self.archive(&mut node),
        }
        self.nodes[which] = node;
    }

    /// The log loses its beginning: what is archived, or more if its bound is reached.
    fn purge(&mut self, node: &mut Node) {
        let archived = self.reachable.last().copied().unwrap_or(0);
        let limit = if self.bounded && self.below(4) == 0 {
            node.applied
        } else {
            archived.min(node.applied)
        };
        let up_to = limit.saturating_sub(self.below(4));
        node.log_first = node.log_first.max(up_to + 1);
    }

    /// The next step of a node's writer, with a fault in it or not.
    fn archive(&mut self, node: &mut Node) {
        if node.applied == 0 {
            return;
        }
        let fault = [
            Fault::None,
            Fault::None,
            Fault::Refused,
            Fault::ReplyLost,
            Fault::Late,
        ];
        let fault = fault[self.below(5) as usize];
        let (random, more) = (self.random(), self.below(8));
        let new_base = self.below(12) == 0;
        let reader = self.reader();
        node.knows = match std::mem::take(&mut node.knows) {
            Knows::Nothing => match locate(reader, node.log_first).unwrap() {
                Resume::At(start) => Knows::At(start),
                Resume::NeedsBase { missing } => {
                    assert!(
                        self.bounded || missing.is_none(),
                        "a gap without a log that lost entries"
                    );
                    Knows::NeedsBase
                }
            },
            Knows::At(_) if new_base => Knows::NeedsBase,
            // Its log lost what it was about to write.
            Knows::At(start) if start.first < node.log_first => Knows::Nothing,
            Knows::At(start) if start.first <= node.applied => {
                NEXT.set(fault);
                let last = node.applied.min(start.first + more);
                append(reader, &start, last).map_or(Knows::At(start), Knows::At)
            }
            Knows::At(start) => Knows::At(start),
            Knows::NeedsBase => {
                NEXT.set(if fault == Fault::Late {
                    Fault::Refused
                } else {
                    fault
                });
                let stored = put_data(reader, node.applied, random);
                stored.map_or(Knows::NeedsBase, |base| Knows::Document(Box::new(base)))
            }
            Knows::Document(base) => {
                NEXT.set(fault);
                put_document(reader, &base).map_or(Knows::Document(base), |_| Knows::Nothing)
            }
        };
        NEXT.set(Fault::None);
    }

    /// Some node deletes what is too old, and crashes in between or not.
    fn retain(&mut self) {
        let end = self.reachable.last().copied().unwrap_or(0);
        let since = time_of(end.saturating_sub(5 + self.below(60)));
        let reader = self.reader();
        let contents = now(reader.contents(&folder())).unwrap();
        let bases = now(reader.bases(&folder(), &contents.bases))
            .unwrap()
            .readable;
        let found = decide::deletable(&bases, &contents.segments, since);
        let objects = found.bases.iter().flat_map(|index| {
            let data = bases
                .iter()
                .find(|b| b.index == *index)
                .map(|b| format!("{}{}", folder().bases(), b.object));
            [Some(folder().base(*index)), data].into_iter().flatten()
        });
        let segments = found.segments.iter().map(|first| folder().segment(*first));
        let names: Vec<String> = objects.chain(segments).collect();
        self.keep_since = self.keep_since.max(since);
        for name in names {
            if self.below(10) == 0 {
                return;
            }
            now(self.store.delete(&name)).unwrap();
        }
    }

    /// What can be restored, worked out from the objects without the planner: a base, and every entry after
    /// it.
    fn restorable(&self) -> BTreeSet<u64> {
        let reader = self.reader();
        let contents = now(reader.contents(&folder())).unwrap();
        let bases: BTreeSet<u64> = contents.bases.iter().copied().collect();
        let mut covered = BTreeSet::new();
        for first in &contents.segments {
            let segment = now(reader.segment(&folder(), *first)).unwrap();
            for record in segment.records().unwrap() {
                covered.insert(record.unwrap().index);
            }
        }
        let mut found = BTreeSet::new();
        let mut reached = false;
        for index in 1..=self.committed {
            reached = bases.contains(&index) || (reached && covered.contains(&index));
            if reached {
                found.insert(index);
            }
        }
        found
    }

    fn check(&mut self, seed: u64) {
        let restorable = self.restorable();
        for index in &self.reachable {
            // Of several entries with the oldest time to keep, only the last one is a point in time.
            let needed = time_of(*index) > self.keep_since;
            assert!(
                !needed || restorable.contains(index),
                "seed {seed}: entry {index} is gone"
            );
        }
        let end = restorable.last().copied();
        for index in 1..=self.committed + 1 {
            match restore(self.reader(), Target::Index(index)) {
                Ok(got) => {
                    assert!(
                        restorable.contains(&index),
                        "seed {seed}: entry {index} out of nothing"
                    );
                    assert_eq!(got, (database(index), index), "seed {seed}: entry {index}");
                }
                Err(e) => assert!(
                    !restorable.contains(&index) || time_of(index) <= self.keep_since,
                    "seed {seed}: entry {index}: {e}"
                ),
            }
        }
        if let Some(end) = end {
            let got = restore(self.reader(), Target::End).unwrap();
            assert_eq!(got, (database(end), end), "seed {seed}");
            let time = time_of(end.saturating_sub(3));
            let point = (1..=end).rfind(|index| time_of(*index) <= time);
            if let Some(point) = point.filter(|p| restorable.contains(p) && time >= self.keep_since)
            {
                let got = restore(self.reader(), Target::Time(time)).unwrap();
                assert_eq!(got, (database(point), point), "seed {seed}: {time}");
            }
        }
        self.reachable = restorable;
    }
}

#[test]
fn whatever_happens_every_point_is_the_prefix_of_one_history() {
    let (mut points, mut gaps) = (0, 0);
    for seed in 0..100 {
        let mut walk = Walk::new(seed);
        for step in 0..150 {
            walk.step();
            if step % 10 == 9 {
                walk.check(seed);
            }
        }
        points += walk.reachable.len();
        gaps += usize::from(
            walk.reachable
                .iter()
                .zip(walk.reachable.iter().skip(1))
                .any(|(a, b)| a + 1 != *b),
        );
        let report = now(verify(walk.reader(), &folder())).unwrap();
        // Retention may have been interrupted, or a late object may have arrived behind it: that leaves holes
        // in what is too old, and nothing else.
        if walk.keep_since == Moment(-1) && !walk.bounded {
            let no_base = walk.reachable.is_empty();
            assert!(
                report.problems.is_empty() || no_base,
                "seed {seed}: {:?}",
                report.problems
            );
        }
    }
    // A walk that archives nothing, or never loses entries, would prove nothing.
    assert!(points > 100 * 15, "only {points} points");
    assert!(gaps > 3, "only {gaps} walks with a gap");
}
