//! How contexts are made and what they tell: keys, models, devices, tables of choices, and machines without a driver.

use crate::support::*;
use gdn::*;
use std::ffi::CStr;
use std::ptr::{null, null_mut};

fn options() -> gdn_context_options {
    gdn_context_options { size: size_of::<gdn_context_options>() as u32, ..zeroed() }
}

/// What a context of these options is refused with.
fn refusal(keys: &[gdn_key], options: &gdn_context_options) -> (gdn_status, String) {
    let mut context = std::ptr::dangling_mut();
    // SAFETY: pointers are to live structs.
    let status = unsafe { gdn_context_create(null(), keys.as_ptr(), keys.len(), options, &mut context) };
    assert!(context.is_null() && status != GDN_OK);
    (status, last_error())
}

const DECODE: gdn_key = gdn_key {
    op: GDN_OP_DECODE,
    family: GDN_FAMILY_GDN,
    layout: GDN_LAYOUT_VK,
    state: GDN_F32,
    io: GDN_BF16,
    k: 128,
};

#[test]
fn keys_are_refused_by_number_field_and_value() {
    let caps = h200();
    let options = gdn_context_options { described: &caps, ..options() };
    let refused = |key| {
        let (status, message) = refusal(&[DECODE, key], &options);
        (status, message.strip_prefix("keys[1]: ").map(str::to_owned).unwrap_or(message))
    };
    let argument = |key, message: &str| assert_eq!(refused(key), (GDN_ERROR_ARGUMENT, message.to_owned()));
    argument(gdn_key { op: 0, ..DECODE }, "key.op: 0 is not known, it must be one of GDN_OP_*");
    argument(
        gdn_key { io: GDN_I32, ..DECODE },
        "key.io.dtype: 5 is not known, it must be GDN_F32, GDN_BF16 or GDN_F16",
    );
    argument(
        gdn_key { layout: 2, ..DECODE },
        "key.layout: 2 is not known, it must be GDN_LAYOUT_VK or GDN_LAYOUT_KV",
    );
    argument(
        gdn_key { op: GDN_OP_COPY_STATE, ..zeroed::<gdn_key>() }.with_k(128),
        "key.k: 128 is not allowed, it must be 0: copy_state does not have it",
    );
    argument(
        gdn_key { op: GDN_OP_CONVERT_LAYOUT, state: GDN_F32, io: GDN_F32, ..zeroed() },
        "key.io: 1 is not allowed, it must be 0: convert_layout does not have it",
    );
    let (status, message) = refused(gdn_key { k: 100, ..DECODE });
    assert_eq!(status, GDN_ERROR_MODULE);
    let start = "there is no module decode_f32_bf16_k100 for any GPU: decode has K = 64, 96, 128";
    assert!(message.starts_with(start), "{message}");
}

trait WithK {
    fn with_k(self, k: u32) -> Self;
}

impl WithK for gdn_key {
    fn with_k(self, k: u32) -> gdn_key {
        gdn_key { k, ..self }
    }
}

#[test]
fn modules_exist_or_not_without_a_gpu() {
    // SAFETY: live structs.
    let exists = |key: gdn_key, compute| unsafe { gdn_module_exists(&key, compute) };
    for compute in [80, 86, 90, 120] {
        assert_eq!(exists(DECODE, compute), GDN_OK);
    }
    assert_eq!(exists(DECODE, 75), GDN_ERROR_MODULE);
    let text = "no kernel for decode_f32_bf16_k128 on compute capability 75: it needs at least 80";
    assert_eq!(last_error(), text);
    let norm = gdn_key { op: GDN_OP_GATED_RMSNORM, state: GDN_F32, io: GDN_BF16, k: 128, ..zeroed() };
    assert_eq!(exists(norm, 90), GDN_OK, "{}", last_error());
    assert_eq!(exists(norm.with_k(31), 90), GDN_ERROR_MODULE);
}

#[test]
fn models_have_names_heads_and_modules() {
    let name = |index| {
        let name = gdn_model_name(index);
        // SAFETY: a text of the library.
        (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) })
    };
    let names: Vec<&CStr> = (0..).map_while(name).collect();
    assert_eq!(names.len(), gdn_host::MODELS.len());
    assert_eq!(names[0], c"Qwen3-Next-80B-A3B");
    let (mut shape, mut family) = (zeroed(), 9);
    // SAFETY: live texts and places.
    let mut heads = |name: &CStr, ranks| unsafe {
        let status = gdn_model_heads(name.as_ptr(), ranks, &mut shape, &mut family);
        (status, shape, family)
    };
    let sharded = gdn_shape { h: 4, hv: 8, k: 128, v: 128 };
    assert_eq!(heads(c"Qwen3-Next-80B-A3B", 4), (GDN_OK, sharded, GDN_FAMILY_GDN));
    assert_eq!(heads(c"Kimi-K3", 1).2, GDN_FAMILY_KDA);
    assert_eq!(heads(c"Qwen3-Next-80B-A3B", 3).0, GDN_ERROR_ARGUMENT);
    assert_eq!(last_error(), "h = 16 cannot be divided by tensor-parallel size 3");
    assert_eq!(heads(c"qwen", 1).0, GDN_ERROR_ARGUMENT);
    assert!(
        last_error().starts_with("model.name: \"qwen\" is not known, it must be one of Qwen3-Next-80B-A3B, ")
    );

    let caps = h200();
    let options = gdn_context_options { described: &caps, ..options() };
    for name in names {
        let model = gdn_model { name: name.as_ptr(), ..qwen().0 };
        let mut context = null_mut();
        // SAFETY: live structs.
        let status = unsafe { gdn_context_create(&model, null(), 0, &options, &mut context) };
        assert_eq!(status, GDN_OK, "{name:?}: {}", last_error());
        drop(Context(context));
    }
    let model = gdn_model { io: 0, ..qwen().0 };
    let mut context = null_mut();
    // SAFETY: live structs.
    let status = unsafe { gdn_context_create(&model, null(), 0, &options, &mut context) };
    let text = "model.io.dtype: 0 is not known, it must be GDN_F32, GDN_BF16 or GDN_F16";
    assert_eq!((status, last_error().as_str()), (GDN_ERROR_ARGUMENT, text));
}

#[test]
fn device_is_told() {
    let (context, mut caps) = (Context::described(), gdn_caps { size: h200().size, ..zeroed() });
    // SAFETY: a handle and a live struct.
    assert_eq!(unsafe { gdn_context_caps(context.0, &mut caps) }, GDN_OK);
    assert_eq!((caps.sms, caps.compute, caps.memory_gbps), (132, 90, 4814));
    caps.size = 12;
    // SAFETY: as above.
    assert_eq!(unsafe { gdn_context_caps(context.0, &mut caps) }, GDN_ERROR_SIZE);
}

#[test]
fn options_are_refused_by_field_and_value() {
    let refused = |options: &gdn_context_options| refusal(&[DECODE], options);
    let argument =
        |options, message: &str| assert_eq!(refused(&options), (GDN_ERROR_ARGUMENT, message.to_owned()));
    argument(gdn_context_options { flags: 2, ..options() }, "options.flags: 0x2 is none of its bits (0x1)");
    argument(
        gdn_context_options { device: 1, ..options() },
        "options.device: 1 is not allowed, it must be 0: GDN_PRIMARY_CONTEXT is not set",
    );
    argument(
        gdn_context_options { code: 3, ..options() },
        "options.code: 3 is not known, it must be one of GDN_CODE_*",
    );
    argument(
        gdn_context_options { ptx_target: 80, ..options() },
        "options.ptx_target: 80 is not allowed, it must be 0: code is not GDN_CODE_PTX",
    );
    argument(
        gdn_context_options { tuning: c"\xff".as_ptr(), ..options() },
        "options.tuning: the text is not UTF-8",
    );
    assert_eq!(refused(&gdn_context_options { size: 8, ..options() }).0, GDN_ERROR_SIZE);
    let caps = gdn_caps { size: 0, ..h200() };
    assert_eq!(refused(&gdn_context_options { described: &caps, ..options() }).0, GDN_ERROR_SIZE);
    let caps = h200();
    let described = || gdn_context_options { described: &caps, ..options() };
    argument(
        gdn_context_options { flags: GDN_PRIMARY_CONTEXT, ..described() },
        "options.flags: 1 is not allowed, it must be 0: a described device loads nothing",
    );
    argument(
        gdn_context_options { code: GDN_CODE_BINARY, ..described() },
        "options.code: 1 is not allowed, it must be 0: a described device loads nothing",
    );
    argument(
        gdn_context_options { folder: c"/nowhere".as_ptr(), ..described() },
        "options.folder: it must be NULL: a described device loads nothing",
    );
    let old = gdn_caps { compute: 75, ..h200() };
    assert_eq!(refused(&gdn_context_options { described: &old, ..options() }).0, GDN_ERROR_MODULE);
}

#[test]
fn table_of_choices_is_followed_or_refused_by_name() {
    let folder = std::env::temp_dir().join(format!("gdn-c-tuning-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        std::ffi::CString::new(path.to_str().unwrap()).unwrap()
    };
    let caps = h200();
    let with = |path: &CStr| gdn_context_options { described: &caps, tuning: path.as_ptr(), ..options() };
    let missing = std::ffi::CString::new(folder.join("none").to_str().unwrap()).unwrap();
    let (status, message) = refusal(&[DECODE], &with(&missing));
    assert_eq!(status, GDN_ERROR_TUNING);
    assert!(
        message.starts_with("options.tuning: /") && message.contains("none cannot be read: "),
        "{message}"
    );
    let (status, message) = refusal(&[DECODE], &with(&file("bad", "what is this\n")));
    assert_eq!(status, GDN_ERROR_TUNING);
    assert!(message.contains("bad: line 1"), "{message}");
    let mut context = null_mut();
    let own = file("own", &gdn_host::Tuning::embedded()[0].to_string());
    // SAFETY: live structs.
    let status = unsafe { gdn_context_create(null(), &DECODE, 1, &with(&own), &mut context) };
    assert_eq!(status, GDN_OK, "{}", last_error());
    let plan = gdn_decode_call::sound().prepare(&Context(context), None).unwrap();
    assert!(plan.ends_with(", tuned by the caller's table"), "{plan}");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn without_a_driver_contexts_say_so() {
    if gdn_host::driver::Driver::open().is_ok() {
        eprintln!("not tested: there is a driver here; examples.rs runs programs that find none");
        return;
    }
    let (status, message) = refusal(&[DECODE], &options());
    assert_eq!(status, GDN_ERROR_NO_DRIVER, "{message}");
    let primary = gdn_context_options { flags: GDN_PRIMARY_CONTEXT, ..options() };
    assert_eq!(refusal(&[DECODE], &primary).0, GDN_ERROR_NO_DRIVER);
}

#[test]
fn versions_are_told() {
    assert_eq!(gdn_abi_version(), GDN_ABI_VERSION);
    // SAFETY: a text of the library.
    assert_eq!(unsafe { CStr::from_ptr(gdn_version()) }.to_str(), Ok(env!("CARGO_PKG_VERSION")));
}
