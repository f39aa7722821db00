//! The conversion of layouts with matrices that no model has: any multiple of eight rows and columns.

use bytemuck::bytes_of;
use gdn_kernels::KERNELS;
use gdn_kernels::abi::{
    CONVERT_TILE_COLUMNS, CONVERT_TILE_ROWS, ConvertLayoutParams, Slots, head_reciprocal,
};
use gdn_kernels::arch::sim::{Extent, Launch, Memory, launch};

const HEADS: u32 = 3;
const WARPS: u32 = 4;

/// Converts one slot of `rows x columns` matrices of elements of `size` bytes; element i of the source holds i.
fn convert(kernel: &str, size: u32, rows: u32, columns: u32) -> Vec<u8> {
    let kernel = KERNELS.iter().find(|known| known.name == kernel).expect("in the table");
    let elements = HEADS * rows * columns;
    let bytes = u64::from(elements * size);
    let mut memory = Memory::new();
    let mut tensor = |name, writable| Extent { name, address: memory.alloc(bytes), bytes, writable };
    let extents = [tensor("source", false), tensor("target", true)];
    let source: Vec<u8> = (0..elements).flat_map(|i| i.to_le_bytes()[..size as usize].to_vec()).collect();
    memory.write(extents[0].address, &source);

    let across = (columns * size).div_ceil(CONVERT_TILE_COLUMNS);
    let tiles = (rows * size).div_ceil(CONVERT_TILE_ROWS) * across;
    let [source, target] = extents.map(|extent| Slots {
        state: extent.address,
        pitch: elements * size / 16,
        slots: 1,
        null_slot: -1,
        ..Slots::default()
    });
    let params = ConvertLayoutParams {
        source,
        target,
        n: 1,
        heads: HEADS,
        rows,
        columns,
        tiles_reciprocal: head_reciprocal(tiles),
        columns_reciprocal: head_reciprocal(across),
    };
    let shape = Launch {
        kernel,
        grid: [(HEADS * tiles).div_ceil(WARPS), 1, 1],
        block: 32 * WARPS,
        shared_bytes: 0,
        params: bytes_of(&params),
        extents: &extents,
        early: None,
    };
    launch(&memory, &shape).unwrap();
    memory.read(extents[1].address, bytes as usize)
}

#[test]
fn matrices_that_do_not_fill_the_tiles_of_warps() {
    for (kernel, size) in [("gdn_convert_layout_f32", 4), ("gdn_convert_layout_bf16", 2)] {
        for (rows, columns) in [(8, 8), (8, 136), (136, 8), (24, 40), (72, 56), (200, 104)] {
            let got = convert(kernel, size, rows, columns);
            let matrix = rows * columns;
            let want = (0..HEADS * matrix).flat_map(|i| {
                let (head, column, row) = (i / matrix, i % matrix / rows, i % rows);
                (head * matrix + row * columns + column).to_le_bytes()[..size as usize].to_vec()
            });
            assert!(got.into_iter().eq(want), "{kernel} {rows}x{columns}");
        }
    }
}
