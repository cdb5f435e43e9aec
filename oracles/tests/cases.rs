//! Programs that failed once, as they were saved, small: the evaluator and machine code give what the reference gives.

#![allow(clippy::panic, clippy::unwrap_used)]

use lazuli_oracles::{Check, load};
use std::path::Path;

#[test]
fn what_failed_once_is_right() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let (program, setup, _) = load(&std::fs::read_to_string(&path).unwrap()).unwrap();
        for check in [Check::Evaluator, Check::MachineCode] {
            check.run(&program, &setup).unwrap_or_else(|e| panic!("{}, {check:?}: {e}", path.display()));
        }
        count += 1;
    }
    assert!(count >= 8, "{count} cases");
}
