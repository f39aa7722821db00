//! The hazards: what goes wrong in kernels of this kind, one function each.
//!
//! A hazard is a function over a [`Device`], named after what would go wrong. `tests/tests/hazards.rs` runs
//! each as a test on the simulator; `cargo xtask parity --hazards` runs the same functions on a GPU.

pub mod gate;
pub mod heads;
pub mod identity;
pub mod memory;
pub mod padding;
pub mod slots;

use crate::device::Device;
use anyhow::Result;

/// A hazard.
pub type Hazard = fn(&mut dyn Device) -> Result<()>;

/// Calls the macro named with every hazard, as `module::{names}` lists.
#[macro_export]
macro_rules! for_each_hazard {
    ($macro:ident) => {
        $macro! {
            padding::{
                padded_first_row_is_zero_and_slot_untouched,
                padded_middle_row_is_zero_and_slot_untouched,
                padded_last_row_is_zero_and_slot_untouched,
                batch_of_padded_rows_only,
                null_slot_is_padding,
                index_past_the_pool_is_padding,
                no_sequence_at_all,
            }
            slots::{
                separate_write_slots_leave_read_slots_alone,
                write_slot_that_names_nothing_keeps_nothing,
                one_read_slot_for_many_sequences,
                reset_ignores_what_the_slot_holds,
                has_initial_state_is_reset_inverted,
                nan_in_unselected_slot,
                pitch_larger_than_state,
            }
            memory::{
                token_strides_larger_than_rows,
                views_at_an_offset,
                packed_row_of_q_k_and_v,
                output_in_f32,
                every_pair_of_types,
                head_dimensions_64_and_128,
                grid_past_65535,
                pool_offset_past_2_31_elements,
            }
            heads::{
                one_to_eight_value_heads_a_key_head,
                two_key_heads_and_six_value_heads,
                tiled_head_map,
            }
            gate::{
                gate_inputs_up_to_1e4,
                gate_tables_at_the_ends_of_f32,
                strong_decay_is_exact,
                fast_head_with_small_softplus_is_exact,
                zero_query_and_key,
                decay_and_beta_given,
                beta_rounded_through_its_type,
                no_l2norm,
                threshold_of_softplus,
            }
            identity::{
                same_bits_for_every_tile,
                same_bits_at_every_place_of_a_batch,
                same_bits_when_repeated,
            }
        }
    };
}

macro_rules! table {
    ($($module:ident::{$($name:ident,)*})*) => {
        /// Every hazard with its name.
        pub static ALL: &[(&str, Hazard)] = &[$($((stringify!($name), $module::$name),)*)*];
    };
}
for_each_hazard!(table);
