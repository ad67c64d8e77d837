//! The decision on the first byte; connections themselves are tested in `internode/wire/tests.rs`.
use super::*;

#[test]
fn the_first_byte_and_the_stage_decide() {
    use NodeTlsStage::{Accept, Require, Use};
    let cases = [
        (Accept, true, First::Tls),
        (Accept, false, First::Plain),
        (Use, true, First::Tls),
        (Use, false, First::Plain),
        (Require, true, First::Tls),
        (Require, false, First::Refuse),
    ];
    for (stage, is_tls, expected) in cases {
        assert_eq!(first(stage, is_tls), expected, "{stage:?} {is_tls}");
    }
}
