//! Replay through the functions of C: sound calls, and what is refused.

use crate::support::*;
use gdn::*;

const RECORDS: u32 = 14;
const FORM: gdn_record_form =
    gdn_record_form { shape: SHAPE, family: GDN_FAMILY_GDN, heads: GDN_HEADS_GROUPED, flags: 0, l2norm: 0.0 };

/// Rings of a pool in the slots of a table, with room for drafts.
fn rings() -> gdn_replay_pool {
    let records = u64::from(RECORDS);
    gdn_replay_pool {
        state: pool(6),
        records: RECORDS,
        k: rows(20, GDN_BF16, SLOTS, 16 * records * 128),
        d: rows(21, GDN_F32, SLOTS, 32 * records * 128),
        g: rows(22, GDN_F32, SLOTS, 32 * records),
        base: table(23, N, 1),
        len: table(24, N, 1),
        slots: table(7, N, 1),
        ..zeroed()
    }
}

/// Two layers, the second behind the first.
static LAYERS: [gdn_replay_layer; 2] = [layer(0), layer(1 << 29)];

const fn layer(offset: u64) -> gdn_replay_layer {
    gdn_replay_layer {
        state: (6 << 30) + offset,
        k: (20 << 30) + offset,
        d: (21 << 30) + offset,
        g: (22 << 30) + offset,
        target: (6 << 30) + offset,
    }
}

fn layers() -> gdn_replay_layers {
    gdn_replay_layers { list: LAYERS.as_ptr(), count: 2, table: at(25) }
}

impl Sound for gdn_replay_decode_call {
    const PREPARE: Prepare<Self> = gdn_replay_decode_prepare;
    const RUN: Run<Self> = gdn_replay_decode;
    // The context has no modules of replay: checks and plan are made.
    const STATUS: gdn_status = GDN_ERROR_NOT_LOADED;

    fn sound() -> Self {
        gdn_replay_decode_call {
            size: size::<Self>(),
            batch: N,
            inputs: inputs(N),
            pool: rings(),
            out: rows(8, GDN_BF16, N, 4096),
        }
    }
}

impl Sound for gdn_replay_verify_call {
    const PREPARE: Prepare<Self> = gdn_replay_verify_prepare;
    const RUN: Run<Self> = gdn_replay_verify;
    // The context has no modules of replay: checks and plan are made.
    const STATUS: gdn_status = GDN_ERROR_NOT_LOADED;

    fn sound() -> Self {
        gdn_replay_verify_call {
            size: size::<Self>(),
            batch: N,
            tokens: T,
            inputs: inputs(N * T),
            pool: rings(),
            out: rows(8, GDN_BF16, N * T, 4096),
            ..zeroed()
        }
    }
}

impl Sound for gdn_replay_advance_call {
    const PREPARE: Prepare<Self> = gdn_replay_advance_prepare;
    const RUN: Run<Self> = gdn_replay_advance;
    // The context has no modules of replay: checks and plan are made.
    const STATUS: gdn_status = GDN_ERROR_NOT_LOADED;

    fn sound() -> Self {
        gdn_replay_advance_call {
            size: size::<Self>(),
            batch: N,
            tokens: T,
            pool: rings(),
            accepted: table(10, N, 1),
            ..zeroed()
        }
    }
}

impl Sound for gdn_replay_fold_call {
    const PREPARE: Prepare<Self> = gdn_replay_fold_prepare;
    const RUN: Run<Self> = gdn_replay_fold;
    // The context has no modules of replay: checks and plan are made.
    const STATUS: gdn_status = GDN_ERROR_NOT_LOADED;

    fn sound() -> Self {
        gdn_replay_fold_call { size: size::<Self>(), batch: N, form: FORM, pool: rings(), layers: layers() }
    }

    fn restore(&mut self) {
        (self.layers.list, self.layers.count) = (LAYERS.as_ptr(), 2);
    }
}

impl Sound for gdn_materialise_call {
    const PREPARE: Prepare<Self> = gdn_materialise_prepare;
    const RUN: Run<Self> = gdn_materialise;
    // The context has no modules of replay: checks and plan are made.
    const STATUS: gdn_status = GDN_ERROR_NOT_LOADED;

    fn sound() -> Self {
        gdn_materialise_call {
            size: size::<Self>(),
            batch: N,
            form: FORM,
            pool: rings(),
            layers: layers(),
            target: pool(6),
            target_slots: table(10, N, 1),
            ..zeroed()
        }
    }

    fn restore(&mut self) {
        (self.layers.list, self.layers.count) = (LAYERS.as_ptr(), 2);
    }
}

impl Sound for gdn_replay_commit_call {
    const PREPARE: Prepare<Self> = gdn_replay_commit_prepare;
    const RUN: Run<Self> = gdn_replay_commit;
    // The context has no modules of replay: checks and plan are made.
    const STATUS: gdn_status = GDN_ERROR_NOT_LOADED;

    fn sound() -> Self {
        gdn_replay_commit_call {
            size: size::<Self>(),
            batch: N,
            form: FORM,
            tokens: T,
            pool: rings(),
            layers: layers(),
            accepted: table(10, N, 1),
            path: table(11, N, T.into()),
            ..zeroed()
        }
    }

    fn restore(&mut self) {
        (self.layers.list, self.layers.count) = (LAYERS.as_ptr(), 2);
    }
}

/// The message of a call that was checked and planned, but for which nothing is loaded.
fn not_loaded<C: Sound>() -> String {
    let (status, message) = C::sound().prepare(&Context::described(), None).unwrap_err();
    assert_eq!(status, GDN_ERROR_NOT_LOADED, "{message}");
    message.strip_suffix(" was not loaded: name it when the context is made").expect("its module").to_owned()
}

#[test]
fn every_call_is_checked_and_planned() {
    assert_eq!(not_loaded::<gdn_replay_decode_call>(), "replay_decode_f32_bf16_k128");
    assert_eq!(not_loaded::<gdn_replay_verify_call>(), "replay_verify_f32_bf16_k128");
    assert_eq!(not_loaded::<gdn_replay_fold_call>(), "replay_fold_f32_bf16_k128");
    assert_eq!(not_loaded::<gdn_materialise_call>(), "replay_fold_f32_bf16_k128");
    assert_eq!(not_loaded::<gdn_replay_commit_call>(), "replay_commit");
    assert_eq!(not_loaded::<gdn_replay_advance_call>(), "replay_advance");
}

fn refused<C: Sound>(message: &str, change: impl FnOnce(&mut C)) {
    let mut call = C::sound();
    change(&mut call);
    let refusal = call.prepare(&Context::described(), None).unwrap_err();
    assert_eq!(refusal, (GDN_ERROR_ARGUMENT, message.to_owned()));
}

#[test]
fn what_is_wrong_is_named() {
    refused(
        "pool.rings.records: 33 is not allowed, it must be 1 to 32 records",
        |call: &mut gdn_replay_decode_call| {
            call.pool.records = 33;
        },
    );
    refused(
        "pool.k.dtype: 0 is not known, it must be GDN_F32, GDN_BF16 or GDN_F16",
        |call: &mut gdn_replay_decode_call| {
            call.pool.k.dtype = 0;
        },
    );
    refused("pool.flags: 0x8 is none of its bits (0x7)", |call: &mut gdn_replay_verify_call| {
        call.pool.flags = 8
    });
    refused("tokens: 9 is not allowed, it must be 1 to 8 drafts", |call: &mut gdn_replay_verify_call| {
        call.tokens = 9
    });
    refused(
        "form.family: 2 is not known, it must be GDN_FAMILY_GDN or GDN_FAMILY_KDA",
        |call: &mut gdn_replay_fold_call| {
            call.form.family = 2;
        },
    );
    refused(
        "form.l2norm: 1 is not allowed, it must be 0: GDN_NO_L2NORM is set",
        |call: &mut gdn_replay_fold_call| {
            call.form.flags = GDN_NO_L2NORM;
            call.form.l2norm = 1.0;
        },
    );
    refused("layers: 0 is not allowed, it must be 1 to 65535 layers", |call: &mut gdn_materialise_call| {
        call.layers.count = 0;
    });
    refused("layers.table: the address is null", |call: &mut gdn_replay_commit_call| call.layers.table = 0);
    refused(
        "accepted.dtype: 1 is not known, it must be GDN_U8, GDN_I32, GDN_U32 or GDN_I64",
        |call: &mut gdn_replay_advance_call| {
            call.accepted.dtype = GDN_F32;
        },
    );
}
