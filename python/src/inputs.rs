//! What the operations of the recurrence have in common: heads, inputs, tables.

use crate::arguments::Arguments;
use crate::array::Array;
use crate::error::argument;
use gdn_host::call::split_mixed_qkv;
use gdn_host::{
    ALog, Beta, Decay, DtBias, Family, HeadMap, HeadShape, Inputs, Key, Layout, Logits, LowerBound, Query,
    Rows, Softplus, Start, StatePool, Table, Tokens, Value,
};
use pyo3::prelude::*;

/// Heads of states, and how they lie.
#[derive(Clone, Copy)]
pub struct Dims {
    pub hv: u64,
    pub v: u64,
    pub k: u64,
    pub layout: Layout,
}

impl Dims {
    /// Of `[slots, HV, V, K]`, or of `[slots, HV, K, V]`.
    pub fn of_state(state: &Array, layout: Layout) -> PyResult<Dims> {
        if state.rank() != 4 {
            return Err(state.wrong_shape("[slots, HV, V, K] ([slots, HV, K, V] in layout KV)"));
        }
        let (hv, rows, columns) = (state.dim(1), state.dim(2), state.dim(3));
        let (v, k) = if layout == Layout::Vk { (rows, columns) } else { (columns, rows) };
        Ok(Dims { hv, v, k, layout })
    }

    /// Where no state is in memory: q is `[.., H, K]` and v `[.., HV, V]`.
    pub fn of_inputs(raw: &Raw, intermediate: Option<&Array>) -> PyResult<Dims> {
        let dims = match (intermediate, &raw.v) {
            (Some(buffer), _) => {
                Dims { hv: buffer.dim(2), v: buffer.dim(3), k: buffer.dim(4), layout: Layout::Vk }
            }
            (None, Some(v)) if raw.q.rank() > 2 && v.rank() > 2 => {
                Dims { hv: v.dim(-2), v: v.dim(-1), k: raw.q.dim(-1), layout: raw.layout }
            }
            _ => return Err(argument("state", "without one q is [.., H, K] and v is [.., HV, V]")),
        };
        Ok(dims)
    }

    /// The dimensions of a state as it lies in memory.
    pub fn state(&self) -> [u64; 3] {
        let (rows, columns) = if self.layout == Layout::Vk { (self.v, self.k) } else { (self.k, self.v) };
        [self.hv, rows, columns]
    }

    pub fn pool(&self, array: &Array) -> PyResult<StatePool> {
        let inner: Vec<u64> = (1..array.rank() as i64).map(|at| array.dim(at)).collect();
        if inner != self.state() {
            return Err(array.wrong_shape(&format!(
                "[slots, {}, {}, {}]",
                self.state()[0],
                self.state()[1],
                self.state()[2]
            )));
        }
        let pool = array.pool()?;
        Ok(StatePool { tensor: pool.tensor, slots: pool.slots, pitch: pool.pitch, layout: self.layout })
    }

    /// With `h` key heads.
    pub fn shape(&self, h: u64) -> PyResult<HeadShape> {
        let [h, hv, k, v] = [("H", h), ("HV", self.hv), ("K", self.k), ("V", self.v)].map(|(name, value)| {
            u32::try_from(value).map_err(|_| argument(name, format!("{value} is too large")))
        });
        let shape = HeadShape { h: h?, hv: hv?, k: k?, v: v? };
        shape.check().map_err(|error| argument("shape", error))?;
        Ok(shape)
    }
}

/// The inputs that all operations have, as they come.
pub struct Raw {
    pub q: Array,
    k: Option<Array>,
    pub v: Option<Array>,
    a: Array,
    b: Array,
    a_log: Option<Array>,
    dt_bias: Option<Array>,
    gate: u8,
    is_beta_given: bool,
    heads: Option<u64>,
    pub layout: Layout,
    map: HeadMap,
    round_beta: bool,
    scale: Option<f32>,
    l2norm: Option<f32>,
    softplus: [f32; 2],
    lower_bound: f32,
    beta_scale: f32,
}

/// Values of `Raw::gate`; `gdn/_schemas.py` has them too.
const SOFTPLUS: u8 = 0;
const LOWER_BOUND: u8 = 1;

/// Which key head a value head has.
pub fn head_map(is_tiled: bool) -> HeadMap {
    if is_tiled { HeadMap::Tiled } else { HeadMap::Grouped }
}

impl Raw {
    pub fn read(args: &mut Arguments) -> PyResult<Raw> {
        Ok(Raw {
            q: args.tensor("q")?,
            k: args.optional("k")?,
            v: args.optional("v")?,
            a: args.tensor("a")?,
            b: args.tensor("b")?,
            a_log: args.optional("A_log")?,
            dt_bias: args.optional("dt_bias")?,
            gate: args.number("gate")?,
            is_beta_given: args.flag("beta")?,
            heads: args.number("heads")?,
            layout: if args.flag("layout")? { Layout::Kv } else { Layout::Vk },
            map: head_map(args.flag("head_map")?),
            round_beta: args.flag("round_beta")?,
            scale: args.number("scale")?,
            l2norm: args.number("l2norm")?,
            softplus: [args.number("softplus_beta")?, args.number("softplus_threshold")?],
            lower_bound: args.number("lower_bound")?,
            beta_scale: args.number("beta_scale")?,
        })
    }

    /// Trailing dimensions of q that are no tokens: `[H, K]`, or one row.
    fn row_dims(&self) -> usize {
        if self.k.is_none() || self.q.rank() == 2 { 1 } else { 2 }
    }

    /// Which tokens are whose.
    pub fn tokens(&self, cu_seqlens: Option<&Array>) -> PyResult<Tokens> {
        let lead = self.q.rank().saturating_sub(self.row_dims());
        let dims: Vec<u64> = (0..lead as i64).map(|at| self.q.dim(at)).collect();
        let total = dims.iter().product();
        if let Some(lengths) = cu_seqlens {
            let table = lengths.table()?;
            let batch = table.len.checked_sub(1).ok_or_else(|| lengths.wrong_shape("[N + 1]"))?;
            return Ok(Tokens::Packed {
                batch: count("cu_seqlens", batch)?,
                total: count("q", total)?,
                cu_seqlens: table,
            });
        }
        match dims[..] {
            [batch, tokens] => Ok(Tokens::Each { batch: count("q", batch)?, tokens: count("q", tokens)? }),
            [batch] => Ok(Tokens::Each { batch: count("q", batch)?, tokens: 1 }),
            _ => Err(self.q.wrong_shape("[N, T, H, K], or tokens of cu_seqlens")),
        }
    }

    /// The inputs, and how many tokens they are.
    pub fn inputs(&self, dims: Dims) -> PyResult<(Inputs, u64)> {
        if self.k.is_some() != self.v.is_some() {
            return Err(argument("k", "k and v are given both, or neither with q, k and v in one row"));
        }
        let row_dims = self.row_dims();
        let Some(lead) = self.q.rank().checked_sub(row_dims) else {
            return Err(self.q.wrong_shape("[.., H, K], or [N, H * K]"));
        };
        let tokens: u64 = self.q.shape()[..lead].iter().map(|dim| *dim as u64).product();
        let width: u64 = self.q.shape()[lead..].iter().map(|dim| *dim as u64).product();
        if row_dims == 2 && self.q.dim(-1) != dims.k {
            return Err(self.q.wrong_shape(&format!("[.., H, {}], with K as the state has it", dims.k)));
        }
        let values = dims.hv * dims.v;
        let keys = match (self.k.is_some(), self.heads) {
            (true, None) => width,
            (_, Some(heads)) => heads * dims.k,
            (false, None) => width.saturating_sub(values) / 2,
        };
        if dims.k == 0 || !keys.is_multiple_of(dims.k) || keys == 0 {
            let what = if self.k.is_some() { "a multiple of K" } else { "2 * H * K + HV * V" };
            let problem =
                format!("rows of {width} elements are not {what} with K = {}, HV * V = {values}", dims.k);
            return Err(argument("q", problem));
        }
        let shape = dims.shape(keys / dims.k)?;
        let (q, k, v) = match (&self.k, &self.v) {
            (Some(k), Some(v)) => (
                Query(self.q.rows(keys, tokens)?),
                Key(k.rows(keys, tokens)?),
                Value(v.rows(values, tokens)?),
            ),
            _ => {
                if width < 2 * keys + values {
                    let problem = format!(
                        "rows of {width} elements are shorter than 2 * H * K + HV * V = {}",
                        2 * keys + values
                    );
                    return Err(argument("mixed_qkv", problem));
                }
                split_mixed_qkv(&self.q.rows(width, tokens)?, &shape)
            }
        };
        let (family, decay) = self.decay(&shape, tokens)?;
        let beta = self.beta(&shape, tokens)?;
        let make = if family == Family::Kda { Inputs::kda } else { Inputs::gdn };
        let mut inputs = make(shape, q, k, v, decay, beta);
        (inputs.scale, inputs.l2norm, inputs.heads) = (self.scale, self.l2norm, self.map);
        Ok((inputs, tokens))
    }

    /// GDN has a decay for a head, KDA K of them: the width of a token's row says which it is.
    fn decay(&self, shape: &HeadShape, tokens: u64) -> PyResult<(Family, Decay)> {
        let is_given = !matches!(self.gate, SOFTPLUS | LOWER_BOUND);
        let [heads, by_value, by_key] =
            [u64::from(shape.hv), u64::from(shape.hv * shape.k), shape.key_elements()];
        let field = if is_given { "g" } else { "a" };
        let width = self.a.elements() / tokens.max(1);
        let (family, width) = match width {
            _ if width == heads || tokens == 0 => (Family::Gdn, heads),
            _ if width == by_value || is_given && width == by_key => (Family::Kda, width),
            _ => {
                let problem = format!(
                    "shape {:?} has {width} elements for each of {tokens} tokens, expected HV = {heads} (GDN) or HV * K = {by_value} (KDA)",
                    self.a.shape()
                );
                return Err(argument(field, problem));
            }
        };
        let a = self.a.rows(width, tokens)?;
        let table = |array: &Option<Array>, len: u64, want: &str| {
            array.as_ref().map(|array| array.dense(len, want)).transpose()
        };
        let biases = if family == Family::Kda { "HV * K elements" } else { "HV elements" };
        let (a_log, dt_bias) =
            (table(&self.a_log, heads, "HV elements")?, table(&self.dt_bias, width, biases)?);
        let (a_log, dt_bias) = (a_log.map(ALog), dt_bias.map(DtBias));
        let decay = match self.gate {
            SOFTPLUS => {
                let [beta, threshold] = self.softplus;
                Softplus::new(a, a_log, dt_bias).with_beta(beta).with_threshold(threshold).into()
            }
            LOWER_BOUND => LowerBound::new(a, a_log, dt_bias, self.lower_bound).into(),
            _ if width == by_key && by_key != by_value => Decay::GivenPerKeyHead(a),
            _ => Decay::Given(a),
        };
        Ok((family, decay))
    }

    fn beta(&self, shape: &HeadShape, tokens: u64) -> PyResult<Beta> {
        let (heads, values) = (u64::from(shape.hv), shape.value_elements());
        if !self.is_beta_given {
            let b: Rows = self.b.rows(heads, tokens)?;
            return Ok(Logits::new(b).with_rounding(self.round_beta).with_scale(self.beta_scale).into());
        }
        let per_value = tokens > 0 && self.b.elements() == tokens * values;
        Ok(if per_value {
            Beta::GivenPerValue(self.b.rows(values, tokens)?)
        } else {
            Beta::Given(self.b.rows(heads, tokens)?)
        })
    }
}

/// A number of rows as calls have it.
pub fn count(field: &str, value: u64) -> PyResult<u32> {
    u32::try_from(value).map_err(|_| argument(field, format!("{value} is past the limit of 2^32 - 1")))
}

/// An optional table.
pub fn table(array: Option<&Array>) -> PyResult<Option<Table>> {
    array.map(Array::table).transpose()
}

/// Which sequences start from zeros.
pub fn start_flags(flags: Option<Array>, inverted: bool) -> PyResult<Start> {
    let Some(flags) = flags else { return Ok(Start::FromSlot) };
    let table = flags.table()?;
    Ok(if inverted { Start::HasInitialState(table) } else { Start::Reset(table) })
}
