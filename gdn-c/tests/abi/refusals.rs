//! What is refused, by status and message. The checks behind are gdn-host's and have their own tests (`tests/tests/rejections*`).

use crate::support::*;
use gdn::*;
use std::ptr::{null, null_mut};

/// What a change of a sound call is refused with.
fn refusal<C: Sound>(change: impl FnOnce(&mut C)) -> (gdn_status, String) {
    let mut call = C::sound();
    change(&mut call);
    call.prepare(&Context::described(), None).expect_err("it is refused")
}

fn argument<C: Sound>(message: &str, change: impl FnOnce(&mut C)) {
    assert_eq!(refusal(change), (GDN_ERROR_ARGUMENT, message.to_owned()));
}

#[test]
fn null_pointers_and_handles() {
    let (context, call, mut prepared) = (Context::described(), gdn_decode_call::sound(), null_mut());
    let null_error = |status, message: &str| {
        assert_eq!((status, last_error().as_str()), (GDN_ERROR_NULL, message));
    };
    // SAFETY: pointers are NULL or to live structs.
    unsafe {
        null_error(gdn_decode(null(), &call, null(), null_mut()), "the context is NULL");
        let status = gdn_decode(context.0, null(), null(), null_mut());
        null_error(status, "the pointer to gdn_decode_call is NULL");
        null_error(gdn_decode_prepare(null(), &call, null(), &mut prepared), "the context is NULL");
        let status = gdn_decode_prepare(context.0, &call, null(), null_mut());
        null_error(status, "the place of the prepared call is NULL");
        null_error(gdn_prepared_launch(null(), null_mut()), "the prepared call is NULL");
        null_error(gdn_context_caps(null(), &mut h200()), "the context is NULL");
        null_error(gdn_context_caps(context.0, null_mut()), "the pointer to gdn_caps is NULL");
        let status = gdn_context_create(null(), null(), 0, null(), null_mut());
        null_error(status, "the place of the context is NULL");
        let mut made = null_mut();
        let status = gdn_context_create(null(), null(), 1, null(), &mut made);
        null_error(status, "the pointer to the keys is NULL");
        let model = gdn_model { name: null(), ..qwen().0 };
        null_error(gdn_context_create(&model, null(), 0, null(), &mut made), "model.name is NULL");
        let (mut shape, mut family) = (zeroed(), 0);
        null_error(gdn_model_heads(null(), 1, &mut shape, &mut family), "name is NULL");
        null_error(
            gdn_model_heads(c"x".as_ptr(), 1, null_mut(), &mut family),
            "the place of the shape is NULL",
        );
        null_error(
            gdn_model_heads(c"x".as_ptr(), 1, &mut shape, null_mut()),
            "the place of the family is NULL",
        );
        null_error(gdn_module_exists(null(), 90), "the pointer to gdn_key is NULL");
        gdn_prepared_destroy(null_mut());
        gdn_context_destroy(null_mut());
        assert_eq!(gdn_prepared_is_early(null()), 0);
    }
}

#[test]
fn sizes_of_structs() {
    fn sized<C: Sound>(name: &str, set: impl Fn(&mut C, u32)) {
        let size = size_of::<C>();
        for wrong in [0, 4, size as u32 - 8, size as u32 + 8, u32::MAX] {
            let (status, message) = refusal::<C>(|call| set(call, wrong));
            let text = format!("{name}.size: {wrong} is not allowed, it must be sizeof({name}), here {size}");
            assert_eq!((status, message), (GDN_ERROR_SIZE, text));
        }
    }
    sized::<gdn_decode_call>("gdn_decode_call", |call, size| call.size = size);
    sized::<gdn_recurrent_call>("gdn_recurrent_call", |call, size| call.size = size);
    sized::<gdn_conv1d_update_call>("gdn_conv1d_update_call", |call, size| call.size = size);
    sized::<gdn_gated_rmsnorm_call>("gdn_gated_rmsnorm_call", |call, size| call.size = size);
    sized::<gdn_copy_state_call>("gdn_copy_state_call", |call, size| call.size = size);
    sized::<gdn_commit_state_call>("gdn_commit_state_call", |call, size| call.size = size);
    sized::<gdn_convert_layout_call>("gdn_convert_layout_call", |call, size| call.size = size);
    sized::<gdn_unpack_qkvz_call>("gdn_unpack_qkvz_call", |call, size| call.size = size);
    let launch = gdn_launch { size: 20, ..zeroed() };
    let refused = gdn_decode_call::sound().prepare(&Context::described(), Some(&launch));
    let text = "gdn_launch.size: 20 is not allowed, it must be sizeof(gdn_launch), here 24".to_owned();
    assert_eq!(refused, Err((GDN_ERROR_SIZE, text)));
}

#[test]
fn types_of_elements_and_entries() {
    let floats = "it must be GDN_F32, GDN_BF16 or GDN_F16";
    argument(&format!("q.dtype: 9 is not known, {floats}"), |call: &mut gdn_decode_call| {
        call.inputs.q.dtype = 9;
    });
    argument(&format!("state.dtype: 0 is not known, {floats}"), |call: &mut gdn_decode_call| {
        call.state.dtype = 0;
    });
    argument(&format!("decay.a_log.dtype: 5 is not known, {floats}"), |call: &mut gdn_decode_call| {
        call.inputs.decay.a_log.dtype = GDN_I32;
    });
    argument(&format!("out.dtype: 7 is not known, {floats}"), |call: &mut gdn_recurrent_call| {
        call.out.dtype = GDN_I64;
    });
    let entries = "it must be GDN_U8, GDN_I32, GDN_U32 or GDN_I64";
    argument(&format!("slots.dtype: 1 is not known, {entries}"), |call: &mut gdn_decode_call| {
        call.slots.dtype = GDN_F32;
    });
    argument("slots: type u8 does not fit, expected i32, u32 or i64", |call: &mut gdn_decode_call| {
        call.slots.dtype = GDN_U8;
    });
    argument("k: type f16 does not fit, expected the type of q", |call: &mut gdn_decode_call| {
        call.inputs.k.dtype = GDN_F16;
    });
    argument(
        "state.layout: 2 is not known, it must be GDN_LAYOUT_VK or GDN_LAYOUT_KV",
        |call: &mut gdn_decode_call| {
            call.state.layout = 2;
        },
    );
}

#[test]
fn shapes_lengths_and_addresses_of_gdn_host() {
    argument("shape: hv = 33 is not a multiple of h = 16", |call: &mut gdn_decode_call| {
        call.inputs.shape.hv = 33
    });
    argument("q: the address is null", |call: &mut gdn_decode_call| call.inputs.q.address = 0);
    argument("slots: the address is null", |call: &mut gdn_decode_call| call.slots.address = 0);
    argument("out: has 16383 elements, the call touches 16384", |call: &mut gdn_decode_call| {
        call.out.len -= 1
    });
    argument("slots: has 3 rows, the call needs 4", |call: &mut gdn_decode_call| call.slots.len = 3);
    argument("slots: has rows of 0 entries, the call needs 1", |call: &mut gdn_decode_call| {
        call.slots.columns = 0
    });
    argument("slots: stride 0 is outside 1..=1073741823 elements", |call: &mut gdn_decode_call| {
        call.slots.stride = 0;
    });
    argument("state: shares memory with out", |call: &mut gdn_decode_call| {
        call.out.address = call.state.address
    });
    argument(
        "decay.bound: 1 is not allowed, it must be finite and not positive",
        |call: &mut gdn_decode_call| {
            call.inputs.decay.kind = GDN_DECAY_LOWER_BOUND;
            call.inputs.decay.bound = 1.0;
        },
    );
    argument(
        "elements: 6 is not allowed, it must be a multiple of 16 bytes, and 1 to 2^32 - 1 elements",
        |call: &mut gdn_copy_state_call| call.elements = 6,
    );
    argument(
        "target: source and target both have the layout VK: CopyState copies",
        |call: &mut gdn_convert_layout_call| {
            call.target.layout = GDN_LAYOUT_VK;
        },
    );
    argument("width: 5 is not allowed, it must be 2, 3 or 4", |call: &mut gdn_conv1d_update_call| {
        call.width = 5
    });
    argument(
        "v: 100 is not allowed, it must be a multiple of 32 from 32 to 512",
        |call: &mut gdn_gated_rmsnorm_call| call.v = 100,
    );
    argument("z: type f16 does not fit, expected the type of qkvz", |call: &mut gdn_unpack_qkvz_call| {
        call.z.dtype = GDN_F16
    });
}

#[test]
fn kinds_and_flags() {
    argument(
        "family: 2 is not known, it must be GDN_FAMILY_GDN or GDN_FAMILY_KDA",
        |call: &mut gdn_decode_call| {
            call.inputs.family = 2;
        },
    );
    argument(
        "heads: 2 is not known, it must be GDN_HEADS_GROUPED or GDN_HEADS_TILED",
        |call: &mut gdn_decode_call| {
            call.inputs.heads = 2;
        },
    );
    argument("decay.kind: 4 is not known, it must be one of GDN_DECAY_*", |call: &mut gdn_decode_call| {
        call.inputs.decay.kind = 4;
    });
    argument("beta.kind: 3 is not known, it must be one of GDN_BETA_*", |call: &mut gdn_decode_call| {
        call.inputs.beta.kind = 3;
    });
    argument("start.kind: 3 is not known, it must be one of GDN_START_*", |call: &mut gdn_decode_call| {
        call.start.kind = 3;
    });
    argument(
        "tokens.kind: 0 is not known, it must be one of GDN_TOKENS_*",
        |call: &mut gdn_recurrent_call| {
            call.tokens.kind = 0;
        },
    );
    argument(
        "source.slots: it must be absent: its kind does not read it",
        |call: &mut gdn_recurrent_call| {
            call.source.kind = 0;
        },
    );
    argument(
        "target.kind: 0 is not known, it must be one of GDN_TARGET_*",
        |call: &mut gdn_recurrent_call| {
            call.target.kind = 0;
        },
    );
    argument(
        "target_kind: 4 is not known, it must be one of GDN_CONV_*",
        |call: &mut gdn_conv1d_update_call| {
            call.target_kind = 4;
        },
    );
    argument(
        "accepted_kind: 3 is not known, it must be one of GDN_ACCEPTED_*",
        |call: &mut gdn_conv1d_update_call| {
            call.accepted_kind = 3;
        },
    );
    argument(
        "activation: 2 is not known, it must be one of GDN_ACTIVATION_*",
        |call: &mut gdn_gated_rmsnorm_call| {
            call.activation = 2;
        },
    );
    argument("flags: 0x6 is none of its bits (0x1)", |call: &mut gdn_decode_call| call.flags = 7);
    argument("flags: 0x8 is none of its bits (0x3)", |call: &mut gdn_recurrent_call| call.flags = 8);
    argument("inputs.flags: 0x2 is none of its bits (0x1)", |call: &mut gdn_decode_call| {
        call.inputs.flags = 2
    });
    argument("beta.flags: 0x4 is none of its bits (0x1)", |call: &mut gdn_decode_call| {
        call.inputs.beta.flags = 4
    });
}

#[test]
fn fields_that_are_not_read() {
    argument(
        "null_slot: 3 is not allowed, it must be 0: GDN_NULL_SLOT is not set",
        |call: &mut gdn_decode_call| {
            call.null_slot = 3;
        },
    );
    argument(
        "null_slot: -2 is not allowed, it must be a slot index (negative indices are padding anyway)",
        |call: &mut gdn_decode_call| {
            call.flags = GDN_NULL_SLOT;
            call.null_slot = -2;
        },
    );
    argument(
        "decay.bound: -5 is not allowed, it must be 0: it is that of GDN_DECAY_LOWER_BOUND",
        |call: &mut gdn_decode_call| {
            call.inputs.decay.bound = -5.0;
        },
    );
    argument(
        "decay.threshold: 20 is not allowed, it must be 0: it is softplus's",
        |call: &mut gdn_decode_call| {
            call.inputs.decay.kind = GDN_DECAY_LOWER_BOUND;
            call.inputs.decay.threshold = 20.0;
        },
    );
    argument(
        "decay.a: it must be absent: the decay is given, no gate is applied",
        |call: &mut gdn_decode_call| {
            call.inputs.decay.kind = GDN_DECAY_GIVEN;
        },
    );
    argument("beta.given: it must be absent: beta is made of logits", |call: &mut gdn_decode_call| {
        call.inputs.beta.given = call.inputs.beta.b;
    });
    argument(
        "l2norm: 0.5 is not allowed, it must be 0: GDN_NO_L2NORM is set",
        |call: &mut gdn_decode_call| {
            call.inputs.flags = GDN_NO_L2NORM;
            call.inputs.l2norm = 0.5;
        },
    );
    argument(
        "start.table: it must be absent: every sequence starts from its slot",
        |call: &mut gdn_decode_call| {
            call.start.table = call.slots;
        },
    );
    argument(
        "tokens.cu_seqlens: it must be absent: every sequence has as many tokens",
        |call: &mut gdn_recurrent_call| {
            call.tokens.cu_seqlens = call.source.slots;
        },
    );
    argument(
        "source.accepted: it must be absent: its kind does not read it",
        |call: &mut gdn_recurrent_call| {
            call.source.accepted = call.source.slots;
        },
    );
    argument("target.pool: it must be absent: its kind does not read it", |call: &mut gdn_recurrent_call| {
        call.target.pool = call.source.pool;
    });
    argument(
        "x_head_stride: 128 is not allowed, it must be 0: GDN_HEAD_STRIDES is not set",
        |call: &mut gdn_gated_rmsnorm_call| {
            call.x_head_stride = 128;
        },
    );
    argument("q.reserved: 1 is not allowed, it must be 0: it is reserved", |call: &mut gdn_decode_call| {
        call.inputs.q.reserved = 1;
    });
    argument(
        "inputs.reserved1: 7 is not allowed, it must be 0: it is reserved",
        |call: &mut gdn_decode_call| {
            call.inputs.reserved1[3] = 7;
        },
    );
}

#[test]
fn tiles_and_modules_that_there_are_not() {
    let (context, call) = (Context::described(), gdn_decode_call::sound());
    let launch = gdn_launch { size: size_of::<gdn_launch>() as u32, ..zeroed() };
    let refused = |launch| call.prepare(&context, Some(&launch)).expect_err("it is refused");
    let (status, message) = refused(gdn_launch { bv: 7, ..launch });
    assert_eq!(status, GDN_ERROR_PLAN);
    assert!(
        message.starts_with("tile: BV 7 is not possible for decode_f32_bf16_k128 with V = 128"),
        "{message}"
    );
    let (status, message) = refused(gdn_launch { bv: 16, warps: 4, ..launch });
    assert_eq!(status, GDN_ERROR_ARGUMENT);
    assert!(message.starts_with("launch.bv: 16 does not go with rows (0) and warps (4)"), "{message}");
    assert_eq!(refused(gdn_launch { flags: 2, ..launch }).0, GDN_ERROR_ARGUMENT);
    // f32 inputs are served, but the context has the kernels of bf16 only.
    let (status, message) = refusal::<gdn_decode_call>(|call| {
        let inputs = &mut call.inputs;
        for rows in [&mut inputs.q, &mut inputs.k, &mut inputs.v, &mut call.out] {
            rows.dtype = GDN_F32;
        }
        (inputs.k.address, inputs.v.address) = (20 << 30, 21 << 30);
    });
    assert_eq!(status, GDN_ERROR_NOT_LOADED);
    assert_eq!(message, "decode_f32_f32_k128 was not loaded: name it when the context is made");
}
