//! What the memory allows: the same states read and written back in place, and copied.

use super::Gpu;
use super::case::{Case, interleaved};
use super::probe::{MOVE_BLOCK, MOVE_VECTORS, MoveParams, Probe};
use super::row::{COPY, RMW, Row};
use anyhow::Result;
use gdn_host::Launch;
use gdn_host::driver::{DriverError, Graph, OwnedStream, launch};

/// The kernel that does both.
pub(super) struct Roofs(Probe);

/// Flipped bits of a word when states change in place: signs of 16-bit elements, the sign and a low bit of an f32, so that
/// random states stay what they are.
const FLIPPED: u32 = 0x8000_8000;

impl Roofs {
    pub(super) fn new(gpu: &Gpu) -> Result<Roofs> {
        Ok(Roofs(Probe::mover(&gpu.context)?))
    }

    /// The row of a shape, then those of its roofs; the three take turns.
    pub(super) fn time(&self, gpu: &Gpu, case: &Case, launch: Launch) -> Result<Vec<Row>> {
        let stream = OwnedStream::new(&gpu.context)?;
        let half = case.pools.len() / 2;
        let graphs = [
            case.graph(gpu, &stream, launch)?,
            self.graph(gpu, &stream, case, 0, FLIPPED)?,
            // The target is not what the next launch reads: it would find it in L2.
            self.graph(gpu, &stream, case, half, 0)?,
        ];
        let times = interleaved(gpu, &stream, &graphs)?;
        let mut row = case.row(gpu, launch, &times[0])?;
        let block = block(vectors(case), gpu.gdn.caps().sms);
        let roof = |name, times| {
            let row = Row::new(&case.spec, name, times, case.pools.len(), 2 * case.spec.state_bytes());
            Row { tile: format!("{block} threads"), ..row }
        };
        let (rmw, copy) = (roof(RMW, &times[1]), roof(COPY, &times[2]));
        if case.spec.op.is_read_modify_write() {
            row.set_roof(rmw.us);
        }
        Ok(vec![row, rmw, copy])
    }

    /// Every pool moved to the one `shift` behind it.
    fn graph(
        &self,
        gpu: &Gpu,
        stream: &OwnedStream,
        case: &Case,
        shift: usize,
        mask: u32,
    ) -> Result<Graph, DriverError> {
        let (vectors, pools) = (vectors(case), &case.pools);
        let block = block(vectors, gpu.gdn.caps().sms);
        let blocks = blocks(vectors, block) as u32;
        Graph::capture(stream, |stream| {
            for (i, source) in pools.iter().enumerate() {
                let target = pools[(i + shift) % pools.len()];
                let (source, target) = (source.address, target.address);
                let params = MoveParams { source, target, vectors, mask, reserved: 0 };
                // SAFETY: the struct is the kernel's, both pools are alive in case and of as many vectors, and nothing
                // else uses them.
                unsafe { launch(self.0.function, [blocks, 1, 1], block, 0, stream, &params)? };
            }
            Ok(())
        })
    }
}

/// Vectors of 16 bytes of a pool.
fn vectors(case: &Case) -> u64 {
    case.spec.state_bytes() / 16
}

/// Blocks of `block` threads that move so many vectors.
fn blocks(vectors: u64, block: u32) -> u64 {
    vectors.div_ceil(MOVE_VECTORS * u64::from(block))
}

/// The largest block with which each multiprocessor has two.
fn block(vectors: u64, sms: u32) -> u32 {
    let sizes = [MOVE_BLOCK, MOVE_BLOCK / 2, MOVE_BLOCK / 4];
    sizes.into_iter().find(|&size| blocks(vectors, size) >= 2 * u64::from(sms)).unwrap_or(MOVE_BLOCK / 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_states_are_spread_over_the_device() {
        // 64 KiB a head in f32: 2:4 with one sequence, 16:32 with one and with eight.
        let block_of = |heads: u64| block(heads * 4096, 132);
        assert_eq!([4, 32, 256].map(block_of), [32, 64, 256]);
    }
}
