//! How a call is launched, and when a launch is made early.

use super::{Caps, Plan, Tile, rows};
use gdn_kernels::abi::DType;

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
    ///   [`GatedRmsNorm`](crate::GatedRmsNorm);
    /// - it pays for the shape: [`early_pays`];
    /// - the device has compute capability 9.0 or later, the PTX loaded, or that the machine code is from, is of a
    ///   target that has the instruction to wait (sm_90 or later; [`Gdn::load_code`](crate::Gdn::load_code) may have loaded
    ///   another), and the driver is one for CUDA 11.8 or later.
    ///
    /// It has an effect behind a kernel that triggers its dependents (`griddepcontrol.launch_dependents`,
    /// `cudaTriggerProgrammaticLaunchCompletion`), as these four do however they were launched, and none behind any other.
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
    /// It reads its tables, asks for so many state matrices, `N * HV`, into the L2, and waits.
    States(u64),
}

/// Least compute capability and PTX target with `griddepcontrol`.
const LEAST_TARGET: u32 = 90;

/// States a multiprocessor up to which an early launch pays, see [`early_pays`]. Raise it to measure beyond.
const EARLY_STATES: u64 = 8;

/// The same in layout KV.
const EARLY_STATES_KV: u64 = 4;

/// The same where memory is fast for its multiprocessors.
const EARLY_STATES_FAST: u64 = 1;

/// Whether an early launch of a plan pays. Where only the start overlaps it does.
///
/// For decode it was measured on an H100 behind producers of 2 and of 5 us (`cargo xtask bench --chained`,
/// `docs/BENCHMARKS.md`): what it adds falls to 0.55 to 0.85 of a plain launch's for up to one state a multiprocessor, to 0.98
/// at most for eight; beyond, the gain (1 to 3 %) is near what repetitions differ by. On an H200, whose memory is faster
/// ([`Caps::has_fast_memory`]), it falls to 0.60 to 0.90 for one state a multiprocessor, but two and more states in f32 took up
/// to 1.03 behind 2 us.
///
/// Small tiles of layout KV, measured on an H200, fall to 0.66 to 0.96 up to one state a multiprocessor (three quarters of one for
/// an f32 state with a decay per key); beyond, in f32, they take as long as plain ones.
///
/// One kind of grid is left out: with a decay per key and an f32 state, one to two states a multiprocessor, whose blocks are a
/// whole state each. Early ones are not spread evenly, and some multiprocessors have two while others have none (up to 1.11).
///
/// A kernel overlaps only if the shared memory of as many blocks as fit a multiprocessor is no more than what that has set apart
/// for a predecessor without any, 32 KB: it is set anew only when the multiprocessor is empty.
pub fn early_pays(plan: &Plan, overlap: Overlap, caps: &Caps) -> bool {
    let states = match overlap {
        Overlap::Never => return false,
        Overlap::Start => return true,
        Overlap::States(states) => states,
    };
    let (module, sms) = (plan.module, u64::from(caps.sms));
    let is_f32_kda = module.is_kda() && module.state == Some(DType::F32);
    let is_small = plan.rows == rows(module)[0];
    match (caps.has_fast_memory(), module.is_kv()) {
        (_, true) if is_small && is_f32_kda => 4 * states <= 3 * sms,
        (_, true) if is_small => states <= sms,
        (_, false) if is_f32_kda && states > sms && states < 2 * sms => false,
        (true, _) => states <= EARLY_STATES_FAST * sms,
        (false, true) => states <= EARLY_STATES_KV * sms,
        (false, false) => states <= EARLY_STATES * sms,
    }
}

impl Launch {
    /// Whether a call with this plan is launched early with a kernel of PTX target `target`, by a driver that can.
    pub fn is_early(&self, plan: &Plan, overlap: Overlap, target: u32, caps: &Caps) -> bool {
        let possible = self.early && caps.compute >= LEAST_TARGET && target >= LEAST_TARGET;
        possible && early_pays(plan, overlap, caps)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Job, tiled};
    use super::*;
    use crate::key::ModuleKey;
    use crate::key::{Family, Layout};
    use crate::shape::HeadShape;

    const H100: Caps = Caps { sms: 132, compute: 90, memory_gbps: 3352 };
    const H200: Caps = Caps { memory_gbps: 4814, ..H100 };
    const EARLY: Launch = Launch { tile: Tile::Auto, early: true };

    /// A decode of so many states, one head a sequence.
    fn plan(family: Family, layout: Layout, state: DType, states: u32, caps: &Caps) -> Plan {
        let module = ModuleKey::decode(family, layout, state, DType::Bf16, 128);
        let shape = HeadShape { h: 1, hv: 1, k: 128, v: 128 };
        tiled(&Job { module, shape, batch: states, stores_each: false }, caps, Tile::Auto).unwrap()
    }

    /// Whether it is early.
    fn is_early(family: Family, layout: Layout, state: DType, states: u32, caps: &Caps) -> bool {
        let plan = plan(family, layout, state, states, caps);
        let states = Overlap::States(states.into());
        let early = EARLY.is_early(&plan, states, 90, caps);
        assert_eq!(early, early_pays(&plan, states, caps));
        early
    }

    #[test]
    fn early_up_to_eight_states_a_multiprocessor() {
        // 16:32 up to batch 33, 4:8 up to batch 132 on 132 multiprocessors.
        for (sms, states, pays) in [
            (132, 32, true),
            (132, 33 * 32, true),
            (132, 132 * 8, true),
            (132, 34 * 32, false),
            (78, 624, true),
            (78, 625, false),
            (132, u32::MAX, false),
        ] {
            let caps = Caps { sms, memory_gbps: 25 * sms, ..H100 };
            for state in [DType::F32, DType::Bf16] {
                let early = is_early(Family::Gdn, Layout::Vk, state, states, &caps);
                assert_eq!(early, pays, "{states} states, {sms} multiprocessors");
            }
        }
    }

    #[test]
    fn early_up_to_one_state_a_multiprocessor_where_memory_is_fast() {
        let early = |states| is_early(Family::Gdn, Layout::Vk, DType::F32, states, &H200);
        assert!(early(132) && !early(133));
    }

    /// The last state of small tiles that is early, and the first of large ones: small ones go up to 1.5 states a multiprocessor
    /// in f32, to 1.25 with KDA, and to 2.75 in 16 bits, to two with KDA.
    #[test]
    fn layout_kv_is_early_with_few_states_and_with_large_tiles() {
        let last_and_first = [
            (Family::Gdn, DType::F32, 132, 199),
            (Family::Kda, DType::F32, 99, 166),
            (Family::Gdn, DType::Bf16, 132, 364),
            (Family::Kda, DType::F16, 132, 265),
        ];
        for (family, state, last, first) in last_and_first {
            let early = |states| is_early(family, Layout::Kv, state, states, &H100);
            assert_eq!(
                [1, last, last + 1, first - 1, first, 528, 529].map(early),
                [true, true, false, false, true, true, false],
                "{state:?}"
            );
            let early = |states| is_early(family, Layout::Kv, state, states, &H200);
            assert_eq!([1, last, 133, first, 528].map(early), [true, true, false, false, false], "{state:?}");
        }
    }

    #[test]
    fn f32_states_of_kda_are_not_early_where_blocks_are_uneven() {
        let early = |state, states| is_early(Family::Kda, Layout::Vk, state, states, &H100);
        assert_eq!(
            [132, 133, 192, 263, 264].map(|states| early(DType::F32, states)),
            [true, false, false, false, true]
        );
        assert_eq!([132, 192, 264, 1056].map(|states| early(DType::Bf16, states)), [true; 4]);
    }

    #[test]
    fn early_needs_device_and_ptx_that_can_wait() {
        let plan = plan(Family::Gdn, Layout::Vk, DType::F32, 32, &H100);
        let early =
            |compute, target| EARLY.is_early(&plan, Overlap::States(32), target, &Caps { compute, ..H100 });
        assert!(early(90, 90) && early(100, 90) && early(120, 120));
        assert!(!early(90, 80) && !early(89, 80) && !early(80, 90));
        assert!(!EARLY.is_early(&plan, Overlap::Never, 90, &H100));
        assert!(
            EARLY.is_early(&plan, Overlap::Start, 90, &H100)
                && !EARLY.is_early(&plan, Overlap::Start, 80, &H100)
        );
        // Nothing is unless asked for.
        for launch in [Launch::default(), Tile::Auto.into(), Tile::Rows(16).into()] {
            assert!(!launch.early && !launch.is_early(&plan, Overlap::States(1), 90, &H100));
        }
    }
}
