//! The calls that mistral.rs makes for a layer of gated delta net, with gdn's kernels inside: its argument types, its layouts,
//! its padding. `cargo run -p gdn-candle --example mistral`, with `--features cuda` on a GPU.
//!
//! What differs: types other than bf16 and f16 work, states may be 16 bits, tables may be i32 and i64, heads may be of any size
//! that gdn has kernels for on every GPU since Ampere, and what does not fit is an error and never a call that does nothing.

use candle_core::{D, DType, Device, Result, Tensor};
use gdn_candle::*;

/// Which rows of a pool a call works on: all, one a sequence, or those of a table in which `u32::MAX` is padding.
#[derive(Clone, Copy)]
pub enum StateSlots<'a> {
    Gathered,
    Pooled(&'a Tensor),
}

impl StateSlots<'_> {
    fn slots(self) -> Slots {
        match self {
            StateSlots::Gathered => Slots::default(),
            StateSlots::Pooled(table) => Slots::of(table),
        }
    }
}

/// Heads of a layer, and how they lie.
#[derive(Clone, Copy)]
pub struct Heads {
    pub shape: HeadShape,
    /// GGUF's order of value heads.
    pub tiled: bool,
    /// Key-major pools are `Layout::Kv`, value-major ones `Layout::Vk`.
    pub layout: Layout,
}

/// The projections and weights that the recurrence takes: `[B, T, ..]`, `[B, T, HV]` and `[HV]`.
#[derive(Clone, Copy)]
pub struct Recurrence<'a> {
    pub mixed_qkv: &'a Tensor,
    pub b: &'a Tensor,
    pub a: &'a Tensor,
    pub a_log: &'a Tensor,
    pub dt_bias: &'a Tensor,
}

impl Recurrence<'_> {
    fn inputs(&self, heads: &Heads) -> Result<Inputs> {
        let gate = Gate::softplus(self.a_log, self.dt_bias);
        let beta = Beta::logits(self.b);
        let inputs = Inputs::packed(heads.shape, Family::Gdn, self.mixed_qkv, gate.of(self.a), beta)?;
        let heads = if heads.tiled { HeadMap::Tiled } else { HeadMap::Grouped };
        Ok(Inputs { heads, ..inputs })
    }
}

/// `causal_conv1d_cuda`: x `[B, T, dim]`, weight `[dim, W]`, windows `[slots, dim, W]`, a fourth entry in front of the three
/// that W = 4 needs. Returns the outputs and the windows, which are updated in place. A prompt is the same call as a step.
pub fn causal_conv1d(
    x: &Tensor,
    weight: &Tensor,
    conv_state: &Tensor,
    slots: StateSlots,
) -> Result<(Tensor, Tensor)> {
    let (tokens, pool) = (Tokens::Each(x.dim(1)?), ConvPool::from_tensor(conv_state)?);
    let out = conv1d_update(x, &Filter::new(weight), &tokens, &pool, &slots.slots(), None)?;
    Ok((out, pool.tensor))
}

/// `fused_decode_recurrence_cuda`: a token for each sequence, states `[slots, HV, ..]` updated in place.
pub fn fused_decode_recurrence(
    inputs: Recurrence,
    state: &Tensor,
    heads: &Heads,
    slots: StateSlots,
) -> Result<Tensor> {
    let pool = StatePool::from_tensor(state, heads.layout)?;
    decode(&inputs.inputs(heads)?, &pool, &slots.slots())
}

/// `speculative_recurrence_checkpoints_cuda`: T drafts for each sequence, from the lane that `active_slots` names; the state after
/// token t goes to lane t of the sequence's group of `lanes` slots. What was accepted is then where the next call starts.
pub fn speculative_recurrence_checkpoints(
    inputs: Recurrence,
    state_pool: &Tensor,
    active_slots: &Tensor,
    lanes: usize,
    heads: &Heads,
) -> Result<Tensor> {
    let tokens = inputs.mixed_qkv.dim(1)?;
    let pool = StatePool::from_tensor(state_pool, heads.layout)?;
    let write = Write::EachToken(lanes_of(active_slots, lanes, tokens)?);
    let slots = Slots::of(active_slots).with_write(write);
    verify(&inputs.inputs(heads)?, &Tokens::Each(tokens), &pool, &slots, None)
}

/// `[B, T]`: the slots of each sequence's first lanes.
fn lanes_of(active_slots: &Tensor, lanes: usize, tokens: usize) -> Result<Tensor> {
    let active = active_slots.to_dtype(DType::I64)?.unsqueeze(1)?;
    let count = Tensor::new(&[[lanes as i64]], active.device())?;
    let first = active.broadcast_div(&count)?.broadcast_mul(&count)?;
    first.broadcast_add(&Tensor::arange(0, tokens as i64, active.device())?.unsqueeze(0)?)
}

/// `rmsnorm_gated_cuda`: x and gate `[.., HV, V]`, weight `[V]`.
pub fn rmsnorm_gated(x: &Tensor, gate: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    gated_rmsnorm(x, gate, &Norm::silu(weight, eps as f32))
}

/// A step and a draft of two sequences, the second row of three being padding.
pub fn main() -> Result<()> {
    let device = if cfg!(feature = "cuda") { Device::new_cuda(0)? } else { Device::Cpu };
    let heads = Heads { shape: HeadShape { h: 2, hv: 4, k: 128, v: 128 }, tiled: true, layout: Layout::Kv };
    let random = |dims: &[usize]| Tensor::randn(0f32, 0.5f32, dims, &device);
    let narrow = |dims: &[usize]| random(dims)?.to_dtype(DType::BF16);
    let (weight, windows) = (narrow(&[1024, 4])?, Tensor::zeros((12, 1024, 4), DType::BF16, &device)?);
    let (a_log, dt_bias) = (random(&[4])?, random(&[4])?);
    let states = Tensor::zeros((12, 4, 128, 128), DType::F32, &device)?;
    let table = Tensor::new(&[4u32, u32::MAX, 8], &device)?;
    for tokens in [1, 3] {
        let x = narrow(&[3, tokens, 1024])?;
        let (mixed_qkv, _) = causal_conv1d(&x, &weight, &windows, StateSlots::Pooled(&table))?;
        let (b, a) = (narrow(&[3, tokens, 4])?, narrow(&[3, tokens, 4])?);
        let inputs = Recurrence { mixed_qkv: &mixed_qkv, b: &b, a: &a, a_log: &a_log, dt_bias: &dt_bias };
        let out = match tokens {
            1 => fused_decode_recurrence(inputs, &states, &heads, StateSlots::Pooled(&table))?,
            _ => speculative_recurrence_checkpoints(inputs, &states, &table, 4, &heads)?,
        };
        let out = rmsnorm_gated(&out, &narrow(&[3, tokens, 4, 128])?, &narrow(&[128])?, 1e-6)?;
        let sizes = out.to_dtype(DType::F32)?.sqr()?.sum((1, 2, D::Minus1))?.to_vec1::<f32>()?;
        assert!(sizes[0] > 0.0 && sizes[1] == 0.0 && sizes[2] > 0.0, "{sizes:?}");
    }
    // The lanes of slots 4 and 8 hold states, the others' do not.
    let filled = states.sqr()?.sum((1, 2, 3))?.to_vec1::<f32>()?;
    let filled: Vec<usize> = (0..12).filter(|slot| filled[*slot] > 0.0).collect();
    assert_eq!(filled, [4, 5, 6, 8, 9, 10]);
    // Gathered: sequence n is row n.
    let rows = Tensor::zeros((3, 1024, 4), DType::BF16, &device)?;
    let (_, rows) = causal_conv1d(&narrow(&[3, 1, 1024])?, &weight, &rows, StateSlots::Gathered)?;
    assert!(rows.to_dtype(DType::F32)?.sqr()?.sum_all()?.to_scalar::<f32>()? > 0.0);
    println!("states are where mistral.rs expects them: slots {filled:?}");
    Ok(())
}
