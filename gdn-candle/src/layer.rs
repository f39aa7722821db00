//! A layer's step: convolution, recurrence and gated norm, one behind the other.

use crate::conv::{DraftWindows, Filter, conv1d_commit, conv1d_update_into};
use crate::inputs::{Beta, Gate, Inputs};
use crate::memory::{cut, element, kernel_type};
use crate::norm::{Norm, gated_rmsnorm_into};
use crate::pool::{ConvPool, LayerPool};
use crate::recurrence::{DraftStates, Tokens, commit, decode_into, pooled};
use crate::replay::{self, ReplayStep};
use crate::run::{Launch, unfilled};
use crate::slots::{Slots, Write};
use candle_core::{DType, Result, Tensor, bail};
use gdn_host::{Family, HeadMap, HeadShape, ModuleKey, RecordForm};

/// What holds for all tokens of a layer: heads, weights and options.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Heads of this rank.
    pub shape: HeadShape,
    /// GDN or KDA.
    pub family: Family,
    /// The convolution over the channels of q, k and v.
    pub filter: Filter,
    /// The gate.
    pub gate: Gate,
    /// Round beta through the type of its logits, as Hugging Face does. On by default.
    pub beta_rounded: bool,
    /// Factor on beta: 1, or 2 where negative eigenvalues are allowed.
    pub beta_scale: f32,
    /// eps of the l2norm of q and k, 1e-6 by default.
    pub l2norm: Option<f32>,
    /// Factor on q; `None` is `K^-1/2`.
    pub scale: Option<f32>,
    /// Which key head a value head uses.
    pub heads: HeadMap,
    /// The gated norm.
    pub norm: Norm,
}

/// The projections of a step's tokens.
#[derive(Clone, Debug)]
pub struct Projected {
    /// Rows of `[q | k | v]`, in front of the convolution.
    pub qkv: Tensor,
    /// Rows of `[HV, V]`: what gates the output.
    pub z: Tensor,
    /// Rows of `[HV]`, in KDA `[HV, K]`: what the decay is made of.
    pub a: Tensor,
    /// Rows of `[HV]`: the logits of beta.
    pub b: Tensor,
}

/// Buffers for what drafts leave after each token.
#[derive(Clone, Debug)]
pub struct Drafts {
    /// States.
    pub states: DraftStates,
    /// Windows.
    pub windows: DraftWindows,
}

impl Drafts {
    /// Buffers for `rows` drafts of `steps` tokens, chains, of the types of a layer's pools. With tables that are handed over
    /// by name the fields are set directly.
    ///
    /// # Errors
    /// An allocation that failed.
    pub fn zeros(layer: &Layer, pool: &LayerPool, rows: usize, steps: usize) -> Result<Drafts> {
        let states = &pool.state.tensor;
        let dims = [&[rows, steps][..], &states.dims()[1..]].concat();
        let states = Tensor::zeros(dims, states.dtype(), states.device())?;
        let windows = DraftWindows::zeros(&layer.filter, &pool.conv, rows, steps)?;
        Ok(Drafts { states: DraftStates::new(&states), windows })
    }
}

impl Layer {
    /// A layer of gated delta net as Hugging Face's Qwen has it.
    pub fn gdn(shape: HeadShape, filter: Filter, gate: Gate, norm: Norm) -> Layer {
        let (family, heads) = (Family::Gdn, HeadMap::Grouped);
        let (beta_rounded, beta_scale, l2norm, scale) = (true, 1.0, Some(1e-6), None);
        Layer { shape, family, filter, gate, beta_rounded, beta_scale, l2norm, scale, heads, norm }
    }

    /// A layer of Kimi delta attention; beta is not rounded.
    pub fn kda(shape: HeadShape, filter: Filter, gate: Gate, norm: Norm) -> Layer {
        Layer { family: Family::Kda, beta_rounded: false, ..Layer::gdn(shape, filter, gate, norm) }
    }

    /// What records of its tokens mean.
    pub fn record_form(&self) -> RecordForm {
        let mut form = RecordForm::new(self.shape, self.family);
        (form.l2norm, form.heads) = (self.l2norm, self.heads);
        form
    }

    /// The modules that steps of this layer launch, for [`preload`](crate::preload): with inputs of type `io`, and with
    /// several tokens a sequence as well as with one.
    ///
    /// # Errors
    /// A type that there are no kernels for.
    pub fn modules(&self, io: DType, pool: &LayerPool) -> Result<Vec<ModuleKey>> {
        let io = kernel_type("io", io)?;
        let (state, conv) = (element("state", &pool.state.tensor)?, element("windows", &pool.conv.tensor)?);
        let (family, layout, k) = (self.family, pool.state.layout, self.shape.k);
        let mut keys = vec![
            ModuleKey::conv1d_update(conv, io),
            ModuleKey::decode(family, layout, state, io, k),
            ModuleKey::recurrent(family, layout, state, io, k),
            ModuleKey::gated_rmsnorm(io, io, 0),
            ModuleKey::copy_state(),
        ];
        if matches!(self.shape.v, 64 | 128) {
            keys.push(ModuleKey::gated_rmsnorm(io, io, self.shape.v));
        }
        Ok(keys)
    }

    /// The recurrence's inputs: q, k and v as the convolution left them, with the layer's gates, norm and scale.
    ///
    /// # Errors
    /// An argument that does not fit; the text names it and its value.
    pub fn inputs(&self, convolved: &Tensor, projected: &Projected) -> Result<Inputs> {
        let b = projected.b.clone();
        let beta = Beta::Logits { b, rounded: self.beta_rounded, scale: self.beta_scale };
        let decay = self.gate.of(&projected.a);
        let inputs = Inputs::packed(self.shape, self.family, convolved, decay, beta)?;
        let (l2norm, scale, heads) = (self.l2norm, self.scale, self.heads);
        Ok(Inputs { l2norm, scale, heads, round_state: true, ..inputs })
    }
}

/// A step of a layer: conv1d update, recurrence and gated norm of each sequence's tokens, with the states and windows of
/// `pool` that `slots` names. Returns rows `[.., HV, V]` for the output projection.
///
/// With one token a sequence the recurrence is a decode, else, and where states go to lanes or buffers, a verification: T
/// tokens give the bits of T steps. Outputs are allocated first; then the launches follow one another, each early where that
/// helps. What a `drafts` buffer keeps is committed by [`layer_commit`].
///
/// # Errors
/// An argument that does not fit; the text names it and its value. What the launches before it wrote stays.
pub fn layer_step(
    layer: &Layer,
    projected: &Projected,
    tokens: &Tokens,
    pool: &LayerPool,
    slots: &Slots,
    drafts: Option<&Drafts>,
) -> Result<Tensor> {
    let windows = (&pool.conv, slots, drafts.map(|drafts| &drafts.windows));
    around(layer, projected, tokens, windows, |inputs, attended| {
        let is_decode = matches!(tokens, Tokens::Each(1)) && slots.are_of_a_decode() && drafts.is_none();
        if is_decode {
            decode_into(inputs, &pool.state, slots, attended, Launch::Early)
        } else {
            let states = drafts.map(|drafts| &drafts.states);
            pooled(inputs, tokens, &pool.state, slots, states, Some(attended))
        }
    })
}

/// [`layer_step`] of a layer, counted from 0, whose states have rings of records ([`ReplayState`](crate::ReplayState)): a token of
/// each sequence, or, with `drafts`, so many drafts of each, whose windows go to a buffer until [`conv1d_commit`]. Behind all
/// layers [`replay_advance`](crate::replay_advance) moves the cursors.
///
/// # Errors
/// As [`layer_step`].
pub fn replay_layer_step(
    layer: &Layer,
    projected: &Projected,
    conv: &ConvPool,
    step: &ReplayStep,
    index: usize,
    drafts: Option<(usize, &DraftWindows)>,
) -> Result<Tensor> {
    let tokens = Tokens::Each(drafts.map_or(1, |(tokens, _)| tokens));
    let slots = match drafts {
        Some(_) => step.slots.clone().with_write(Write::Nowhere),
        None => step.slots.clone(),
    };
    let windows = (conv, &slots, drafts.map(|(_, windows)| windows));
    around(layer, projected, &tokens, windows, |inputs, attended| match drafts {
        Some((tokens, windows)) => {
            let parent = windows.parent.as_ref();
            replay::verify_into(inputs, tokens, step, index, parent, (attended, Launch::Early))
        }
        None => replay::decode_into(inputs, step, index, attended, Launch::Early),
    })
}

/// What stands around a recurrence: the convolution in front of it, the gated norm behind it.
fn around(
    layer: &Layer,
    projected: &Projected,
    tokens: &Tokens,
    (conv, slots, windows): (&ConvPool, &Slots, Option<&DraftWindows>),
    recurrence: impl FnOnce(&Inputs, &Tensor) -> Result<()>,
) -> Result<Tensor> {
    let qkv = &projected.qkv;
    let (dim, _) = layer.filter.dims()?;
    let channels = 2 * layer.shape.key_elements() + layer.shape.value_elements();
    if dim as u64 != channels {
        bail!(
            "weight: shape {:?} is no filter of the {channels} channels of q, k and v",
            layer.filter.weight.dims()
        );
    }
    let lead = cut("qkv", qkv, channels)?.lead;
    let convolved = unfilled(qkv.dims().to_vec(), qkv.dtype(), qkv.device())?;
    let inputs = layer.inputs(&convolved, projected)?;
    let attended = inputs.output(&lead)?;
    let out = inputs.output(&lead)?;
    conv1d_update_into(qkv, &layer.filter, tokens, conv, slots, windows, (&convolved, Launch::Early))?;
    recurrence(&inputs, &attended)?;
    gated_rmsnorm_into(&attended, &projected.z, &layer.norm, &out, Launch::Early)?;
    Ok(out)
}

/// Commits drafts of a layer: state and window after the last accepted token of each sequence go from the buffers to its slot.
/// `accepted` `[N]` are counts, u32 or i64; 0 commits nothing.
///
/// # Errors
/// An argument that does not fit; the text names it and its value.
pub fn layer_commit(
    layer: &Layer,
    drafts: &Drafts,
    accepted: &Tensor,
    pool: &LayerPool,
    slots: &Slots,
) -> Result<()> {
    commit(&layer.shape, &drafts.states, accepted, &pool.state, slots)?;
    conv1d_commit(&drafts.windows, accepted, &pool.conv, slots)
}
