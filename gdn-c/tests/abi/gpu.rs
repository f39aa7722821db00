//! On a GPU, if there is one: kernels are loaded, and what a described device plans is what the device plans.

use crate::support::*;
use gdn::*;
use std::ptr::null_mut;

/// The plan of a sound call on both; addresses are made up, so nothing is launched.
fn same<C: Sound>(loaded: &Context, described: &Context, early: &gdn_launch) {
    for launch in [None, Some(early)] {
        assert_eq!(C::sound().prepare(loaded, launch), C::sound().prepare(described, launch));
    }
}

#[test]
fn loaded_kernels_are_planned_as_described() {
    if gdn_host::driver::Driver::open().is_err() {
        eprintln!("not tested: there is no GPU here");
        return;
    }
    let (model, key) = qwen();
    let options =
        gdn_context_options { size: size::<gdn_context_options>(), flags: GDN_PRIMARY_CONTEXT, ..zeroed() };
    let create = |options: &gdn_context_options| {
        let mut context = null_mut();
        // SAFETY: all pointers are to live structs.
        let status = unsafe { gdn_context_create(&model, &key, 1, options, &mut context) };
        assert_eq!(status, GDN_OK, "{}", last_error());
        Context(context)
    };
    let loaded = create(&options);
    // SAFETY: a handle, and a buffer of the size.
    let files = text(|buffer, size| unsafe { gdn_context_files(loaded.0, buffer, size) });
    assert_eq!(files.lines().count(), 8, "{files}");
    let mut caps = gdn_caps { size: size::<gdn_caps>(), ..zeroed() };
    // SAFETY: a handle and a live struct.
    assert_eq!(unsafe { gdn_context_caps(loaded.0, &mut caps) }, GDN_OK);
    let described = create(&gdn_context_options { flags: 0, described: &caps, ..options });
    let early = gdn_launch { size: size::<gdn_launch>(), flags: GDN_LAUNCH_EARLY, ..zeroed() };
    same::<gdn_decode_call>(&loaded, &described, &early);
    same::<gdn_recurrent_call>(&loaded, &described, &early);
    same::<gdn_conv1d_update_call>(&loaded, &described, &early);
    same::<gdn_gated_rmsnorm_call>(&loaded, &described, &early);
    same::<gdn_unpack_qkvz_call>(&loaded, &described, &early);
    same::<gdn_copy_state_call>(&loaded, &described, &early);
    same::<gdn_commit_state_call>(&loaded, &described, &early);
    same::<gdn_convert_layout_call>(&loaded, &described, &early);
}
