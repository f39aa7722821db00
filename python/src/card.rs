//! The GPUs of the process: contexts, and the modules that were loaded for each.

use crate::error::{failed, not_launched, not_loaded};
use gdn_host::driver::{Context, DriverError, Stream};
use gdn_host::{Error, Gdn, Launch, LoadError, ModuleKey, Operation};
use pyo3::prelude::*;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

/// Most GPUs of a machine.
const MOST: usize = 64;

/// A GPU in its primary context, the one of PyTorch.
pub struct Card {
    context: Context,
    /// Everything that was loaded; replaced by more when a module is added.
    gdn: RwLock<Arc<Gdn>>,
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
    let card = Card::open(ordinal as u32)?;
    Ok(cell.get_or_init(|| card))
}

impl Card {
    fn open(ordinal: u32) -> PyResult<Card> {
        let refused = |error: DriverError| failed(format!("device {ordinal}: {error}"));
        let before = Context::current();
        let context = Context::primary(ordinal).map_err(refused)?;
        let gdn = Gdn::load(&[]);
        // Opening makes the context current; whatever was stays.
        if let Ok(before) = before {
            before.make_current().map_err(refused)?;
        }
        let gdn = Arc::new(gdn.map_err(|error| not_loaded(&error))?);
        Ok(Card { context, gdn: RwLock::new(gdn), loading: Mutex::default() })
    }

    /// Everything that was loaded.
    pub fn gdn(&self) -> Arc<Gdn> {
        self.gdn.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Loads a module, if it was not.
    pub fn load(&self, key: ModuleKey) -> Result<(), LoadError> {
        let _loading = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        let more = Arc::new(self.gdn().with_modules(&[key])?);
        *self.gdn.write().unwrap_or_else(PoisonError::into_inner) = more;
        Ok(())
    }

    /// Launches a call.
    ///
    /// # Safety
    /// As [`Gdn::run_with`].
    pub unsafe fn launch<C: Operation + Sync>(
        &self,
        py: Python,
        call: &C,
        launch: Launch,
        stream: u64,
    ) -> PyResult<()> {
        // SAFETY: torch's stream, alive while the call is made.
        let stream = unsafe { Stream::from_raw(stream as usize as *mut _) };
        let launched = || {
            let gdn = self.gdn();
            py.detach(|| {
                let _entered = self.context.enter()?;
                // SAFETY: the caller's promise.
                unsafe { gdn.run_with(call, launch, stream) }
            })
        };
        let result = match launched() {
            // It was checked, and there is nothing to launch.
            Err(Error::NotLoaded(_)) if call.is_empty() => Ok(()),
            Err(Error::NotLoaded(key)) => {
                // Loading synchronises, which a capture does not survive.
                // SAFETY: the stream is alive, and of the context.
                let capturing = unsafe { self.context.is_capturing(stream) };
                if capturing.map_err(failed)? {
                    let how = "call gdn.load, or make the call once, before the capture";
                    return Err(failed(format!(
                        "{key} is not loaded, and a stream is being captured: {how}"
                    )));
                }
                py.detach(|| self.load(key)).map_err(|error| not_loaded(&error))?;
                launched()
            }
            result => result,
        };
        result.map_err(|error| not_launched(&error))
    }
}
