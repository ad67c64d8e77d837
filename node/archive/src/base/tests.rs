//! Tests of bases: what goes in comes out; truncated, exchanged, longer and lying objects are refused.
use node_contract::Lineage;

use super::*;
use crate::{documents::Writer, moment::Moment};

const NAME: &str = "000000-line/bases/00000000000000000009-r.db";
const KEY: &str = "k AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn base(stored: &Stored) -> Base {
    Base {
        format: 1,
        lineage: Lineage {
            id: "line".into(),
            epoch: 0,
        },
        index: 9,
        term: 1,
        time: Moment(5),
        created_at: Moment(6),
        bytes: stored.bytes,
        sha256: stored.sha256.clone(),
        pages: 0,
        object: "00000000000000000009-r.db".into(),
        object_bytes: stored.object_bytes,
        writer: Writer {
            sqlite: "3".into(),
            sqlite_source_id: String::new(),
            rqlited: "0".into(),
            format_version: 1,
            foreign_keys: None,
        },
        content_hash: None,
        reason: "first".into(),
    }
}

/// Bytes that compress a little.
fn file(bytes: usize) -> Vec<u8> {
    let mut state = 1_u32;
    (0..bytes)
        .map(|i| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if i % 3 == 0 { 7 } else { (state >> 24) as u8 }
        })
        .collect()
}

fn encode(file: &[u8], piece: usize, keys: Option<&Keys>) -> (Vec<u8>, Stored) {
    let mut encoder = Encoder::new(NAME, keys).unwrap();
    let mut out = Vec::new();
    for piece in file.chunks(piece) {
        encoder.push(piece, &mut out).unwrap();
    }
    let stored = encoder.finish(&mut out).unwrap();
    assert_eq!(stored.object_bytes, length(&out));
    (out, stored)
}

fn decode(
    object: &[u8],
    piece: usize,
    base: &Base,
    keys: Option<&Keys>,
) -> Result<Vec<u8>, DecodeError> {
    let mut out = Vec::new();
    let mut decoder = Decoder::new(NAME, base, keys).unwrap();
    for piece in object.chunks(piece) {
        decoder.push(piece, |bytes| out.write_all(bytes))?;
    }
    decoder.finish(|bytes| out.write_all(bytes))?;
    Ok(out)
}

#[test]
fn what_goes_in_comes_out() {
    let keys = Keys::parse(KEY).unwrap();
    for keys in [None, Some(&keys)] {
        for bytes in [0, 1, 4096, 3_000_000] {
            let file = file(bytes);
            let (object, stored) = encode(&file, 100_000, keys);
            for piece in [777, 1 << 20] {
                assert_eq!(decode(&object, piece, &base(&stored), keys).unwrap(), file);
            }
        }
    }
}

/// A plain base is an ordinary zstd file, so that a person can unpack it without this program.
#[test]
fn a_plain_base_is_a_zstd_file() {
    let file = file(200_000);
    let (object, stored) = encode(&file, 8_192, None);
    assert_eq!(zstd::decode_all(&object[..]).unwrap(), file);
    assert_eq!(stored.sha256, hex(&Sha256::digest(&file)));
}

#[test]
fn damaged_objects_are_refused_by_name() {
    let keys = Keys::parse(KEY).unwrap();
    for keys in [None, Some(&keys)] {
        let (object, stored) = encode(&file(5_000), 1_000, keys);
        let refused = |object: &[u8], stored: &Stored| {
            let DecodeError::Object(refused) =
                decode(object, 512, &base(stored), keys).unwrap_err()
            else {
                panic!("not the object's fault");
            };
            assert_eq!(refused.object, NAME);
            refused.problem
        };
        for length in (0..object.len()).step_by(7).chain([object.len() - 1]) {
            refused(&object[..length], &stored);
        }
        for at in (0..object.len()).step_by(11) {
            let mut changed = object.clone();
            changed[at] ^= 0x10;
            refused(&changed, &stored);
        }
        refused(&[&object[..], b"x"].concat(), &stored);
        // Another file of the same length under this name.
        let mut other = stored.clone();
        other.sha256 = "00".repeat(32);
        assert!(matches!(refused(&object, &other), Problem::Damaged(_)));
        let mut shorter = stored.clone();
        shorter.bytes -= 1;
        assert!(matches!(refused(&object, &shorter), Problem::Damaged(_)));
    }
}

/// A bomb: a frame of a few KiB that unpacks to gigabytes is refused soon after the promised length.
#[test]
fn a_bomb_is_refused_before_it_unpacks() {
    let bomb = zstd::encode_all(&vec![0; 300 << 20][..], 3).unwrap();
    let stored = Stored {
        bytes: 1 << 20,
        sha256: String::new(),
        object_bytes: length(&bomb),
    };
    let mut seen = 0;
    let base = base(&stored);
    let mut decoder = Decoder::new(NAME, &base, None).unwrap();
    let refused = decoder.push(&bomb, |bytes| {
        seen += bytes.len();
        Ok(())
    });
    assert!(matches!(refused, Err(DecodeError::Object(_))));
    assert!(
        seen <= 1 << 20,
        "nothing beyond the promised length is passed on"
    );
}

/// Runs of one byte unpack up to 32,768 times: in parts, not all at once.
#[test]
fn memory_is_bounded_however_much_a_few_bytes_unpack_to() {
    let zeros = vec![0; 64 << 20];
    let (object, stored) = encode(&zeros, zeros.len(), None);
    let base = base(&stored);
    let mut decoder = Decoder::new(NAME, &base, None).unwrap();
    let (mut largest, mut seen) = (0, 0);
    let mut take = |bytes: &[u8]| {
        largest = largest.max(bytes.len());
        seen += bytes.len();
        Ok(())
    };
    decoder.push(&object, &mut take).unwrap();
    decoder.finish(&mut take).unwrap();
    assert_eq!(seen, zeros.len());
    assert!(largest <= 1 << 20, "{largest} bytes at once");
}

/// A full disk is not the object's fault.
#[test]
fn errors_of_the_receiver_are_told_apart() {
    let (object, stored) = encode(&file(5_000), 1_000, None);
    let base = base(&stored);
    let mut decoder = Decoder::new(NAME, &base, None).unwrap();
    let full = |_: &[u8]| Err(io::ErrorKind::StorageFull.into());
    let failed = decoder
        .push(&object, full)
        .and_then(|()| decoder.finish(full));
    assert!(matches!(failed, Err(DecodeError::Sink(_))));
}
