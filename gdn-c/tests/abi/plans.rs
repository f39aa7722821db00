//! Every operation is planned as gdn-host plans it, and launched by no described device.

use crate::support::*;
use gdn::*;
use std::ptr::null_mut;

/// The plan of a sound call, as text; a launch says that the device is only described.
fn planned<C: Sound>() -> String {
    let context = Context::described();
    let call = C::sound();
    // SAFETY: all pointers are to live structs, or NULL.
    let status = unsafe { C::RUN(context.0, &call, std::ptr::null(), null_mut()) };
    let text = "the context is of a described device: it plans and launches nothing";
    assert_eq!((status, last_error().as_str()), (GDN_ERROR_NOT_LOADED, text));
    call.prepare(&context, None).unwrap_or_else(|(status, message)| panic!("{status}: {message}"))
}

#[test]
fn every_operation_has_a_plan() {
    let decode = planned::<gdn_decode_call>();
    assert!(decode.starts_with("gdn_decode_f32_bf16_k128_r"), "{decode}");
    assert!(decode.ends_with(", tuned for NVIDIA H200") && decode.contains(" BV "), "{decode}");
    let recurrent = planned::<gdn_recurrent_call>();
    assert!(recurrent.starts_with("gdn_recurrent_f32_bf16_k128_r"), "{recurrent}");
    assert!(planned::<gdn_copy_state_call>().starts_with("gdn_copy_state grid "));
    assert!(planned::<gdn_commit_state_call>().starts_with("gdn_copy_state grid "));
    assert!(planned::<gdn_convert_layout_call>().starts_with("gdn_convert_layout_f32 grid "));
    assert!(planned::<gdn_unpack_qkvz_call>().starts_with("gdn_unpack_qkvz grid "));
    assert!(planned::<gdn_conv1d_update_call>().starts_with("gdn_conv1d_update_bf16_bf16 grid "));
    assert!(planned::<gdn_gated_rmsnorm_call>().starts_with("gdn_gated_rmsnorm_bf16_bf16_k128 grid "));
}

#[test]
fn plan_is_gdn_hosts() {
    use gdn_host::*;
    let shape = HeadShape { h: 16, hv: 32, k: 128, v: 128 };
    let rows = |place: u64, width| Rows::packed(place << 30, DType::Bf16, N.into(), width);
    let (q, k, v) = call::split_mixed_qkv(&rows(1, 8192), &shape);
    let inputs =
        Inputs::gdn(shape, q, k, v, Softplus::new(rows(2, 32), None, None), Logits::new(rows(5, 32)));
    let pool = StatePool::packed(6 << 30, DType::F32, SLOTS, &shape);
    let call = Decode::new(inputs, N, pool, rows(8, 4096));
    let caps = Caps { sms: 132, compute: 90, memory_gbps: 4814 };
    let host = call.plan(&caps, Tile::Auto).unwrap().to_string();
    assert_eq!(planned::<gdn_decode_call>(), host);
}

#[test]
fn launch_chooses_tiles_and_early_launches() {
    let context = Context::described();
    let call = gdn_decode_call::sound();
    let launch = gdn_launch { size: size_of::<gdn_launch>() as u32, ..zeroed() };
    let plan = |launch: gdn_launch| call.prepare(&context, Some(&launch));
    assert_eq!(plan(launch), call.prepare(&context, None));
    assert!(plan(gdn_launch { bv: 32, ..launch }).unwrap().contains(" BV 32 "));
    let exact = plan(gdn_launch { rows: 2, warps: 4, ..launch }).unwrap();
    assert!(
        exact.starts_with("gdn_decode_f32_bf16_k128_r2 BV 16 ") && exact.contains(" block 128"),
        "{exact}"
    );
    let early = gdn_launch { flags: GDN_LAUNCH_EARLY, ..launch };
    assert!(plan(early).unwrap().contains(" early"));
    let recurrent = gdn_recurrent_call::sound().prepare(&context, Some(&early)).unwrap();
    assert!(!recurrent.contains(" early"), "{recurrent}");
    let mut prepared = null_mut();
    // SAFETY: live structs, and handles that are used for the last time.
    unsafe {
        assert_eq!(gdn_decode_prepare(context.0, &call, &early, &mut prepared), GDN_OK);
        assert_eq!(gdn_prepared_is_early(prepared), 1);
        gdn_prepared_destroy(prepared);
        assert_eq!(gdn_decode_prepare(context.0, &call, &launch, &mut prepared), GDN_OK);
        assert_eq!(gdn_prepared_is_early(prepared), 0);
        gdn_prepared_destroy(prepared);
    }
}

#[test]
fn text_is_cut_to_the_buffer_and_its_length_told() {
    let context = Context::described();
    let mut prepared = null_mut();
    let whole = gdn_decode_call::sound().prepare(&context, None).unwrap();
    // SAFETY: live structs, buffers as long as said, and a handle that is used for the last time.
    unsafe {
        let call = gdn_decode_call::sound();
        assert_eq!(gdn_decode_prepare(context.0, &call, std::ptr::null(), &mut prepared), GDN_OK);
        let mut bytes = [b'x'; 8];
        assert_eq!(gdn_prepared_plan(prepared, bytes.as_mut_ptr().cast(), 5), whole.len());
        assert_eq!(&bytes, b"gdn_\0xxx");
        assert_eq!(gdn_prepared_plan(prepared, bytes.as_mut_ptr().cast(), 0), whole.len());
        assert_eq!(gdn_prepared_plan(prepared, bytes.as_mut_ptr().cast(), 1), whole.len());
        assert_eq!(&bytes, b"\0dn_\0xxx");
        assert_eq!(gdn_prepared_plan(std::ptr::null(), bytes.as_mut_ptr().cast(), 8), 0);
        assert_eq!(gdn_context_files(context.0, null_mut(), 0), 0);
        gdn_prepared_destroy(prepared);
    }
}

#[test]
fn call_without_sequences_is_planned_whatever_its_addresses() {
    let context = Context::described();
    let mut call = gdn_decode_call { batch: 0, ..gdn_decode_call::sound() };
    call.slots = zeroed();
    call.state.address = 0;
    call.prepare(&context, None).unwrap();
}
