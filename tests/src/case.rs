//! Recorded cases: files in the format of `tests/golden/README.md`, and the problems they state.

use crate::problem::{Problem, StartFlags};
use crate::strided::{Strided, decode_values};
use anyhow::{Context as _, Result, bail, ensure};
use gdn_host::{DType, HeadMap, HeadShape};
use safetensors::{Dtype, SafeTensors};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// A case file, read but not yet understood.
pub struct Case {
    /// File name.
    pub file: String,
    bytes: Vec<u8>,
    meta: HashMap<String, String>,
}

/// A decode case: the problem, and what the recorded kernel made of it.
pub struct DecodeCase {
    /// Inputs and options.
    pub problem: Problem,
    /// Recorded output, `[N, HV, V]`.
    pub out: Vec<f32>,
    /// Recorded state, `[slots, HV, V, K]`.
    pub state: Vec<f32>,
    /// Whether the recorded kernel defines the output of padded rows.
    pub pad_rows_defined: bool,
}

/// A tensor of a case.
struct Values {
    dtype: DType,
    shape: Vec<usize>,
    data: Vec<f32>,
}

impl Case {
    /// Reads a file.
    ///
    /// # Errors
    /// An unreadable file, or one that is no safetensors file with metadata.
    pub fn read(path: &Path) -> Result<Case> {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let (_, header) = SafeTensors::read_metadata(&bytes)
            .with_context(|| format!("{} is no safetensors file", path.display()))?;
        let meta = header.metadata().clone().context("the file has no metadata")?;
        let file = path.file_name().map_or_else(String::new, |f| f.to_string_lossy().into_owned());
        Ok(Case { file, bytes, meta })
    }

    /// A metadata value.
    pub fn meta(&self, key: &str) -> Result<&str> {
        self.meta.get(key).map(String::as_str).with_context(|| format!("metadata {key} is missing"))
    }

    /// The operation the case records.
    pub fn op(&self) -> &str {
        self.meta.get("op").map_or("", String::as_str)
    }

    fn number<T: std::str::FromStr>(&self, key: &str) -> Result<T> {
        let text = self.meta(key)?;
        text.parse().ok().with_context(|| format!("metadata {key} = {text:?} is no number"))
    }

    fn flag(&self, key: &str) -> Result<bool> {
        match self.meta(key)? {
            "1" => Ok(true),
            "0" => Ok(false),
            other => bail!("metadata {key} = {other:?} is no flag"),
        }
    }

    /// Refuses a case whose metadata key is not one of `allowed`.
    fn demand(&self, key: &str, allowed: &[&str]) -> Result<()> {
        let value = self.meta(key)?;
        ensure!(allowed.contains(&value), "{key} = {value} is not supported for {}", self.op());
        Ok(())
    }

    fn values(&self, name: &str) -> Result<Values> {
        let file = SafeTensors::deserialize(&self.bytes)?;
        let tensor = file.tensor(name).with_context(|| format!("tensor {name} is missing"))?;
        let dtype = match tensor.dtype() {
            Dtype::F32 => DType::F32,
            Dtype::BF16 => DType::Bf16,
            Dtype::F16 => DType::F16,
            other => bail!("tensor {name} has type {other:?}"),
        };
        let data = decode_values(tensor.data(), dtype);
        Ok(Values { dtype, shape: tensor.shape().to_vec(), data })
    }

    fn indices(&self, name: &str) -> Result<Vec<i32>> {
        let file = SafeTensors::deserialize(&self.bytes)?;
        let tensor = file.tensor(name).with_context(|| format!("tensor {name} is missing"))?;
        ensure!(tensor.dtype() == Dtype::I32, "tensor {name} has type {:?}", tensor.dtype());
        let words = tensor.data().chunks_exact(4);
        Ok(words.map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    /// The case as a decode problem.
    ///
    /// # Errors
    /// A case of another operation, or one that uses something decode does not do: the text says what.
    pub fn decode(&self) -> Result<DecodeCase> {
        ensure!(is_decode(self.op()), "operation {} is not supported", self.op());
        self.demand("T", &["1"])?;
        self.demand("gate_kind", &["gdn"])?;
        self.demand("gate", &["softplus", "precomputed"])?;
        self.demand("layout", &["VK"])?;
        self.demand("state_update", &["1"])?;
        self.demand("beta_rounding", &["none", "b_dtype"])?;
        let beta_scale: f32 = self.number("softplus_beta")?;
        ensure!(beta_scale == 1.0, "softplus_beta = {beta_scale} is not supported");

        let shape =
            HeadShape::new(self.number("H")?, self.number("HV")?, self.number("K")?, self.number("V")?)?;
        let batch: usize = self.number("B")?;
        let (keys, values) = (shape.key_elements() as usize, shape.value_elements() as usize);
        let (q, k, v, packed_stride) = self.projections(batch, keys, values)?;
        let rows = |name: &str, width: usize| -> Result<Strided> {
            let x = self.values(name)?;
            ensure!(x.data.len() == batch * width, "tensor {name} has shape {:?}", x.shape);
            Ok(Strided::dense(x.dtype, width, x.data))
        };
        let hv = shape.hv as usize;
        let given = self.meta("gate")? == "precomputed";
        let (a, b, gate) = if given {
            (rows("g", hv)?, rows("beta", hv)?, None)
        } else {
            let (a_log, dt_bias) = (self.values("A_log")?, self.values("dt_bias")?);
            let gate = (
                Strided::dense(a_log.dtype, hv, a_log.data),
                Strided::dense(dt_bias.dtype, hv, dt_bias.data),
            );
            (rows("a", hv)?, rows("b", hv)?, Some(gate))
        };

        let (before, after) = (self.values("state_in")?, self.values("state_out")?);
        let slots: usize = self.number("slots")?;
        let elements = shape.state_elements() as usize;
        for (name, x) in [("state_in", &before), ("state_out", &after)] {
            ensure!(x.data.len() == slots * elements, "tensor {name} has shape {:?}", x.shape);
        }
        let slot = self.indices("slot_idx")?;
        ensure!(slot.len() == batch, "slot_idx has {} entries for B = {batch}", slot.len());
        let out = self.values("out")?;
        ensure!(out.data.len() == batch * values, "tensor out has shape {:?}", out.shape);

        let problem = Problem {
            shape,
            batch,
            q,
            k,
            v,
            packed_stride,
            a,
            b,
            gate,
            threshold: self.number("softplus_threshold")?,
            beta_given: given,
            beta_rounded: self.meta("beta_rounding")? == "b_dtype",
            state_type: before.dtype,
            state: before.data,
            slots,
            pitch: self.number("slot_pitch")?,
            slot,
            write_slot: None,
            null_slot: None,
            start: StartFlags::None,
            out_type: out.dtype,
            out_stride: values,
            l2norm: if self.flag("l2norm")? { Some(self.number("eps")?) } else { None },
            scale: Some(self.number("scale")?),
            heads: HeadMap::Grouped,
        };
        let pad_rows_defined = self.meta("pad_row_out")? == "zero";
        Ok(DecodeCase { problem, out: out.data, state: after.data, pad_rows_defined })
    }

    /// q, k and v: tensors of their own, or columns of `mixed_qkv`, then with the stride of its rows.
    fn projections(
        &self,
        batch: usize,
        keys: usize,
        values: usize,
    ) -> Result<(Strided, Strided, Strided, Option<usize>)> {
        if let Ok(mixed) = self.values("mixed_qkv") {
            let stride = mixed.shape.last().copied().unwrap_or(0);
            let wide = mixed.data.len() == batch * stride && stride >= 2 * keys + values;
            ensure!(wide, "tensor mixed_qkv has shape {:?}", mixed.shape);
            let columns = |from: usize, width: usize| {
                let rows = mixed.data.chunks(stride);
                let data = rows.flat_map(|row| row[from..from + width].to_vec()).collect();
                Strided::dense(mixed.dtype, width, data)
            };
            let (q, k, v) = (columns(0, keys), columns(keys, keys), columns(2 * keys, values));
            return Ok((q, k, v, Some(stride)));
        }
        let rows = |name: &str, width: usize| -> Result<Strided> {
            let x = self.values(name)?;
            ensure!(x.data.len() == batch * width, "tensor {name} has shape {:?}", x.shape);
            Ok(Strided::dense(x.dtype, width, x.data))
        };
        Ok((rows("q", keys)?, rows("k", keys)?, rows("v", values)?, None))
    }
}

/// Whether an operation of the case format is single-token GDN decode.
pub fn is_decode(op: &str) -> bool {
    matches!(op, "decode_sigmoid_gating" | "packed_decode")
}

/// The case files of a directory, by name.
///
/// # Errors
/// An unreadable directory, or one without a case file.
pub fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "safetensors") {
            files.push(path);
        }
    }
    files.sort();
    ensure!(!files.is_empty(), "{} holds no .safetensors file", dir.display());
    Ok(files)
}
