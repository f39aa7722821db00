//! How a call is launched, and when a launch is made early.

use super::{Caps, Tile};

/// How a call is launched. The result is the same bit for bit whatever is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Launch {
    /// How the tile is chosen.
    pub tile: Tile,
    /// Let the kernel start before its predecessor in the stream has ended (programmatic dependent launch): the states
    /// come into the L2 while the predecessor still computes q, k and v. Off by default.
    ///
    /// This is a wish. It is followed where all of this holds, and the launch is an ordinary one elsewhere;
    /// [`Plan::early`](super::Plan::early), as in `prepared.plan().early`, says which:
    ///
    /// - the operation is [`Decode`](crate::Decode), of GDN or KDA (with several tokens it did not pay);
    /// - it pays for the shape: [`early_pays`];
    /// - the device has compute capability 9.0 or later, the PTX loaded, or that the machine code is from, is of a
    ///   target that has the instruction to wait (sm_90 or later; [`Gdn::load_code`](crate::Gdn::load_code) may have loaded
    ///   another), and the driver is one for CUDA 11.8 or later.
    ///
    /// It has an effect behind a kernel that triggers its dependents (`griddepcontrol.launch_dependents`,
    /// `cudaTriggerProgrammaticLaunchCompletion`), and none behind any other. It works under stream capture; a driver
    /// for CUDA 12.3 or later keeps the early start in the graph.
    ///
    /// # What the caller guarantees
    ///
    /// Before the kernel waits for its predecessor (`griddepcontrol.wait`) it reads the tables: slots, write slots and start
    /// flags. So **neither the predecessor in the stream, nor any earlier kernel that can still be running when the
    /// predecessor itself was started early, writes one of these tables**. A copy or an update of the tables must not stand
    /// directly in front.
    ///
    /// States, q, k, v and the inputs of the gate are read behind the wait, and outputs and states are written behind it
    /// (before it, states are asked for into the L2, which is where every writer's data are): the predecessor may write any of
    /// them. An *earlier* kernel that can still be running may not, for the wait is for the predecessor alone.
    ///
    /// An earlier kernel can still be running if the predecessor was started early and does not itself wait before it
    /// triggers or ends. Behind a predecessor that was launched in the ordinary way there is none.
    pub early: bool,
}

impl From<Tile> for Launch {
    fn from(tile: Tile) -> Launch {
        Launch { tile, early: false }
    }
}

/// Least compute capability and PTX target with `griddepcontrol`.
const LEAST_TARGET: u32 = 90;

/// States a multiprocessor up to which an early launch pays, see [`early_pays`]. Raise it to measure beyond.
const EARLY_STATES: u64 = 8;

/// The same where memory is fast for its multiprocessors.
const EARLY_STATES_FAST: u64 = 1;

/// Whether an early launch pays for `states` matrices, `N * HV`.
///
/// Measured on an H100 behind producers of 2 and of 5 us (`cargo xtask bench --chained`, `docs/BENCHMARKS.md`): what decode adds
/// falls to 0.55 to 0.85 of a plain launch's for up to one state a multiprocessor, to 0.98 at most for eight; beyond, the gain
/// (1 to 3 %) is near what repetitions differ by. On an H200, whose memory is faster ([`Caps::has_fast_memory`]), it falls to
/// 0.60 to 0.90 for one state a multiprocessor, but two and more states in f32 took up to 1.03 behind 2 us.
pub fn early_pays(states: u64, caps: &Caps) -> bool {
    let most = if caps.has_fast_memory() { EARLY_STATES_FAST } else { EARLY_STATES };
    states <= most * u64::from(caps.sms)
}

impl Launch {
    /// Whether a call of `states` matrices (`None`: an operation without a recurrence) is launched early with a kernel of
    /// PTX target `target`, by a driver that can.
    pub fn is_early(&self, states: Option<u64>, target: u32, caps: &Caps) -> bool {
        let possible = self.early && caps.compute >= LEAST_TARGET && target >= LEAST_TARGET;
        possible && states.is_some_and(|states| early_pays(states, caps))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const H100: Caps = Caps { sms: 132, compute: 90, memory_gbps: 3352 };
    const EARLY: Launch = Launch { tile: Tile::Auto, early: true };

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
            (132, u64::MAX, false),
        ] {
            let caps = Caps { sms, memory_gbps: 25 * sms, ..H100 };
            assert_eq!(early_pays(states, &caps), pays, "{states} states, {sms} multiprocessors");
            assert_eq!(EARLY.is_early(Some(states), 90, &caps), pays);
        }
    }

    #[test]
    fn early_up_to_one_state_a_multiprocessor_where_memory_is_fast() {
        let h200 = Caps { memory_gbps: 4814, ..H100 };
        assert!(early_pays(132, &h200) && !early_pays(133, &h200));
    }

    #[test]
    fn early_needs_device_and_ptx_that_can_wait() {
        let early = |compute, target| EARLY.is_early(Some(32), target, &Caps { compute, ..H100 });
        assert!(early(90, 90) && early(100, 90) && early(120, 120));
        assert!(!early(90, 80) && !early(89, 80) && !early(80, 90));
        assert!(!EARLY.is_early(None, 90, &H100));
    }

    #[test]
    fn nothing_is_early_unless_asked_for() {
        for launch in [Launch::default(), Tile::Auto.into(), Tile::Rows(16).into()] {
            assert!(!launch.early && !launch.is_early(Some(1), 90, &H100));
        }
    }
}
