//! Shared memory and the barriers that order it.

use super::gpu::*;
use super::*;

fn case() -> Case {
    Case::new().output("out", 256).block(64).shared(256)
}

/// The offset of this thread's word.
fn mine() -> u32 {
    4 * thread_idx_x()
}

#[test]
fn exchange_across_the_block_barrier() {
    let out = case().good(|p| {
        store_f32(mine(), thread_idx_x() as f32);
        sync_threads();
        put(p, load_f32(4 * (63 - thread_idx_x())));
    });
    assert!((0..64).all(|i| out[i] == 63.0 - i as f32));
}

#[test]
fn exchange_across_the_warp_barrier() {
    let out = case().good(|p| {
        store_f32(mine(), thread_idx_x() as f32);
        sync_warp();
        let other = load_f32(mine() ^ 4);
        sync_warp();
        store_f32(mine() ^ 8, other);
        sync_warp();
        put(p, load_f32(mine()));
    });
    assert!((0..64).all(|i| out[i] == (i ^ 3) as f32));
}

#[test]
fn buffer_reused_between_barriers() {
    let out = case().good(|p| {
        let mut sum = 0.0;
        for round in 0..4 {
            if thread_idx_x() == 16 * round {
                store_f32(0, round as f32);
            }
            sync_threads();
            sum += load_f32(0);
            sync_threads();
        }
        put(p, sum);
    });
    assert_eq!(out, [6.0; 64]);
}

#[test]
fn every_thread_may_read_one_word() {
    let out = case().good(|p| {
        if thread_idx_x() == 0 {
            store_f32(0, 5.0);
        }
        sync_threads();
        let value = load_f32(0) + load_f32(0);
        sync_threads();
        if thread_idx_x() == 63 {
            store_f32(0, 6.0);
        }
        sync_threads();
        put(p, value + load_f32(0));
    });
    assert_eq!(out, [16.0; 64]);
}

#[test]
fn load_of_another_threads_store_without_a_barrier() {
    let text = "load of shared byte 0 races with a store by thread 0: no barrier between";
    let kind = case().fault(
        |_| {
            store_f32(mine(), 1.0);
            load_f32(mine() & !7);
        },
        1,
        text,
    );
    assert_eq!(kind, FaultKind::SharedRace { byte: 0, store: false, other: 0, other_store: true });
}

#[test]
fn two_stores_to_one_word() {
    let text = "store of shared byte 8 races with a store by thread 0: no barrier between";
    let kind = case().fault(|_| store_f32(8, 1.0), 1, text);
    assert_eq!(kind, FaultKind::SharedRace { byte: 8, store: true, other: 0, other_store: true });
}

#[test]
fn store_behind_another_threads_load() {
    // The missing barrier at the end of a loop: all have read, one writes the next round's value.
    let text = "store of shared byte 4 races with a load by thread 0: no barrier between";
    let kind = case().fault(
        |_| {
            store_f32(mine(), 1.0);
            sync_threads();
            load_f32(4);
            if thread_idx_x() == 40 {
                store_f32(4, 2.0);
            }
        },
        40,
        text,
    );
    assert_eq!(kind, FaultKind::SharedRace { byte: 4, store: true, other: 0, other_store: false });
}

#[test]
fn shuffle_does_not_order_memory() {
    let text = "load of shared byte 4 races with a store by thread 1: no barrier between";
    case().fault(
        |_| {
            store_f32(mine(), 1.0);
            shuffle_xor(0.0, 1);
            load_f32(mine() ^ 4);
        },
        0,
        text,
    );
}

#[test]
fn warp_barrier_does_not_order_another_warp() {
    let text = "load of shared byte 0 races with a store by thread 0: no barrier between";
    case().fault(
        |_| {
            store_f32(mine(), 1.0);
            sync_warp();
            load_f32(mine() % 128);
        },
        32,
        text,
    );
}

#[test]
fn store_behind_a_load_that_only_its_own_warp_is_ordered_after() {
    // Lane 0 loads, its warp synchronises and stores elsewhere: that says nothing to warp 1.
    let text = "store of shared byte 0 races with a load by thread 7: no barrier between";
    case().fault(
        |_| {
            if thread_idx_x() == 0 {
                store_f32(0, 1.0);
            }
            sync_threads();
            if thread_idx_x() == 7 {
                load_f32(0);
            }
            sync_warp();
            if thread_idx_x() == 32 {
                store_f32(0, 2.0);
            }
        },
        32,
        text,
    );
}

#[test]
fn own_load_between_does_not_hide_another_lanes() {
    // Lane 3 loads last and stores: lane 2's load is the one it races with.
    let text = "store of shared byte 0 races with a load by thread 2: no barrier between";
    case().fault(
        |_| {
            if thread_idx_x() == 0 {
                store_f32(0, 1.0);
            }
            sync_threads();
            if thread_idx_x() == 2 {
                load_f32(0);
            }
            if thread_idx_x() == 3 {
                load_f32(0);
                store_f32(0, 2.0);
            }
        },
        3,
        text,
    );
}

#[test]
fn shared_access_past_the_end() {
    let kind = case().block(96).fault(
        |_| store_f32(mine(), 1.0),
        64,
        "access of 4 bytes at shared byte 256, past the launch's 256",
    );
    assert_eq!(kind, FaultKind::SharedOutOfBounds { byte: 256, bytes: 4, limit: 256 });
    let fault = case().shared(6).run(|_| store_f32(4, 1.0)).unwrap_err();
    assert_eq!(fault.kind, FaultKind::SharedOutOfBounds { byte: 4, bytes: 4, limit: 6 });
    let fault = case().run(|_| store_f32(u32::MAX - 3, 1.0)).unwrap_err();
    assert!(matches!(fault.kind, FaultKind::SharedOutOfBounds { .. }));
}

#[test]
fn shared_memory_that_was_not_asked_for() {
    let text = "access of 4 bytes at shared byte 0, past the launch's 0";
    case().shared(0).fault(
        |_| {
            load_f32(0);
        },
        0,
        text,
    );
}

#[test]
fn misaligned_shared_access() {
    let kind = case().fault(|_| store_f32(2, 1.0), 0, "misaligned access of 4 bytes at shared byte 2");
    assert_eq!(kind, FaultKind::SharedMisaligned { byte: 2, bytes: 4 });
}

#[test]
fn load_of_a_shared_word_nobody_stored() {
    let kind = case().fault(
        |_| {
            if thread_idx_x() != 6 {
                store_f32(mine(), 1.0);
            }
            sync_threads();
            load_f32(mine());
        },
        6,
        "load of shared byte 24, which was never written",
    );
    assert_eq!(kind, FaultKind::SharedUninitialised { byte: 24 });
}

#[test]
fn shared_memory_starts_uninitialised_in_every_block() {
    let case = case().grid([8, 1, 1]);
    let fault = case.run(|_| {
        if block_idx_x() != 3 {
            store_f32(mine(), 1.0);
        }
        load_f32(mine());
    });
    assert_eq!(fault.unwrap_err().block, [3, 0, 0]);
}

#[test]
fn thread_that_returned_misses_the_block_barrier() {
    let kind = case().fault(
        |_| {
            if thread_idx_x() < 32 {
                sync_threads();
            }
        },
        0,
        "sync_threads without the rest of the block: threads 32-63 returned",
    );
    assert_eq!(kind, FaultKind::UnconvergedBarrier { others: "threads 32-63 returned".into() });
}

#[test]
fn lane_that_returned_misses_the_block_barrier() {
    let text = "sync_threads without the rest of the block: thread 0 returned, thread 50 returned";
    case().fault(
        |_| {
            if thread_idx_x() != 0 && thread_idx_x() != 50 {
                sync_threads();
            }
        },
        1,
        text,
    );
}
