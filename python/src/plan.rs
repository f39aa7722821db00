//! Plans and capabilities as Python sees them.

use crate::error::argument;
use gdn_host::{Caps, Plan};
use pyo3::prelude::*;

/// The least compute capability that there are kernels for, 8.0.
const LEAST_COMPUTE: u32 = 80;

/// What a plan depends on of a GPU.
#[pyclass(frozen, from_py_object, name = "Caps", module = "gdn")]
#[derive(Clone)]
pub struct PyCaps {
    pub caps: Caps,
}

#[pymethods]
impl PyCaps {
    #[new]
    #[pyo3(signature = (sms, compute, memory_gbps=0))]
    fn new(sms: u32, compute: u32, memory_gbps: u32) -> PyResult<PyCaps> {
        if sms == 0 {
            return Err(argument("sms", "0 is not allowed, a GPU has multiprocessors"));
        }
        if compute < LEAST_COMPUTE {
            return Err(argument(
                "compute",
                format!("{compute} is not covered, kernels need {LEAST_COMPUTE}"),
            ));
        }
        Ok(PyCaps { caps: Caps { sms, compute, memory_gbps } })
    }

    #[getter]
    fn sms(&self) -> u32 {
        self.caps.sms
    }

    #[getter]
    fn compute(&self) -> u32 {
        self.caps.compute
    }

    #[getter]
    fn memory_gbps(&self) -> u32 {
        self.caps.memory_gbps
    }

    fn __repr__(&self) -> String {
        let Caps { sms, compute, memory_gbps } = self.caps;
        format!("Caps(sms={sms}, compute={compute}, memory_gbps={memory_gbps})")
    }
}

/// One launch: which kernel, block and grid.
#[pyclass(frozen, name = "Plan", module = "gdn")]
#[derive(Clone)]
pub struct PyPlan {
    plan: Plan,
    is_empty: bool,
}

impl PyPlan {
    pub fn new(plan: Plan, is_empty: bool) -> PyPlan {
        PyPlan { plan, is_empty }
    }
}

#[pymethods]
impl PyPlan {
    /// The kernel's entry.
    #[getter]
    fn entry(&self) -> String {
        self.plan.entry()
    }

    /// The module that holds the kernel.
    #[getter]
    fn module(&self) -> String {
        self.plan.module.to_string()
    }

    /// Rows of V that a block works on; 0 if the operation has no tiles.
    #[getter]
    fn bv(&self) -> u32 {
        self.plan.bv
    }

    /// Blocks.
    #[getter]
    fn grid(&self) -> (u32, u32, u32) {
        let [x, y, z] = self.plan.grid;
        (x, y, z)
    }

    /// Threads of a block.
    #[getter]
    fn block(&self) -> u32 {
        self.plan.block()
    }

    /// Whether it is launched before its predecessor in the stream has ended.
    #[getter]
    fn early(&self) -> bool {
        self.plan.early
    }

    /// Whether there is nothing to launch.
    #[getter]
    fn is_empty(&self) -> bool {
        self.is_empty
    }

    fn __str__(&self) -> String {
        if self.is_empty { "nothing to launch".into() } else { self.plan.to_string() }
    }

    fn __repr__(&self) -> String {
        format!("<gdn.Plan {}>", self.__str__())
    }
}
