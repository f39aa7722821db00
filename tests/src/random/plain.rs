//! Plain problems: dense rows, sequence n in slot n and updated there, all options as Qwen3-Next has them.

use super::Noise;
use crate::problem::{Beta, Decay, Intermediate, Out, Pool, Problem, Source, StartFlags, Target, Tokens};
use crate::strided::{Strided, round};
use crate::table::TableForm;
use gdn_host::{DType, Family, HeadMap, HeadShape, Layout};

/// What a plain problem is made of.
#[derive(Clone, Debug)]
pub struct Plain {
    /// Heads.
    pub shape: HeadShape,
    /// How many decays a head has.
    pub family: Family,
    /// Layout of the state.
    pub layout: Layout,
    /// Type of the state.
    pub state: DType,
    /// Type of everything else but the gate's tables.
    pub io: DType,
    /// Tokens, and the operation.
    pub tokens: Tokens,
    /// Equal seeds give equal data.
    pub seed: u64,
}

impl Plain {
    /// GDN, layout VK, and inputs of the state's type if it has 16 bits, else bf16.
    pub fn new(shape: HeadShape, tokens: Tokens, state: DType, seed: u64) -> Plain {
        let io = if state == DType::F16 { DType::F16 } else { DType::Bf16 };
        Plain { shape, family: Family::Gdn, layout: Layout::Vk, state, io, tokens, seed }
    }

    /// The problem.
    pub fn problem(&self) -> Problem {
        let &Plain { shape, family, layout, state, io, ref tokens, seed } = self;
        let mut noise = Noise::new(seed);
        let (keys, values) = (shape.key_elements() as usize, shape.value_elements() as usize);
        let (batch, total, hv) = (tokens.batch(), tokens.total(), shape.hv as usize);
        let decays = match family {
            Family::Gdn => hv,
            Family::Kda => hv * shape.k as usize,
        };
        let mut rows = |width: usize| Strided::dense(io, width, noise.normals(total * width, 1.0));
        let (q, k, v, a, b) = (rows(keys), rows(keys), rows(values), rows(decays), rows(hv));
        let a_log = noise.uniforms(hv, 1.0, 16.0).into_iter().map(f32::ln).collect();
        let decay = Decay::Softplus {
            a_log: Strided::dense(DType::F32, hv, a_log),
            dt_bias: Strided::dense(DType::F32, decays, noise.normals(decays, 1.0)),
            beta: 1.0,
            threshold: 20.0,
        };
        let pool = Pool { dtype: state, layout, data: Vec::new(), slots: 0, pitch: 0 };
        let mut problem = Problem {
            shape,
            family,
            tokens: tokens.clone(),
            q,
            k,
            v,
            packed_stride: None,
            a,
            b,
            decay,
            beta: Beta::Logits { rounded: false, scale: 1.0 },
            l2norm: Some(1e-6),
            scale: None,
            heads: HeadMap::Grouped,
            pool,
            source: Source::Slots((0..batch as i32).collect()),
            start: StartFlags::None,
            target: Target::InPlace,
            null_slot: None,
            intermediate: None,
            round_state: false,
            out: Some(Out { dtype: io, stride: values }),
            tables: TableForm::default(),
            omit_zeros: false,
        };
        problem.fill_pool(batch.max(1), seed + 1);
        problem
    }
}

/// A plain decode of GDN.
pub fn plain(shape: HeadShape, batch: usize, state: DType, seed: u64) -> Problem {
    Plain::new(shape, Tokens::One { batch }, state, seed).problem()
}

/// A plain recurrent call of GDN, with as many tokens for each sequence.
pub fn draft(shape: HeadShape, batch: usize, tokens: usize, state: DType, seed: u64) -> Problem {
    Plain::new(shape, Tokens::Each { batch, tokens }, state, seed).problem()
}

impl Problem {
    /// A dense pool of `slots` slots, filled anew.
    pub fn fill_pool(&mut self, slots: usize, seed: u64) {
        let values = Noise::new(seed).normals(slots * self.elements(), 0.1);
        self.pool.data = values.into_iter().map(|x| round(x, self.pool.dtype)).collect();
        (self.pool.slots, self.pool.pitch) = (slots, self.elements());
    }

    /// Other values in the pool.
    pub fn fill_pool_values(&mut self, seed: u64) {
        let (slots, pitch) = (self.pool.slots, self.pool.pitch);
        self.fill_pool(slots, seed);
        self.pool.pitch = pitch;
    }

    /// No pool: sequences start from zeros, and end in a tensor of final states.
    pub fn start_from_zeros(&mut self) {
        self.fill_pool(0, 0);
        self.source = Source::Zeros;
        self.keep_final_states();
    }

    /// A dense tensor of final states, one for each sequence, as target.
    pub fn keep_final_states(&mut self) {
        self.target = Target::Sequences { slots: self.tokens.batch(), pitch: self.elements() };
    }

    /// A dense buffer of states: sequence n's row is n.
    pub fn keep_each_state(&mut self, steps: usize) {
        let (rows, pitch) = (self.tokens.batch(), steps * self.elements());
        self.intermediate = Some(Intermediate { dtype: None, rows, steps, pitch, row: None, parent: None });
    }

    /// A buffer as by [`Self::keep_each_state`], and drafts that are trees.
    pub fn make_tree(&mut self, steps: usize, parents: &[i32]) {
        self.keep_each_state(steps);
        self.intermediate =
            self.intermediate.take().map(|i| Intermediate { parent: Some(parents.into()), ..i });
    }

    /// Other types of q, k and v.
    pub fn retype_inputs(&mut self, io: DType) {
        for x in [&mut self.q, &mut self.k, &mut self.v] {
            *x = x.retyped(io);
        }
    }

    /// Log decays given, of a type, between -3 and 0; in KDA by value head or by key head.
    pub fn give_decays(&mut self, dtype: DType, per_key_head: bool, noise: &mut Noise) {
        let HeadShape { h, hv, k, .. } = self.shape;
        let width = match (self.family, per_key_head) {
            (Family::Gdn, _) => hv,
            (Family::Kda, false) => hv * k,
            (Family::Kda, true) => h * k,
        } as usize;
        self.decay = if per_key_head { Decay::GivenPerKeyHead } else { Decay::Given };
        let decays = noise.uniforms(self.tokens.total() * width, -3.0, 0.0);
        self.a = Strided::dense(dtype, width, decays);
    }

    /// Betas given, of a type; by head or by row of V.
    pub fn give_betas(&mut self, dtype: DType, per_value: bool, noise: &mut Noise) {
        let width = if per_value { self.width() } else { self.shape.hv as usize };
        self.beta = if per_value { Beta::GivenPerValue } else { Beta::Given };
        self.b = Strided::dense(dtype, width, noise.uniforms(self.tokens.total() * width, 0.0, 1.0));
    }

    /// Raw keys and queries, of norm one so that the recurrence stays stable.
    pub fn drop_l2norm(&mut self) {
        self.l2norm = None;
        let shrink = (self.shape.k as f32).sqrt().recip();
        for x in [&mut self.q, &mut self.k] {
            x.data.iter_mut().for_each(|value| *value = round(*value * shrink, x.dtype));
        }
    }
}
