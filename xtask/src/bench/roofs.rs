//! What the memory allows: the same states read and written back in place, in its order and slot by slot, and copied; of what is
//! done for all layers, as many bytes copied by one launch.

use super::Gpu;
use super::case::{Case, interleaved};
use super::probe::{MOVE_BLOCK, MOVE_VECTORS, MoveParams, Probe};
use super::row::{COPY, RMW, RMW_SLOTS, Row};
use anyhow::{Context as _, Result};
use gdn_host::driver::{DriverError, Graph, OwnedStream, Stream, launch};
use gdn_host::{Launch, Table, Tensor};

/// The kernel that does it all.
pub(super) struct Roofs(Probe);

/// Flipped bits of a word when states change in place: signs of 16-bit elements, the sign and a low bit of an f32, so that
/// random states stay what they are.
const FLIPPED: u32 = 0x8000_8000;

impl Roofs {
    pub(super) fn new(gpu: &Gpu) -> Result<Roofs> {
        Ok(Roofs(Probe::mover(&gpu.context)?))
    }

    /// The row of a shape, then those of its roofs; all take turns. Steps with records have none.
    pub(super) fn time(&self, gpu: &Gpu, case: &Case, launch: Launch) -> Result<Vec<Row>> {
        match case.copied {
            Some(copied) => self.time_copy(gpu, case, launch, copied),
            None if case.spec.op.has_records() => case.time(gpu, &[launch]),
            None => self.time_states(gpu, case, launch),
        }
    }

    /// A call for all layers, and a copy of as many bytes.
    fn time_copy(
        &self,
        gpu: &Gpu,
        case: &Case,
        launch: Launch,
        [source, target]: [Tensor; 2],
    ) -> Result<Vec<Row>> {
        let stream = OwnedStream::new(&gpu.context)?;
        let moved = case.spec.moved_bytes();
        let vectors = moved / 2 / 16;
        let block = block(vectors, 0, gpu.gdn.caps().sms);
        let (source, target) = (source.address, target.address);
        let params = MoveParams { source, target, vectors, slots: 0, mask: 0, slot_blocks: 0 };
        let copy = Graph::capture(&stream, |stream| {
            // SAFETY: both tensors are alive in case and have so many vectors, and nothing else uses them meanwhile.
            case.calls.iter().try_for_each(|_| unsafe { self.launch(stream, block, &params) })
        })?;
        let graphs = [case.graph(gpu, &stream, launch)?, copy];
        let times = interleaved(gpu, &stream, &graphs)?;
        let mut row = case.row(gpu, launch, &times[0])?;
        let copy = Row::new(&case.spec, COPY, &times[1], case.calls.len(), moved);
        let copy = Row { tile: format!("{block} threads"), ..copy };
        row.share_of_copy = Some(copy.us / row.us);
        Ok(vec![row, copy])
    }

    /// Every vector moved by blocks of `block` threads.
    ///
    /// # Safety
    /// Source and target are device memory of so many vectors that nothing else uses, the same or apart, until the launch has run; a
    /// table names each slot once.
    unsafe fn launch(&self, stream: Stream, block: u32, params: &MoveParams) -> Result<(), DriverError> {
        let grid = [blocks(params.vectors, block) as u32, 1, 1];
        // SAFETY: the struct is the kernel's; the rest is the caller's promise.
        unsafe { launch(self.0.function, grid, block, 0, stream, params) }
    }

    fn time_states(&self, gpu: &Gpu, case: &Case, launch: Launch) -> Result<Vec<Row>> {
        let stream = OwnedStream::new(&gpu.context)?;
        let half = case.pools.len() / 2;
        let slots = case.slots.context("states without slots")?;
        let vectors = vectors(case);
        let block = block(vectors, vectors / u64::from(case.spec.batch), gpu.gdn.caps().sms);
        let roofs = [
            (RMW, self.graph(&stream, case, block, 0, FLIPPED, None)?),
            (RMW_SLOTS, self.graph(&stream, case, block, 0, FLIPPED, Some(slots))?),
            // The target is not what the next launch reads: it would find it in L2.
            (COPY, self.graph(&stream, case, block, half, 0, None)?),
        ];
        let (names, mut graphs): (Vec<_>, Vec<_>) = roofs.into_iter().unzip();
        graphs.insert(0, case.graph(gpu, &stream, launch)?);
        let times = interleaved(gpu, &stream, &graphs)?;
        let mut row = case.row(gpu, launch, &times[0])?;
        let roof = |(name, times): (&str, &Vec<f64>)| {
            let row = Row::new(&case.spec, name, times, case.pools.len(), 2 * case.spec.state_bytes());
            Row { tile: format!("{block} threads"), ..row }
        };
        let roofs: Vec<Row> = names.into_iter().zip(&times[1..]).map(roof).collect();
        if case.spec.op.is_read_modify_write() {
            row.set_roofs(roofs[0].us, roofs[1].us);
        }
        Ok([vec![row], roofs].concat())
    }

    /// Every pool moved by blocks of `block` threads to the one `shift` behind it, in the order of its memory or of a table of
    /// slots.
    fn graph(
        &self,
        stream: &OwnedStream,
        case: &Case,
        block: u32,
        shift: usize,
        mask: u32,
        slots: Option<Table>,
    ) -> Result<Graph, DriverError> {
        let (vectors, pools) = (vectors(case), &case.pools);
        let slot_blocks = blocks(vectors, block) as u32 / case.spec.batch;
        let slots = slots.map_or(0, |slots| slots.address);
        Graph::capture(stream, |stream| {
            for (i, source) in pools.iter().enumerate() {
                let target = pools[(i + shift) % pools.len()];
                let (source, target) = (source.address, target.address);
                let params = MoveParams { source, target, vectors, slots, mask, slot_blocks };
                // SAFETY: both pools are alive in case and of as many vectors, the table names each of their slots once, and
                // nothing else uses them.
                unsafe { self.launch(stream, block, &params)? };
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

/// The largest block with which each multiprocessor has two and a slot of so many vectors has whole ones; 0: there are no slots.
fn block(vectors: u64, slot: u64, sms: u32) -> u32 {
    let sizes = [MOVE_BLOCK, MOVE_BLOCK / 2, MOVE_BLOCK / 4];
    let fits = |size: &u32| {
        slot.is_multiple_of(MOVE_VECTORS * u64::from(*size)) && blocks(vectors, *size) >= 2 * u64::from(sms)
    };
    sizes.into_iter().find(fits).unwrap_or(MOVE_BLOCK / 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_states_are_spread_over_the_device() {
        // 64 KiB a head in f32: 2:4 with one sequence, 16:32 with one and with eight.
        let block_of = |heads: u64| block(heads * 4096, heads * 4096, 132);
        assert_eq!([4, 32, 256].map(block_of), [32, 64, 256]);
    }

    #[test]
    fn a_slot_has_whole_blocks() {
        // 512 slots of 8 KiB, one head with K = V = 64 in bf16.
        assert_eq!(block(512 * 512, 512, 132), 128);
        // Three records of 20,608 bytes in 48 layers, of 16 sequences.
        assert_eq!(block(48 * 16 * 3 * 1288, 0, 132), 256);
    }
}
