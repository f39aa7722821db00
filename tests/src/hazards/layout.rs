//! The layout of the state in memory: V contiguous gives the bits of K contiguous.

use crate::device::Device;
use crate::problem::{Source, Tokens};
use crate::random::Plain;
use anyhow::{Result, ensure};
use gdn_host::{DType, Family, HeadShape, Layout, Tile};

/// Types of the state and of the inputs that kernels of both layouts exist for, those of every K first.
const PAIRS: [(DType, DType); 6] = [
    (DType::F32, DType::F32),
    (DType::F32, DType::Bf16),
    (DType::Bf16, DType::Bf16),
    (DType::F32, DType::F16),
    (DType::F16, DType::F16),
    (DType::F16, DType::Bf16),
];

/// Every pair of types, K and V, with every tile of KV, against VK.
fn kv_gives_the_bits_of_vk(family: Family, tokens: Tokens, device: &mut dyn Device) -> Result<()> {
    for (i, (state, io)) in PAIRS.into_iter().enumerate() {
        let dims = [(64, 64), (64, 96), (64, 128), (128, 64), (128, 128), (128, 160), (96, 192), (256, 64)];
        let is_served = |k: u32| [64, 128].contains(&k) || family == Family::Gdn && i < 3;
        for (k, v) in dims.into_iter().filter(|(k, _)| is_served(*k)) {
            let shape = HeadShape { h: 1, hv: 1, k, v };
            let plain = Plain { family, io, ..Plain::new(shape, tokens.clone(), state, 191) };
            let mut p = plain.problem();
            let vk = p.run_and_check(device, Tile::Auto)?;
            p.pool.layout = Layout::Kv;
            for tile in p.tiles() {
                ensure!(p.run(device, tile)? == vk, "{tile:?} of layout KV gives other bits; {p:?}");
            }
        }
    }
    Ok(())
}

/// Decode of GDN.
pub fn kv_gives_the_bits_of_vk_in_decode(device: &mut dyn Device) -> Result<()> {
    kv_gives_the_bits_of_vk(Family::Gdn, Tokens::One { batch: 1 }, device)
}

/// Decode of KDA.
pub fn kv_gives_the_bits_of_vk_in_decode_of_kda(device: &mut dyn Device) -> Result<()> {
    kv_gives_the_bits_of_vk(Family::Kda, Tokens::One { batch: 1 }, device)
}

/// Several tokens of GDN.
pub fn kv_gives_the_bits_of_vk_in_recurrent(device: &mut dyn Device) -> Result<()> {
    kv_gives_the_bits_of_vk(Family::Gdn, Tokens::Each { batch: 1, tokens: 2 }, device)
}

/// Several tokens of KDA.
pub fn kv_gives_the_bits_of_vk_in_recurrent_of_kda(device: &mut dyn Device) -> Result<()> {
    kv_gives_the_bits_of_vk(Family::Kda, Tokens::Each { batch: 1, tokens: 2 }, device)
}

/// Several heads, slots in another order and with gaps between them, states of every place of a draft.
pub fn kv_states_in_slots_with_gaps(device: &mut dyn Device) -> Result<()> {
    for state in [DType::F32, DType::Bf16] {
        for tokens in [Tokens::One { batch: 2 }, Tokens::Each { batch: 2, tokens: 3 }] {
            let shape = HeadShape { h: 1, hv: 3, k: 64, v: 128 };
            let mut p = Plain::new(shape, tokens, state, 192).problem();
            p.fill_pool(4, 193);
            p.pool.pitch += 8;
            p.source = Source::Slots(vec![3, 1]);
            if !p.tokens.is_decode() {
                p.make_tree(3, &[0, 0, 0, 0, -1, 0]);
            }
            let vk = p.run_and_check(device, Tile::Auto)?;
            p.pool.layout = Layout::Kv;
            ensure!(p.run_and_check(device, Tile::Auto)? == vk, "layout KV gives other bits; {p:?}");
        }
    }
    Ok(())
}

/// Padded rows and slots nobody names in layout KV.
pub fn kv_padding_touches_nothing(device: &mut dyn Device) -> Result<()> {
    for tokens in [Tokens::One { batch: 3 }, Tokens::Each { batch: 3, tokens: 2 }] {
        let shape = HeadShape { h: 1, hv: 2, k: 64, v: 64 };
        let mut p = Plain { layout: Layout::Kv, ..Plain::new(shape, tokens, DType::F32, 194) }.problem();
        p.fill_pool(5, 195);
        let elements = p.elements();
        p.pool.data[elements..2 * elements].fill(f32::NAN);
        p.source = Source::Slots(vec![4, -1, 2]);
        p.run_and_check(device, Tile::Auto)?;
    }
    Ok(())
}
