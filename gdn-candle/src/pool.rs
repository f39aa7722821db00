//! Pools of a layer: recurrent states and conv windows in slots.

use crate::lock::{Memory, Operands};
use crate::memory::{check_shape, count, cut, element};
use crate::recurrence::state_dims;
use crate::run::{Launch, run};
use candle_core::{DType, Device, Result, Tensor, bail};
use gdn_host::{CopyState, HeadShape, Layout, SlotPool, call};

/// Recurrent states of a layer: `[slots, HV, V, K]`, or `[slots, HV, K, V]` in layout KV.
///
/// A slot is packed; slots may be any distance apart that is a multiple of 16 bytes. The tensor is updated in place: its other
/// views see it.
#[derive(Clone, Debug)]
pub struct StatePool {
    /// The states: F32, BF16 or F16.
    pub tensor: Tensor,
    /// Layout of a head's state.
    pub layout: Layout,
}

impl StatePool {
    /// `slots` states of zeros.
    ///
    /// # Errors
    /// An allocation that failed.
    pub fn zeros(
        shape: &HeadShape,
        slots: usize,
        dtype: DType,
        layout: Layout,
        device: &Device,
    ) -> Result<StatePool> {
        let dims = [&[slots][..], &state_dims(shape, layout)].concat();
        Ok(StatePool { tensor: Tensor::zeros(dims, dtype, device)?, layout })
    }

    /// The states of a tensor.
    ///
    /// # Errors
    /// A tensor that is not of four dimensions, or of another type.
    pub fn from_tensor(tensor: &Tensor, layout: Layout) -> Result<StatePool> {
        check_shape("state", tensor, &[0; 4])?;
        element("state", tensor)?;
        Ok(StatePool { tensor: tensor.clone(), layout })
    }

    pub(crate) fn on(
        &self,
        field: &'static str,
        memory: &Memory,
        shape: &HeadShape,
    ) -> Result<gdn_host::StatePool> {
        check_shape(field, &self.tensor, &[&[0][..], &state_dims(shape, self.layout)].concat())?;
        memory.states(field, &self.tensor, shape.state_elements(), self.layout)
    }
}

/// Windows of a layer's convolution: `[slots, dim, L]`, the last L inputs of every channel, oldest first, with L at least
/// W - 1.
///
/// Taps or channels are contiguous: `[slots, dim, L]` as SGLang and Rust runtimes have it, or a transposed view of vLLM's
/// `[slots, L, dim]`. The tensor is updated in place.
#[derive(Clone, Debug)]
pub struct ConvPool {
    /// The windows, of the type of the convolution's inputs or F32.
    pub tensor: Tensor,
}

impl ConvPool {
    /// `slots` windows of zeros, taps contiguous.
    ///
    /// # Errors
    /// An allocation that failed.
    pub fn zeros(dim: usize, len: usize, slots: usize, dtype: DType, device: &Device) -> Result<ConvPool> {
        Ok(ConvPool { tensor: Tensor::zeros((slots, dim, len), dtype, device)? })
    }

    /// The windows of a tensor.
    ///
    /// # Errors
    /// A tensor that is not of three dimensions, or of another type.
    pub fn from_tensor(tensor: &Tensor) -> Result<ConvPool> {
        check_shape("windows", tensor, &[0; 3])?;
        element("windows", tensor)?;
        Ok(ConvPool { tensor: tensor.clone() })
    }

    pub(crate) fn on(&self, field: &'static str, memory: &Memory, dim: usize) -> Result<gdn_host::ConvPool> {
        check_shape(field, &self.tensor, &[0, dim, 0])?;
        let (address, len) = memory.place(field, &self.tensor)?;
        let (&[slots, _, taps], &[pitch, channel, tap]) = (self.tensor.dims(), self.tensor.stride()) else {
            bail!("{field}: shape {:?} is no pool of windows", self.tensor.dims());
        };
        Ok(gdn_host::ConvPool {
            tensor: call::Tensor::new(address, element(field, &self.tensor)?, len),
            slots: count(field, slots as u64)?,
            pitch: pitch as u64,
            len: count(field, taps as u64)?,
            channel_stride: channel as u64,
            tap_stride: tap as u64,
        })
    }

    /// The windows of `len` entries, for copies from a buffer that holds windows so: others are not committed by copying.
    pub(crate) fn dense_windows(&self, len: usize) -> Result<Tensor> {
        match *self.tensor.dims() {
            [_, _, have] if have == len => Ok(self.tensor.clone()),
            ref dims => {
                bail!("windows: of {dims:?} a commit copies windows of {len} entries, taps contiguous")
            }
        }
    }

    /// The pool with a slot's elements in the order in which they lie.
    fn dense(&self) -> Result<Tensor> {
        let strides = self.tensor.stride();
        if strides.len() == 3 && strides[1] < strides[2] {
            self.tensor.transpose(1, 2)
        } else {
            Ok(self.tensor.clone())
        }
    }
}

/// Recurrent states and conv windows of a layer, in the same slots.
#[derive(Clone, Debug)]
pub struct LayerPool {
    /// States.
    pub state: StatePool,
    /// Windows.
    pub conv: ConvPool,
}

/// What some slots of a [`LayerPool`] held: `[N, ..]` of each of its tensors, in tensors of their own.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// States.
    pub state: Tensor,
    /// Windows, a slot's elements in the order in which the pool has them.
    pub conv: Tensor,
}

impl LayerPool {
    /// `slots` slots of zeros: states of `state`'s type, windows of `W - 1` entries over q, k and v, of `conv`'s.
    ///
    /// # Errors
    /// An allocation that failed.
    pub fn zeros(
        shape: &HeadShape,
        slots: usize,
        (state, layout): (DType, Layout),
        (conv, width): (DType, usize),
        device: &Device,
    ) -> Result<LayerPool> {
        let dim = (2 * shape.key_elements() + shape.value_elements()) as usize;
        Ok(LayerPool {
            state: StatePool::zeros(shape, slots, state, layout, device)?,
            conv: ConvPool::zeros(dim, width.saturating_sub(1), slots, conv, device)?,
        })
    }

    /// The pools of two tensors of as many slots.
    ///
    /// # Errors
    /// As [`StatePool::from_tensor`] and [`ConvPool::from_tensor`]; another number of slots.
    pub fn from_tensors(state: &Tensor, layout: Layout, conv: &Tensor) -> Result<LayerPool> {
        let pool =
            LayerPool { state: StatePool::from_tensor(state, layout)?, conv: ConvPool::from_tensor(conv)? };
        let (states, windows) = (state.dims()[0], conv.dims()[0]);
        if states != windows {
            bail!("windows: there are {windows} slots, of states {states}");
        }
        Ok(pool)
    }

    /// The tensors, slots in front.
    fn tensors(&self) -> Result<[Tensor; 2]> {
        Ok([self.state.tensor.clone(), self.conv.dense()?])
    }

    /// Fills the slots of a table `[N]` with zeros. A call does the same for its sequences by [`Start`](crate::Start), without
    /// a launch.
    ///
    /// # Errors
    /// An argument that does not fit.
    pub fn reset(&self, slots: &Tensor) -> Result<()> {
        for tensor in self.tensors()? {
            let zeros = Tensor::zeros(&tensor.dims()[1..], tensor.dtype(), tensor.device())?.unsqueeze(0)?;
            let first = Tensor::zeros(slots.elem_count(), DType::U32, slots.device())?;
            copy(&zeros, Some(&first), &tensor, Some(slots))?;
        }
        Ok(())
    }

    /// Copies slots `from` to slots `to`, both `[N]`: forks. No slot may be in both.
    ///
    /// # Errors
    /// An argument that does not fit.
    pub fn copy(&self, from: &Tensor, to: &Tensor) -> Result<()> {
        self.tensors()?.iter().try_for_each(|tensor| copy(tensor, Some(from), tensor, Some(to)))
    }

    /// What the slots of a table `[N]` hold, zeros where an index names none: a prefix that is kept, a sequence that is swapped
    /// out.
    ///
    /// # Errors
    /// An argument that does not fit.
    pub fn snapshot(&self, slots: &Tensor) -> Result<Snapshot> {
        let [state, conv] = self.tensors()?;
        let keep = |tensor: &Tensor| {
            let dims = [&[slots.elem_count()][..], &tensor.dims()[1..]].concat();
            let kept = Tensor::zeros(dims, tensor.dtype(), tensor.device())?;
            copy(tensor, Some(slots), &kept, None)?;
            Ok::<_, candle_core::Error>(kept)
        };
        Ok(Snapshot { state: keep(&state)?, conv: keep(&conv)? })
    }

    /// Puts a snapshot into the slots of a table `[N]`.
    ///
    /// # Errors
    /// An argument that does not fit.
    pub fn restore(&self, snapshot: &Snapshot, slots: &Tensor) -> Result<()> {
        let [state, conv] = self.tensors()?;
        copy(&snapshot.state, None, &state, Some(slots))?;
        copy(&snapshot.conv, None, &conv, Some(slots))
    }
}

/// Copies slots of one tensor to slots of another, or within one; without a table copy n is of slot n.
pub(crate) fn copy(
    source: &Tensor,
    source_slots: Option<&Tensor>,
    target: &Tensor,
    target_slots: Option<&Tensor>,
) -> Result<()> {
    let (from, to) = (source.dims(), target.dims());
    if from.get(1..) != to.get(1..) {
        bail!("target: slots of shape {to:?} do not fit those of the source, {from:?}");
    }
    let elements = to.iter().skip(1).product::<usize>() as u64;
    let tables = [source_slots, target_slots].map(|table| table.map(Tensor::elem_count));
    let copies = tables[0].or(tables[1]).unwrap_or(0) as u64;
    let mut operands = Operands::default();
    operands.read("source", source);
    operands.read_some("source_slots", source_slots);
    operands.write("target", target);
    operands.read_some("target_slots", target_slots);
    operands.locked(|memory| {
        let pool = |field, tensor: &Tensor| {
            let cut = cut(field, tensor, elements)?;
            let (address, len) = memory.place(field, tensor)?;
            let tensor = call::Tensor::new(address, element(field, tensor)?, len);
            let slots = count(field, cut.count)?;
            Ok::<_, candle_core::Error>(SlotPool { tensor, slots, pitch: cut.stride, layout: None })
        };
        let call = CopyState {
            copies: count("slots", copies)?,
            elements,
            source: pool("source", source)?,
            source_slots: memory.some_table("source_slots", source_slots)?,
            target: pool("target", target)?,
            target_slots: memory.some_table("target_slots", target_slots)?,
            null_slot: None,
        };
        run(memory, target.device(), &call, Launch::Ordered)
    })
}
