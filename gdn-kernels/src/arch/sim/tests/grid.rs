//! Launch shapes, grid indices, panics, and which fault is reported.

use super::gpu::*;
use super::*;

#[test]
fn each_block_sees_its_own_index() {
    let case = Case::new().output("out", 4 * 5 * 3 * 2).grid([5, 3, 2]);
    let out = case.good(|p| {
        let sequence = block_idx_y() + block_idx_z() * grid_dim_y();
        let at = u64::from(block_idx_x() + 5 * sequence);
        if thread_idx_x() == 0 {
            let value = block_idx_x() + 10 * block_idx_y() + 100 * block_idx_z();
            store_u32(param(p, 0) + 4 * at, (value as f32).to_bits());
        }
    });
    assert_eq!(out[..6], [0.0, 1.0, 2.0, 3.0, 4.0, 10.0]);
    assert_eq!(out[29], 124.0);
}

#[test]
fn grid_past_65535_blocks() {
    let case = Case::new().output("out", 4).grid([70_000, 1, 1]);
    let out = case.good(|p| {
        if block_idx_x() == 69_999 && thread_idx_x() == 31 {
            store_u32(param(p, 0), 1f32.to_bits());
        }
    });
    assert_eq!(out, [1.0]);
}

#[test]
fn lowest_faulting_block_is_reported_every_time() {
    let case = Case::new().grid([4, 50, 2]).block(64);
    for _ in 0..20 {
        let fault = case.run(|_| {
            let faulty = block_idx_y() % 16 == 7 && block_idx_x() % 2 == 1;
            // Lower blocks take longer.
            for _ in 0..(200 - 100 * block_idx_z() - block_idx_y()) {
                shuffle_xor(1.0, 1);
            }
            if faulty && thread_idx_x() >= 37 {
                load_u32(0x40);
            }
        });
        let text = "test_kernel, block (1, 7, 0), thread 37 (warp 1, lane 5): \
                    load of 4 bytes at 0x40 is outside every extent; the launch has no extents";
        assert_eq!(fault.unwrap_err().to_string(), text);
    }
}

#[test]
fn panic_in_a_kernel_is_a_fault() {
    let kind = Case::new().block(64).fault(
        |_| {
            shuffle_xor(0.0, 1);
            assert!(thread_idx_x() != 33, "row {} out of range", thread_idx_x());
        },
        33,
        "panicked: row 33 out of range",
    );
    assert_eq!(kind, FaultKind::Panicked("row 33 out of range".into()));
    let kind = Case::new().fault(|_| panic!("literal"), 0, "panicked: literal");
    assert_eq!(kind, FaultKind::Panicked("literal".into()));
}

#[test]
fn simulator_survives_many_faults() {
    // Stacks go back to the pool from finished, suspended, unstarted and panicked coroutines alike.
    let case = Case::new().output("out", 4 * 64).block(64);
    for _ in 0..50 {
        case.run(|_| {
            shuffle_xor(0.0, 1);
            if thread_idx_x() == 16 {
                load_u32(4);
            }
            sync_threads();
        })
        .unwrap_err();
        assert_eq!(case.good(|p| put(p, shuffle_xor(thread_idx_x() as f32, 1)))[0], 1.0);
    }
}

#[test]
#[should_panic(expected = "kernel code runs only inside")]
fn kernel_code_outside_a_launch_panics() {
    thread_idx_x();
}

/// Asserts that the launch is refused with this text before any thread runs.
#[track_caller]
fn refused(case: &Case, change: impl Fn(&mut Launch), text: &str) {
    let kernel = case.kernel(|_| panic!("a refused launch runs nothing"));
    let mut wrong = case.launch(&kernel);
    change(&mut wrong);
    let fault = launch(&case.memory, &wrong).expect_err("the shape is wrong");
    assert_eq!(fault.to_string(), format!("test_kernel, launch refused: {text}"));
    assert_eq!((fault.block, fault.thread, fault.kind), ([0; 3], 0, FaultKind::Shape(text.into())));
}

#[test]
fn parameters_of_the_wrong_size() {
    let case = Case::new().output("out", 4);
    refused(&case, |launch| launch.params = &[0; 7], "7 bytes of parameters, TestParams has 8");
}

#[test]
fn block_that_is_not_whole_warps() {
    refused(&Case::new(), |launch| launch.block = 48, "blocks of 48 threads are not whole warps");
    refused(&Case::new(), |launch| launch.block = 0, "blocks of 0 threads are not whole warps");
}

#[test]
fn block_larger_than_the_kernels_limit() {
    let text = "blocks of 1056 threads, the kernel is limited to 1024";
    refused(&Case::new(), |launch| launch.block = 1056, text);
}

#[test]
fn grid_that_is_empty_or_too_large() {
    refused(&Case::new(), |launch| launch.grid[1] = 0, "the grid [1, 0, 1] has no blocks");
    let text = "the grid [1, 65536, 1] is larger than [2147483647, 65535, 65535]";
    refused(&Case::new(), |launch| launch.grid[1] = 65_536, text);
}

#[test]
fn more_shared_memory_than_any_gpu_has() {
    let text = "262144 bytes of shared memory, no GPU has more than 232448";
    refused(&Case::new(), |launch| launch.shared_bytes = 256 << 10, text);
}
