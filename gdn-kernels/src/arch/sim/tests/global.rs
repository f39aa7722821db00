//! Global memory: bounds, permissions, alignment, initialisation, 64-bit addresses.

use super::gpu::*;
use super::*;

/// An input of 64 bytes and an output of 64 bytes, at the first two addresses the memory gives.
fn case() -> Case {
    Case::new().input("x", &[7; 64]).output("out", 64)
}

const X: u64 = 0x7f00_0000_0000;
const OUT: u64 = 0x7f00_0010_0100;

#[test]
fn every_width_round_trips() {
    let bytes: Vec<u8> = (0..64).collect();
    let case = Case::new().output("out", 64).input("x", &bytes);
    case.run(|p| {
        let (out, x) = (param(p, 0), param(p, 1));
        if thread_idx_x() == 0 {
            store_u32x4_streaming(out, load_u32x4(x));
            store_u32x4_streaming(out + 16, load_u32x4_streaming(x + 16));
            let [low, high] = load_u32x2(x + 32);
            store_u32(out + 32, low);
            store_u32(out + 36, high);
            store_u32(out + 40, load_u32(x + 40));
            store_u16(out + 44, load_u16_if(true, x + 44));
            store_u16(out + 46, 0xdead_0000 | load_u16_if(true, x + 46));
            store_u32(out + 48, load_u32_if(true, x + 48));
            store_u16(out + 52, load_u8_if(true, x + 52) | load_u8_if(true, x + 53) << 8);
        }
    })
    .unwrap();
    let out = case.memory.read(case.extents[0].address, 64);
    assert_eq!(out[..54], bytes[..54]);
    assert_eq!(out[54..], [0xa5; 10]);
}

#[test]
fn false_condition_loads_nothing() {
    let out = Case::new().output("out", 128).good(|p| {
        let sum = load_u8_if(false, 1) + load_u16_if(false, 3) + load_u32_if(false, u64::MAX);
        put(p, (sum + load_u32_or(7, false, u64::MAX)) as f32);
    });
    assert_eq!(out, [7.0; 32]);
}

#[test]
fn load_past_the_end() {
    // Lanes 0 to 15 are inside.
    let kind = case().fault(
        |p| {
            load_u32(param(p, 0) + 4 * u64::from(thread_idx_x()));
        },
        16,
        "load of 4 bytes at 0x7f0000000040 is outside every extent; 0 bytes past the end of `x` (64 bytes)",
    );
    assert!(
        matches!(kind, FaultKind::OutOfBounds { address, bytes: 4, store: false, .. } if address == X + 64)
    );
}

#[test]
fn load_half_past_the_end() {
    let case = Case::new().input("x", &[7; 24]);
    let text = "load of 16 bytes at 0x7f0000000010 is outside every extent; byte 16 of `x` (24 bytes)";
    let kind = case.fault(
        |p| {
            load_u32x4(param(p, 0) + 16);
        },
        0,
        text,
    );
    assert!(matches!(kind, FaultKind::OutOfBounds { bytes: 16, .. }));
}

#[test]
fn store_before_the_start() {
    let text = "store of 2 bytes at 0x7f00001000fe is outside every extent; 2 bytes before `out` (64 bytes)";
    let kind = case().fault(|p| store_u16(param(p, 1) - 2, 0), 0, text);
    assert!(matches!(kind, FaultKind::OutOfBounds { store: true, .. }));
}

#[test]
fn null_pointer_and_wrapped_index() {
    let text = "load of 4 bytes at 0x0 is outside every extent; 139637976727552 bytes before `x` (64 bytes)";
    case().fault(
        |_| {
            load_u32(0);
        },
        0,
        text,
    );
    let fault = case().run(|p| store_u32(param(p, 0).wrapping_sub(1 << 63), 0)).unwrap_err();
    assert!(matches!(fault.kind, FaultKind::OutOfBounds { .. }));
    let fault = case().run(|_| store_u32x4_streaming(u64::MAX - 15, [0; 4])).unwrap_err();
    assert!(matches!(fault.kind, FaultKind::OutOfBounds { .. }));
}

#[test]
fn launch_without_extents() {
    let text = "load of 4 bytes at 0x100 is outside every extent; the launch has no extents";
    Case::new().fault(
        |_| {
            load_u32(256);
        },
        0,
        text,
    );
}

#[test]
fn access_across_two_adjacent_extents() {
    // One allocation, two tensors side by side: no access may use both.
    let mut case = Case::new().input("both", &[7; 64]);
    let both = case.extents[0];
    case.extents =
        vec![Extent { name: "left", bytes: 8, ..both }, Extent { name: "right", address: X + 8, ..both }];
    let text = "load of 16 bytes at 0x7f0000000000 is outside every extent; byte 0 of `left` (8 bytes)";
    let kind = case.fault(
        |p| {
            load_u32x4(param(p, 0));
        },
        0,
        text,
    );
    assert!(matches!(kind, FaultKind::OutOfBounds { near: Some(near), .. } if near.name == "left"));
}

#[test]
fn store_to_an_input() {
    let kind = case().fault(
        |p| {
            if thread_idx_x() == 9 {
                store_u32(param(p, 0) + 8, 0);
            }
        },
        9,
        "store of 4 bytes at 0x7f0000000008 to read-only memory; byte 8 of `x` (64 bytes)",
    );
    assert!(matches!(kind, FaultKind::ReadOnly { address, bytes: 4, .. } if address == X + 8));
}

#[test]
fn one_writable_view_of_an_input_is_enough() {
    let mut case = Case::new().input("read", &[0; 128]);
    case.extents.push(Extent { name: "written", writable: true, ..case.extents[0] });
    assert_eq!(case.good(|p| put(p, 3.0)), [3.0; 32]);
}

#[test]
fn misaligned_vector_load() {
    let kind = case().fault(
        |p| {
            load_u32x4(param(p, 0) + 8);
        },
        0,
        "misaligned load of 16 bytes at 0x7f0000000008; byte 8 of `x` (64 bytes)",
    );
    let near = Some(crate::arch::sim::Near { name: "x", bytes: 64, offset: 8 });
    assert_eq!(kind, FaultKind::Misaligned { address: X + 8, bytes: 16, store: false, near });
}

#[test]
fn each_width_wants_its_own_alignment() {
    for (kernel, width) in [
        (
            (|p| {
                load_u32x2(param(p, 0) + 4);
            }) as fn(&[u8]),
            8,
        ),
        (
            |p| {
                load_u32(param(p, 0) + 2);
            },
            4,
        ),
        (
            |p| {
                load_u16_if(true, param(p, 0) + 1);
            },
            2,
        ),
        (|p| store_u32x4_streaming(param(p, 1) + 8, [0; 4]), 16),
        (|p| store_u32(param(p, 1) + 1, 0), 4),
        (|p| store_u16(param(p, 1) + 1, 0), 2),
    ] {
        let fault = case().run(kernel).unwrap_err();
        assert!(matches!(fault.kind, FaultKind::Misaligned { bytes, .. } if bytes == width), "{fault}");
    }
}

#[test]
fn load_of_a_byte_nobody_wrote() {
    let case = case();
    case.memory.write(OUT, &[0; 6]);
    // Six of the eight bytes were written: the first that was not is named.
    let kind = case.fault(
        |p| {
            load_u32x2(param(p, 1));
        },
        0,
        "load of the byte at 0x7f0000100106, which was never written; byte 6 of `out` (64 bytes)",
    );
    assert!(matches!(kind, FaultKind::Uninitialised { address, .. } if address == OUT + 6));
}

#[test]
fn load_after_own_store_is_initialised() {
    let out = Case::new().output("out", 128).good(|p| {
        put(p, 1.5);
        let mine = param(p, 0) + 4 * u64::from(thread_idx_x());
        put(p, 2.0 * f32::from_bits(load_u32(mine)));
    });
    assert_eq!(out, [3.0; 32]);
}

#[test]
fn extent_longer_than_its_allocation() {
    let mut case = case();
    case.extents[1].bytes = 4096;
    let kind = case.fault(
        |p| store_u32(param(p, 1) + 64, 0),
        0,
        "store of 4 bytes at 0x7f0000100140, where nothing is allocated; byte 64 of `out` (4096 bytes)",
    );
    assert!(matches!(kind, FaultKind::Unallocated { address, store: true, .. } if address == OUT + 64));
}

#[test]
fn index_past_2_to_the_32_reaches_a_20_gb_pool() {
    let case = Case::new().output("pool", 20 << 30);
    case.run(|p| {
        let element = u64::from(thread_idx_x()) * 160_000_000;
        store_u32(param(p, 0) + 4 * element, thread_idx_x());
    })
    .unwrap();
    let last = case.extents[0].address + 4 * 31 * 160_000_000;
    assert_eq!(case.memory.read(last, 4), 31u32.to_le_bytes());
    assert!(case.memory.resident() < 4 << 20);
}

#[test]
fn index_truncated_to_32_bits_is_caught() {
    // The element exists only past 2^32; the truncated one was never written.
    let case = Case::new().output("pool", 20 << 30);
    let pool = case.extents[0].address;
    case.memory.write(pool + (4 << 32), &[1, 0, 0, 0]);
    let good: fn(&[u8]) = |p| {
        load_u32(param(p, 0) + 4 * (1 << 32));
    };
    case.run(good).unwrap();
    let broken: fn(&[u8]) = |p| {
        load_u32(param(p, 0) + u64::from((4u64 << 32) as u32));
    };
    let text =
        "load of the byte at 0x7f0000000000, which was never written; byte 0 of `pool` (21474836480 bytes)";
    case.fault(broken, 0, text);
}
