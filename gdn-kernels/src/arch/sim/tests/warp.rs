//! Shuffles and warp barriers.

use super::gpu::*;
use super::*;

fn case() -> Case {
    Case::new().output("out", 256).block(64)
}

#[test]
fn butterfly_sums_the_warp_in_every_lane() {
    let out = case().good(|p| {
        let mut sum = thread_idx_x() as f32;
        for mask in [16, 8, 4, 2, 1] {
            sum += shuffle_xor(sum, mask);
        }
        put(p, sum);
    });
    assert_eq!(out[..32], [496.0; 32]);
    assert_eq!(out[32..], [496.0 + 1024.0; 32]);
}

#[test]
fn shuffle_keeps_the_bits_of_a_nan() {
    let out = case().good(|p| put(p, shuffle_xor(f32::from_bits(0x7f80_0001 + thread_idx_x()), 31)));
    assert_eq!(out[0].to_bits(), 0x7f80_0001 + 31);
}

#[test]
fn broadcast_stays_in_its_group() {
    let out = case().good(|p| put(p, broadcast(thread_idx_x() as f32, 5, 16)));
    let expected: Vec<f32> = (0..64).map(|thread| (thread / 16 * 16 + 5) as f32).collect();
    assert_eq!(out, expected);
    let out = case().good(|p| put(p, broadcast(thread_idx_x() as f32, 7, 8)));
    let expected: Vec<f32> = (0..64).map(|thread| (thread / 8 * 8 + 7) as f32).collect();
    assert_eq!(out, expected);
}

#[test]
fn reduce_or_gives_every_lane_the_bits_of_all_of_its_warp() {
    let out = case().good(|p| put(p, reduce_or(1 << (thread_idx_x() % 32 / 2)) as f32));
    assert_eq!(out, [65_535.0; 64]);
    let out = case().good(|p| put(p, reduce_or(thread_idx_x() / 32 + 5) as f32));
    assert_eq!((&out[..32], &out[32..]), (&[5.0; 32][..], &[6.0; 32][..]));
}

#[test]
fn each_lane_of_a_broadcast_names_its_own_source() {
    let out = case().good(|p| put(p, broadcast(thread_idx_x() as f32, 31 - thread_idx_x() % 32, 32)));
    let expected: Vec<f32> = (0..64).map(|thread| (thread / 32 * 32 + 31 - thread % 32) as f32).collect();
    assert_eq!(out, expected);
}

#[test]
fn lanes_broadcast_in_groups_of_different_widths() {
    let kind = case().fault(
        |_| {
            broadcast(1.0, 0, 16 + 16 * (thread_idx_x() / 16 % 2));
        },
        0,
        "broadcast(0, 16) meets other shuffles: lanes 16-31 at broadcast(0, 32)",
    );
    assert!(matches!(kind, FaultKind::MismatchedShuffle { .. }));
}

#[test]
fn mask_zero_gives_the_lane_itself() {
    let out = case().good(|p| put(p, shuffle_xor(thread_idx_x() as f32, 0)));
    assert_eq!(out[5], 5.0);
}

#[test]
fn warps_need_not_shuffle_together() {
    let out = case().good(|p| {
        let mut value = thread_idx_x() as f32;
        for _ in 0..=thread_idx_x() / 32 {
            value = shuffle_xor(value, 1) + 1.0;
        }
        put(p, value);
    });
    assert_eq!((out[0], out[32]), (2.0, 34.0));
}

#[test]
fn lane_that_returned_misses_a_shuffle() {
    let kind = case().fault(
        |_| {
            if thread_idx_x() != 40 {
                shuffle_xor(1.0, 2);
            }
        },
        32,
        "shuffle_xor(2) without the rest of the warp: lane 8 returned",
    );
    assert_eq!(
        kind,
        FaultKind::UnconvergedShuffle { pattern: Pattern::Xor(2), others: "lane 8 returned".into() }
    );
}

#[test]
fn lanes_elsewhere_miss_a_shuffle() {
    let kind = case().fault(
        |_| match thread_idx_x() {
            0..=3 => sync_threads(),
            4..=7 => {}
            8 => sync_warp(),
            _ => {
                shuffle_xor(1.0, 16);
            }
        },
        8,
        "sync_warp without the rest of the warp: lanes 0-3 at sync_threads, lanes 4-7 returned, \
         lanes 9-31 at shuffle_xor(16)",
    );
    assert!(matches!(kind, FaultKind::UnconvergedWarpSync { .. }));
    let kind = case().fault(
        |_| {
            if thread_idx_x() < 16 {
                shuffle_xor(1.0, 16);
            } else {
                sync_warp();
            }
        },
        0,
        "shuffle_xor(16) without the rest of the warp: lanes 16-31 at sync_warp",
    );
    assert!(matches!(kind, FaultKind::UnconvergedShuffle { pattern: Pattern::Xor(16), .. }));
}

#[test]
fn lanes_at_the_block_barrier_miss_a_shuffle() {
    let text = "shuffle_xor(1) without the rest of the warp: lanes 1-31 at sync_threads";
    case().fault(
        |_| {
            if thread_idx_x().is_multiple_of(32) {
                shuffle_xor(1.0, 1);
            }
            sync_threads();
        },
        0,
        text,
    );
}

#[test]
fn lanes_shuffle_with_different_masks() {
    let kind = case().fault(
        |_| {
            shuffle_xor(1.0, if thread_idx_x() < 16 { 4 } else { 8 });
        },
        0,
        "shuffle_xor(4) meets other shuffles: lanes 16-31 at shuffle_xor(8)",
    );
    assert!(matches!(kind, FaultKind::MismatchedShuffle { pattern: Pattern::Xor(4), .. }));
}

#[test]
fn lane_that_returned_misses_a_warp_barrier() {
    let kind = case().fault(
        |_| {
            if thread_idx_x() > 0 {
                sync_warp();
            }
        },
        1,
        "sync_warp without the rest of the warp: lane 0 returned",
    );
    assert_eq!(kind, FaultKind::UnconvergedWarpSync { others: "lane 0 returned".into() });
}

#[test]
fn fault_of_a_warp_stops_lanes_that_wait() {
    // Lanes 0 to 4 wait at the shuffle when lane 5 fails; their coroutines are unwound and drop what they hold.
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
    static DROPPED: AtomicU32 = AtomicU32::new(0);
    struct Held;
    impl Drop for Held {
        fn drop(&mut self) {
            DROPPED.fetch_add(1, SeqCst);
        }
    }
    let fault = case().run(|_| {
        let _held = Held;
        if thread_idx_x() == 5 {
            load_u32(4);
        }
        shuffle_xor(1.0, 1);
    });
    assert_eq!(fault.unwrap_err().thread, 5);
    assert_eq!(DROPPED.load(SeqCst), 6);
}
