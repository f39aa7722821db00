//! Devices and what they say about themselves.

use super::symbols::CuDevice;
use super::{Driver, DriverError, call};
use std::ffi::{CStr, c_char, c_int, c_uint};

// CUdevice_attribute.
const MULTIPROCESSOR_COUNT: c_uint = 16;
const MEMORY_CLOCK_RATE: c_uint = 36;
const GLOBAL_MEMORY_BUS_WIDTH: c_uint = 37;
const L2_CACHE_SIZE: c_uint = 38;
const COMPUTE_CAPABILITY_MAJOR: c_uint = 75;
const COMPUTE_CAPABILITY_MINOR: c_uint = 76;

/// A CUDA device. Asking needs no context, and may be done from any thread.
#[derive(Clone, Copy, Debug)]
pub struct Device {
    driver: &'static Driver,
    raw: CuDevice,
}

impl Device {
    /// The number of devices that this process may use; `CUDA_VISIBLE_DEVICES` limits it.
    ///
    /// # Errors
    ///
    /// Those of [`Driver::open`].
    pub fn count() -> Result<u32, DriverError> {
        let driver = Driver::open()?;
        let mut count: c_int = 0;
        // SAFETY: the pointer is to a live int.
        unsafe { call!(driver, cuDeviceGetCount(&mut count)) }?;
        Ok(count.unsigned_abs())
    }

    /// The device of this ordinal, counted from 0.
    ///
    /// # Errors
    ///
    /// Those of [`Driver::open`]; [`DriverError::Call`] with `CUDA_ERROR_INVALID_DEVICE` when there
    /// is no such device.
    pub fn new(ordinal: u32) -> Result<Device, DriverError> {
        Device::with_driver(Driver::open()?, ordinal)
    }

    pub(super) fn with_driver(driver: &'static Driver, ordinal: u32) -> Result<Device, DriverError> {
        let mut raw = 0;
        let ordinal = c_int::try_from(ordinal).unwrap_or(c_int::MAX);
        // SAFETY: the pointer is to a live CUdevice.
        unsafe { call!(driver, cuDeviceGet(&mut raw, ordinal)) }?;
        Ok(Device { driver, raw })
    }

    pub(super) fn from_raw(driver: &'static Driver, raw: CuDevice) -> Device {
        Device { driver, raw }
    }

    pub(super) fn driver(self) -> &'static Driver {
        self.driver
    }

    /// The driver's own number of the device (`CUdevice`), which is its ordinal.
    pub fn as_raw(self) -> i32 {
        self.raw
    }

    /// The marketing name, like `NVIDIA H100 80GB HBM3`.
    ///
    /// # Errors
    ///
    /// [`DriverError::Call`].
    pub fn name(self) -> Result<String, DriverError> {
        let mut name: [c_char; 256] = [0; 256];
        // One byte less than there is, so that the text ends in NUL whatever the driver does.
        // SAFETY: the driver writes at most that many bytes.
        unsafe { call!(self.driver, cuDeviceGetName(name.as_mut_ptr(), 255, self.raw)) }?;
        // SAFETY: the array is initialised and its last byte is still NUL.
        Ok(unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned())
    }

    /// The compute capability, as (major, minor): (9, 0) is sm_90.
    ///
    /// # Errors
    ///
    /// [`DriverError::Call`].
    pub fn compute_capability(self) -> Result<(u32, u32), DriverError> {
        Ok((self.count_of(COMPUTE_CAPABILITY_MAJOR)?, self.count_of(COMPUTE_CAPABILITY_MINOR)?))
    }

    /// The number of streaming multiprocessors (SMs).
    ///
    /// # Errors
    ///
    /// [`DriverError::Call`].
    pub fn sm_count(self) -> Result<u32, DriverError> {
        self.count_of(MULTIPROCESSOR_COUNT)
    }

    /// The size of the L2 cache in bytes.
    ///
    /// # Errors
    ///
    /// [`DriverError::Call`].
    pub fn l2_bytes(self) -> Result<usize, DriverError> {
        Ok(self.count_of(L2_CACHE_SIZE)? as usize)
    }

    /// The size of the device's memory in bytes, used or not.
    ///
    /// # Errors
    ///
    /// [`DriverError::Call`].
    pub fn total_memory(self) -> Result<usize, DriverError> {
        let mut bytes = 0;
        // SAFETY: the pointer is to a live size_t.
        unsafe { call!(self.driver, cuDeviceTotalMem_v2(&mut bytes, self.raw)) }?;
        Ok(bytes)
    }

    /// The memory's peak clock in kHz. Memory transfers twice a clock, on
    /// [`memory_bus_bits`](Self::memory_bus_bits) lines.
    ///
    /// # Errors
    ///
    /// [`DriverError::Call`].
    pub fn memory_clock_khz(self) -> Result<u32, DriverError> {
        self.count_of(MEMORY_CLOCK_RATE)
    }

    /// The width of the memory bus in bits.
    ///
    /// # Errors
    ///
    /// [`DriverError::Call`].
    pub fn memory_bus_bits(self) -> Result<u32, DriverError> {
        self.count_of(GLOBAL_MEMORY_BUS_WIDTH)
    }

    /// Any other attribute, by its number in `CUdevice_attribute`, in the unit that `cuda.h` gives
    /// for it.
    ///
    /// # Errors
    ///
    /// [`DriverError::Call`] with `CUDA_ERROR_INVALID_VALUE` when the driver doesn't know the
    /// number.
    pub fn attribute(self, attribute: u32) -> Result<i32, DriverError> {
        let mut value: c_int = 0;
        // SAFETY: the pointer is to a live int; the driver refuses numbers that it doesn't know.
        unsafe { call!(self.driver, cuDeviceGetAttribute(&mut value, attribute, self.raw)) }?;
        Ok(value)
    }

    fn count_of(self, attribute: c_uint) -> Result<u32, DriverError> {
        Ok(self.attribute(attribute)?.unsigned_abs())
    }
}

impl PartialEq for Device {
    fn eq(&self, other: &Self) -> bool {
        self.raw == other.raw
    }
}

impl Eq for Device {}
