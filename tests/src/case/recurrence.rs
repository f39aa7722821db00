//! Cases of the recurrence: decode, verification of drafts, and sequences with states of their own.

use super::Case;
use crate::problem::solution::transpose;
use crate::problem::{
    Beta, Decay, Intermediate, Memory, Out, Pool, Problem, Solution, Source, StartFlags, Target, Tokens,
};
use crate::strided::Strided;
use crate::table::TableForm;
use anyhow::{Context as _, Result, ensure};
use gdn_host::{DType, Family, HeadMap, HeadShape, Layout};

/// A case: the problem, and what the recorded kernel made of it.
pub struct Recorded {
    /// Inputs and options.
    pub problem: Problem,
    /// What was recorded. A read-only pool is as it was, and padded rows of the output are zeros, whether or not the
    /// recorded kernel defines them.
    pub solution: Solution,
}

/// What the recorded operations have in common, and where they differ.
enum Form {
    /// One token, states in slots.
    Decode,
    /// Several tokens, states in slots.
    Verify,
    /// Several tokens, initial and final states by sequence.
    Sequences,
}

fn form(op: &str) -> Option<Form> {
    match op {
        "decode_sigmoid_gating" | "packed_decode" | "kda_decode" => Some(Form::Decode),
        "verify_sigmoid_gating" | "recurrent_update_fwd" => Some(Form::Verify),
        "recurrent_fwd" | "kda_recurrent_fwd" | "fla_kv_layout" => Some(Form::Sequences),
        _ => None,
    }
}

/// Whether an operation of the case format is one of the recurrence.
pub fn records(op: &str) -> bool {
    form(op).is_some()
}

/// The states of a case: where they come from and where they go.
struct States {
    pool: Pool,
    source: Source,
    target: Target,
    /// The pool and the final states as recorded.
    after: [Memory; 2],
}

impl Case {
    /// The case as a problem of the recurrence.
    ///
    /// # Errors
    /// A case of another operation, or one that uses something that is not supported: the text says what.
    pub fn recurrence(&self) -> Result<Recorded> {
        let form = form(self.op()).with_context(|| format!("{} is no recurrence", self.op()))?;
        self.demand("gate_kind", &["gdn", "kda"])?;
        self.demand("layout", &["VK", "KV"])?;
        self.demand("beta_rounding", &["none", "b_dtype", "n/a"])?;
        let shape =
            HeadShape::new(self.number("H")?, self.number("HV")?, self.number("K")?, self.number("V")?)?;
        let family = if self.meta("gate_kind")? == "kda" { Family::Kda } else { Family::Gdn };
        let tokens = self.tokens(&form)?;
        let (q, k, v, packed_stride) = self.projections(&shape, tokens.total())?;
        let (a, decay) = self.decay(&shape, family, tokens.total())?;
        let (b, beta) = self.beta(&shape, tokens.total())?;
        let States { pool, source, target, after: [state, final_state] } =
            self.states(&form, &shape, tokens.batch())?;
        let (intermediate, buffer) = self.intermediate(&shape, &tokens)?;
        let stride = shape.value_elements() as usize;
        let out = self.sized("out", tokens.total() * stride)?;
        let problem = Problem {
            shape,
            family,
            tokens,
            q,
            k,
            v,
            packed_stride,
            a,
            b,
            decay,
            beta,
            l2norm: if self.flag("l2norm")? { Some(self.number("eps")?) } else { None },
            scale: Some(self.number("scale")?),
            heads: HeadMap::Grouped,
            pool,
            source,
            start: StartFlags::None,
            target,
            null_slot: None,
            intermediate,
            round_state: false,
            out: Some(Out { dtype: out.dtype, stride }),
            tables: TableForm::default(),
            omit_zeros: false,
        };
        let out = Memory::new(out.data, out.dtype);
        let solution = Solution { out, state, final_state, intermediate: buffer };
        Ok(Recorded { problem, solution })
    }

    fn tokens(&self, form: &Form) -> Result<Tokens> {
        let batch: usize = self.number("B")?;
        if self.meta("T")? == "varlen" {
            let cu_seqlens = self.indices("cu_seqlens", batch + 1)?;
            let total = cu_seqlens.last().and_then(|total| usize::try_from(*total).ok());
            let total = total.context("cu_seqlens ends with no length")?;
            return Ok(Tokens::Packed { cu_seqlens, total, is_i64: true });
        }
        let tokens = self.number("T")?;
        if !matches!(form, Form::Decode) {
            return Ok(Tokens::Each { batch, tokens });
        }
        ensure!(tokens == 1, "T = {tokens} is not supported for {}", self.op());
        Ok(Tokens::One { batch })
    }

    /// q, k and v: tensors of their own, or columns of `mixed_qkv`, then with the stride of its rows.
    fn projections(
        &self,
        shape: &HeadShape,
        total: usize,
    ) -> Result<(Strided, Strided, Strided, Option<usize>)> {
        let (keys, values) = (shape.key_elements() as usize, shape.value_elements() as usize);
        if !self.has("mixed_qkv") {
            let rows = |name, width| self.rows(name, total, width);
            return Ok((rows("q", keys)?, rows("k", keys)?, rows("v", values)?, None));
        }
        let mixed = self.values("mixed_qkv")?;
        let stride = mixed.shape.last().copied().unwrap_or(0);
        let wide = mixed.data.len() == total * stride && stride >= 2 * keys + values;
        ensure!(wide, "tensor mixed_qkv has shape {:?}", mixed.shape);
        let columns = |from: usize, width: usize| {
            let rows = mixed.data.chunks(stride);
            let data = rows.flat_map(|row| row[from..from + width].to_vec()).collect();
            Strided::dense(mixed.dtype, width, data)
        };
        Ok((columns(0, keys), columns(keys, keys), columns(2 * keys, values), Some(stride)))
    }

    fn decay(&self, shape: &HeadShape, family: Family, total: usize) -> Result<(Strided, Decay)> {
        let HeadShape { h, hv, k, .. } = *shape;
        let width = |heads: u32| match family {
            Family::Gdn => heads as usize,
            Family::Kda => (heads * k) as usize,
        };
        let gate = self.meta("gate")?;
        if gate == "precomputed" {
            let (heads, decay) = match family {
                Family::Gdn => (hv, Decay::Given),
                Family::Kda => (h, Decay::GivenPerKeyHead),
            };
            return Ok((self.rows("g", total, width(heads))?, decay));
        }
        let a = self.rows("a", total, width(hv))?;
        let (a_log, dt_bias) = (self.rows("A_log", 1, hv as usize)?, self.rows("dt_bias", 1, width(hv))?);
        if gate == "softplus" {
            return Ok((
                a,
                Decay::Softplus {
                    a_log,
                    dt_bias,
                    beta: self.number("softplus_beta")?,
                    threshold: self.number("softplus_threshold")?,
                },
            ));
        }
        let bound = gate.strip_prefix("lower_bound:").and_then(|bound| bound.parse().ok());
        let bound = bound.with_context(|| format!("gate = {gate} is not supported"))?;
        Ok((a, Decay::LowerBound { a_log, dt_bias, bound }))
    }

    fn beta(&self, shape: &HeadShape, total: usize) -> Result<(Strided, Beta)> {
        let heads = shape.hv as usize;
        if self.has("b") {
            let rounded = self.meta("beta_rounding")? == "b_dtype";
            return Ok((self.rows("b", total, heads)?, Beta::Logits { rounded, scale: 1.0 }));
        }
        if self.flag("beta_headwise")? {
            let width = shape.value_elements() as usize;
            return Ok((self.rows("beta", total, width)?, Beta::GivenPerValue));
        }
        Ok((self.rows("beta", total, heads)?, Beta::Given))
    }

    fn states(&self, form: &Form, shape: &HeadShape, batch: usize) -> Result<States> {
        let layout = if self.meta("layout")? == "KV" { Layout::Kv } else { Layout::Vk };
        let elements = shape.state_elements() as usize;
        let read = |name: &str, slots: usize| -> Result<(DType, Vec<f32>)> {
            let x = self.sized(name, slots * elements)?;
            let (v, k) = (shape.v as usize, shape.k as usize);
            let data = if layout == Layout::Kv { transpose(&x.data, k, v, 1) } else { x.data };
            Ok((x.dtype, data))
        };
        let pool = |dtype, slots, pitch, data| Pool { dtype, layout, data, slots, pitch };
        if matches!(form, Form::Sequences) {
            let (dtype, after) = read("state_out", batch)?;
            let before = if self.flag("initial_state")? { Some(read("state_in", batch)?.1) } else { None };
            let source = if before.is_some() { Source::Sequences } else { Source::Zeros };
            let slots = if before.is_some() { batch } else { 0 };
            let before = before.unwrap_or_default();
            return Ok(States {
                after: [Memory::new(before.clone(), dtype), Memory::new(after, dtype)],
                pool: pool(dtype, slots, elements, before),
                source,
                target: Target::Sequences { slots: batch, pitch: elements },
            });
        }
        let slots = self.number("slots")?;
        let (dtype, before) = read("state_in", slots)?;
        let updated = self.flag("state_update")?;
        let after = if updated { read("state_out", slots)?.1 } else { before.clone() };
        Ok(States {
            after: [Memory::new(after, dtype), Memory::default()],
            pool: pool(dtype, slots, self.number("slot_pitch")?, before),
            source: Source::Slots(self.indices32("slot_idx", batch)?),
            target: if updated { Target::InPlace } else { Target::Nowhere },
        })
    }

    /// The buffer of states, and what was recorded in it.
    fn intermediate(&self, shape: &HeadShape, tokens: &Tokens) -> Result<(Option<Intermediate>, Memory)> {
        if !self.has("intermediate_out") {
            return Ok((None, Memory::default()));
        }
        let recorded = self.values("intermediate_out")?;
        let (batch, elements) = (tokens.batch(), shape.state_elements() as usize);
        let &[rows, steps, ..] = recorded.shape.as_slice() else {
            anyhow::bail!("tensor intermediate_out has shape {:?}", recorded.shape);
        };
        ensure!(recorded.data.len() == rows * steps * elements, "intermediate_out: {:?}", recorded.shape);
        let parent = self.has("parent").then(|| self.indices32("parent", batch * steps)).transpose()?;
        let row = Some(self.indices32("intermediate_idx", batch)?);
        let buffer =
            Intermediate { dtype: Some(recorded.dtype), rows, steps, pitch: steps * elements, row, parent };
        Ok((Some(buffer), Memory::new(recorded.data, recorded.dtype)))
    }
}
