//! What the examples share: a GPU, the inputs of a small layer, and the f64 oracle that results are held against.
#![allow(dead_code, reason = "no example needs all of it")]

use bytemuck::{Pod, cast_slice, pod_read_unaligned};
use gdn_host::driver::{Context, DeviceBuffer, DriverError, OwnedStream};
use gdn_host::reference::recurrence::{self, Between, Gate, Step, Token, sequence};
use gdn_host::{
    ALog, DType, DtBias, Family, HeadMap, HeadShape, Inputs, Key, Logits, LowerBound, Query, Rows, Softplus,
    StatePool, Table, Tensor, Value,
};
use std::ops::Range;

/// Two key heads, four value heads, states of 128 x 128.
pub const SHAPE: HeadShape = HeadShape { h: 2, hv: 4, k: 128, v: 128 };
/// Elements of a token's q or k.
pub const KEYS: usize = 2 * 128;
/// Elements of a token's v or output.
pub const VALUES: usize = 4 * 128;
/// Elements of a sequence's state.
pub const STATE: usize = 4 * 128 * 128;
/// eps of norms in Qwen.
pub const EPS: f32 = 1e-6;
/// The least log decay in Kimi-K3.
const BOUND: f32 = -5.0;

/// What `main` of an example returns.
pub type Outcome = Result<(), Box<dyn std::error::Error>>;

/// A GPU, and a stream of it.
pub struct Gpu {
    /// Its primary context, current on this thread.
    pub context: Context,
    /// Where the example's work is queued.
    pub stream: OwnedStream,
}

impl Gpu {
    /// The first GPU. Without one the process says so and ends with 2.
    pub fn open() -> Gpu {
        let open = || {
            let context = Context::primary(0)?;
            let stream = OwnedStream::new(&context)?;
            Ok(Gpu { context, stream })
        };
        open().unwrap_or_else(|error: DriverError| {
            eprintln!("this example needs a GPU and its driver: {error}");
            std::process::exit(2)
        })
    }

    /// Values in memory of the GPU.
    pub fn upload<T: Pod>(&self, values: &[T]) -> Result<DeviceBuffer, DriverError> {
        DeviceBuffer::from_slice(&self.context, cast_slice(values))
    }

    /// Memory for so many f32, all of them NaN until they are written.
    pub fn empty(&self, len: usize) -> Result<DeviceBuffer, DriverError> {
        self.upload(&vec![f32::NAN; len])
    }

    /// What is in a buffer of f32 when all that was queued has run.
    pub fn download(&self, buffer: &DeviceBuffer) -> Result<Vec<f32>, DriverError> {
        self.stream.synchronize()?;
        let bytes = buffer.read(0, buffer.len())?;
        Ok(bytes.chunks_exact(size_of::<f32>()).map(pod_read_unaligned).collect())
    }
}

/// A buffer of f32 as calls know it.
pub fn tensor(buffer: &DeviceBuffer) -> Tensor {
    Tensor::new(buffer.address(), DType::F32, (buffer.len() / size_of::<f32>()) as u64)
}

/// Packed rows of so many f32.
pub fn rows(buffer: &DeviceBuffer, width: usize) -> Rows {
    Rows { tensor: tensor(buffer), stride: width as u64 }
}

/// Packed states of a pool.
pub fn pool(tensor: Tensor) -> StatePool {
    StatePool::packed(tensor.address, tensor.dtype, (tensor.len / STATE as u64) as u32, &SHAPE)
}

/// A table of i32, an entry for each sequence.
pub fn table(buffer: &DeviceBuffer) -> Table {
    Table::i32(buffer.address(), (buffer.len() / size_of::<i32>()) as u64)
}

/// Smooth, repeatable numbers between -1 and 1.
pub fn wave(len: usize, step: f32) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * step).sin()).collect()
}

/// Small states for so many slots.
pub fn states(slots: usize) -> Vec<f32> {
    wave(slots * STATE, 0.0113).iter().map(|x| 0.1 * x).collect()
}

/// The oracle's numbers.
pub fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// The inputs of a layer for some tokens, in host memory.
pub struct Layer {
    pub family: Family,
    pub q: Vec<f32>,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
    pub a: Vec<f32>,
    pub b: Vec<f32>,
    pub a_log: Vec<f32>,
    pub dt_bias: Vec<f32>,
}

/// The same in memory of a GPU. Holds what `inputs` borrows.
pub struct OnGpu {
    handles: Handles,
    _buffers: [DeviceBuffer; 7],
}

/// The same as handles, whoever owns the memory.
pub struct Handles {
    pub q: Tensor,
    pub k: Tensor,
    pub v: Tensor,
    pub a: Tensor,
    pub b: Tensor,
    pub a_log: Tensor,
    pub dt_bias: Tensor,
}

impl Layer {
    /// Inputs for so many tokens.
    pub fn new(family: Family, tokens: usize) -> Layer {
        let hv = SHAPE.hv as usize;
        let gate = gate_width(family);
        Layer {
            family,
            q: wave(tokens * KEYS, 0.37),
            k: wave(tokens * KEYS, 0.59),
            v: wave(tokens * VALUES, 0.83),
            a: wave(tokens * gate, 1.3),
            b: wave(tokens * hv, 1.7),
            a_log: wave(hv, 0.9),
            dt_bias: wave(gate, 0.7),
        }
    }

    /// Copies them to a GPU.
    pub fn upload(&self, gpu: &Gpu) -> Result<OnGpu, DriverError> {
        let all = [&self.q, &self.k, &self.v, &self.a, &self.b, &self.a_log, &self.dt_bias];
        let [q, k, v, a, b, a_log, dt_bias] = all.map(|values| gpu.upload(values));
        let buffers = [q?, k?, v?, a?, b?, a_log?, dt_bias?];
        let [q, k, v, a, b, a_log, dt_bias] = buffers.each_ref().map(tensor);
        Ok(OnGpu { handles: Handles { q, k, v, a, b, a_log, dt_bias }, _buffers: buffers })
    }

    /// The oracle: the tokens of a sequence, which are rows of the inputs, from the state that it starts from.
    pub fn oracle(&self, tokens: Range<usize>, start: &[f32]) -> Vec<Step> {
        let (q, k, v) = (wide(&self.q), wide(&self.k), wide(&self.v));
        self.oracle_of(&q, &k, &v, tokens, start)
    }

    /// The same with other q, k and v.
    pub fn oracle_of(
        &self,
        q: &[f64],
        k: &[f64],
        v: &[f64],
        tokens: Range<usize>,
        start: &[f32],
    ) -> Vec<Step> {
        let (a, b, a_log, dt_bias) = (wide(&self.a), wide(&self.b), wide(&self.a_log), wide(&self.dt_bias));
        let (a_log, dt_bias) = (&*a_log, &*dt_bias);
        let gate = match self.family {
            Family::Gdn => Gate::Softplus { a_log, dt_bias, beta: 1.0, threshold: 20.0 },
            Family::Kda => Gate::LowerBound { a_log, dt_bias, bound: BOUND.into() },
        };
        let layer = recurrence::Layer {
            shape: SHAPE,
            family: self.family,
            heads: HeadMap::Grouped,
            gate,
            beta: recurrence::Beta::Logits { scale: 1.0, rounded: None },
            l2norm: Some(EPS.into()),
            scale: f64::from(SHAPE.k).sqrt().recip(),
        };
        let width = gate_width(self.family);
        let token = |t: usize| Token {
            q: &q[t * KEYS..][..KEYS],
            k: &k[t * KEYS..][..KEYS],
            v: &v[t * VALUES..][..VALUES],
            a: &a[t * width..][..width],
            b: &b[t * SHAPE.hv as usize..][..SHAPE.hv as usize],
        };
        sequence(&layer, &tokens.map(token).collect::<Vec<_>>(), &wide(start), &Between::default())
    }
}

impl OnGpu {
    /// As calls take them.
    pub fn inputs(&self, family: Family) -> Inputs {
        self.handles.inputs(family)
    }

    /// The same with other q, k and v.
    pub fn inputs_of(&self, family: Family, q: Query, k: Key, v: Value) -> Inputs {
        self.handles.inputs_of(family, q, k, v)
    }
}

impl Handles {
    /// As calls take them: GDN with the gate of Qwen, KDA with that of Kimi-K3.
    pub fn inputs(&self, family: Family) -> Inputs {
        let rows = |tensor, width: usize| Rows { tensor, stride: width as u64 };
        let (q, k, v) = (Query(rows(self.q, KEYS)), Key(rows(self.k, KEYS)), Value(rows(self.v, VALUES)));
        self.inputs_of(family, q, k, v)
    }

    fn inputs_of(&self, family: Family, q: Query, k: Key, v: Value) -> Inputs {
        let a = Rows { tensor: self.a, stride: gate_width(family) as u64 };
        let beta = Logits::new(Rows { tensor: self.b, stride: SHAPE.hv.into() });
        let (a_log, dt_bias) = (ALog(self.a_log), DtBias(self.dt_bias));
        match family {
            Family::Gdn => Inputs::gdn(SHAPE, q, k, v, Softplus::new(a, a_log, dt_bias), beta),
            Family::Kda => Inputs::kda(SHAPE, q, k, v, LowerBound::new(a, a_log, dt_bias, BOUND), beta),
        }
    }
}

/// Gate inputs of a token: one a value head, in KDA one for each of its keys.
fn gate_width(family: Family) -> usize {
    match family {
        Family::Gdn => SHAPE.hv as usize,
        Family::Kda => (SHAPE.hv * SHAPE.k) as usize,
    }
}

/// Prints how far a result is from what it should be; an error if that is too far.
pub fn judge(what: &str, got: &[f32], want: &[f64]) -> Result<(), String> {
    const TOLERANCE: f64 = 1e-5;
    let worst = got.iter().zip(want).map(|(g, w)| (f64::from(*g) - w).abs());
    // A NaN is the worst of all, and `max` would drop it.
    let worst = worst.fold(0.0, |worst: f64, d| if d.is_nan() { f64::INFINITY } else { worst.max(d) });
    println!("{what}: largest difference from f64 {worst:.1e}");
    let is_right = got.len() == want.len() && worst <= TOLERANCE;
    if is_right { Ok(()) } else { Err(format!("{what} is wrong")) }
}
