//! Layers that keep their states in a [`gdn_host::ReplayState`]: checkpoints, and rings of records.

mod alone;
mod slots;

use super::Size;
use super::lane::{Lane, differ};
use super::layer::{Calls, IO, Layer, NULL_SLOT};
use super::past::Past;
use super::plain;
use super::step::{DRAFTS, Field, Form, Kind, MOST_TOKENS, RECORDS, Tables};
use super::tokens::Lineage;
use crate::compare::{rel_l2, widen};
use crate::device::Device;
use crate::random::Noise;
use crate::strided::decode_values;
use alone::Alone;
use anyhow::Result;
use gdn_host::{
    DType, Family, Layout, RecordForm, Recurrent, ReplayAdvance, ReplayDecode, ReplayShape, ReplayVerify,
    Source, Start, Target,
};
use slots::Slots;

/// Layers of a lane: cursors, copies and folds are for all of them at once.
const LAYERS: usize = 2;

/// How far the true state may be from that of plain decode, whose state is f32. Both are off themselves, in f32 by 1e-6 and 2e-6; a
/// 16-bit state is rounded at each fold.
fn limit(dtype: DType) -> f64 {
    if dtype == DType::F32 { 3e-6 } else { 2e-2 }
}

/// The layers, the server's memory, and that of a sequence alone: with the same folds, and by plain decode.
pub struct Records {
    layers: Vec<Layer>,
    server: Slots,
    alone: Alone,
    plain: Vec<plain::Alone>,
    vocabulary: usize,
    furthest: f64,
}

impl Records {
    /// Layers of the server.
    pub fn new(
        device: &mut dyn Device,
        size: &Size,
        (family, dtype): (Family, DType),
        noise: &mut Noise,
    ) -> Result<Records> {
        let (form, rows) = (RecordForm::new(size.records, family), size.most_rows());
        let layers: Vec<Layer> = (0..LAYERS)
            .map(|_| Layer::new(device, size, form.shape, family, noise))
            .collect::<Result<_>>()?;
        let of_slots =
            |slots| ReplayShape::new(form, dtype, IO, slots, RECORDS as u32).with_drafts(DRAFTS as u32);
        // Windows have slots by token as well, behind those of the allocator.
        let windows = size.slots as usize + rows * MOST_TOKENS;
        let memory =
            |device: &mut dyn Device, layer: &Layer| layer.memory(device, rows * MOST_TOKENS, windows, rows);
        let server = Slots::new(device, &layers, of_slots(size.slots).with_null_slot(NULL_SLOT), memory)?;
        let alone = Alone::new(device, &layers, of_slots(1))?;
        let plain = layers.iter().map(|layer| plain::Alone::new(device, layer, Layout::Vk, DType::F32));
        let plain = plain.collect::<Result<_>>()?;
        Ok(Records { layers, server, alone, plain, vocabulary: size.vocabulary, furthest: 0.0 })
    }

    fn dtype(&self) -> DType {
        self.server.states.shape().state
    }

    /// How far a layer's true state is from that of plain decode.
    fn distance(&self, device: &mut dyn Device, layer: usize, tokens: &Lineage, got: &[u8]) -> Result<f64> {
        let plain = self.plain[layer].decode(device, &self.layers[layer], tokens, self.vocabulary)?;
        let elements = self.layers[layer].shape.state_elements() as usize;
        let state =
            |bytes: &[u8], dtype: DType| widen(&decode_values(&bytes[..elements * dtype.size()], dtype));
        Ok(rel_l2(&state(got, self.dtype()), &state(&plain, DType::F32)))
    }
}

impl Lane for Records {
    fn calls(&self, tables: &Tables, form: Form) -> Result<Calls<'_>> {
        let states = &self.server.states;
        let (rows, tokens) = (form.rows as u32, form.tokens as u32);
        let of_rows = |field| tables.table(field, form.rows);
        let own = of_rows(Field::WriteSlots);
        let (from, to) = (of_rows(Field::CopyFrom), of_rows(Field::CopyTo));
        let start = Start::Reset(of_rows(Field::Reset));
        // A ring stays where it is, so that every sequence works in its own slot.
        let mut calls: Calls = vec![Box::new(states.copy(rows, from, to)), Box::new(states.empty(rows, to))];
        if form.kind == Kind::Prompt {
            calls.push(Box::new(states.fold(rows, of_rows(Field::Stated))));
            calls.push(Box::new(states.empty(rows, own)));
        }
        let mut advance = None;
        for (i, (layer, memory)) in self.layers.iter().zip(&self.server.memory).enumerate() {
            calls.extend(layer.in_front(memory, tables, form));
            let (inputs, out) = (layer.inputs(memory, 0), memory.out);
            let pool = states.pool(i)?.with_slots(own).with_start(start);
            let forced = pool.with_force(of_rows(Field::Force));
            match form.kind {
                Kind::Decode | Kind::CopyAndDecode => {
                    let decode = ReplayDecode::new(inputs, rows, forced, out);
                    advance = Some(ReplayAdvance::behind_decode(&decode));
                    calls.push(Box::new(decode));
                }
                Kind::DraftToBuffer | Kind::DraftToSlots => {
                    let verify = ReplayVerify::new(inputs, rows, tokens, forced, out);
                    advance = Some(ReplayAdvance::behind_verify(&verify, of_rows(Field::Accepted)));
                    calls.push(Box::new(verify));
                }
                Kind::Prompt => {
                    let source = Source::Slots { pool: pool.state, slots: own };
                    let call = Recurrent::new(inputs, form.these(tables), source, Target::Slots(own), out);
                    let call = call.with_start(start).with_null_slot(NULL_SLOT).with_rounded_state();
                    calls.push(Box::new(call));
                }
            }
            calls.extend(layer.behind(memory, tables, form));
        }
        if let Some(advance) = advance {
            calls.push(Box::new(advance));
        }
        Ok(calls)
    }

    fn read(&self, device: &mut dyn Device, slot: usize) -> Result<Vec<u8>> {
        Ok(self.server.read(device, slot)?.concat())
    }

    fn write(&self, device: &mut dyn Device, slot: usize, bytes: &[u8]) -> Result<()> {
        self.server.write(device, slot, bytes)
    }

    fn difference(
        &mut self,
        device: &mut dyn Device,
        slot: usize,
        tokens: &Lineage,
        past: &Past,
    ) -> Result<Option<String>> {
        let live = self.server.live(device, slot)?;
        if live != past.live() as i32 {
            return Ok(Some(format!("its ring has {live} live records, not {}", past.live())));
        }
        let got = self.server.read(device, slot)?;
        let want = self.alone.replay(device, &self.layers, tokens, past, self.vocabulary)?;
        for (layer, (got, want)) in got.iter().zip(&want).enumerate() {
            if let Some(how) = differ(got, want) {
                return Ok(Some(format!("with the same folds, {how} in its layer {layer}")));
            }
            // Half of what a check takes: of one layer, each in its turn.
            if layer != tokens.len() % LAYERS {
                continue;
            }
            let (off, limit) = (self.distance(device, layer, tokens, got)?, limit(self.dtype()));
            self.furthest = self.furthest.max(off);
            if off > limit {
                return Ok(Some(format!(
                    "its layer {layer} is {off:.1e} from plain decode, and {limit:.0e} is allowed"
                )));
            }
        }
        Ok(None)
    }

    fn furthest(&self) -> Option<(String, f64)> {
        let family = match self.server.states.shape().form.family {
            Family::Gdn => "GDN",
            Family::Kda => "KDA",
        };
        Some((format!("{family}, {} states with records", self.dtype().name()), self.furthest))
    }
}
