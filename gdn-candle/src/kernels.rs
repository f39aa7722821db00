//! The loaded kernels of each device.

use crate::run::Launch;
use candle_core::cuda_backend::cudarc::driver::sys::CUstreamCaptureStatus;
use candle_core::cuda_backend::{CudaDevice, WrapErr as _};
use candle_core::{Error, Result};
use gdn_host::driver::{Context, Stream};
use gdn_host::{Caps, Gdn, ModuleKey, Operation, Tile};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The kernels of a device's primary context.
struct Loaded {
    caps: Caps,
    modules: HashMap<ModuleKey, Arc<Gdn>>,
}

/// By ordinal. There are as many as GPUs, and of each at most as many modules as there are.
static DEVICES: LazyLock<RwLock<HashMap<usize, Loaded>>> = LazyLock::new(RwLock::default);

/// A thread that panicked within a lock left the table whole: entries are made before they are put in.
fn devices() -> RwLockReadGuard<'static, HashMap<usize, Loaded>> {
    DEVICES.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn devices_mut() -> RwLockWriteGuard<'static, HashMap<usize, Loaded>> {
    DEVICES.write().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Loads modules onto a device, those that are not there yet.
pub(crate) fn preload(device: &CudaDevice, keys: &[ModuleKey]) -> Result<()> {
    keys.iter().try_for_each(|key| module(device, *key).map(drop))
}

/// Unloads what a device has.
pub(crate) fn unload(device: &CudaDevice) {
    let loaded = devices_mut().remove(&device.cuda_stream().context().ordinal());
    // Modules are unloaded outside of the lock.
    drop(loaded);
}

/// The modules that a device has.
pub(crate) fn loaded(device: &CudaDevice) -> Vec<ModuleKey> {
    let devices = devices();
    let of_device = devices.get(&device.cuda_stream().context().ordinal());
    of_device.map_or_else(Vec::new, |loaded| loaded.modules.keys().copied().collect())
}

/// Plans and launches a call on a device's stream.
pub(crate) fn launch(device: &CudaDevice, call: &dyn Operation, launch: Launch) -> Result<()> {
    call.check().map_err(Error::wrap)?;
    if call.is_empty() {
        return Ok(());
    }
    let stream = device.cuda_stream();
    stream.context().bind_to_thread().w()?;
    let caps = caps(device)?;
    let key = call.plan(&caps, Tile::Auto).map_err(Error::wrap)?.module;
    let gdn = module(device, key)?;
    let launch = gdn_host::Launch { early: matches!(launch, Launch::Early), ..Default::default() };
    // SAFETY: the call's addresses are of storages that the caller holds locked, on this device and in the order of this
    // stream; the context is current, and it is the device's primary one, in which the kernels were loaded.
    unsafe {
        let stream = Stream::from_raw(stream.cu_stream().cast());
        gdn.run_with(call, launch, stream).map_err(Error::wrap)
    }
}

/// What a device can do.
fn caps(device: &CudaDevice) -> Result<Caps> {
    let ordinal = device.cuda_stream().context().ordinal();
    if let Some(loaded) = devices().get(&ordinal) {
        return Ok(loaded.caps);
    }
    let context = Context::current().map_err(Error::wrap)?;
    let caps = gdn_host::device_caps(context.device()).map_err(Error::wrap)?;
    devices_mut().entry(ordinal).or_insert_with(|| Loaded { caps, modules: HashMap::new() });
    Ok(caps)
}

/// A module of a device, loaded if it is not there.
fn module(device: &CudaDevice, key: ModuleKey) -> Result<Arc<Gdn>> {
    let stream = device.cuda_stream();
    let ordinal = stream.context().ordinal();
    if let Some(gdn) = devices().get(&ordinal).and_then(|loaded| loaded.modules.get(&key)) {
        return Ok(gdn.clone());
    }
    if stream.capture_status().w()? != CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE {
        candle_core::bail!("{key} was not loaded before the capture: name it in gdn_candle::preload");
    }
    stream.context().bind_to_thread().w()?;
    let caps = caps(device)?;
    let gdn = Arc::new(Gdn::load(&[key]).map_err(Error::wrap)?);
    let mut devices = devices_mut();
    let loaded = devices.entry(ordinal).or_insert_with(|| Loaded { caps, modules: HashMap::new() });
    // Another thread may have been first.
    Ok(loaded.modules.entry(key).or_insert(gdn).clone())
}
