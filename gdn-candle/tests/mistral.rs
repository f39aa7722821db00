//! The example with mistral.rs's calls runs.

#[path = "../examples/mistral.rs"]
mod mistral;

#[test]
fn its_calls_leave_states_in_its_lanes() {
    mistral::main().unwrap();
}
