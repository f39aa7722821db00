//! DLPack's C exchange API, which newer versions of torch have: where a tensor's memory is and how it lies, by one call of C.
//!
//! Attributes of Python tell the same, five calls a tensor, and a call has a dozen tensors. What this does not know is read
//! there ([`Array`]).

use crate::array::{Array, CPU, RANK, Type};
use gdn_host::{DType, Entry};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyCapsule, PyTuple};
use std::ffi::{CStr, c_int, c_void};
use std::mem::MaybeUninit;

/// The attribute of a tensor's class, and the name of the capsule that it is.
const ATTRIBUTE: &str = "__dlpack_c_exchange_api__";
const CAPSULE: &CStr = c"dlpack_exchange_api";

/// The version of the structures below, of which later minor versions are extensions.
const MAJOR: u32 = 1;

/// `DLDeviceType`.
const DL_CPU: i32 = 1;
const DL_CUDA: i32 = 2;

/// `DLDataTypeCode`.
const DL_INT: u8 = 0;
const DL_UINT: u8 = 1;
const DL_FLOAT: u8 = 2;
const DL_BFLOAT: u8 = 4;
const DL_BOOL: u8 = 6;

/// `DLTensor`.
#[repr(C)]
struct DlTensor {
    data: *mut c_void,
    device_type: i32,
    device_id: i32,
    ndim: i32,
    code: u8,
    bits: u8,
    lanes: u16,
    shape: *const i64,
    strides: *const i64,
    byte_offset: u64,
}

/// `DLPackDLTensorFromPyObjectNoSync`: 0, or -1 with an exception of Python set.
type Read = unsafe extern "C" fn(object: *mut c_void, tensor: *mut DlTensor) -> c_int;

/// `DLPackExchangeAPI`, as far as it is read.
#[repr(C)]
struct Api {
    major: u32,
    minor: u32,
    previous: *const c_void,
    allocate: *const c_void,
    managed_from_object: *const c_void,
    managed_to_object: *const c_void,
    read: Option<Read>,
}

/// Classes whose objects are read so, by the addresses of the classes; both live as long as torch.
struct Producer {
    classes: Vec<usize>,
    read: Read,
}

static PRODUCER: PyOnceLock<Producer> = PyOnceLock::new();

/// Reads the objects of these classes by the API of the first, if it has one.
pub fn know_classes(py: Python, classes: &Bound<PyTuple>) -> PyResult<()> {
    let Some(read) = reader(&classes.get_item(0)?)? else { return Ok(()) };
    let classes = classes.iter().map(|class| class.as_ptr().addr()).collect();
    PRODUCER.get_or_init(py, || Producer { classes, read });
    Ok(())
}

fn reader(class: &Bound<PyAny>) -> PyResult<Option<Read>> {
    let Some(capsule) = class.getattr_opt(ATTRIBUTE)? else { return Ok(None) };
    let Ok(capsule) = capsule.cast::<PyCapsule>() else { return Ok(None) };
    let Ok(api) = capsule.pointer_checked(Some(CAPSULE)) else { return Ok(None) };
    // SAFETY: the capsule's name says that this is what it holds, and its owner keeps it for the life of the process.
    let api = unsafe { api.cast::<Api>().as_ref() };
    Ok(if api.major == MAJOR { api.read } else { None })
}

/// A tensor and its device; `None` for what has to be read by attributes.
pub fn read(field: &'static str, object: &Bound<PyAny>) -> Option<(Array, i64)> {
    let py = object.py();
    let Producer { classes, read } = PRODUCER.get(py)?;
    if !classes.contains(&object.get_type_ptr().addr()) {
        return None;
    }
    let mut tensor = MaybeUninit::<DlTensor>::zeroed();
    // SAFETY: an object of the producer's class, and memory for what it writes. It borrows from the object, which outlives this.
    let status = unsafe { read(object.as_ptr().cast(), tensor.as_mut_ptr()) };
    if status != 0 {
        // Whatever it is, attributes say it better.
        drop(PyErr::take(py));
        return None;
    }
    // SAFETY: numbers and pointers, all zeros before it was written.
    let tensor = unsafe { tensor.assume_init() };
    let rank = usize::try_from(tensor.ndim).ok().filter(|rank| *rank <= RANK)?;
    let dtype = tensor.dtype()?;
    let device = match tensor.device_type {
        DL_CPU => CPU,
        DL_CUDA => tensor.device_id.into(),
        _ => return None,
    };
    let (mut shape, mut strides) = ([0; RANK], [0; RANK]);
    if rank > 0 {
        if tensor.shape.is_null() || tensor.strides.is_null() {
            return None;
        }
        // SAFETY: as many dimensions as the tensor has.
        let dims = |of: *const i64| unsafe { std::slice::from_raw_parts(of, rank) };
        shape[..rank].copy_from_slice(dims(tensor.shape));
        strides[..rank].copy_from_slice(dims(tensor.strides));
    }
    let address = (tensor.data.expose_provenance() as u64).wrapping_add(tensor.byte_offset);
    Some((Array::new(field, address, dtype, rank, shape, strides), device))
}

impl DlTensor {
    fn dtype(&self) -> Option<Type> {
        Some(match (self.code, self.bits, self.lanes) {
            (DL_FLOAT, 32, 1) => Type::Element(DType::F32),
            (DL_BFLOAT, 16, 1) => Type::Element(DType::Bf16),
            (DL_FLOAT, 16, 1) => Type::Element(DType::F16),
            (DL_INT, 32, 1) => Type::Entry(Entry::I32),
            (DL_UINT, 32, 1) => Type::Entry(Entry::U32),
            (DL_INT, 64, 1) => Type::Entry(Entry::I64),
            (DL_UINT | DL_BOOL, 8, 1) => Type::Entry(Entry::U8),
            _ => return None,
        })
    }
}
