//! Races between blocks in global memory, and what is none.

use super::gpu::*;
use super::*;
use crate::arch::sim::{Near, Other};

/// An output of 64 bytes and an input of 64 bytes, and three blocks.
fn case() -> Case {
    Case::new().output("out", 64).input("x", &[7; 64]).grid([3, 1, 1])
}

const OUT: u64 = 0x7f00_0000_0000;

/// Runs a kernel that must race often enough for blocks to meet in every order, and always to the same fault.
#[track_caller]
fn races(case: &Case, kernel: fn(&[u8]), text: &str) -> FaultKind {
    let fault = case.run(kernel).expect_err("the kernel races");
    assert_eq!(fault.to_string(), format!("test_kernel, {text}"));
    for _ in 0..200 {
        assert_eq!(case.run(kernel).as_ref(), Err(&fault));
    }
    fault.kind
}

#[test]
fn two_blocks_store_one_address() {
    let kind = races(
        &case(),
        |p| {
            if block_idx_x() > 0 && thread_idx_x() == 2 + block_idx_x() {
                store_u32(param(p, 0) + 8, block_idx_x());
            }
        },
        "block (2, 0, 0), thread 4 (warp 0, lane 4): store of 4 bytes at 0x7f0000000008 races with a store by block (1, 0, 0), \
         thread 3; byte 8 of `out` (64 bytes)",
    );
    let other = Some(Box::new(Other { block: [1, 0, 0], thread: 3, store: true }));
    let near = Some(Near { name: "out", bytes: 64, offset: 8 });
    assert_eq!(kind, FaultKind::GlobalRace { address: OUT + 8, bytes: 4, store: true, other, near });
}

#[test]
fn a_block_loads_what_another_one_stores() {
    let case = case();
    case.memory.write(OUT, &[0; 64]);
    races(
        &case,
        |p| match (block_idx_x(), thread_idx_x()) {
            (0, 9) => store_u32(param(p, 0) + 20, 1),
            (2, 5) => drop(load_u32x4(param(p, 0) + 16)),
            _ => {}
        },
        "block (2, 0, 0), thread 5 (warp 0, lane 5): load of 16 bytes at 0x7f0000000010 races with a store by block (0, 0, 0), \
         thread 9; byte 16 of `out` (64 bytes)",
    );
}

#[test]
fn a_block_stores_what_others_load() {
    let case = case();
    case.memory.write(OUT, &[0; 64]);
    // The storing block loads it, too: what it may not do is store while others load.
    let text = "block (2, 0, 0), thread 0 (warp 0, lane 0): store of 2 bytes at 0x7f0000000022 races with a load by \
                block (0, 0, 0), thread 31; byte 34 of `out` (64 bytes)";
    races(
        &case,
        |p| {
            if thread_idx_x() == 31 - block_idx_x() {
                load_u32(param(p, 0) + 32);
            }
            shuffle_xor(0.0, 1);
            if block_idx_x() == 2 && thread_idx_x() == 0 {
                store_u16(param(p, 0) + 34, 1);
            }
        },
        text,
    );
}

#[test]
fn blocks_along_y_and_z_are_others() {
    for grid in [[1, 2, 1], [1, 1, 2]] {
        let fault = case().grid(grid).run(|p| store_u32(param(p, 0), 1)).unwrap_err();
        assert!(fault.is_race() && fault.block[1..] == [grid[1] - 1, grid[2] - 1], "{fault}");
    }
}

/// Each block loads and stores its own two bytes of a line, again and again, beside what all of them load.
#[test]
fn blocks_may_share_out_a_line() {
    let case = Case::new().output("out", 16).grid([7, 1, 1]);
    case.memory.write(case.extents[0].address, &[0; 16]);
    for _ in 0..200 {
        let run = case.run(|p| {
            let (all, own) = (param(p, 0) + 14, param(p, 0) + 2 * u64::from(block_idx_x()));
            for _ in 0..3 {
                let value = load_u16_if(true, own) + 1 + load_u16_if(true, all);
                shuffle_xor(0.0, 1);
                if thread_idx_x() == 0 {
                    store_u16(own, value);
                }
                shuffle_xor(0.0, 1);
            }
        });
        assert_eq!(run, Ok(()));
    }
    let out = case.memory.read(case.extents[0].address, 16);
    assert_eq!(out, [[600u16.to_le_bytes(); 7].concat(), vec![0, 0]].concat());
}

#[test]
fn what_all_blocks_load_is_no_race() {
    let case = case().grid([64, 2, 2]);
    let run = case.run(|p| {
        let x = param(p, 1);
        let _ = (load_u32x2(x), load_u32x4(x), load_u16_if(true, x + 30), load_u8_if(true, x + 31));
        load_u32x4(x + 16);
    });
    assert_eq!(run, Ok(()));
}

#[test]
fn a_prefetch_is_no_access() {
    let case = case();
    case.memory.write(OUT, &[0; 64]);
    let run = case.run(|p| {
        prefetch_if(true, param(p, 0));
        if block_idx_x() == 1 && thread_idx_x() == 0 {
            store_u32(param(p, 0), 1);
        }
    });
    assert_eq!(run, Ok(()));
}

#[test]
fn launches_are_ordered() {
    fn add(p: &[u8], block: u32) {
        if (block_idx_x(), thread_idx_x()) == (block, 0) {
            store_u32(param(p, 0), load_u32(param(p, 0)) + 1);
        }
    }
    let case = case();
    case.memory.write(OUT, &[0; 64]);
    for _ in 0..20 {
        assert_eq!(case.run(|p| add(p, 0)), Ok(()));
        assert_eq!(case.run(|p| add(p, 1)), Ok(()));
    }
    assert_eq!(case.memory.read(OUT, 4), 40u32.to_le_bytes());
}

/// Where the second block stores follows from how often it has run: run again it stores elsewhere.
#[test]
fn a_race_that_a_second_run_does_not_show() {
    let case = case().grid([2, 1, 1]);
    case.memory.write(OUT, &[0; 64]);
    let fault = case.run(|p| {
        let (out, is_second) = (param(p, 0), block_idx_x() == 1);
        if thread_idx_x() == 0 {
            let runs = load_u32_if(is_second, out + 4);
            if is_second {
                store_u32(out + 4, runs + 1);
            }
            store_u32(out + 8 * u64::from(runs), 1);
        }
    });
    let fault = fault.expect_err("the kernel races");
    assert!(matches!(fault.kind, FaultKind::GlobalRace { address: OUT, other: None, .. }), "{fault}");
}
