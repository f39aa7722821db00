//! A row of the table and of the JSON files, ours as the peers' benchmark's.

use super::ops::Spec;
use gdn_host::{Layout, Plan};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// What was timed: these fields of every kind of row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shape {
    /// Operation.
    pub op: Cow<'static, str>,
    /// Key heads.
    pub h: u32,
    /// Value heads.
    pub hv: u32,
    /// Key dimension; the peers' files leave it out.
    #[serde(default = "usual_dimension")]
    pub k: u32,
    /// Value dimension; the peers' files leave it out.
    #[serde(default = "usual_dimension")]
    pub v: u32,
    /// Type of the state.
    pub state: Cow<'static, str>,
    /// Type of q, k and v.
    pub io: Cow<'static, str>,
    /// Layout of the state.
    pub layout: Cow<'static, str>,
    /// Sequences.
    pub batch: u32,
}

/// K and V of the models that are timed most.
fn usual_dimension() -> u32 {
    128
}

/// A timed shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Whose kernel: `gdn`, [`RMW`] and [`COPY`] here, the peers' names in their files.
    #[serde(rename = "impl")]
    pub implementation: String,
    /// What of.
    #[serde(flatten)]
    pub shape: Shape,
    /// Tokens of each.
    pub tokens: u32,
    /// Of a peer that was not timed in the run of its file: when it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
    /// Microseconds a launch: the median of the replays.
    pub us: f64,
    /// The fastest replay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub us_min: Option<f64>,
    /// The slowest replay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub us_max: Option<f64>,
    /// Gigabytes of state read and written a second; 0 where it was not noted.
    #[serde(default)]
    pub gbps: f64,
    /// The tile, as BV and `rows x warps`, or the threads of a block.
    #[serde(default)]
    pub tile: String,
    /// Launched early.
    #[serde(default)]
    pub early: bool,
    /// Time of [`RMW`] on the same states over this one's: 1 is as fast as states can be read and written back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_of_roof: Option<f64>,
    /// The same of [`RMW_SLOTS`], which goes through the states in the order in which this one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_of_slots_roof: Option<f64>,
    /// Of what is done for all layers: time of [`COPY`] of as many bytes over this one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_of_copy: Option<f64>,
}

/// Our kernels.
pub(super) const GDN: &str = "gdn";
/// States read, changed and written back in place, in the order of the memory.
pub(super) const RMW: &str = "rmw_gdn";
/// The same, slot by slot in the order of the sequences, each looked up in their table.
pub(super) const RMW_SLOTS: &str = "rmw_slots_gdn";
/// States, or as many bytes, read and written elsewhere.
pub(super) const COPY: &str = "copy_gdn";
/// The peers' benchmark's own roof, which is no peer.
pub(super) const PEERS_RMW: &str = "rmw";

impl From<&Spec> for Shape {
    fn from(spec: &Spec) -> Shape {
        Shape {
            op: spec.op.name().into(),
            h: spec.shape.h,
            hv: spec.shape.hv,
            k: spec.shape.k,
            v: spec.shape.v,
            state: spec.state.name().into(),
            io: spec.io.name().into(),
            layout: layout_name(spec.layout).into(),
            batch: spec.batch,
        }
    }
}

impl Shape {
    /// Of [`Self::cells`].
    pub(super) const HEADINGS: [&str; 5] = ["op", "heads", "state", "layout", "batch"];

    /// What tables say of it; the type of q, k and v is always the same.
    pub(super) fn cells(&self) -> [String; 5] {
        let Shape { op, state, layout, batch, .. } = self;
        [op.to_string(), self.heads(), state.to_string(), layout.to_string(), batch.to_string()]
    }

    /// `16:32`, or `30:30:96x192` with other dimensions than 128 x 128.
    pub fn heads(&self) -> String {
        let Shape { h, hv, k, v, .. } = self;
        let is_usual = [*k, *v] == [usual_dimension(); 2];
        if is_usual { format!("{h}:{hv}") } else { format!("{h}:{hv}:{k}x{v}") }
    }
}

impl Row {
    /// A row for sorted times of `launches` launches each.
    pub(super) fn new(spec: &Spec, implementation: &str, times: &[f64], launches: usize, moved: u64) -> Row {
        let each = |us: f64| us / launches as f64;
        let us = each(times.get(times.len() / 2).copied().unwrap_or(f64::NAN));
        Row {
            implementation: implementation.into(),
            shape: spec.into(),
            tokens: spec.tokens,
            us,
            date: None,
            us_min: times.first().copied().map(each),
            us_max: times.last().copied().map(each),
            gbps: moved as f64 / us / 1e3,
            tile: String::new(),
            early: false,
            share_of_roof: None,
            share_of_slots_roof: None,
            share_of_copy: None,
        }
    }

    /// Whether both rows time the same work.
    pub fn same_work(&self, other: &Row) -> bool {
        (&self.shape, self.tokens) == (&other.shape, other.tokens)
    }

    /// Notes how near it comes to roofs that take so many microseconds: [`RMW`], and [`RMW_SLOTS`].
    pub(super) fn set_roofs(&mut self, rmw_us: f64, slots_us: f64) {
        self.share_of_roof = Some(rmw_us / self.us);
        self.share_of_slots_roof = Some(slots_us / self.us);
    }

    /// The fastest peer; `None` if no peer did the same work.
    pub(super) fn best_peer<'a>(&self, peers: &'a [Row]) -> Option<&'a Row> {
        let rivals = peers.iter().filter(|p| p.same_work(self) && p.implementation != PEERS_RMW);
        rivals.min_by(|a, b| a.us.total_cmp(&b.us))
    }

    /// Time of the fastest peer over ours; `None` if no peer did the same work.
    pub fn ratio_to_best(&self, peers: &[Row]) -> Option<f64> {
        Some(self.best_peer(peers)?.us / self.us)
    }
}

/// How tables and JSON call a plan's tile, or block.
pub(super) fn tile_name(plan: &Plan) -> String {
    match plan.bv {
        0 => format!("{} threads", plan.block()),
        bv => format!("BV {bv} ({}x{})", plan.rows, plan.warps),
    }
}

/// As on the command line and in JSON.
pub(super) fn layout_name(layout: Layout) -> &'static str {
    match layout {
        Layout::Vk => "vk",
        Layout::Kv => "kv",
    }
}

#[cfg(test)]
mod tests {
    use super::super::ops::Op;
    use super::*;
    use gdn_host::{DType, HeadShape};

    fn spec() -> Spec {
        let shape = HeadShape::new(16, 32, 128, 128).unwrap();
        Spec::new(Op::Decode, shape, DType::F32, Layout::Vk, 4, 4)
    }

    #[test]
    fn times_are_per_launch_and_the_middle_one_counts() {
        let row = Row::new(&spec(), GDN, &[90.0, 100.0, 130.0], 10, 20_000);
        assert_eq!((row.us, row.us_min, row.us_max), (10.0, Some(9.0), Some(13.0)));
        assert_eq!((row.gbps, row.tokens, row.shape.heads().as_str()), (2.0, 1, "16:32"));
    }

    #[test]
    fn share_of_roof_is_one_at_the_roof() {
        let mut row = Row::new(&spec(), GDN, &[100.0], 10, 1);
        row.set_roofs(8.0, 9.0);
        assert_eq!((row.share_of_roof, row.share_of_slots_roof), (Some(0.8), Some(0.9)));
    }

    #[test]
    fn best_peer_is_the_fastest_on_the_same_work() {
        let ours = Row::new(&spec(), GDN, &[100.0], 10, 1);
        let peer = |name: &str, us| Row { implementation: name.into(), us, ..ours.clone() };
        let other = Row { shape: Shape { batch: 8, ..ours.shape.clone() }, us: 1.0, ..peer("a", 1.0) };
        let peers = [peer("a", 15.0), peer("b", 12.0), peer(PEERS_RMW, 7.0), other];
        assert_eq!(ours.ratio_to_best(&peers), Some(1.2));
        assert_eq!(ours.ratio_to_best(&peers[2..]), None);
    }
}
