//! What the tests, `xtask parity` and `xtask demo` share: recorded cases, problems, devices to run them on,
//! and the hazards as functions that run on any of those.

pub mod case;
pub mod compare;
pub mod device;
#[cfg(feature = "hazards")]
pub mod hazards;
#[cfg(feature = "hazards")]
pub mod lies;
#[cfg(feature = "hazards")]
pub mod movement;
pub mod neighbours;
pub mod parity;
pub mod problem;
pub mod random;
pub mod replay;
pub mod soak;
pub mod strided;
pub mod table;

/// The Rust blocks of the documents, compiled by `cargo test --doc`. A test of `xtask` finds those that are not here.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../../README.md")]
    struct Readme;
    #[doc = include_str!("../../docs/HOSTS.md")]
    struct Hosts;
}

use std::path::{Path, PathBuf};

/// The folder of recorded cases in a checkout.
pub fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}
