//! Structs of any bytes are refused or planned: nothing panics, nothing is read past a struct's end.

use crate::support::*;
use gdn::*;
use proptest::prelude::*;
use std::ptr::null;

/// Bytes as tests make them worse: some of them random, others those at the edges of every field.
fn damage() -> impl Strategy<Value = Vec<(usize, u64)>> {
    let edge =
        prop::sample::select(vec![0, 1, 2, 3, 7, 128, 1 << 31, (1 << 32) - 1, 1 << 32, u64::MAX, 1 << 63]);
    let value = prop_oneof![edge, any::<u64>()];
    prop::collection::vec((any::<prop::sample::Index>().prop_map(|index| index.index(4096)), value), 1..6)
}

/// A sound call with some of its words changed, but for the size: it is refused with a message, or planned.
fn survives<C: Sound>(context: &Context, damage: &[(usize, u64)], bytes: &[u8]) {
    let mut words = vec![0_u32; size_of::<C>().div_ceil(4)];
    // SAFETY: the struct is integers and floats, and the words have room for it.
    unsafe { words.as_mut_ptr().cast::<C>().write_unaligned(C::sound()) };
    let mut tries = vec![words.clone()];
    for &(at, value) in damage {
        let at = 1 + at % (words.len() - 1);
        words[at] = value as u32;
        if at + 1 < words.len() {
            words[at + 1] = (value >> 32) as u32;
        }
    }
    tries.push(words.clone());
    for (word, bytes) in words[1..].iter_mut().zip(bytes.chunks_exact(4)) {
        *word = u32::from_le_bytes(bytes.try_into().unwrap());
    }
    tries.push(words);
    for (i, words) in tries.iter_mut().enumerate() {
        // SAFETY: as above.
        unsafe {
            let mut call = words.as_ptr().cast::<C>().read_unaligned();
            call.restore();
            words.as_mut_ptr().cast::<C>().write_unaligned(call);
        }
        let mut prepared = std::ptr::dangling_mut();
        // SAFETY: as many bytes as the size in them says.
        let status = unsafe { C::PREPARE(context.0, words.as_ptr().cast(), null(), &mut prepared) };
        assert!((GDN_OK..GDN_ERROR_INTERNAL).contains(&status), "{status}: {}", last_error());
        assert_eq!(status == GDN_OK, !prepared.is_null());
        assert!(i > 0 || status == C::STATUS, "{}", last_error());
        // SAFETY: a handle's last use, or NULL.
        unsafe { gdn_prepared_destroy(prepared) };
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]
    #[test]
    fn structs_of_any_bytes_are_refused_or_planned(
        damage in damage(),
        bytes in prop::collection::vec(any::<u8>(), 0..1200),
    ) {
        thread_local!(static CONTEXT: Context = Context::described());
        CONTEXT.with(|context| {
            survives::<gdn_decode_call>(context, &damage, &bytes);
            survives::<gdn_recurrent_call>(context, &damage, &bytes);
            survives::<gdn_conv1d_update_call>(context, &damage, &bytes);
            survives::<gdn_gated_rmsnorm_call>(context, &damage, &bytes);
            survives::<gdn_copy_state_call>(context, &damage, &bytes);
            survives::<gdn_commit_state_call>(context, &damage, &bytes);
            survives::<gdn_convert_layout_call>(context, &damage, &bytes);
            survives::<gdn_unpack_qkvz_call>(context, &damage, &bytes);
            survives::<gdn_replay_decode_call>(context, &damage, &bytes);
            survives::<gdn_replay_verify_call>(context, &damage, &bytes);
            survives::<gdn_replay_fold_call>(context, &damage, &bytes);
            survives::<gdn_materialise_call>(context, &damage, &bytes);
            survives::<gdn_replay_commit_call>(context, &damage, &bytes);
            survives::<gdn_replay_advance_call>(context, &damage, &bytes);
        });
    }

    #[test]
    fn keys_and_launches_of_any_bytes_are_refused_or_taken(words in prop::array::uniform6(any::<u32>()), small: bool) {
        // Numbers near those that have a meaning, too.
        let words = if small { words.map(|word| word % 9) } else { words };
        let [op, family, layout, state, io, k] = words;
        let key = gdn_key { op, family, layout, state, io, k };
        // SAFETY: live structs.
        let status = unsafe { gdn_module_exists(&key, 90) };
        prop_assert!([GDN_OK, GDN_ERROR_ARGUMENT, GDN_ERROR_MODULE].contains(&status), "{}", last_error());
        let [flags, bv, rows, warps, reserved, _] = words;
        let launch = gdn_launch { size: size_of::<gdn_launch>() as u32, flags, bv, rows, warps, reserved };
        let planned = gdn_decode_call::sound().prepare(&Context::described(), Some(&launch));
        let refused = [GDN_ERROR_ARGUMENT, GDN_ERROR_PLAN];
        prop_assert!(planned.as_ref().is_ok_and(|plan| !plan.is_empty())
            || planned.as_ref().is_err_and(|(status, _)| refused.contains(status)), "{planned:?}");
    }
}

#[test]
fn structs_may_lie_anywhere() {
    let context = Context::described();
    let mut bytes = vec![0_u8; size_of::<gdn_decode_call>() + 8];
    for offset in 0..8 {
        // SAFETY: the bytes have room for the struct at each offset.
        let at = unsafe { bytes.as_mut_ptr().add(offset) }.cast::<gdn_decode_call>();
        let mut prepared = std::ptr::null_mut();
        // SAFETY: as above.
        unsafe {
            at.write_unaligned(gdn_decode_call::sound());
            assert_eq!(gdn_decode_prepare(context.0, at, null(), &mut prepared), GDN_OK, "{}", last_error());
            gdn_prepared_destroy(prepared);
        }
    }
}
