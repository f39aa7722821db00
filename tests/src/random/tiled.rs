//! What random problems of every kind have in common: any tile solves them, and all tiles give the same bits.

use crate::device::Device;
use crate::problem::{self, Problem};
use crate::replay::{self, ReplayProblem};
use anyhow::Result;
use gdn_host::Tile;
use std::fmt::Debug;

/// A problem that is run with one tile or another.
pub trait Tiled: Debug {
    /// What a run leaves, to the bit.
    type Solution: PartialEq;

    /// Every tile there is for it.
    fn tiles(&self) -> Vec<Tile>;

    /// Runs on the device.
    fn run(&self, device: &mut dyn Device, tile: Tile) -> Result<Self::Solution>;

    /// Runs on the device and holds the result against the oracle.
    fn run_and_check(&self, device: &mut dyn Device, tile: Tile) -> Result<Self::Solution>;
}

/// The methods of these names that a problem has itself.
macro_rules! tiled {
    ($problem:ty, $solution:ty) => {
        impl Tiled for $problem {
            type Solution = $solution;

            fn tiles(&self) -> Vec<Tile> {
                <$problem>::tiles(self)
            }

            fn run(&self, device: &mut dyn Device, tile: Tile) -> Result<$solution> {
                <$problem>::run(self, device, tile)
            }

            fn run_and_check(&self, device: &mut dyn Device, tile: Tile) -> Result<$solution> {
                <$problem>::run_and_check(self, device, tile)
            }
        }
    };
}

tiled!(Problem, problem::Solution);
tiled!(ReplayProblem, replay::Solution);
