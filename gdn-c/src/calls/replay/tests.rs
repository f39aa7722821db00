//! Every field of the calls with rings ends up in the field of gdn-host that it names.

use super::super::Call;
use super::super::tests::*;
use crate::*;
use gdn_host::*;

/// A pool with everything but the defaults.
fn replay_pool() -> gdn_replay_pool {
    gdn_replay_pool {
        state: pool(300, GDN_F16, GDN_LAYOUT_VK),
        records: 14,
        flags: GDN_NULL_SLOT | GDN_CURSORS_BY_SLOT | GDN_MOST,
        null_slot: 6,
        most: 9,
        k: rows(310, GDN_BF16),
        d: rows(320, GDN_F32),
        g: rows(330, GDN_F16),
        base: table(340, GDN_I32),
        len: table(350, GDN_U32),
        slots: table(360, GDN_I64),
        start: gdn_start { kind: GDN_START_RESET, table: table(370, GDN_U8), ..zeroed() },
        force: table(380, GDN_U8),
    }
}

fn host_replay_pool() -> ReplayPool {
    let (k, d, g) = (host_rows(310, DType::Bf16), host_rows(320, DType::F32), host_rows(330, DType::F16));
    let cursors = Cursors::by_slot(host_table(350, Entry::U32)).with_base(host_table(340, Entry::I32));
    ReplayPool::new(host_pool(300, DType::F16, Layout::Vk), Rings::new(14, k, d, g), cursors)
        .with_slots(host_table(360, Entry::I64))
        .with_null_slot(6)
        .with_start(Start::Reset(host_table(370, Entry::U8)))
        .with_force(host_table(380, Entry::U8))
        .with_most(9)
}

#[test]
fn pool_without_options_has_gdn_hosts_defaults() {
    let (base, slots, start, force) = (zeroed(), zeroed(), zeroed(), zeroed());
    let pool =
        gdn_replay_pool { flags: 0, null_slot: 0, most: 0, base, slots, start, force, ..replay_pool() };
    let host = host_replay_pool();
    let cursors = Cursors::by_sequence(host.cursors.len);
    assert_eq!(pool.read(), Ok(ReplayPool::new(host.state, host.rings, cursors)));
    let text = "pool.most: 9 is not allowed, it must be 0: GDN_MOST is not set";
    assert_eq!(gdn_replay_pool { most: 9, ..pool }.read(), Err(status::Failure::argument(text)));
}

#[test]
fn steps() {
    let zeros: gdn_replay_decode_call = zeroed();
    let (inputs, pool, out) = (inputs(), replay_pool(), rows(130, GDN_F32));
    let decode = gdn_replay_decode_call { batch: 3, inputs, pool, out, ..zeros };
    let (host_pool, host_out) = (host_replay_pool(), host_rows(130, DType::F32));
    assert_eq!(decode.operation(), Ok(ReplayDecode::new(host_inputs(), 3, host_pool, host_out)));
    let zeros: gdn_replay_verify_call = zeroed();
    let parent = table(140, GDN_I32);
    let verify = gdn_replay_verify_call { batch: 3, tokens: 4, inputs, pool, parent, out, ..zeros };
    let host = ReplayVerify::new(host_inputs(), 3, 4, host_pool, host_out);
    assert_eq!(verify.operation(), Ok(host.with_parent(host_table(140, Entry::I32))));
    let zeros: gdn_replay_advance_call = zeroed();
    let accepted = table(150, GDN_I32);
    let advance = gdn_replay_advance_call { batch: 3, tokens: 4, pool, accepted, ..zeros };
    let host = ReplayAdvance::behind_verify(&host, host_table(150, Entry::I32));
    assert_eq!(advance.operation(), Ok(host));
    let advance = gdn_replay_advance_call { tokens: 1, accepted: zeroed(), ..advance };
    let host = ReplayAdvance::behind_decode(&ReplayDecode::new(host_inputs(), 3, host_pool, host_out));
    assert_eq!(advance.operation(), Ok(host));
}

#[test]
fn calls_for_all_layers() {
    let form = gdn_record_form {
        shape: SHAPE,
        family: GDN_FAMILY_KDA,
        heads: GDN_HEADS_TILED,
        flags: 0,
        l2norm: 0.5,
    };
    let host_form = RecordForm::of(&host_inputs());
    let list = [
        gdn_replay_layer { state: 1, k: 2, d: 3, g: 4, target: 5 },
        gdn_replay_layer { state: 6, k: 7, d: 8, g: 9, target: 10 },
    ];
    let host_list = [1, 6].map(|state| {
        let mut layer = ReplayLayer::new(&host_replay_pool());
        (layer.state, layer.k, layer.d, layer.g) = (state, state + 1, state + 2, state + 3);
        layer.with_target(state + 4)
    });
    let layers = gdn_replay_layers { list: list.as_ptr(), count: 2, table: 77 };
    let host_layers = ReplayLayers { list: &host_list, table: 77 };
    let (replay, host_replay) = (replay_pool(), host_replay_pool());
    let zeros: gdn_replay_fold_call = zeroed();
    let fold = gdn_replay_fold_call { batch: 3, form, pool: replay, layers, ..zeros };
    assert_eq!(fold.operation(), Ok(ReplayFold::new(host_form, 3, host_replay, host_layers)));

    let zeros: gdn_materialise_call = zeroed();
    let materialise = gdn_materialise_call {
        batch: 3,
        form,
        pool: replay,
        layers,
        target: pool(400, GDN_F16, GDN_LAYOUT_VK),
        target_slots: table(410, GDN_I32),
        count: table(420, GDN_U32),
        ..zeros
    };
    let target = host_pool(400, DType::F16, Layout::Vk);
    let host = Materialise::new(host_form, 3, host_replay, host_layers, target)
        .with_target_slots(host_table(410, Entry::I32))
        .with_count(host_table(420, Entry::U32));
    assert_eq!(materialise.operation(), Ok(host));

    let zeros: gdn_replay_commit_call = zeroed();
    let (accepted, path) = (table(430, GDN_I32), table(440, GDN_I64));
    let commit =
        gdn_replay_commit_call { batch: 3, form, tokens: 4, pool: replay, layers, accepted, path, ..zeros };
    let verify = ReplayVerify::new(host_inputs(), 3, 4, host_replay, host_rows(130, DType::F32));
    let (accepted, path) = (host_table(430, Entry::I32), host_table(440, Entry::I64));
    assert_eq!(commit.operation(), Ok(ReplayCommit::behind(&verify, host_layers, accepted, path)));
}

#[test]
fn layers_are_refused_by_what_is_wrong() {
    let list = [gdn_replay_layer { state: 1, k: 2, d: 3, g: 4, target: 5 }; 2];
    let refused = |layers: gdn_replay_layers| layers.read().unwrap_err();
    let layers = gdn_replay_layers { list: list.as_ptr(), count: 2, table: 8 };
    let null = refused(gdn_replay_layers { list: std::ptr::null(), ..layers });
    assert_eq!((null.status, null.message.as_str()), (GDN_ERROR_NULL, "layers.list is NULL"));
    let many = refused(gdn_replay_layers { count: 65_536, ..layers });
    assert_eq!(many.message, "layers.count: 65536 is not allowed, it must be 1 to 65535");
    let odd = refused(gdn_replay_layers { list: list.as_ptr().wrapping_byte_add(4), ..layers });
    assert_eq!(odd.message, "layers.list: it is not aligned to 8 bytes");
}
