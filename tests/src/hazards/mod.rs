//! The hazards: what goes wrong in kernels of this kind, one function each.
//!
//! A hazard is a function over a [`Device`], named after what would go wrong. `tests/tests/hazards.rs` runs
//! each as a test on the simulator; `cargo xtask parity --hazards` runs the same functions on a GPU.

pub mod buffer;
pub mod conv1d;
pub mod conv1d_drafts;
pub mod conv1d_states;
pub mod convert;
pub mod copy;
pub mod drafts;
pub mod early;
pub mod gate;
pub mod heads;
pub mod identity;
pub mod kda;
pub mod layout;
pub mod lengths;
pub mod memory;
pub mod narrow;
pub mod norm;
pub mod padding;
pub mod replay;
pub mod replay_layers;
pub mod replay_state;
pub mod replay_steps;
pub mod slots;
pub mod states;
pub mod tables;
pub mod tree;
pub mod unpack;
pub mod verify;

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
                padded_row_with_a_write_slot_touches_nothing,
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
            tables::{
                tables_of_every_type_and_stride,
                index_past_32_bits_names_nothing,
                absent_slots_are_the_sequences,
                slots_by_token_beside_the_slots_of_the_start,
                later_slots_of_every_type,
            }
            narrow::{
                narrow_buffer_holds_the_states_rounded,
                tree_in_a_narrow_buffer_starts_from_rounded_states,
            }
            memory::{
                token_strides_larger_than_rows,
                views_at_an_offset,
                packed_row_of_q_k_and_v,
                output_in_f32,
                every_pair_of_types,
                every_head_dimension,
                grid_past_65535,
                pool_offset_past_2_31_elements,
                buffer_offset_past_2_31_elements,
            }
            heads::{
                one_to_eight_value_heads_a_key_head,
                two_key_heads_and_six_value_heads,
                tiled_head_map,
            }
            gate::{
                softplus_with_a_beta,
                beta_of_a_scaled_sigmoid,
                absent_gate_tables,
                gate_inputs_up_to_1e4,
                gate_tables_at_the_ends_of_f32,
                strong_decay_is_exact,
                fast_head_with_small_softplus_is_exact,
                zero_query_and_key,
                decay_and_beta_given,
                beta_rounded_through_its_type,
                no_l2norm,
                threshold_of_softplus,
                beta_for_each_row,
                every_type_of_the_gate,
                nan_in_a_gate_input_shows_where_it_belongs,
            }
            early::{
                early_steps_in_a_row_give_the_bits_of_plain_ones,
                early_padded_rows_stay_zero,
                early_layer_steps_give_the_bits_of_plain_ones,
                early_steps_with_records_give_the_bits_of_plain_ones,
            }
            identity::{
                same_bits_for_every_tile,
                same_bits_for_every_tile_of_other_dimensions,
                same_bits_for_every_tile_of_several_tokens,
                same_bits_at_every_place_of_a_batch,
                same_bits_at_every_place_of_a_packed_batch,
                same_bits_when_repeated,
            }
            copy::{
                copy_tables_of_every_type_and_stride,
                copies_move_every_byte_and_nothing_else,
                copies_within_one_pool,
                copy_with_an_index_that_names_nothing,
                copy_with_a_null_slot,
                copies_without_a_table,
                copies_of_one_vector_and_of_odd_lengths,
                one_source_for_many_copies,
                copy_pitches_that_differ,
                copy_offset_past_2_31_elements,
                copies_past_65535,
                no_copy_at_all,
                commit_takes_the_accepted_step,
                commit_of_nothing_accepted_or_too_much,
                commit_with_an_index_that_names_nothing,
                commit_pitch_larger_than_steps,
                commit_offset_past_2_31_elements,
                commit_equals_as_many_decodes,
            }
            convert::{
                conversion_tables_of_every_type_and_stride,
                conversion_moves_every_element_to_its_place,
                conversion_there_and_back_is_the_identity,
                conversion_with_an_index_that_names_nothing,
                conversion_with_a_null_slot,
                conversion_pitches_that_differ,
                conversion_offset_past_2_31_elements,
                conversions_past_65535,
                no_conversion_at_all,
                decode_after_conversion_equals_conversion_after_decode,
            }
            unpack::{
                projections_of_one_to_eight_value_heads_a_key_head,
                projections_of_every_type,
                projections_with_every_head_dimension,
                projections_with_strides_and_offsets,
                projections_into_one_row_of_b_and_a,
                projections_offset_past_2_31_elements,
                projections_of_more_than_65535_tokens,
                projections_of_no_token,
            }
            kda::{
                every_gate_of_kda,
                lower_bound_gate_of_gdn,
                decay_by_key_head,
                heads_of_kimi_on_a_rank,
                every_type_of_gate_input_and_bias,
                gate_rows_of_kda_with_gaps,
                columns_forgotten_beside_columns_kept,
            }
            layout::{
                kv_gives_the_bits_of_vk_in_decode,
                kv_gives_the_bits_of_vk_in_decode_of_kda,
                kv_gives_the_bits_of_vk_in_recurrent,
                kv_gives_the_bits_of_vk_in_recurrent_of_kda,
                kv_states_in_slots_with_gaps,
                kv_padding_touches_nothing,
            }
            lengths::{
                empty_sequence_touches_no_slot,
                empty_sequence_ends_where_it_started,
                all_sequences_empty,
                no_sequence_and_no_token,
                rows_behind_the_last_sequence_are_zeros,
                lengths_as_i32_and_as_i64_agree,
                range_past_the_inputs_is_empty,
                up_to_16_draft_tokens,
            }
            states::{
                drafts_from_one_slot_go_to_slots_of_their_own,
                advancing_states_without_an_output,
                read_only_pool_is_exact,
                from_zeros_without_a_pool,
                null_slot_does_not_pad_states_by_sequence,
                states_by_sequence_in_place,
                padded_draft_touches_nothing,
                reset_of_a_draft_ignores_its_slot,
                nan_in_a_slot_no_draft_names,
            }
            drafts::{
                accepted_count_selects_the_slot,
                accepted_0_or_past_the_width_is_padding,
                accepted_slot_that_names_nothing_is_padding,
                states_by_token_are_scattered,
                more_tokens_than_slots_by_token,
                states_by_token_of_packed_drafts,
                row_of_one_slot_is_a_plain_pool,
            }
            buffer::{
                buffer_rows_by_table,
                buffer_row_that_does_not_exist_stores_nothing,
                buffer_of_fewer_rows_than_sequences,
                more_tokens_than_steps,
                fewer_tokens_than_steps,
                buffer_pitch_larger_than_a_row,
                buffer_is_all_that_is_written,
                every_place_at_once,
            }
            tree::{
                tree_that_is_a_chain_gives_the_bits_of_the_chain,
                parents_that_skip,
                parent_out_of_range_starts_from_the_initial_state,
                tree_updates_the_slot_that_it_starts_from,
                trees_of_several_sequences,
                tokens_past_the_steps_of_a_tree,
            }
            verify::{
                t_tokens_of_gdn_are_t_decodes,
                t_tokens_of_kda_are_t_decodes,
                t_tokens_with_16_bit_states_are_t_decodes,
                state_is_rounded_between_tokens_only_if_asked,
                draft_continues_where_the_last_one_was_accepted,
                verification_leaves_the_pool_alone,
            }
            replay::{
                replay_decode_at_every_fill_level,
                replay_verify_at_every_fill_level,
                replay_force_folds_at_every_fill_level,
                replay_cursors_out_of_range_are_padding,
                replay_padded_rows_touch_nothing,
                replay_reset_ignores_slot_ring_and_cursors,
                replay_tables_of_every_type_and_stride,
                replay_pitches_and_strides,
                replay_heads_and_shapes,
                replay_every_pair_of_types,
                replay_strong_decay_is_exact,
                replay_same_bits_for_every_tile,
                replay_same_bits_at_every_place,
                replay_rejected_drafts_leave_no_trace,
                replay_paths_of_a_tree_equal_chains,
                replay_verify_of_one_token_is_decode,
            }
            replay_layers::{
                replay_fold_stores_true_states_of_all_layers,
                materialise_stores_true_states_elsewhere,
                replay_fold_has_the_same_bits_for_every_tile,
                replay_cursors_behind_a_decode,
                replay_commit_leaves_the_accepted_path,
            }
            replay_steps::{
                replay_without_live_records_is_decode,
                replay_does_not_drift,
            }
            replay_state::{
                replay_requests_equal_requests_alone,
            }
            conv1d::{
                conv_padded_first_row_is_zero_and_slot_untouched,
                conv_padded_middle_row_is_zero_and_slot_untouched,
                conv_padded_last_row_is_zero_and_slot_untouched,
                conv_null_slot_is_padding,
                conv_index_past_the_pool_is_padding,
                conv_of_no_sequence_at_all,
                conv_pitch_larger_than_state,
                conv_state_layouts_give_the_same_bits,
                conv_widths_2_to_4,
                conv_bias_and_silu_are_options,
                conv_every_type_of_inputs_and_weights,
                conv_products_rounded_to_the_type_of_inputs,
                conv_strides_and_offsets,
                conv_output_in_place_of_the_input,
                conv_separate_write_slots,
                conv_reset_ignores_what_the_slot_holds,
                conv_nan_in_unselected_slot,
                conv_large_sums_do_not_overflow_silu,
                conv_grid_past_65535,
                conv_pool_offset_past_2_31_elements,
                conv_same_bits_for_every_block_and_place,
            }
            conv1d_drafts::{
                conv_tokens_at_once_equal_single_tokens,
                conv_sequences_of_different_lengths,
                conv_rollback_equals_rerunning_from_the_accepted_prefix,
                conv_accepted_out_of_range_is_padding,
                conv_tree_of_a_chain_equals_the_chain,
                conv_paths_of_a_tree_equal_chains,
                conv_parent_out_of_range_is_the_window,
                conv_windows_by_row_index,
                conv_read_only_pool,
                conv_rollback_in_place,
            }
            conv1d_states::{
                conv_f32_states_under_16_bit_inputs,
                conv_f32_states_hold_more_than_16_bits,
                conv_states_of_every_length,
                conv_a_slot_for_each_token,
                conv_rows_behind_the_last_sequence_are_zeros,
                conv_tables_of_every_type_and_stride,
                conv_without_a_table_of_slots,
            }
            norm::{
                norm_rows_of_every_length,
                norm_in_place,
                norm_gate_aligned_to_an_element,
                norm_heads_with_gaps,
                norm_every_pair_of_types,
                norm_every_type_of_weights,
                norm_of_any_number_of_heads,
                norm_of_zero_rows_is_zero,
                norm_eps_of_the_size_of_the_mean,
                norm_large_gate_inputs,
                norm_strided_rows,
                norm_rounds_once,
                norm_grid_past_65535,
                norm_same_bits_at_every_place_of_a_batch,
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
