//! Gated RMSNorm, head by head.

use super::memory::{read_run, write_run};
use crate::call::GatedRmsNorm;
use crate::reference::norm::gated_rmsnorm;

impl GatedRmsNorm {
    /// The call on host memory.
    ///
    /// # Safety
    /// As [`super::run`]; the call was checked.
    pub(crate) unsafe fn on_host(&self) {
        let v = u64::from(self.v);
        let [x, z, out] = self.arguments().map(|(_, rows, heads)| (rows, heads));
        // SAFETY: the caller's promise.
        unsafe {
            let weight = read_run(&self.weight, 0, v);
            for token in 0..u64::from(self.tokens) {
                for head in 0..u64::from(self.hv) {
                    let [x_at, z_at, out_at] =
                        [x, z, out].map(|(rows, heads)| token * rows.stride + head * heads);
                    let (x, z) = (read_run(&x.0.tensor, x_at, v), read_run(&z.0.tensor, z_at, v));
                    let result = gated_rmsnorm(&x, &z, &weight, self.activation, self.eps.into());
                    write_run(&out.0.tensor, out_at, &result);
                }
            }
        }
    }
}
