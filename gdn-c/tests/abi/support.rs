//! Sound calls on a described device, and what comes of them.

use gdn::*;
use std::ffi::{CStr, c_char, c_void};
use std::ptr::{null, null_mut};

/// A struct of zeros, as C programs begin with.
pub fn zeroed<T: Copy>() -> T {
    // SAFETY: the structs of libgdn are integers, floats and pointers.
    unsafe { std::mem::MaybeUninit::zeroed().assume_init() }
}

pub const SHAPE: gdn_shape = gdn_shape { h: 16, hv: 32, k: 128, v: 128 };
pub const N: u32 = 4;
pub const T: u32 = 3;
pub const SLOTS: u32 = 9;
const DIM: u64 = 8192;

pub fn h200() -> gdn_caps {
    gdn_caps { size: size_of::<gdn_caps>() as u32, sms: 132, compute: 90, memory_gbps: 4814 }
}

/// The modules of Qwen3-Next with f32 states, and the conversion of layouts.
pub fn qwen() -> (gdn_model, gdn_key) {
    let model = gdn_model {
        size: size_of::<gdn_model>() as u32,
        state: GDN_F32,
        io: GDN_BF16,
        name: c"Qwen3-Next-80B-A3B".as_ptr(),
        ..zeroed()
    };
    (model, gdn_key { op: GDN_OP_CONVERT_LAYOUT, state: GDN_F32, ..zeroed() })
}

/// A handle that is let go of at the end.
pub struct Context(pub *mut gdn_context);

// SAFETY: the header says that contexts may be used from any thread.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// Qwen3-Next on an H200 that is described.
    pub fn described() -> Context {
        let (model, key) = qwen();
        let caps = h200();
        let options = gdn_context_options {
            size: size_of::<gdn_context_options>() as u32,
            described: &caps,
            ..zeroed()
        };
        let mut context = null_mut();
        // SAFETY: all pointers are to live structs.
        let status = unsafe { gdn_context_create(&model, &key, 1, &options, &mut context) };
        assert_eq!(status, GDN_OK, "{}", last_error());
        Context(context)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the handle's last use.
        unsafe { gdn_context_destroy(self.0) }
    }
}

pub fn last_error() -> String {
    // SAFETY: the text holds until this thread's next failure.
    unsafe { CStr::from_ptr(gdn_last_error()) }.to_str().unwrap().to_owned()
}

/// A text of the library, by a function like `snprintf`.
pub fn text(write: impl Fn(*mut c_char, usize) -> usize) -> String {
    let len = write(null_mut(), 0);
    let mut bytes = vec![1; len + 1];
    assert_eq!(write(bytes.as_mut_ptr().cast(), bytes.len()), len);
    CStr::from_bytes_with_nul(&bytes).unwrap().to_str().unwrap().to_owned()
}

pub fn plan(prepared: *const gdn_prepared) -> String {
    // SAFETY: a handle, and a buffer of the size.
    text(|buffer, size| unsafe { gdn_prepared_plan(prepared, buffer, size) })
}

pub type Prepare<C> = unsafe extern "C" fn(
    *const gdn_context,
    *const C,
    *const gdn_launch,
    *mut *mut gdn_prepared,
) -> gdn_status;

pub type Run<C> =
    unsafe extern "C" fn(*const gdn_context, *const C, *const gdn_launch, *mut c_void) -> gdn_status;

/// The functions of an operation, and a sound call.
pub trait Sound: Copy {
    const PREPARE: Prepare<Self>;
    const RUN: Run<Self>;

    /// What a sound call comes to on the described device.
    const STATUS: gdn_status = GDN_OK;

    fn sound() -> Self;

    /// Puts pointers to memory of the host right, which cannot be checked.
    fn restore(&mut self) {}

    /// The plan of a call, or its status and message.
    fn prepare(
        &self,
        context: &Context,
        launch: Option<&gdn_launch>,
    ) -> Result<String, (gdn_status, String)> {
        let mut prepared = null_mut();
        let launch = launch.map_or(null(), |launch| launch as *const _);
        // SAFETY: all pointers are to live structs, or NULL.
        let status = unsafe { Self::PREPARE(context.0, self, launch, &mut prepared) };
        if status != GDN_OK {
            assert!(prepared.is_null());
            return Err((status, last_error()));
        }
        let text = plan(prepared);
        // SAFETY: the handle's last use.
        unsafe { gdn_prepared_destroy(prepared) };
        Ok(text)
    }
}

/// Addresses a gigabyte apart.
pub fn at(place: u64) -> u64 {
    place << 30
}

pub fn rows(place: u64, dtype: gdn_dtype, count: u32, width: u64) -> gdn_rows {
    gdn_rows_packed(at(place), dtype, count.into(), width)
}

pub fn table(place: u64, rows: u32, columns: u64) -> gdn_table {
    gdn_table_packed(at(place), GDN_I32, rows.into(), columns)
}

fn tensor(place: u64, dtype: gdn_dtype, len: u64) -> gdn_tensor {
    gdn_tensor { address: at(place), len, dtype, reserved: 0 }
}

pub fn pool(place: u64) -> gdn_pool {
    gdn_pool_packed(at(place), GDN_F32, SLOTS, SHAPE)
}

pub fn inputs(tokens: u32) -> gdn_inputs {
    let mixed = rows(1, GDN_BF16, tokens, DIM);
    gdn_inputs {
        shape: SHAPE,
        q: mixed,
        k: gdn_rows_view(mixed, 2048),
        v: gdn_rows_view(mixed, 4096),
        decay: gdn_decay {
            a: rows(2, GDN_BF16, tokens, 32),
            a_log: tensor(3, GDN_F32, 32),
            dt_bias: tensor(4, GDN_F32, 32),
            ..zeroed()
        },
        beta: gdn_beta { b: rows(5, GDN_BF16, tokens, 32), ..zeroed() },
        ..zeroed()
    }
}

pub fn size<T>() -> u32 {
    size_of::<T>() as u32
}

impl Sound for gdn_decode_call {
    const PREPARE: Prepare<Self> = gdn_decode_prepare;
    const RUN: Run<Self> = gdn_decode;

    fn sound() -> Self {
        gdn_decode_call {
            size: size::<Self>(),
            batch: N,
            inputs: inputs(N),
            state: pool(6),
            slots: table(7, N, 1),
            out: rows(8, GDN_BF16, N, 4096),
            ..zeroed()
        }
    }
}

impl Sound for gdn_recurrent_call {
    const PREPARE: Prepare<Self> = gdn_recurrent_prepare;
    const RUN: Run<Self> = gdn_recurrent;

    fn sound() -> Self {
        gdn_recurrent_call {
            size: size::<Self>(),
            inputs: inputs(N * T),
            tokens: gdn_tokens { kind: GDN_TOKENS_EACH, batch: N, count: T, ..zeroed() },
            source: gdn_source { kind: GDN_SOURCE_SLOTS, pool: pool(6), slots: table(7, N, 1), ..zeroed() },
            target: gdn_target { kind: GDN_TARGET_NOWHERE, ..zeroed() },
            intermediate: gdn_intermediate_packed(at(9), GDN_F32, N, T, SHAPE),
            out: rows(8, GDN_BF16, N * T, 4096),
            ..zeroed()
        }
    }
}

impl Sound for gdn_commit_state_call {
    const PREPARE: Prepare<Self> = gdn_commit_state_prepare;
    const RUN: Run<Self> = gdn_commit_state;

    fn sound() -> Self {
        gdn_commit_state_call {
            size: size::<Self>(),
            batch: N,
            shape: SHAPE,
            intermediate: gdn_intermediate_packed(at(9), GDN_F32, N, T, SHAPE),
            accepted: table(10, N, 1),
            state: pool(6),
            slots: table(7, N, 1),
            ..zeroed()
        }
    }
}

impl Sound for gdn_copy_state_call {
    const PREPARE: Prepare<Self> = gdn_copy_state_prepare;
    const RUN: Run<Self> = gdn_copy_state;

    fn sound() -> Self {
        gdn_copy_state_call {
            size: size::<Self>(),
            copies: 2,
            elements: 32 * 128 * 128,
            source: pool(6),
            source_slots: table(7, 2, 1),
            target: pool(11),
            target_slots: table(10, 2, 1),
            ..zeroed()
        }
    }
}

impl Sound for gdn_convert_layout_call {
    const PREPARE: Prepare<Self> = gdn_convert_layout_prepare;
    const RUN: Run<Self> = gdn_convert_layout;

    fn sound() -> Self {
        gdn_convert_layout_call {
            size: size::<Self>(),
            copies: 2,
            shape: SHAPE,
            source: pool(6),
            target: gdn_pool { layout: GDN_LAYOUT_KV, ..pool(11) },
            ..zeroed()
        }
    }
}

impl Sound for gdn_unpack_qkvz_call {
    const PREPARE: Prepare<Self> = gdn_unpack_qkvz_prepare;
    const RUN: Run<Self> = gdn_unpack_qkvz;

    fn sound() -> Self {
        gdn_unpack_qkvz_call {
            size: size::<Self>(),
            tokens: N,
            shape: SHAPE,
            qkvz: rows(12, GDN_BF16, N, 12288),
            ba: rows(13, GDN_BF16, N, 64),
            mixed_qkv: rows(1, GDN_BF16, N, DIM),
            z: rows(14, GDN_BF16, N, 4096),
            b: rows(5, GDN_BF16, N, 32),
            a: rows(2, GDN_BF16, N, 32),
        }
    }
}

impl Sound for gdn_conv1d_update_call {
    const PREPARE: Prepare<Self> = gdn_conv1d_update_prepare;
    const RUN: Run<Self> = gdn_conv1d_update;

    fn sound() -> Self {
        let elements = u64::from(SLOTS) * DIM * 3;
        gdn_conv1d_update_call {
            size: size::<Self>(),
            dim: DIM as u32,
            width: 4,
            tokens: gdn_tokens { kind: GDN_TOKENS_EACH, batch: N, count: 1, ..zeroed() },
            x: rows(1, GDN_BF16, N, DIM),
            weight: tensor(15, GDN_BF16, 4 * DIM),
            state: gdn_conv_pool {
                address: at(16),
                elements,
                pitch: 3 * DIM,
                channel_stride: 3,
                tap_stride: 1,
                slots: SLOTS,
                len: 3,
                dtype: GDN_BF16,
                reserved: 0,
            },
            slots: table(7, N, 1),
            out: rows(17, GDN_BF16, N, DIM),
            ..zeroed()
        }
    }
}

impl Sound for gdn_gated_rmsnorm_call {
    const PREPARE: Prepare<Self> = gdn_gated_rmsnorm_prepare;
    const RUN: Run<Self> = gdn_gated_rmsnorm;

    fn sound() -> Self {
        gdn_gated_rmsnorm_call {
            size: size::<Self>(),
            tokens: N,
            hv: 32,
            v: 128,
            x: rows(8, GDN_BF16, N, 4096),
            z: rows(14, GDN_BF16, N, 4096),
            weight: tensor(18, GDN_F32, 128),
            out: rows(8, GDN_BF16, N, 4096),
            ..zeroed()
        }
    }
}
