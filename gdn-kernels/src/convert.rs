//! Conversion of states between the layouts VK and KV: every head's matrix transposed, slot by slot.
//!
//! The memory system moves 32-byte sectors, and a transposition has one side that runs across them. Here neither
//! side does, and no shared memory is needed: a lane takes a square of the matrix, as many rows as a 16-byte vector
//! has elements (4 x 4 of f32, 8 x 8 of a 16-bit type), one vector a row. It swaps elements between its own
//! registers, after which each vector is a piece of a row of the target.
//!
//! ```text
//!            4 lanes along a row: 64 bytes in a piece
//!          +----+----+----+----+
//!  8 lanes | 0  | 1  | 2  | 3  |      loads   8 rows at a time, 64 bytes of each
//!  along a | 4  | 5  | 6  | 7  |      stores  4 rows of the target at a time, 128 bytes of each
//!  column  |    ...            |
//!          | 28 | 29 | 30 | 31 |
//!          +----+----+----+----+
//! ```
//!
//! For f32 the transposition happens between names of registers and costs nothing; of a 16-bit type each target word
//! takes one half each of two source words. Bits move as they are, so a NaN keeps its payload.
//!
//! Every warp has a tile of its own, warps share nothing. Slots are named as in [`crate::copy`].

use crate::abi::{self, ConvertLayoutParams};
use crate::arch::{memory, thread};
use crate::copy::Slot;
use crate::element::{Element, ROW};
use crate::token::{divide, sequence, wide};

/// Lanes of a warp that share rows of the source.
const LANES_ALONG_ROW: u32 = abi::CONVERT_TILE_COLUMNS / 16;

const _: () = assert!(LANES_ALONG_ROW * (abi::CONVERT_TILE_ROWS / 16) == 32);

/// A lane's square, a vector of 16 bytes a row. Of f32 the first four are used.
type Square = [[u32; 4]; ROW];

/// Where a lane's square lies.
struct Place {
    head: u32,
    row: u32,
    column: u32,
}

impl Place {
    #[inline(always)]
    fn of_this_thread<T: Element>(p: &ConvertLayoutParams) -> Place {
        let (thread, size) = (thread::thread_idx_x(), T::SIZE as u32);
        let lane = thread % 32;
        let warp = thread::block_idx_x() * (thread::block_dim_x() / 32) + thread / 32;
        let (rows, columns) = (abi::CONVERT_TILE_ROWS / size, abi::CONVERT_TILE_COLUMNS / size);
        let across = p.columns.div_ceil(columns);
        let tiles = p.rows.div_ceil(rows) * across;
        let head = divide(warp, p.tiles_reciprocal);
        let tile = warp - head * tiles;
        let down = divide(tile, p.columns_reciprocal);
        let right = tile - down * across;
        let square = T::VECTOR as u32;
        Place {
            head,
            row: down * rows + lane / LANES_ALONG_ROW * square,
            column: right * columns + lane % LANES_ALONG_ROW * square,
        }
    }
}

/// The square with rows and columns swapped.
#[inline(always)]
fn transpose<T: Element>(x: &Square) -> Square {
    let mut out = [[0; 4]; ROW];
    let mut column = 0;
    while column < T::VECTOR {
        let mut word = 0;
        while word < 4 {
            out[column][word] = if T::VECTOR == 4 {
                x[word][column]
            } else {
                // Two neighbouring elements of the target: a half each of two source words.
                let (low, high) = (x[2 * word % ROW][column / 2], x[(2 * word + 1) % ROW][column / 2]);
                if column % 2 == 0 { low & 0xffff | high << 16 } else { low >> 16 | high & 0xffff_0000 }
            };
            word += 1;
        }
        column += 1;
    }
    out
}

/// The kernel body; only the size of `T` matters.
///
/// # Safety
/// `p` describes buffers as its documentation says, and the launch is shaped as [`ConvertLayoutParams`] says.
#[inline(always)]
pub(crate) unsafe fn convert_layout<T: Element>(p: &ConvertLayoutParams) {
    let n = sequence();
    if n >= p.n {
        return;
    }
    let Place { head, row, column } = Place::of_this_thread::<T>(p);
    // SAFETY: n is below the number of copies; slots are used only after they were checked, and head, row and column
    // lie in the slot, as rows and columns are multiples of a square's.
    unsafe {
        let (source, target) = (Slot::of_copy(&p.source, n), Slot::of_copy(&p.target, n));
        let inside = (head < p.heads) & (row < p.rows) & (column < p.columns);
        if !(source.exists & target.exists & inside) {
            return;
        }
        let matrix = wide(head, p.rows * p.columns);
        let source = source.address + (matrix + (row * p.columns + column) as u64) * T::SIZE;
        let target = target.address + (matrix + (column * p.rows + row) as u64) * T::SIZE;
        let mut square = [[0; 4]; ROW];
        let mut i = 0;
        while i < T::VECTOR {
            square[i] = memory::load_u32x4_streaming(source + wide(i as u32, p.columns) * T::SIZE);
            i += 1;
        }
        let square = transpose::<T>(&square);
        let mut i = 0;
        while i < T::VECTOR {
            memory::store_u32x4_streaming(target + wide(i as u32, p.rows) * T::SIZE, square[i]);
            i += 1;
        }
    }
}
