//! Recorded cases: files in the format of `tests/golden/README.md`. What the cases of an operation state is read in
//! a file of its own.

pub mod recurrence;
mod summary;

use crate::strided::{Strided, decode_values};
use anyhow::{Context as _, Result, bail, ensure};
use gdn_host::DType;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

pub use summary::Recorder;

/// A case file, read but not yet understood.
pub struct Case {
    /// File name.
    pub file: String,
    bytes: Vec<u8>,
    meta: HashMap<String, String>,
}

/// A tensor of a case.
pub struct Values {
    /// Element type.
    pub dtype: DType,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Elements.
    pub data: Vec<f32>,
}

impl Values {
    /// The same as dense rows of `width` elements.
    pub fn rows(self, width: usize) -> Strided {
        Strided::dense(self.dtype, width, self.data)
    }
}

impl Case {
    /// Reads a file.
    ///
    /// # Errors
    /// An unreadable file, or one that is no whole safetensors file with metadata. The text does not name the file.
    pub fn read(path: &Path) -> Result<Case> {
        let bytes = std::fs::read(path).context("the file cannot be read")?;
        SafeTensors::deserialize(&bytes).context("it is no whole safetensors file")?;
        let (_, header) = SafeTensors::read_metadata(&bytes)?;
        let meta = header.metadata().clone().context("the file has no metadata to say what it records")?;
        let file = path.file_name().map_or_else(String::new, |f| f.to_string_lossy().into_owned());
        Ok(Case { file, bytes, meta })
    }

    /// A metadata value.
    pub fn meta(&self, key: &str) -> Result<&str> {
        self.meta.get(key).map(String::as_str).with_context(|| format!("metadata `{key}` is missing"))
    }

    /// The operation the case records.
    pub fn op(&self) -> &str {
        self.meta.get("op").map_or("", String::as_str)
    }

    /// A metadata value that is a number.
    pub fn number<T: std::str::FromStr>(&self, key: &str) -> Result<T> {
        let text = self.meta(key)?;
        text.parse()
            .ok()
            .with_context(|| format!("metadata `{key}` is {text:?}, which is no number of its kind"))
    }

    /// A metadata value that is a flag.
    pub fn flag(&self, key: &str) -> Result<bool> {
        match self.meta(key)? {
            "1" => Ok(true),
            "0" => Ok(false),
            other => bail!("metadata `{key}` is {other:?}: a flag is \"0\" or \"1\""),
        }
    }

    /// Refuses a case whose metadata key is there and not one of `allowed`.
    pub fn demand(&self, key: &str, allowed: &[&str]) -> Result<()> {
        let value = self.meta.get(key).map(String::as_str);
        let sound = value.is_none_or(|value| allowed.contains(&value));
        ensure!(
            sound,
            "metadata `{key}` is {:?}, which is not supported for {}",
            value.unwrap_or_default(),
            self.op()
        );
        Ok(())
    }

    /// Whether there is a tensor of that name.
    pub fn has(&self, name: &str) -> bool {
        SafeTensors::deserialize(&self.bytes).is_ok_and(|file| file.tensor(name).is_ok())
    }

    /// What is read of a tensor, if there is one of that name.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn if_there<T>(&self, name: &str, read: impl FnOnce(&str) -> Result<T>) -> Result<Option<T>> {
        self.has(name).then(|| read(name)).transpose()
    }

    fn tensor(&self, name: &str) -> Result<TensorView<'_>> {
        let file = SafeTensors::deserialize(&self.bytes)?;
        // The error says no more than that.
        file.tensor(name).ok().with_context(|| format!("tensor `{name}` is missing"))
    }

    /// A tensor of numbers.
    pub fn values(&self, name: &str) -> Result<Values> {
        let tensor = self.tensor(name)?;
        let dtype = match tensor.dtype() {
            Dtype::F32 => DType::F32,
            Dtype::BF16 => DType::Bf16,
            Dtype::F16 => DType::F16,
            other => bail!("tensor `{name}` has type {other}, not F32, BF16 or F16"),
        };
        let data = decode_values(tensor.data(), dtype);
        Ok(Values { dtype, shape: tensor.shape().to_vec(), data })
    }

    /// A tensor of `len` numbers.
    pub fn sized(&self, name: &str, len: usize) -> Result<Values> {
        let values = self.values(name)?;
        let have = values.data.len();
        ensure!(have == len, "tensor `{name}` has shape {:?}: {have} elements, not {len}", values.shape);
        Ok(values)
    }

    /// A tensor of `rows` rows of `width` numbers.
    pub fn rows(&self, name: &str, rows: usize, width: usize) -> Result<Strided> {
        Ok(self.sized(name, rows * width)?.rows(width))
    }

    /// A tensor of `len` indices, i32 or i64.
    pub fn indices(&self, name: &str, len: usize) -> Result<Vec<i64>> {
        let tensor = self.tensor(name)?;
        let bytes = tensor.data();
        let indices: Vec<i64> = match tensor.dtype() {
            Dtype::I32 => bytes.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b).into()).collect(),
            Dtype::I64 => bytes.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect(),
            other => bail!("tensor `{name}` has type {other}, not I32 or I64"),
        };
        ensure!(indices.len() == len, "tensor `{name}` has {} entries, not {len}", indices.len());
        Ok(indices)
    }

    /// A tensor of `len` i32.
    pub fn indices32(&self, name: &str, len: usize) -> Result<Vec<i32>> {
        let narrow = self.indices(name, len)?.into_iter().map(i32::try_from);
        narrow
            .collect::<Result<_, _>>()
            .ok()
            .with_context(|| format!("tensor `{name}` holds an index beyond i32"))
    }
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
