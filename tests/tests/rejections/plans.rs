//! Tiles that calls refuse, and those that exist.

use crate::calls::{self, SHAPE, Space};
use gdn_host::plan::{Job, Overlap, Tuning};
use gdn_host::{
    Caps, DType, Family, HeadShape, Layout, ModuleKey, Operation, Plan, Recurrent, Source, Target, Tile,
    Tokens, plan,
};
use gdn_kernels::abi::flags;
use std::mem::offset_of;

const CAPS: Caps = Caps { sms: 132, compute: 90, memory_gbps: 3352 };

#[test]
fn tiles_that_do_not_exist() {
    let module = ModuleKey::decode(Family::Gdn, Layout::Vk, DType::F32, DType::Bf16, 128);
    let plan = |shape, tile| {
        plan::tiled(&Job { module, shape, batch: 1, stores_each: false }, &CAPS, Tuning::nearest(&CAPS), tile)
    };
    let small = HeadShape { k: 64, v: 64, ..SHAPE };
    let error = |shape, tile| plan(shape, tile).unwrap_err().to_string();
    let text = "tile: BV 256 is not possible for decode_f32_bf16_k128 with V = 128: it must be 4, 8, 16, 32, 64 or 128";
    assert_eq!(error(SHAPE, Tile::Rows(256)), text);
    let odd = HeadShape { k: 128, v: 160, ..SHAPE };
    let text = "tile: BV 64 is not possible for decode_f32_bf16_k128 with V = 160: it must be 4, 8, 16 or 32";
    assert_eq!(error(odd, Tile::Rows(64)), text);
    let text = "tile: 2 rows with 32 warps is not possible for decode_f32_bf16_k128 with V = 128: it must be 2 with 1 to 16 or \
                8 with 1 to 8 warps, a power of two";
    assert_eq!(error(SHAPE, Tile::Exact { rows: 2, warps: 32 }), text);
    let none = ModuleKey::decode(Family::Kda, Layout::Vk, DType::F32, DType::Bf16, 96);
    let job = Job { module: none, shape: HeadShape { k: 96, ..SHAPE }, batch: 1, stores_each: false };
    let text = "there is no kernel kda_decode_f32_bf16_k96 for V = 128";
    assert_eq!(plan::tiled(&job, &CAPS, Tuning::nearest(&CAPS), Tile::Auto).unwrap_err().to_string(), text);
    assert!(error(SHAPE, Tile::Rows(24)).contains("BV 24"));
    assert!(error(SHAPE, Tile::Rows(2)).contains("BV 2 "));
    assert!(error(small, Tile::Rows(128)).contains("BV 128"));
    let three = Tile::Exact { rows: 3, warps: 1 };
    assert!(error(SHAPE, three).contains("3 rows with 1 warps"));
    assert!(error(SHAPE, Tile::Exact { rows: 2, warps: 32 }).contains("32 warps"));
    assert!(error(SHAPE, Tile::Exact { rows: 8, warps: 16 }).contains("16 warps"));
    assert!(error(SHAPE, Tile::Exact { rows: 2, warps: 3 }).contains("3 warps"));
    assert!(error(SHAPE, Tile::Exact { rows: 2, warps: 0 }).contains("0 warps"));
    for bv in [4, 8, 16, 32, 64, 128] {
        let plan = plan(SHAPE, Tile::Rows(bv)).unwrap();
        assert_eq!((plan.bv, plan.grid[0]), (bv, 4 * 128 / bv), "BV {bv}");
    }
}

/// In layout KV a tile is that of a team of warps, and a block has whole teams.
#[test]
fn tiles_that_do_not_exist_in_kv() {
    let kv = |key: fn(Family, Layout, DType, DType, u32) -> ModuleKey, state, k, tile| {
        let module = key(Family::Gdn, Layout::Kv, state, DType::Bf16, k);
        let job = Job { module, shape: HeadShape { k, ..SHAPE }, batch: 1, stores_each: false };
        let plan = plan::tiled(&job, &CAPS, Tuning::nearest(&CAPS), tile);
        plan.map(|plan| (plan.rows, plan.warps, plan.bv)).map_err(|error| error.to_string())
    };
    let refused = |bv: u32, module: &str, possible: &str| {
        Err(format!("tile: BV {bv} is not possible for {module} with V = 128: it must be {possible}"))
    };
    let (decode, recurrent) = (ModuleKey::decode, ModuleKey::recurrent);
    assert_eq!(
        kv(decode, DType::F32, 128, Tile::Rows(8)),
        refused(8, "decode_kv_f32_bf16_k128", "16, 32 or 64")
    );
    assert_eq!(
        kv(decode, DType::F32, 128, Tile::Rows(128)),
        refused(128, "decode_kv_f32_bf16_k128", "16, 32 or 64")
    );
    assert_eq!(kv(decode, DType::F32, 128, Tile::Rows(16)), Ok((8, 2, 16)));
    assert_eq!(kv(decode, DType::F32, 128, Tile::Rows(32)), Ok((8, 4, 32)));
    assert_eq!(kv(decode, DType::F32, 128, Tile::Rows(64)), Ok((32, 8, 64)));
    assert_eq!(
        kv(recurrent, DType::F32, 128, Tile::Rows(4)),
        refused(4, "recurrent_kv_f32_bf16_k128", "32 or 64")
    );
    assert_eq!(
        kv(recurrent, DType::F32, 64, Tile::Rows(16)),
        refused(16, "recurrent_kv_f32_bf16_k64", "32, 64 or 128")
    );
    assert_eq!(
        kv(recurrent, DType::Bf16, 128, Tile::Rows(16)),
        refused(16, "recurrent_kv_bf16_bf16_k128", "32, 64 or 128")
    );
    assert_eq!(kv(recurrent, DType::Bf16, 64, Tile::Rows(64)), Ok((8, 2, 64)));
    let half_a_team = kv(decode, DType::F32, 128, Tile::Exact { rows: 32, warps: 4 }).unwrap_err();
    assert!(half_a_team.contains("32 rows with 4 warps"), "{half_a_team}");
    // Small tiles have few teams, as many as their shared memory is for.
    let too_many = kv(decode, DType::Bf16, 128, Tile::Exact { rows: 16, warps: 4 }).unwrap_err();
    assert!(too_many.contains("16 rows with 4 warps"), "{too_many}");
}

/// Every kernel that a call may name is in the table.
#[test]
fn every_plan_names_a_kernel_of_the_table() {
    let kinds = [Layout::Vk, Layout::Kv].into_iter().flat_map(|l| [(l, Family::Gdn), (l, Family::Kda)]);
    let types = [
        (DType::F32, DType::F16),
        (DType::Bf16, DType::Bf16),
        (DType::F32, DType::F32),
        (DType::F16, DType::Bf16),
    ];
    for ((layout, family), (state, io)) in kinds.flat_map(|kind| types.map(|types| (kind, types))) {
        let dims = [(64, 64), (64, 128), (64, 32), (128, 64), (128, 128), (128, 160), (96, 192), (256, 512)];
        let is_there = |k: &u32| {
            [64, 128].contains(k)
                || family == Family::Gdn && (io, state) != (DType::Bf16, DType::F16) && io != DType::F16
        };
        for (k, v) in dims.into_iter().filter(|(k, _)| is_there(k)) {
            let shape = HeadShape { k, v, ..SHAPE };
            let (mut decode, mut recurrent) = (calls::decode(), calls::recurrent());
            for inputs in [&mut decode.inputs, &mut recurrent.inputs] {
                (inputs.shape, inputs.family, inputs.q.tensor.dtype) = (shape, family, io);
            }
            (decode.state.layout, decode.state.tensor.dtype) = (layout, state);
            if let Source::Slots { pool, .. } = &mut recurrent.source {
                (pool.layout, pool.tensor.dtype) = (layout, state);
            }
            for call in [&decode as &dyn Operation, &recurrent] {
                let module = call.plan(&CAPS, Tile::Auto).unwrap().module;
                for tile in plan::tiles(module, &shape).chain([Tile::Auto]) {
                    let entry = call.plan(&CAPS, tile).unwrap().entry();
                    assert!(gdn_kernels::KERNELS.iter().any(|k| k.name == entry), "no kernel {entry}");
                }
            }
        }
    }
}

/// A call that stores the state after each token says so, whether into a buffer or into slots of the pool.
#[test]
fn stores_after_each_token_count_in_a_plan() {
    let plan = |change: &dyn Fn(&mut Recurrent, &mut Space)| {
        let (mut call, mut space) = (calls::recurrent(), calls::elsewhere());
        call.tokens = Tokens::Each { batch: 128, tokens: 2 };
        change(&mut call, &mut space);
        let plan = call.plan(&CAPS, Tile::Auto).unwrap();
        (plan.rows, plan.ahead > 0)
    };
    let in_kv = |call: &mut Recurrent| {
        if let Source::Slots { pool, .. } | Source::Accepted { pool, .. } = &mut call.source {
            pool.layout = Layout::Kv;
        }
    };
    assert_eq!(plan(&|call, _| in_kv(call)), (16, true));
    let into_a_buffer = |call: &mut Recurrent, space: &mut Space| {
        call.intermediate = Some(calls::buffer(space, DType::F32));
        in_kv(call);
    };
    assert_eq!(plan(&into_a_buffer), (32, false));
    let into_slots = |call: &mut Recurrent, space: &mut Space| {
        (call.source, call.target) = (calls::accepted(space), Target::EachToken(space.by_token()));
        in_kv(call);
    };
    assert_eq!(plan(&into_slots), (32, false));
}

/// The kernel waits where it was launched to start early, and nowhere else; nothing else of its argument differs.
#[test]
fn early_flag_is_set_exactly_in_early_plans() {
    use gdn_kernels::abi::{DecodeParams, Layer};
    let check = |call: &dyn Operation, layer: usize| {
        let plan = call.plan(&CAPS, Tile::Auto).unwrap();
        assert!(!plan.early, "only Gdn::plan makes a plan early");
        assert_eq!(call.overlap(), Overlap::States);
        let (plain, early) = (call.params(&plan), call.params(&Plan { early: true, ..plan }));
        let (plain, early) = (plain.as_bytes(), early.as_bytes());
        let at = layer + offset_of!(Layer, flags);
        let flags_of = |bytes: &[u8]| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!(flags_of(plain) & flags::EARLY, 0);
        assert_eq!(flags_of(early), flags_of(plain) | flags::EARLY);
        assert_eq!((&plain[..at], &plain[at + 4..]), (&early[..at], &early[at + 4..]));
    };
    for family in [Family::Gdn, Family::Kda] {
        let mut decode = calls::decode();
        decode.inputs.family = family;
        check(&decode, offset_of!(DecodeParams, layer));
    }
    // With several tokens it does not pay.
    assert_eq!(calls::recurrent().overlap(), Overlap::Never);
}
