//! Every hazard of `gdn_tests::hazards` as a test, on the simulator.

use gdn_tests::device::Sim;
use gdn_tests::for_each_hazard;

macro_rules! tests {
    ($($module:ident::{$($name:ident,)*})*) => {$($(
        #[test]
        fn $name() {
            let result = gdn_tests::hazards::$module::$name(&mut Sim::default());
            result.unwrap_or_else(|error| panic!("{error:#}"));
        }
    )*)*};
}
for_each_hazard!(tests);
