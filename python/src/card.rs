//! The GPUs of the process: contexts, and the modules that were loaded for each.

use crate::error::{failed, not_launched, not_loaded};
use gdn_host::driver::{Context, Device, DriverError, Stream};
use gdn_host::{Caps, Gdn, Launch, LoadError, ModuleKey, Operation, device_caps};
use pyo3::prelude::*;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

/// Most GPUs of a machine.
const MOST: usize = 64;

/// A GPU in its primary context, the one of PyTorch.
pub struct Card {
    context: Context,
    caps: Caps,
    modules: RwLock<HashMap<ModuleKey, Arc<Gdn>>>,
    /// Held while a module is loaded, so that no two threads load one.
    loading: Mutex<()>,
}

static CARDS: [OnceLock<Card>; MOST] = [const { OnceLock::new() }; MOST];

/// The GPU of an ordinal, as CUDA counts the visible ones.
pub fn card(ordinal: i64) -> PyResult<&'static Card> {
    let cell = usize::try_from(ordinal).ok().and_then(|at| CARDS.get(at));
    let cell =
        cell.ok_or_else(|| failed(format!("device {ordinal}: GPUs are counted from 0 to {}", MOST - 1)))?;
    if let Some(card) = cell.get() {
        return Ok(card);
    }
    let card = Card::open(ordinal as u32).map_err(|error| failed(format!("device {ordinal}: {error}")))?;
    Ok(cell.get_or_init(|| card))
}

impl Card {
    fn open(ordinal: u32) -> Result<Card, DriverError> {
        let caps = device_caps(Device::new(ordinal)?)?;
        let before = Context::current();
        let context = Context::primary(ordinal)?;
        // Opening makes the context current; whatever was stays.
        if let Ok(before) = before {
            before.make_current()?;
        }
        Ok(Card { context, caps, modules: RwLock::default(), loading: Mutex::default() })
    }

    pub fn caps(&self) -> &Caps {
        &self.caps
    }

    fn find(&self, key: ModuleKey) -> Option<Arc<Gdn>> {
        self.modules.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned()
    }

    /// Loads a module, if it was not.
    pub fn load(&self, key: ModuleKey) -> Result<Arc<Gdn>, LoadError> {
        let _loading = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gdn) = self.find(key) {
            return Ok(gdn);
        }
        let entered = self.context.enter();
        let _entered =
            entered.map_err(|source| LoadError::Driver { what: "primary context".into(), source })?;
        let gdn = Arc::new(Gdn::load(&[key])?);
        self.modules.write().unwrap_or_else(PoisonError::into_inner).insert(key, gdn.clone());
        Ok(gdn)
    }

    /// Names of the files that were loaded.
    pub fn files(&self) -> Vec<&'static str> {
        let modules = self.modules.read().unwrap_or_else(PoisonError::into_inner);
        let mut files: Vec<_> = modules.values().flat_map(|gdn| gdn.files().map(|file| file.name)).collect();
        files.sort_unstable();
        files
    }

    /// Launches a call.
    ///
    /// # Safety
    /// As [`Gdn::run`].
    pub unsafe fn launch<C: Operation + Sync>(
        &self,
        py: Python,
        call: &C,
        launch: Launch,
        stream: u64,
    ) -> PyResult<()> {
        call.check().map_err(|error| crate::error::refused(&error))?;
        if call.is_empty() {
            return Ok(());
        }
        let plan = call.plan(&self.caps, launch.tile).map_err(|error| not_launched(&error.into()))?;
        let gdn = match self.find(plan.module) {
            Some(gdn) => gdn,
            None => {
                refuse_capture(py, plan.module)?;
                py.detach(|| self.load(plan.module)).map_err(|error| not_loaded(&error))?
            }
        };
        py.detach(|| {
            let _entered = self.context.enter()?;
            // SAFETY: torch's stream, alive while the call is made; the caller vouches for the rest.
            unsafe { gdn.run_with(call, launch, Stream::from_raw(stream as usize as *mut _)) }
        })
        .map_err(|error| not_launched(&error))
    }
}

/// Loading synchronises, which a capture does not survive.
fn refuse_capture(py: Python, key: ModuleKey) -> PyResult<()> {
    let modules = py.import("sys")?.getattr("modules")?;
    let Ok(cuda) = modules.get_item("torch.cuda") else { return Ok(()) };
    let capturing: bool = cuda.call_method0("is_current_stream_capturing")?.extract()?;
    if !capturing {
        return Ok(());
    }
    let how = "call gdn.load, or make the call once, before the capture";
    Err(failed(format!("{key} is not loaded, and a stream is being captured: {how}")))
}
