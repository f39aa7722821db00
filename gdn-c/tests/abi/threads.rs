//! One context from several threads, and handles that outlive each other.

use crate::support::*;
use gdn::*;
use std::ptr::{null, null_mut};
use std::sync::Barrier;

#[test]
fn threads_share_a_context_and_see_their_own_messages() {
    let (context, barrier) = (Context::described(), Barrier::new(8));
    let expected = gdn_decode_call::sound().prepare(&context, None).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8_u32 {
            let (context, barrier, expected) = (&context, &barrier, &expected);
            scope.spawn(move || {
                assert_eq!(last_error(), "");
                barrier.wait();
                for round in 0..50 {
                    let wrong = 100 + 100 * thread + round;
                    let call = gdn_decode_call { flags: wrong << 1, ..gdn_decode_call::sound() };
                    let (_, message) = call.prepare(context, None).unwrap_err();
                    assert_eq!(message, format!("flags: {:#x} is none of its bits (0x1)", wrong << 1));
                    assert_eq!(gdn_decode_call::sound().prepare(context, None).as_ref(), Ok(expected));
                    assert_eq!(last_error(), message);
                }
            });
        }
    });
}

#[test]
fn prepared_call_keeps_its_context_and_goes_to_another_thread() {
    struct Handle(*mut gdn_prepared);
    // SAFETY: the header says that handles may be used from any thread.
    unsafe impl Send for Handle {}
    let context = Context::described();
    let expected = gdn_decode_call::sound().prepare(&context, None).unwrap();
    let mut prepared = null_mut();
    // SAFETY: live structs.
    let status = unsafe { gdn_decode_prepare(context.0, &gdn_decode_call::sound(), null(), &mut prepared) };
    assert_eq!(status, GDN_OK);
    drop(context);
    let handle = Handle(prepared);
    std::thread::spawn(move || {
        let handle = handle;
        assert_eq!(plan(handle.0), expected);
        // SAFETY: a handle, the second time its last use.
        unsafe {
            assert_eq!(gdn_prepared_launch(handle.0, null_mut()), GDN_ERROR_NOT_LOADED);
            gdn_prepared_destroy(handle.0);
        }
    })
    .join()
    .unwrap();
}
