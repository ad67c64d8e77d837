//! Classifies the files after a crash: does the main file equal what the sidecar says, can it be completed,
//! or is its content uncertain? A pure function of what was observed. Nothing may be changed before the
//! verdict, because an interrupted start must come to the same verdict next time.
use crate::{
    entry::Position,
    files::{
        sidecar::{Base, Intent, Sidecar},
        wal_file::WalEnd,
    },
};

/// The files in the directory, observed by plain reads.
#[derive(Clone, Debug)]
pub(crate) struct Observed {
    /// 0 for a missing file.
    pub(crate) main_bytes: u64,
    /// `None` for a missing file.
    pub(crate) replacement_bytes: Option<u64>,
    /// The WAL that a checkpoint was copying, with all checksums verified, or what is wrong with it.
    pub(crate) wal: Result<WalEnd, String>,
}

/// What to do with the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The main file equals this base; all other files are left-overs.
    Equals(Base),
    /// The WAL is complete: copying it (again) into the main file makes the file equal this base.
    MoveWal(WalEnd, Base),
    /// The replacement is complete: renaming it makes the main file equal this base.
    RenameReplacement(Base),
    /// The content of the main file is uncertain, and the caller's log holds everything: delete the file.
    Rebuild(String),
    /// The content of the main file is uncertain, and nothing here can replace it. Change nothing.
    Refuse(String),
}

/// The position that the caller's log must reach to rebuild the main file.
pub(crate) fn required_position(sidecar: &Sidecar) -> Option<Position> {
    match &sidecar.intent {
        Some(Intent::Checkpoint { position, .. }) => Some(*position),
        // An unfinished install or load was never reported as done.
        Some(Intent::Replace { .. }) | None => sidecar.base.position,
    }
}

/// Classifies the directory. `log_holds_all`: the caller's log holds every entry up to and including
/// [`required_position`].
pub(crate) fn classify(sidecar: &Sidecar, observed: &Observed, log_holds_all: bool) -> Verdict {
    let doubt = |why: String| {
        if log_holds_all {
            Verdict::Rebuild(why)
        } else {
            Verdict::Refuse(why)
        }
    };
    let base = &sidecar.base;
    let wrong_length = |wanted: u64| {
        let found = observed.main_bytes;
        let short = if found < wanted {
            ": it was cut short"
        } else {
            ""
        };
        doubt(format!(
            "the database has {found} bytes but must have {wanted}{short}"
        ))
    };
    let as_before = || {
        if base.position.is_some() && observed.main_bytes < base.main_len {
            wrong_length(base.main_len)
        } else {
            Verdict::Equals(base.clone())
        }
    };
    match &sidecar.intent {
        None => as_before(),
        Some(Intent::Checkpoint { position, meta, .. }) => {
            let end = match (&observed.wal, &sidecar.wal_end) {
                (Err(why), _) => return doubt(damaged_wal(why)),
                (Ok(found), Some(wanted)) if found != wanted => {
                    return doubt(damaged_wal("its last frame is not the recorded one"));
                }
                (Ok(found), _) => *found,
            };
            // Pages that are not in the WAL must be in the main file. A checkpoint may also shorten the file.
            let needed = base.main_len.min(end.main_bytes());
            if base.position.is_some() && observed.main_bytes < needed {
                return wrong_length(needed);
            }
            let after = Base {
                position: Some(*position),
                meta: meta.clone(),
                main_len: end.main_bytes(),
            };
            Verdict::MoveWal(end, after)
        }
        Some(Intent::Replace {
            position,
            meta,
            main_len,
        }) => {
            let after = Base {
                position: Some(*position),
                meta: meta.clone(),
                main_len: *main_len,
            };
            match observed.replacement_bytes {
                Some(len) if len == *main_len => Verdict::RenameReplacement(after),
                // While the replacement has its own name, the main file is still the complete previous one.
                Some(_) => as_before(),
                None if observed.main_bytes == *main_len => Verdict::Equals(after),
                None => wrong_length(*main_len),
            }
        }
    }
}

fn damaged_wal(why: &str) -> String {
    format!("the WAL is damaged in the middle of a checkpoint: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u32 = 4096;

    fn base(index: u64, pages: u64) -> Base {
        Base {
            position: (index > 0).then_some(Position { term: 1, index }),
            meta: vec![u8::try_from(index).unwrap()],
            main_len: pages * u64::from(PAGE),
        }
    }

    fn end(pages: u32) -> WalEnd {
        WalEnd {
            page_bytes: PAGE,
            pages,
            checksum: [9; 8],
        }
    }

    /// A checkpoint from `base` to position 9.
    fn checkpoint(base: Base, wal_end: Option<WalEnd>) -> Sidecar {
        let intent = Intent::Checkpoint {
            position: Position { term: 1, index: 9 },
            meta: vec![9],
            wal_salts: [7; 8],
            wal_frames: 3,
        };
        Sidecar {
            base,
            intent: Some(intent),
            wal_end,
        }
    }

    /// A replacement of `base` by a file of 5 pages that equals position 9.
    fn replacement(base: Base) -> Sidecar {
        let intent = Intent::Replace {
            position: Position { term: 1, index: 9 },
            meta: vec![9],
            main_len: 5 * u64::from(PAGE),
        };
        Sidecar {
            base,
            intent: Some(intent),
            wal_end: None,
        }
    }

    fn idle(base: Base) -> Sidecar {
        Sidecar {
            base,
            intent: None,
            wal_end: None,
        }
    }

    /// The verdict in one word, without and with a log that holds everything.
    fn both(
        sidecar: &Sidecar,
        pages: u64,
        replacement: Option<u64>,
        wal: Result<u32, &str>,
    ) -> [String; 2] {
        let observed = Observed {
            main_bytes: pages * u64::from(PAGE),
            replacement_bytes: replacement.map(|pages| pages * u64::from(PAGE)),
            wal: wal.map(end).map_err(str::to_owned),
        };
        [false, true].map(|log| match classify(sidecar, &observed, log) {
            Verdict::Equals(base) => format!("equals {}", base.position.map_or(0, |p| p.index)),
            Verdict::MoveWal(_, base) => format!("move {}", base.main_len / u64::from(PAGE)),
            Verdict::RenameReplacement(base) => format!("put {}", base.main_len / u64::from(PAGE)),
            Verdict::Rebuild(_) => "rebuild".to_owned(),
            Verdict::Refuse(_) => "refuse".to_owned(),
        })
    }

    type Case<'a> = (
        &'a str,
        Sidecar,
        u64,
        Option<u64>,
        Result<u32, &'a str>,
        &'a str,
    );

    /// `wanted`: the verdict, or `doubt` for one that depends on the log.
    fn check(cases: Vec<Case>) {
        for (name, sidecar, pages, replaced, wal, wanted) in cases {
            let wanted = match wanted {
                "doubt" => ["refuse", "rebuild"],
                same => [same, same],
            };
            assert_eq!(both(&sidecar, pages, replaced, wal), wanted, "{name}");
        }
    }

    const GONE: Result<u32, &str> = Err("it is empty");

    #[test]
    fn at_rest() {
        let old = || idle(base(4, 3));
        check(vec![
            ("none yet", idle(base(0, 0)), 7, None, GONE, "equals 0"),
            ("as it was", old(), 3, None, GONE, "equals 4"),
            ("a longer file", old(), 4, None, GONE, "equals 4"),
            ("cut short", old(), 2, None, GONE, "doubt"),
            ("vanished", old(), 0, None, GONE, "doubt"),
        ]);
    }

    /// The main file may have any content during a first checkpoint, because the WAL holds all pages.
    #[test]
    fn in_the_first_checkpoint() {
        let first = |end| checkpoint(base(0, 0), end);
        check(vec![
            ("main empty", first(Some(end(2))), 0, None, Ok(2), "move 2"),
            ("main half", first(Some(end(2))), 1, None, Ok(2), "move 2"),
            ("nothing left", first(Some(end(2))), 0, None, GONE, "doubt"),
            ("WAL emptied", first(None), 2, None, GONE, "doubt"),
            (
                "WAL cut",
                first(Some(end(2))),
                2,
                None,
                Err("2 of 3"),
                "doubt",
            ),
        ]);
    }

    #[test]
    fn in_a_later_checkpoint() {
        let later = |pages| checkpoint(base(4, 3), Some(end(pages)));
        let older = checkpoint(base(4, 3), None);
        check(vec![
            ("untouched", later(6), 3, None, Ok(6), "move 6"),
            ("half copied", later(6), 5, None, Ok(6), "move 6"),
            ("made shorter", later(1), 1, None, Ok(1), "move 1"),
            ("main cut", later(6), 2, None, Ok(6), "doubt"),
            ("WAL emptied", later(6), 6, None, GONE, "doubt"),
            ("another end", later(6), 6, None, Ok(5), "doubt"),
            ("an older version's", older, 3, None, Ok(6), "move 6"),
        ]);
    }

    #[test]
    fn in_a_replacement() {
        let by = || replacement(base(4, 3));
        check(vec![
            ("to be renamed", by(), 3, Some(5), GONE, "put 5"),
            ("renamed", by(), 5, None, GONE, "equals 9"),
            ("damaged", by(), 3, Some(4), GONE, "equals 4"),
            ("both damaged", by(), 2, Some(4), GONE, "doubt"),
            ("lost", by(), 3, None, GONE, "doubt"),
        ]);
    }

    #[test]
    fn what_the_log_must_reach() {
        let index = |sidecar: &Sidecar| required_position(sidecar).map_or(0, |p| p.index);
        assert_eq!(index(&idle(base(0, 0))), 0);
        assert_eq!(index(&idle(base(4, 3))), 4);
        assert_eq!(index(&checkpoint(base(0, 0), None)), 9);
        assert_eq!(index(&replacement(base(4, 3))), 4);
    }
}
