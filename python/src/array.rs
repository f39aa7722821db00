//! What Python hands over: torch tensors, and numpy arrays.
//!
//! An [`Array`] is where memory is and how it lies. Reading one allocates nothing: it takes a call of C (`exchange`), or, of a
//! tensor that does not know it, five of Python.

use crate::error::argument;
use crate::exchange;
use gdn_host::{DType, Entry, Rows, SlotPool, Table, Tensor};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};

/// Most dimensions of an argument.
pub const RANK: usize = 8;

/// Device of memory that the CPU works on.
pub const CPU: i64 = -1;

/// What elements are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Of a tensor.
    Element(DType),
    /// Of a table.
    Entry(Entry),
}

impl Type {
    fn of_name(name: &str) -> Option<Type> {
        Some(match name {
            "float32" => Type::Element(DType::F32),
            "bfloat16" => Type::Element(DType::Bf16),
            "float16" => Type::Element(DType::F16),
            "int32" => Type::Entry(Entry::I32),
            "uint32" => Type::Entry(Entry::U32),
            "int64" => Type::Entry(Entry::I64),
            "uint8" | "bool" => Type::Entry(Entry::U8),
            _ => return None,
        })
    }

    fn size(self) -> i64 {
        match self {
            Type::Element(dtype) => dtype.size() as i64,
            Type::Entry(entry) => entry.size() as i64,
        }
    }
}

/// torch's types, by the addresses of their objects, which live as long as torch does.
static TORCH_TYPES: PyOnceLock<Vec<(usize, Type)>> = PyOnceLock::new();

/// Tells the types of torch apart: `types` has them by name.
pub fn know_torch_types(py: Python, types: &Bound<PyDict>) -> PyResult<()> {
    let mut known = Vec::new();
    for (name, object) in types.iter() {
        if let Some(dtype) = Type::of_name(&name.extract::<String>()?) {
            known.push((object.as_ptr().addr(), dtype));
        }
    }
    TORCH_TYPES.get_or_init(py, || known);
    Ok(())
}

/// A tensor or an array.
#[derive(Clone, Copy)]
pub struct Array {
    /// What the argument is called.
    pub field: &'static str,
    address: u64,
    dtype: Type,
    rank: usize,
    shape: [i64; RANK],
    /// Of elements.
    strides: [i64; RANK],
}

/// Reads the arguments of a call, which have to be on one device.
pub struct Reader {
    device: Option<(i64, &'static str)>,
}

impl Reader {
    pub fn new() -> Reader {
        Reader { device: None }
    }

    /// The device that all arguments are on.
    pub fn device(&self) -> i64 {
        self.device.map_or(CPU, |(device, _)| device)
    }

    /// An argument that is only read.
    pub fn read(&mut self, field: &'static str, object: &Bound<PyAny>) -> PyResult<Array> {
        self.any(field, object, false)
    }

    /// An argument that is written.
    pub fn write(&mut self, field: &'static str, object: &Bound<PyAny>) -> PyResult<Array> {
        self.any(field, object, true)
    }

    fn any(&mut self, field: &'static str, object: &Bound<PyAny>, written: bool) -> PyResult<Array> {
        let (array, device) = match exchange::read(field, object) {
            Some(read) => read,
            None => Array::of_attributes(field, object, written)?,
        };
        if array.address == 0 && array.elements() > 0 {
            return Err(argument(field, "it has no memory, as tensors on the device \"meta\" do not"));
        }
        match self.device {
            Some((first, of)) if first != device => {
                let name = |device: i64| if device == CPU { "cpu".into() } else { format!("cuda:{device}") };
                let problem = format!("it is on {}, {of} is on {}", name(device), name(first));
                Err(argument(field, problem))
            }
            Some(_) => Ok(array),
            None => {
                self.device = Some((device, field));
                Ok(array)
            }
        }
    }
}

/// The numbers of a tuple, and how many they are.
fn numbers(field: &'static str, tuple: &Bound<PyAny>) -> PyResult<([i64; RANK], usize)> {
    let tuple = tuple.cast::<PyTuple>()?;
    let rank = tuple.len();
    if rank > RANK {
        return Err(argument(field, format!("it has {rank} dimensions, at most {RANK} are taken")));
    }
    let mut numbers = [0; RANK];
    for (number, item) in numbers.iter_mut().zip(tuple.iter_borrowed()) {
        *number = item.extract()?;
    }
    Ok((numbers, rank))
}

impl Array {
    pub fn new(
        field: &'static str,
        address: u64,
        dtype: Type,
        rank: usize,
        shape: [i64; RANK],
        strides: [i64; RANK],
    ) -> Array {
        Array { field, address, dtype, rank, shape, strides }
    }

    fn of_attributes(field: &'static str, object: &Bound<PyAny>, written: bool) -> PyResult<(Array, i64)> {
        match object.getattr_opt(intern!(object.py(), "data_ptr"))? {
            Some(data_ptr) => Array::of_torch(field, object, &data_ptr),
            None => Ok((Array::of_numpy(field, object, written)?, CPU)),
        }
    }

    fn of_torch(
        field: &'static str,
        tensor: &Bound<PyAny>,
        data_ptr: &Bound<PyAny>,
    ) -> PyResult<(Array, i64)> {
        let py = tensor.py();
        let dtype = tensor.getattr(intern!(py, "dtype"))?;
        let known = TORCH_TYPES.get(py).and_then(|known| {
            let pointer = dtype.as_ptr().addr();
            known.iter().find(|(of, _)| *of == pointer).map(|(_, dtype)| *dtype)
        });
        let dtype = known.ok_or_else(|| argument(field, format!("type {dtype} is not taken")))?;
        let device: i64 = tensor.call_method0(intern!(py, "get_device"))?.extract()?;
        let (shape, rank) = numbers(field, &tensor.getattr(intern!(py, "shape"))?)?;
        let (strides, _) = numbers(field, &tensor.call_method0(intern!(py, "stride"))?)?;
        let address = data_ptr.call0()?.extract()?;
        Ok((Array { field, address, dtype, rank, shape, strides }, device))
    }

    fn of_numpy(field: &'static str, array: &Bound<PyAny>, written: bool) -> PyResult<Array> {
        let py = array.py();
        let Some(interface) = array.getattr_opt(intern!(py, "__array_interface__"))? else {
            let have = array.get_type().name()?;
            return Err(argument(field, format!("a torch tensor or a numpy array is wanted, not {have}")));
        };
        let interface = interface.cast::<PyDict>()?;
        let item = |name: &str| interface.get_item(name)?.ok_or_else(|| argument(field, "it has no memory"));
        let (address, read_only): (u64, bool) = item("data")?.extract()?;
        if written && read_only {
            return Err(argument(field, "it is written, and the array is read-only"));
        }
        let name: String = array.getattr(intern!(py, "dtype"))?.getattr(intern!(py, "name"))?.extract()?;
        let dtype = Type::of_name(&name);
        let dtype = dtype.ok_or_else(|| argument(field, format!("type {name} is not taken")))?;
        if item("typestr")?.extract::<String>()?.starts_with('>') {
            return Err(argument(field, "its bytes are in the other order"));
        }
        let (shape, rank) = numbers(field, &item("shape")?)?;
        let (mut strides, _) = numbers(field, &array.getattr(intern!(py, "strides"))?)?;
        for stride in &mut strides[..rank] {
            if *stride % dtype.size() != 0 {
                return Err(argument(field, format!("a stride of {stride} bytes is not one of {name}")));
            }
            *stride /= dtype.size();
        }
        Ok(Array { field, address, dtype, rank, shape, strides })
    }

    /// Whether it has another's type, shape and strides.
    pub fn lies_as(&self, other: &Array) -> bool {
        let lies = |of: &Array| (of.dtype, of.rank, of.shape, of.strides);
        lies(self) == lies(other)
    }

    pub fn shape(&self) -> &[i64] {
        &self.shape[..self.rank]
    }

    /// A dimension's length; negative dimensions count from the last.
    pub fn dim(&self, at: i64) -> u64 {
        let at = if at < 0 { at + self.rank as i64 } else { at };
        usize::try_from(at).ok().and_then(|at| self.shape().get(at)).map_or(0, |dim| *dim as u64)
    }

    pub fn rank(&self) -> usize {
        self.rank
    }

    pub fn elements(&self) -> u64 {
        self.shape().iter().map(|dim| *dim as u64).product()
    }

    /// Refuses the shape.
    pub fn wrong_shape(&self, want: &str) -> PyErr {
        argument(self.field, format!("shape {:?} does not fit, expected {want}", self.shape()))
    }

    fn wrong_strides(&self, want: &str) -> PyErr {
        let (shape, strides) = (self.shape(), &self.strides[..self.rank]);
        argument(self.field, format!("strides {strides:?} of shape {shape:?} are not taken: {want}"))
    }

    /// The type of a tensor.
    pub fn dtype(&self) -> PyResult<DType> {
        match self.dtype {
            Type::Element(dtype) => Ok(dtype),
            Type::Entry(entry) => {
                let problem = format!("type {} does not fit, expected f32, bf16 or f16", entry.name());
                Err(argument(self.field, problem))
            }
        }
    }

    /// Elements that `dims` step over if they lie behind one another; `None` if they do not.
    fn packed(&self, dims: std::ops::Range<usize>, unit: i64) -> Option<i64> {
        let mut expected = unit;
        for at in dims.rev() {
            if self.shape[at] != 1 && self.strides[at] != expected {
                return None;
            }
            expected *= self.shape[at];
        }
        Some(expected)
    }

    /// Rows of `width` elements: trailing dimensions make the row, the others count rows a stride apart.
    pub fn rows(&self, width: u64, count: u64) -> PyResult<Rows> {
        let dtype = self.dtype()?;
        let mut from = self.rank;
        let mut elements = 1;
        while from > 0 && elements < width {
            from -= 1;
            elements *= self.shape[from] as u64;
        }
        let have = self.shape[..from].iter().map(|dim| *dim as u64).product::<u64>();
        if elements != width || have != count {
            return Err(self.wrong_shape(&format!("{count} rows of {width} elements")));
        }
        self.packed(from..self.rank, 1)
            .ok_or_else(|| self.wrong_strides("the elements of a row lie behind one another"))?;
        let stride = self.row_stride(from, width)?;
        let len = if count == 0 { 0 } else { (count - 1) * stride + width };
        Ok(Rows { tensor: Tensor::new(self.address, dtype, len), stride })
    }

    /// The one distance between neighbouring rows, which the dimensions before `to` count.
    fn row_stride(&self, to: usize, width: u64) -> PyResult<u64> {
        let Some(last) = (0..to).rev().find(|at| self.shape[*at] > 1) else { return Ok(width) };
        let stride = self.strides[last];
        let apart = self.packed(0..last, stride * self.shape[last]);
        apart.ok_or_else(|| self.wrong_strides("rows are one stride apart"))?;
        u64::try_from(stride).map_err(|_| self.wrong_strides("rows follow one another in memory"))
    }

    /// Heads of `v` elements: `[.., HV, V]`, or `[tokens * HV, V]`. The memory, elements between tokens, and between heads.
    pub fn head_rows(&self, tokens: u64, heads: u64, v: u64) -> PyResult<(Tensor, u64, u64)> {
        let want = || self.wrong_shape(&format!("{tokens} tokens of {heads} heads of {v} elements"));
        let dtype = self.dtype()?;
        if self.rank == 0 || self.dim(-1) != v || self.elements() != tokens * heads * v {
            return Err(want());
        }
        let last = self.rank - 1;
        self.packed(last..self.rank, 1)
            .ok_or_else(|| self.wrong_strides("the elements of a head lie behind one another"))?;
        let by_head = self.rank > 2 && self.dim(-2) == heads;
        let (stride, head_stride) = if by_head {
            let head_stride = if heads > 1 { self.stride(last - 1)? } else { v };
            (self.row_stride(last - 1, heads * head_stride)?, head_stride)
        } else {
            let head_stride = self.row_stride(last, v)?;
            (heads * head_stride, head_stride)
        };
        let rows = |count: u64, stride: u64| count.saturating_sub(1) * stride;
        let len = if tokens == 0 { 0 } else { rows(tokens, stride) + rows(heads, head_stride) + v };
        Ok((Tensor::new(self.address, dtype, len), stride, head_stride))
    }

    /// A dense tensor of so many elements.
    pub fn dense(&self, len: u64, want: &str) -> PyResult<Tensor> {
        let dtype = self.dtype()?;
        if self.elements() != len {
            return Err(self.wrong_shape(want));
        }
        self.packed(0..self.rank, 1).ok_or_else(|| self.wrong_strides("it is contiguous"))?;
        Ok(Tensor::new(self.address, dtype, len))
    }

    /// A pool: the first dimension counts slots a pitch apart, and what is in a slot lies behind one another.
    pub fn pool(&self) -> PyResult<SlotPool> {
        let dtype = self.dtype()?;
        self.packed(1..self.rank, 1)
            .ok_or_else(|| self.wrong_strides("what is in a slot lies behind one another"))?;
        let elements: u64 = self.shape()[1..].iter().map(|dim| *dim as u64).product();
        let (slots, pitch) = self.slots(elements)?;
        let len = if slots == 0 { 0 } else { (u64::from(slots) - 1) * pitch + elements };
        Ok(SlotPool { tensor: Tensor::new(self.address, dtype, len), slots, pitch, layout: None })
    }

    /// Slots that the first dimension counts, and their pitch.
    pub fn slots(&self, elements: u64) -> PyResult<(u32, u64)> {
        let slots = self.dim(0);
        let slots =
            u32::try_from(slots).map_err(|_| argument(self.field, format!("{slots} slots are too many")))?;
        let pitch = if slots > 1 { self.strides[0] } else { elements as i64 };
        let pitch =
            u64::try_from(pitch).map_err(|_| self.wrong_strides("slots follow one another in memory"))?;
        Ok((slots, pitch))
    }

    /// Elements from one entry of a dimension to the next.
    pub fn stride(&self, at: usize) -> PyResult<u64> {
        u64::try_from(self.strides[at]).map_err(|_| self.wrong_strides("strides are not negative"))
    }

    pub fn address(&self) -> u64 {
        self.address
    }

    /// A table with a row for each entry of the first dimension.
    pub fn table(&self) -> PyResult<Table> {
        let entry = match self.dtype {
            Type::Entry(entry) => entry,
            Type::Element(dtype) => {
                let want = "int32, uint32 or int64 (flags: bool, uint8)";
                return Err(argument(
                    self.field,
                    format!("type {} does not fit, expected {want}", dtype.name()),
                ));
            }
        };
        if !(1..=2).contains(&self.rank) {
            return Err(self.wrong_shape("one or two dimensions"));
        }
        let columns = if self.rank == 2 { self.dim(1) } else { 1 };
        if self.rank == 2 && columns > 1 && self.strides[1] != 1 {
            return Err(self.wrong_strides("the entries of a row lie behind one another"));
        }
        let len = self.dim(0);
        let stride = if len > 1 { self.stride(0)? } else { columns };
        Ok(Table { address: self.address, entry, len, columns, stride })
    }
}
