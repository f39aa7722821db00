//! Early launches: what a thread may touch before it has waited for the launch's predecessor.

use super::gpu::*;
use super::*;

/// A table that may be read early, an input that may not, an output.
fn case() -> Case {
    Case::new().input("slots", &[0; 64]).input("q", &[7; 64]).output("out", 64).early(&["slots"])
}

#[test]
fn tables_may_be_read_and_states_asked_for_before_the_wait() {
    let run = |p: &[u8]| {
        load_u32(param(p, 0));
        prefetch_if(true, param(p, 1));
        wait();
        load_u32(param(p, 1));
        launch_dependents();
        store_u32(param(p, 2), 1);
    };
    assert_eq!(case().run(run), Ok(()));
}

#[test]
fn load_of_an_input_before_the_wait() {
    let text = "load of 4 bytes at 0x7f0000100104 before the wait for the predecessor; byte 4 of `q` (64 bytes)";
    let kind = case().fault(
        |p| {
            load_u32(param(p, 1) + 4);
            wait();
        },
        0,
        text,
    );
    assert!(matches!(kind, FaultKind::BeforeWait { bytes: 4, store: false, .. }));
}

#[test]
fn store_before_the_wait() {
    let text = "store of 4 bytes at 0x7f0000200200 before the wait for the predecessor; byte 0 of `out` (64 bytes)";
    case().fault(|p| store_u32(param(p, 2), 1), 0, text);
}

#[test]
fn successor_let_start_before_the_wait() {
    let text = "the successor may start before the wait for the predecessor";
    let trigger_first = |_: &[u8]| {
        launch_dependents();
        wait();
    };
    let kind = case().fault(trigger_first, 0, text);
    assert_eq!(kind, FaultKind::TriggerBeforeWait);
    let plain = Case { early: None, ..case() };
    assert_eq!(plain.run(trigger_first), Ok(()));
}

/// Each thread waits for itself: that others have does not order its own accesses.
#[test]
fn a_thread_that_does_not_wait() {
    let fault = |p: &[u8]| {
        if thread_idx_x() < 5 {
            wait();
        }
        load_u32(param(p, 1));
    };
    let text = "load of 4 bytes at 0x7f0000100100 before the wait for the predecessor; byte 0 of `q` (64 bytes)";
    case().fault(fault, 5, text);
}

#[test]
fn an_ordinary_launch_need_not_wait() {
    let case = Case { early: None, ..case() };
    assert_eq!(case.run(|p| store_u32(param(p, 2), load_u32(param(p, 1)))), Ok(()));
}
