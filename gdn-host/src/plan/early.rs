//! How a call is launched, and when a launch is made early.

use super::{Caps, Plan, Tile, Tuning};
use crate::call::Operation;
use crate::gdn::Error;
use crate::key::ModuleKey;
use crate::load::find_module;

/// How a call is launched. The result is the same bit for bit whatever is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Launch {
    /// How the tile is chosen.
    pub tile: Tile,
    /// Let the kernel start before its predecessor in the stream has ended (programmatic dependent launch): its launch
    /// costs no time behind the predecessor, and states come into the L2 while the predecessor still computes q, k and v.
    /// Off by default.
    ///
    /// This is a wish. It is followed where all of this holds, and the launch is an ordinary one elsewhere;
    /// [`Plan::early`](super::Plan::early), as in `prepared.plan().early`, says which:
    ///
    /// - the operation is [`Decode`](crate::Decode), of GDN or KDA (with several tokens it did not pay), or one of those
    ///   around it in a step of a layer: [`UnpackQkvz`](crate::UnpackQkvz), [`Conv1dUpdate`](crate::Conv1dUpdate),
    ///   [`GatedRmsNorm`](crate::GatedRmsNorm); or one of a step with records: [`ReplayDecode`](crate::ReplayDecode),
    ///   [`ReplayVerify`](crate::ReplayVerify), [`ReplayAdvance`](crate::ReplayAdvance), [`ReplayCommit`](crate::ReplayCommit);
    /// - it pays for the shape: [`Plan::early_pays`];
    /// - the device has compute capability 9.0 or later, the PTX loaded, or that the machine code is from, is of a
    ///   target that has the instruction to wait (sm_90 or later; [`Gdn::load_code`](crate::Gdn::load_code) may have loaded
    ///   another), and the driver is one for CUDA 11.8 or later.
    ///
    /// It has an effect behind a kernel that triggers its dependents (`griddepcontrol.launch_dependents`,
    /// `cudaTriggerProgrammaticLaunchCompletion`), as these do however they were launched, and none behind any other.
    /// It works under stream capture; a driver for CUDA 12.3 or later keeps the early start in the graph.
    ///
    /// # What the caller guarantees
    ///
    /// Before its kernel waits for its predecessor (`griddepcontrol.wait`) a decode reads the tables: slots, write slots
    /// and start flags. So **neither the predecessor in the stream, nor any earlier kernel that can still be running when the
    /// predecessor itself was started early, writes one of these tables**. A copy or an update of the tables must not stand
    /// directly in front.
    ///
    /// The other operations read nothing before they wait. States, q, k, v and the inputs of the gate are read behind the
    /// wait, and outputs and states are written behind it (before it, states are asked for into the L2, which is where every
    /// writer's data are): the predecessor may write any of them. An *earlier* kernel that can still be running may not, for
    /// the wait is for the predecessor alone.
    ///
    /// An earlier kernel can still be running if the predecessor was started early and does not itself wait before it
    /// triggers or ends; those that are launched early here do. Behind a predecessor that was launched in the ordinary way
    /// there is none.
    pub early: bool,
}

impl From<Tile> for Launch {
    fn from(tile: Tile) -> Launch {
        Launch { tile, early: false }
    }
}

/// What the kernel of an operation that is launched early does before its predecessor has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// The operation is never launched early.
    Never,
    /// It starts and waits, so that its launch takes no time behind the predecessor.
    Start,
    /// It reads its tables, asks for the states into the L2, and waits.
    States,
}

/// Least compute capability and PTX target with `griddepcontrol`.
const LEAST_TARGET: u32 = 90;

impl Launch {
    /// Checks a call, and says how a device launches it with the modules that [`Gdn::load`](crate::Gdn::load) takes there. No GPU and
    /// no driver is needed: the device may be a described one. Of loaded kernels [`Gdn::plan`](crate::Gdn::plan) says it.
    ///
    /// ```
    /// # use gdn_host::{Caps, Error, Launch, Operation, Tuning};
    /// # fn plan(call: &dyn Operation) -> Result<(), Error> {
    /// let h200 = Caps { sms: 132, compute: 90, memory_gbps: 4814 };
    /// println!("{}", Launch::default().plan(call, &h200, Tuning::nearest(&h200))?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Call`] and [`Error::Plan`].
    pub fn plan(&self, call: &dyn Operation, caps: &Caps, tuning: &Tuning) -> Result<Plan, Error> {
        self.plan_with(call, caps, tuning, |module| Some(find_module(module, caps.compute).ok()?.arch))
    }

    /// [`Self::plan`] where `target` knows the PTX target of the module that will run; `None` if no launch of it can be early. It
    /// is asked about early launches alone.
    pub(crate) fn plan_with(
        &self,
        call: &dyn Operation,
        caps: &Caps,
        tuning: &Tuning,
        target: impl FnOnce(ModuleKey) -> Option<u32>,
    ) -> Result<Plan, Error> {
        call.check()?;
        let plan = call.plan_tuned(caps, tuning, self.tile)?;
        let target = if self.early { target(plan.module) } else { None };
        let early = target.is_some_and(|target| is_early(&plan, call.overlap(), target, caps));
        Ok(Plan { early, ..plan })
    }
}

/// Whether an early launch that was asked for is one, with a kernel of PTX target `target`, by a driver that can.
fn is_early(plan: &Plan, overlap: Overlap, target: u32, caps: &Caps) -> bool {
    let can_wait = caps.compute >= LEAST_TARGET && target >= LEAST_TARGET;
    can_wait && overlap != Overlap::Never && plan.early_pays
}

#[cfg(test)]
mod tests {
    use super::super::{Job, tiled};
    use super::*;
    use crate::call::{GatedRmsNorm, Rows, Tensor};
    use crate::key::{DType, Family, Layout};
    use crate::shape::HeadShape;

    const H200: Caps = Caps { sms: 132, compute: 90, memory_gbps: 4814 };

    #[test]
    fn early_needs_a_choice_a_device_and_ptx_that_can_wait() {
        let module = ModuleKey::decode(Family::Gdn, Layout::Vk, DType::F32, DType::Bf16, 128);
        let shape = HeadShape { h: 1, hv: 1, k: 128, v: 128 };
        let of = |batch| {
            let job = Job { module, shape, batch, stores_each: false };
            tiled(&job, &H200, Tuning::nearest(&H200), Tile::Auto).unwrap()
        };
        let (plan, large) = (of(132), of(133));
        let early = |compute, target| is_early(&plan, Overlap::States, target, &Caps { compute, ..H200 });
        assert!(early(90, 90) && early(100, 90) && early(120, 120));
        assert!(!early(90, 80) && !early(89, 80) && !early(80, 90));
        assert!(!is_early(&plan, Overlap::Never, 90, &H200));
        assert!(!is_early(&large, Overlap::States, 90, &H200), "the table says that it does not pay");
    }

    #[test]
    fn nothing_is_early_unless_asked_for() {
        let rows = |place: u64| Rows::packed(place << 20, DType::Bf16, 4, 4096);
        let weight = Tensor::new(4 << 20, DType::F32, 128);
        let call = GatedRmsNorm::new(32, 128, 4, rows(1), rows(2), weight, rows(3));
        let is_early = |launch: Launch, compute| {
            let caps = Caps { compute, ..H200 };
            launch.plan(&call, &caps, Tuning::nearest(&caps)).unwrap().early
        };
        let early = Launch { early: true, ..Launch::default() };
        assert!(is_early(early, 90) && is_early(early, 100) && !is_early(early, 80));
        assert!(!is_early(Launch::default(), 90) && !is_early(Tile::Auto.into(), 90));
    }
}
