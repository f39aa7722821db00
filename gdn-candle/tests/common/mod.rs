//! Recorded cases and values as candle tensors.
#![allow(dead_code, reason = "no test needs all of it")]

use candle_core::{DType, Device, Result, Tensor};
use gdn_tests::problem::{self, Problem};
use gdn_tests::random::Noise;
use gdn_tests::strided::Strided;

/// The type of candle that a kernels' type is.
pub fn dtype(dtype: gdn_host::DType) -> DType {
    match dtype {
        gdn_host::DType::F32 => DType::F32,
        gdn_host::DType::Bf16 => DType::BF16,
        gdn_host::DType::F16 => DType::F16,
    }
}

/// Values of a type; the dimension that is 0 is what remains.
pub fn tensor(data: &[f32], of: gdn_host::DType, dims: &[usize]) -> Result<Tensor> {
    let known: usize = dims.iter().filter(|dim| **dim != 0).product();
    let rest = data.len() / known.max(1);
    let dims: Vec<usize> = dims.iter().map(|dim| if *dim == 0 { rest } else { *dim }).collect();
    Tensor::from_slice(data, dims, &Device::Cpu)?.to_dtype(dtype(of))
}

/// Rows of a case with dimensions of their own.
pub fn rows(x: &Strided, dims: &[usize]) -> Result<Tensor> {
    tensor(&x.data, x.dtype, &[&[0][..], dims].concat())
}

/// A tensor's elements, whatever its strides.
pub fn values(x: &Tensor) -> Vec<f32> {
    x.contiguous().and_then(|x| x.to_dtype(DType::F32)?.flatten_all()?.to_vec1()).unwrap()
}

/// Normal values that a type holds exactly.
pub fn noise(seed: u64, dims: &[usize], of: DType) -> Tensor {
    let values = Noise::new(seed).normals(dims.iter().product(), 0.5);
    Tensor::from_slice(&values, dims, &Device::Cpu).and_then(|x| x.to_dtype(of)).unwrap()
}

/// Inputs of `tokens` tokens of a type, q, k and v in tensors of their own; the gate is the same for every seed.
pub fn random_inputs(
    shape: gdn_candle::HeadShape,
    tokens: usize,
    of: DType,
    family: gdn_candle::Family,
    seed: u64,
) -> gdn_candle::Inputs {
    use gdn_candle::{Beta, Family, Gate, Inputs};
    let [h, hv, k, v] = [shape.h, shape.hv, shape.k, shape.v].map(|dim| dim as usize);
    let columns = if family == Family::Kda { vec![hv, k] } else { vec![hv] };
    let a = noise(seed + 4, &[&[tokens][..], &columns].concat(), of);
    let gate = Gate::softplus(&noise(5, &[hv], DType::F32), &noise(6, &columns, DType::F32));
    let (q, key) = (noise(seed + 1, &[tokens, h, k], of), noise(seed + 2, &[tokens, h, k], of));
    let value = noise(seed + 3, &[tokens, hv, v], of);
    let beta = Beta::logits(&noise(seed + 7, &[tokens, hv], of));
    Inputs { family, ..Inputs::gdn(shape, &q, &key, &value, gate.of(&a), beta) }
}

/// The first line of what an error says: behind it stands a backtrace, where those are asked for.
pub fn text<T>(result: Result<T>) -> String {
    let text = result.err().expect("it should be refused").to_string();
    text.lines().next().unwrap_or_default().to_owned()
}

/// A problem's inputs.
pub fn inputs(p: &Problem) -> Result<gdn_candle::Inputs> {
    use gdn_candle::{Beta, Decay, Family, Gate, GateKind, Inputs};
    let [h, hv, k, v] = [p.shape.h, p.shape.hv, p.shape.k, p.shape.v].map(|dim| dim as usize);
    let (q, keys, values) = (rows(&p.q, &[h, k])?, rows(&p.k, &[h, k])?, rows(&p.v, &[hv, v])?);
    let columns = if p.family == Family::Kda { vec![hv, k] } else { vec![hv] };
    let gate = |kind, a_log: &Strided, dt_bias: &Strided| -> Result<Decay> {
        let a_log = Some(tensor(&a_log.data, a_log.dtype, &[hv])?);
        let dt_bias = Some(tensor(&dt_bias.data, dt_bias.dtype, &columns)?);
        Ok(Gate { kind, a_log, dt_bias }.of(&rows(&p.a, &columns)?))
    };
    let decay = match &p.decay {
        problem::Decay::Softplus { a_log, dt_bias, beta, threshold } => {
            assert_eq!((*beta, *threshold), (1.0, 20.0), "no recorded model has others");
            gate(GateKind::Softplus, a_log, dt_bias)?
        }
        problem::Decay::LowerBound { a_log, dt_bias, bound } => {
            gate(GateKind::LowerBound(*bound), a_log, dt_bias)?
        }
        problem::Decay::Given => Decay::Given(rows(&p.a, &columns)?),
        problem::Decay::GivenPerKeyHead => Decay::GivenPerKeyHead(rows(&p.a, &[h, k])?),
    };
    let beta = match p.beta {
        problem::Beta::Logits { rounded, scale } => Beta::Logits { b: rows(&p.b, &[hv])?, rounded, scale },
        problem::Beta::Given => Beta::Given(rows(&p.b, &[hv])?),
        problem::Beta::GivenPerValue => Beta::GivenPerValue(rows(&p.b, &[hv, v])?),
    };
    let inputs = match p.packed_stride {
        // Columns of a wider row, as they are in memory.
        Some(stride) => {
            let total = p.tokens.total();
            let width = 2 * h * k + hv * v;
            let rest = Tensor::zeros((total, stride - width), q.dtype(), &Device::Cpu)?;
            let flat = |x: &Tensor| x.flatten_from(1);
            let wide = Tensor::cat(&[&flat(&q)?, &flat(&keys)?, &flat(&values)?, &rest], 1)?;
            Inputs::packed(p.shape, p.family, &wide.narrow(1, 0, width)?, decay, beta)?
        }
        None => Inputs { family: p.family, ..Inputs::gdn(p.shape, &q, &keys, &values, decay, beta) },
    };
    let out = p.out.map(|out| dtype(out.dtype));
    Ok(Inputs { l2norm: p.l2norm, scale: p.scale, heads: p.heads, round_state: p.round_state, out, ..inputs })
}

/// States `[.., HV, V, K]` in a layout.
pub fn states(data: &[f32], of: gdn_host::DType, lead: &[usize], p: &Problem) -> Result<Tensor> {
    let [hv, v, k] = [p.shape.hv, p.shape.v, p.shape.k].map(|dim| dim as usize);
    let states = tensor(data, of, &[lead, &[hv, v, k]].concat())?;
    let last = states.rank() - 1;
    match p.pool.layout {
        gdn_host::Layout::Vk => Ok(states),
        gdn_host::Layout::Kv => states.transpose(last - 1, last)?.contiguous(),
    }
}

/// States of a tensor in the order of `[.., HV, V, K]`.
pub fn states_back(states: &Tensor, layout: gdn_host::Layout) -> Vec<f32> {
    let last = states.rank() - 1;
    match layout {
        gdn_host::Layout::Vk => values(states),
        gdn_host::Layout::Kv => values(&states.transpose(last - 1, last).unwrap()),
    }
}
