//! Tests of the encryption: golden bytes, every truncation, every changed byte, chunks exchanged.
use proptest::prelude::*;

use super::*;

const KEY_A: &str = "a AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const KEY_B: &str = "b Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";
const NAME: &str = "000000-x/segments/00000000000000000001";

fn keys(text: &str) -> Keys {
    Keys::parse(text).unwrap()
}

fn sealed(keys: &Keys, name: &str, plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut sealer = Sealer::with_nonce(Some(keys), name, [7; NONCE_BYTES]);
    sealer.push(plain, &mut out).unwrap();
    sealer.finish(&mut out).unwrap();
    out
}

/// The bytes are fixed: archives must stay readable.
#[test]
fn golden() {
    let stored = sealed(&keys(KEY_A), NAME, b"entries");
    let mut want = b"RQSEALED\x01\x01a".to_vec();
    want.extend([7; NONCE_BYTES]);
    want.extend(0x8000_0007_u32.to_be_bytes());
    assert_eq!(stored[..want.len()], want);
    assert_eq!(
        crate::hex(&stored[want.len()..]),
        "ed3b14eb5b0714e37020cdc3cc70ce3370ceb3932ba683"
    );
    assert_eq!(open(Some(&keys(KEY_A)), NAME, &stored).unwrap(), b"entries");
}

#[test]
fn rotation_opens_old_objects_and_encrypts_with_the_first_key() {
    let old = sealed(&keys(KEY_A), NAME, b"old");
    let both = keys(&format!("{KEY_B}\n{KEY_A}"));
    assert_eq!(open(Some(&both), NAME, &old).unwrap(), b"old");
    let new = seal(Some(&both), NAME, b"new").unwrap();
    let refused =
        |keys: Option<&Keys>, stored: &[u8]| open(keys, NAME, stored).unwrap_err().problem;
    assert_eq!(
        refused(Some(&keys(KEY_A)), &new),
        Problem::NoSuchKey("b".into())
    );
    assert_eq!(refused(None, &new), Problem::NoKeys("b".into()));
    let impostor = keys(&KEY_A.replace("a ", "b "));
    assert_eq!(
        refused(Some(&impostor), &new),
        Problem::NotAuthentic("b".into())
    );
}

#[test]
fn plain_objects_need_permission_beside_keys() {
    let refused = open(Some(&keys(KEY_A)), NAME, b"plain").unwrap_err();
    assert_eq!(refused.problem, Problem::NotEncrypted);
    assert!(refused.to_string().starts_with(NAME));
    let lenient = keys(&format!("{KEY_A}\nallow-plain"));
    assert_eq!(open(Some(&lenient), NAME, b"plain").unwrap(), b"plain");
    assert_eq!(open(None, NAME, b"plain").unwrap(), b"plain");
    assert_eq!(seal(None, NAME, b"plain").unwrap(), b"plain");
}

#[test]
fn objects_do_not_open_under_another_name() {
    let stored = sealed(&keys(KEY_A), NAME, b"entries");
    for other in [
        "000000-y/segments/00000000000000000001",
        "000000-x/segments/00000000000000000002",
        "",
    ] {
        let refused = open(Some(&keys(KEY_A)), other, &stored).unwrap_err();
        assert_eq!(
            refused.problem,
            Problem::NotAuthentic("a".into()),
            "{other}"
        );
        assert_eq!(refused.object, other);
    }
}

/// An object of three chunks, the last one short.
fn three_chunks() -> (Vec<u8>, Vec<u8>) {
    let plain: Vec<u8> = (0..2 * CHUNK_BYTES + 5).map(|i| (i % 251) as u8).collect();
    let stored = sealed(&keys(KEY_A), NAME, &plain);
    (plain, stored)
}

#[test]
fn chunks_cannot_be_cut_off_reordered_or_repeated() {
    let (plain, stored) = three_chunks();
    let keys = keys(KEY_A);
    assert_eq!(open(Some(&keys), NAME, &stored).unwrap(), plain);
    let begin = MAGIC.len() + 2 + 1 + NONCE_BYTES;
    let chunk = 4 + CHUNK_BYTES + TAG_BYTES;
    let (clear, first, second, last) = (
        &stored[..begin],
        &stored[begin..begin + chunk],
        &stored[begin + chunk..begin + 2 * chunk],
        &stored[begin + 2 * chunk..],
    );
    let altered: [&[&[u8]]; 7] = [
        &[clear, first, second],
        &[clear, first, last],
        &[clear, second, first, last],
        &[clear, first, first, second, last],
        &[clear, first, second, last, last],
        &[clear, last],
        &[clear],
    ];
    for (case, parts) in altered.iter().enumerate() {
        assert!(
            open(Some(&keys), NAME, &parts.concat()).is_err(),
            "case {case}"
        );
    }
    // A chunk that is declared the last, and a last one that is not.
    for at in [begin + chunk, begin + 2 * chunk] {
        let mut changed = stored.clone();
        changed[at] ^= 0x80;
        assert!(open(Some(&keys), NAME, &changed).is_err());
    }
}

#[test]
fn every_truncation_and_every_changed_byte_is_refused() {
    let keys = keys(KEY_A);
    let stored = sealed(&keys, NAME, b"a few entries");
    for length in 0..stored.len() {
        assert!(
            open(Some(&keys), NAME, &stored[..length]).is_err(),
            "{length}"
        );
    }
    for at in 0..stored.len() {
        let mut changed = stored.clone();
        changed[at] ^= 1;
        assert!(open(Some(&keys), NAME, &changed).is_err(), "{at}");
    }
    assert!(open(Some(&keys), NAME, &[&stored[..], b"x"].concat()).is_err());
}

#[test]
fn the_same_plaintext_never_looks_the_same() {
    let keys = keys(KEY_A);
    let [one, other] = [(), ()].map(|()| seal(Some(&keys), NAME, b"entries").unwrap());
    assert_ne!(one, other);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// However the bytes arrive and wherever chunks are cut, they come out as they went in.
    #[test]
    fn any_division_gives_the_same(
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20),
        cuts in prop::collection::vec(any::<bool>(), 20),
        piece in 1..50usize,
    ) {
        let keys = keys(KEY_A);
        let (mut stored, mut out) = (Vec::new(), Vec::new());
        let mut sealer = Sealer::new(Some(&keys), NAME);
        for (part, cut) in parts.iter().zip(cuts) {
            sealer.push(part, &mut stored).unwrap();
            if cut {
                sealer.cut(&mut stored).unwrap();
            }
        }
        sealer.finish(&mut stored).unwrap();
        let mut opener = Opener::new(Some(&keys), NAME);
        for piece in stored.chunks(piece) {
            opener.push(piece, &mut out).unwrap();
        }
        opener.finish().unwrap();
        prop_assert_eq!(out, parts.concat());
    }
}
