//! What the examples decode: two sequences of a small layer, and what the result must be.

use gdn_host::reference::recurrence::{self, Between, Gate, Layer, Token, sequence};
use gdn_host::{
    ALog, Decode, DtBias, Family, HeadMap, HeadShape, Inputs, Key, Logits, Query, Rows, Softplus, StatePool,
    Table, Tensor, Value,
};
use half::bf16;

/// Two key heads, four value heads of 128 x 128.
pub const SHAPE: HeadShape = HeadShape { h: 2, hv: 4, k: 128, v: 128 };
/// Sequences.
pub const BATCH: usize = 2;
/// Slots of the pool; the sequences use slots 2 and 0.
pub const SLOTS: usize = 3;
const SLOT: [i32; BATCH] = [2, 0];

/// The layer's inputs in host memory.
pub struct Host {
    pub q: Vec<bf16>,
    pub k: Vec<bf16>,
    pub v: Vec<bf16>,
    pub a: Vec<bf16>,
    pub b: Vec<bf16>,
    pub a_log: Vec<f32>,
    pub dt_bias: Vec<f32>,
    pub state: Vec<f32>,
    pub slots: Vec<i32>,
    pub out: Vec<bf16>,
}

/// The same on the device, as handles.
pub struct Tensors {
    pub q: Tensor,
    pub k: Tensor,
    pub v: Tensor,
    pub a: Tensor,
    pub b: Tensor,
    pub a_log: Tensor,
    pub dt_bias: Tensor,
    pub state: Tensor,
    pub slots: Table,
    pub out: Tensor,
}

/// Smooth, repeatable numbers between -1 and 1.
fn wave(len: usize, step: f32) -> impl Iterator<Item = f32> {
    (0..len).map(move |i| (i as f32 * step).sin())
}

impl Host {
    /// The inputs.
    pub fn new() -> Self {
        let (keys, values) = (SHAPE.key_elements() as usize, SHAPE.value_elements() as usize);
        let hv = SHAPE.hv as usize;
        let half = |len, step| wave(len, step).map(bf16::from_f32).collect();
        Host {
            q: half(BATCH * keys, 0.37),
            k: half(BATCH * keys, 0.59),
            v: half(BATCH * values, 0.83),
            a: half(BATCH * hv, 1.3),
            b: half(BATCH * hv, 1.7),
            a_log: wave(hv, 0.9).collect(),
            dt_bias: wave(hv, 0.7).collect(),
            state: wave(SLOTS * SHAPE.state_elements() as usize, 0.0113).map(|x| 0.1 * x).collect(),
            slots: SLOT.to_vec(),
            out: vec![bf16::ZERO; BATCH * values],
        }
    }

    /// Largest difference of a result from the f64 oracle: output and state.
    pub fn error(&self, out: &[bf16], state: &[f32]) -> (f64, f64) {
        let wide = |x: &[bf16]| x.iter().map(|x| x.to_f64()).collect::<Vec<_>>();
        let wide32 = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        let (a_log, dt_bias) = (wide32(&self.a_log), wide32(&self.dt_bias));
        let layer = Layer {
            shape: SHAPE,
            family: Family::Gdn,
            heads: HeadMap::Grouped,
            gate: Gate::Softplus { a_log: &a_log, dt_bias: &dt_bias, beta: 1.0, threshold: 20.0 },
            beta: recurrence::Beta::Logits { scale: 1.0, rounded: None },
            l2norm: Some(1e-6),
            scale: f64::from(SHAPE.k).sqrt().recip(),
        };
        let (q, k, v) = (wide(&self.q), wide(&self.k), wide(&self.v));
        let (a, b) = (wide(&self.a), wide(&self.b));
        let (mut want_out, mut want_state) = (Vec::new(), wide32(&self.state));
        for (n, slot) in SLOT.into_iter().enumerate() {
            let row = |x: &[f64]| n * x.len() / BATCH..(n + 1) * x.len() / BATCH;
            let token =
                Token { q: &q[row(&q)], k: &k[row(&k)], v: &v[row(&v)], a: &a[row(&a)], b: &b[row(&b)] };
            let elements = SHAPE.state_elements() as usize;
            let state = &mut want_state[slot as usize * elements..][..elements];
            for step in sequence(&layer, &[token], state, &Between::default()) {
                want_out.extend(step.out);
                state.copy_from_slice(&step.state);
            }
        }
        let worst = |got: Vec<f64>, want: Vec<f64>| {
            got.iter().zip(&want).map(|(g, w)| (g - w).abs()).fold(0.0, f64::max)
        };
        (worst(wide(out), want_out), worst(wide32(state), want_state))
    }
}

/// The call on device memory.
pub fn call(t: &Tensors) -> Decode {
    let rows = |tensor: Tensor, width: u64| Rows { tensor, stride: width };
    let (keys, values, hv) = (SHAPE.key_elements(), SHAPE.value_elements(), u64::from(SHAPE.hv));
    let (q, k, v) = (Query(rows(t.q, keys)), Key(rows(t.k, keys)), Value(rows(t.v, values)));
    let decay = Softplus::new(rows(t.a, hv), ALog(t.a_log), DtBias(t.dt_bias));
    let inputs = Inputs::gdn(SHAPE, q, k, v, decay, Logits::new(rows(t.b, hv)));
    let state = StatePool::packed(t.state.address, t.state.dtype, SLOTS as u32, &SHAPE);
    Decode::new(inputs, BATCH as u32, state, rows(t.out, values)).with_slots(t.slots)
}

/// Prints the verdict on a result, and fails if it is wrong.
pub fn judge(what: &str, host: &Host, out: &[bf16], state: &[f32]) {
    let (out, state) = host.error(out, state);
    println!("{what}: output off by {out:.1e}, state by {state:.1e}");
    assert!(out < 2e-3 && state < 1e-6, "the result is wrong");
}
