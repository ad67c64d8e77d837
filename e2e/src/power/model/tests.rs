//! A cut reaches every allowed state and no other.
use std::collections::BTreeSet;

use super::*;

fn name(text: &str) -> &OsStr {
    OsStr::new(text)
}

/// All files as `path=content`; directories end in a slash.
fn tree(model: &mut Model, dir: u64, above: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (name, metadata) in model.list(dir).unwrap() {
        let path = format!("{above}{}", name.display());
        if metadata.is_dir {
            found.push(format!("{path}/"));
            found.extend(tree(model, metadata.ino, &format!("{path}/")));
        } else {
            let content = model.read(metadata.ino, 0, 9999).unwrap().to_vec();
            let short: String = content.chunks(SECTOR).map(|s| char::from(s[0])).collect();
            found.push(format!(
                "{path}={}:{}",
                short.replace('\0', "_"),
                content.len()
            ));
        }
    }
    found
}

/// All states after a cut, collected over many seeds.
fn cuts(model: &Model) -> BTreeSet<String> {
    (0..3000)
        .map(|seed| {
            let (mut after, _) = model.cut(&mut Seed::new(seed));
            tree(&mut after, ROOT, "").join(" ")
        })
        .collect()
}

fn set(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn written(model: &mut Model, dir: u64, text: &str, content: &[u8]) -> u64 {
    let file = model.make(dir, name(text), false).unwrap().ino;
    model.write(file, 0, content).unwrap();
    file
}

#[test]
fn content_and_name_are_synced_apart() {
    let mut model = Model::new(Seed::new(1));
    let file = written(&mut model, ROOT, "f", b"a");
    model.sync(file).unwrap();
    assert_eq!(cuts(&model), set(&["", "f=a:1"]));
    model.sync_dir(ROOT).unwrap();
    assert_eq!(cuts(&model), set(&["f=a:1"]));
    model.write(file, 0, b"b").unwrap();
    assert!(cuts(&model).is_superset(&set(&["f=b:1"])));
    let other = written(&mut model, ROOT, "g", b"c");
    model.sync_dir(ROOT).unwrap();
    let seen = cuts(&model);
    assert!(
        seen.iter()
            .all(|state| state.starts_with("f=") && state.contains(" g=")),
        "{seen:?}"
    );
    model.sync(other).unwrap();
    model.sync(file).unwrap();
    assert_eq!(cuts(&model), set(&["f=b:1 g=c:1"]));
}

#[test]
fn sectors_come_and_go_alone() {
    let mut model = Model::new(Seed::new(2));
    let file = written(&mut model, ROOT, "f", &[b'a'; 2 * SECTOR]);
    model.sync(file).unwrap();
    model.sync_dir(ROOT).unwrap();
    while model.seed.clone().below(WRITE_BACK) == 0 {
        model.seed.next_u64();
    }
    model.write(file, 0, &[b'b'; 3 * SECTOR]).unwrap();
    let states = cuts(&model);
    for wanted in [
        "aa:1024", "bb:1024", "ab:1024", "aa_:1536", "abb:1536", "bbb:1536", "ba_:1536",
    ] {
        assert!(states.contains(&format!("f={wanted}")), "{wanted}");
    }
    let odd = |state: &String| {
        let len = state.rsplit(':').next().and_then(|len| len.parse().ok());
        len.is_some_and(|len: usize| !len.is_multiple_of(SECTOR))
    };
    assert!(states.iter().any(odd), "odd lengths");
    model.set_len(file, 0).unwrap();
    let states = cuts(&model);
    assert!(
        states.contains("f=:0") && states.contains("f=aa:1024"),
        "{states:?}"
    );
}

#[test]
fn a_rename_is_whole_and_directories_lose_their_names() {
    let mut model = Model::new(Seed::new(3));
    let file = written(&mut model, ROOT, "new", b"n");
    let old = written(&mut model, ROOT, "old", b"o");
    model.sync(file).unwrap();
    model.sync(old).unwrap();
    model.sync_dir(ROOT).unwrap();
    model
        .rename((ROOT, name("new")), (ROOT, name("old")))
        .unwrap();
    assert_eq!(cuts(&model), set(&["new=n:1 old=o:1", "old=n:1"]));
    model.sync_dir(ROOT).unwrap();
    let dir = model.make(ROOT, name("d"), true).unwrap().ino;
    let inner = written(&mut model, dir, "i", b"i");
    model.sync(inner).unwrap();
    model.sync_dir(dir).unwrap();
    assert_eq!(cuts(&model), set(&["old=n:1", "d/ d/i=i:1 old=n:1"]));
    model.sync_dir(ROOT).unwrap();
    model
        .rename((ROOT, name("old")), (dir, name("moved")))
        .unwrap();
    model.sync_dir(dir).unwrap();
    assert_eq!(cuts(&model), set(&["d/ d/i=i:1 d/moved=n:1"]));
    model.unlink(dir, name("i"), false).unwrap();
    model.unlink(dir, name("moved"), false).unwrap();
    model.unlink(ROOT, name("d"), true).unwrap();
    let states = cuts(&model);
    let any_order = [
        "",
        "d/",
        "d/ d/i=i:1",
        "d/ d/moved=n:1",
        "d/ d/i=i:1 d/moved=n:1",
    ];
    assert_eq!(states, set(&any_order));
}

#[test]
fn later_changes_of_a_name_need_the_earlier_ones() {
    let mut model = Model::new(Seed::new(4));
    let first = written(&mut model, ROOT, "f", b"1");
    model.sync(first).unwrap();
    model.unlink(ROOT, name("f"), false).unwrap();
    let second = written(&mut model, ROOT, "f", b"2");
    model.sync(second).unwrap();
    model.rename((ROOT, name("f")), (ROOT, name("g"))).unwrap();
    assert_eq!(cuts(&model), set(&["", "f=1:1", "f=2:1", "g=2:1"]));
    assert_eq!(model.make(ROOT, name("g"), false), Err(FsError::Exists));
    assert_eq!(model.unlink(ROOT, name("g"), true), Err(FsError::NotDir));
}
