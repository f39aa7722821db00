//! A real kernel in the simulator, launched as a host would, against the recurrence written out in f64.

use std::f64::consts::LN_2;

use bytemuck::{Pod, bytes_of, cast_slice};
use gdn_kernels::abi::{DType, DecodeParams, Entry, Table, flags, head_reciprocal};
use gdn_kernels::arch::sim::{Extent, FaultKind, Launch, Memory, launch};
use gdn_kernels::{KERNELS, Kernel};
use half::bf16;

const K: usize = 128;
const V: usize = 128;
/// Rows of V that a warp works on: R of the kernel times 256 / K.
const WARP_ROWS: usize = 16;

/// Numbers in -1..1 that look random and are the same every time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn f32(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.next()).collect()
    }

    /// Bits of bf16.
    fn bf16(&mut self, count: usize) -> Vec<u16> {
        (0..count).map(|_| bf16::from_f32(self.next()).to_bits()).collect()
    }
}

/// A decode of `n` sequences, one head each, `n` slots in order: what is in memory, and how it is launched.
struct Decode {
    memory: Memory,
    extents: Vec<Extent>,
    params: DecodeParams,
    warps: u32,
}

fn kernel() -> &'static Kernel {
    KERNELS.iter().find(|kernel| kernel.name == "gdn_decode_f32_bf16_k128_r8").expect("in the table")
}

impl Decode {
    /// Without a state; `slot_pitch` is in elements.
    fn new(x: &Inputs, slot_pitch: u32, slots: u32, slot: &[i32], warps: u32) -> Decode {
        let n = slot.len();
        let mut d =
            Decode { memory: Memory::new(), extents: Vec::new(), params: DecodeParams::default(), warps };
        let mut p = DecodeParams::default();
        p.inputs.q = d.input("q", &x.q);
        p.inputs.k = d.input("k", &x.k);
        p.inputs.v = d.input("v", &x.v);
        (p.inputs.q_stride, p.inputs.k_stride, p.inputs.v_stride) = (K as u32, K as u32, V as u32);
        p.gate.a = d.input("a", &x.a);
        p.gate.b = d.input("b", &x.b);
        p.gate.a_log = d.input("a_log", &x.a_log);
        p.gate.dt_bias = d.input("dt_bias", &x.dt_bias);
        (p.gate.a_stride, p.gate.b_stride) = (1, 1);
        (p.gate.a_dtype, p.gate.b_dtype) = (DType::Bf16 as u32, DType::Bf16 as u32);
        (p.gate.a_log_dtype, p.gate.dt_bias_dtype) = (DType::F32 as u32, DType::F32 as u32);
        (p.gate.softplus_threshold, p.gate.softplus_beta, p.gate.beta_scale) = (20.0, 1.0, 1.0);
        p.pool.slot = Table { address: d.input("slot", slot), stride: 4, entry: Entry::I32 as u32 };
        p.pool.state = d.tensor("state", u64::from(slots) * u64::from(slot_pitch) * 4, true);
        (p.pool.pitch, p.pool.slots, p.pool.null_slot) = (slot_pitch, slots, -1);
        p.out = d.tensor("out", (n * V * 4) as u64, true);
        (p.out_stride, p.n, p.layer.h, p.layer.hv, p.layer.v) = (V as u32, n as u32, 1, 1, V as u32);
        p.layer.tiles_reciprocal = head_reciprocal(d.tiles());
        p.layer.head_reciprocal = head_reciprocal(1);
        p.layer.flags = flags::L2NORM | flags::OUT_F32;
        (p.inputs.scale, p.inputs.eps) = ((K as f32).powf(-0.5), 1e-6);
        d.params = p;
        d
    }

    fn tensor(&mut self, name: &'static str, bytes: u64, writable: bool) -> u64 {
        let address = self.memory.alloc(bytes);
        self.extents.push(Extent { name, address, bytes, writable });
        address
    }

    fn input<T: Pod>(&mut self, name: &'static str, data: &[T]) -> u64 {
        let address = self.tensor(name, size_of_val(data) as u64, false);
        self.memory.write(address, cast_slice(data));
        address
    }

    /// Blocks a state is cut into.
    fn tiles(&self) -> u32 {
        (V / WARP_ROWS) as u32 / self.warps
    }

    fn launch(&self) -> Launch<'_> {
        Launch {
            kernel: kernel(),
            grid: [self.tiles(), self.params.n, 1],
            block: 32 * self.warps,
            shared_bytes: 0,
            params: bytes_of(&self.params),
            extents: &self.extents,
            early: None,
        }
    }

    fn slot_address(&self, slot: u64) -> u64 {
        self.params.pool.state + 4 * slot * u64::from(self.params.pool.pitch)
    }

    fn read(&self, address: u64, count: usize) -> Vec<f32> {
        assert!(self.memory.is_written(address, 4 * count));
        self.memory.read(address, 4 * count).as_chunks().0.iter().map(|&x| f32::from_le_bytes(x)).collect()
    }
}

/// The tensors of `n` sequences of one head; those of u16 hold the bits of bf16.
struct Inputs {
    q: Vec<u16>,
    k: Vec<u16>,
    v: Vec<u16>,
    a: Vec<u16>,
    b: Vec<u16>,
    a_log: Vec<f32>,
    dt_bias: Vec<f32>,
}

impl Inputs {
    fn new(n: usize) -> Inputs {
        let mut x = Numbers(1);
        Inputs {
            q: x.bf16(n * K),
            k: x.bf16(n * K),
            v: x.bf16(n * V),
            a: x.bf16(n),
            b: x.bf16(n),
            a_log: x.f32(1),
            dt_bias: x.f32(1),
        }
    }

    /// One token of sequence `n`: the new state and the output.
    fn expected(&self, n: usize, state: &[f32]) -> (Vec<f64>, Vec<f64>) {
        let wide = |x: &[u16]| -> Vec<f64> { x.iter().map(|&x| bf16::from_bits(x).to_f64()).collect() };
        let unit = |x: Vec<f64>, factor: f64| -> Vec<f64> {
            let norm = (x.iter().map(|x| x * x).sum::<f64>() + 1e-6).sqrt();
            x.iter().map(|x| x / norm * factor).collect()
        };
        let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
        let q = unit(wide(&self.q[n * K..][..K]), (K as f64).powf(-0.5));
        let k = unit(wide(&self.k[n * K..][..K]), 1.0);
        let v = wide(&self.v[n * V..][..V]);
        let (a, b) = (wide(&self.a)[n], wide(&self.b)[n]);
        let softplus = (a + f64::from(self.dt_bias[0])).exp().ln_1p();
        let decay = (-f64::from(self.a_log[0]).exp() * softplus).exp();
        let beta = 1.0 / (1.0 + (-b).exp());
        let (mut new, mut out) = (Vec::new(), Vec::new());
        for (row, v) in state.chunks(K).zip(v) {
            let row: Vec<f64> = row.iter().map(|&h| decay * f64::from(h)).collect();
            let delta = beta * (v - dot(&row, &k));
            let row: Vec<f64> = row.iter().zip(&k).map(|(h, k)| h + delta * k).collect();
            out.push(dot(&row, &q));
            new.extend(row);
        }
        (new, out)
    }
}

/// |got - want| / |want|.
fn error(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let square = |x: f64| x * x;
    let off: f64 = got.iter().zip(want).map(|(&x, y)| square(f64::from(x) - y)).sum();
    (off / want.iter().copied().map(square).sum::<f64>()).sqrt()
}

#[test]
fn decode_matches_the_recurrence_in_f64() {
    let x = Inputs::new(1);
    let state = Numbers(2).f32(V * K);
    let (state_want, out_want) = x.expected(0, &state);
    for warps in [1, 2, 8] {
        let d = Decode::new(&x, (V * K) as u32, 1, &[0], warps);
        d.memory.write(d.params.pool.state, cast_slice(&state));
        launch(&d.memory, &d.launch()).unwrap();
        let (state_got, out_got) = (d.read(d.params.pool.state, V * K), d.read(d.params.out, V));
        assert!(error(&state_got, &state_want) < 3e-7, "{:e}", error(&state_got, &state_want));
        assert!(error(&out_got, &out_want) < 2e-6, "{:e}", error(&out_got, &out_want));
    }
}

#[test]
fn decode_reaches_the_last_slot_of_a_20_gb_pool() {
    let x = Inputs::new(2);
    let state = Numbers(3).f32(V * K);
    let slots = 327_680;
    let d = Decode::new(&x, (V * K) as u32, slots, &[slots as i32 - 1, 0], 4);
    for slot in [0, u64::from(slots) - 1] {
        d.memory.write(d.slot_address(slot), cast_slice(&state));
    }
    launch(&d.memory, &d.launch()).unwrap();
    for (n, slot) in [u64::from(slots) - 1, 0].into_iter().enumerate() {
        let got = d.read(d.slot_address(slot), V * K);
        assert!(error(&got, &x.expected(n, &state).0) < 3e-7);
    }
    assert!(!d.memory.is_written(d.slot_address(1), 1));
    assert!(d.memory.resident() < 2 << 20);
}

#[test]
fn padded_row_touches_no_state_and_is_zero() {
    let x = Inputs::new(2);
    let d = Decode::new(&x, (V * K) as u32, 1, &[-1, 1], 2);
    launch(&d.memory, &d.launch()).unwrap();
    assert_eq!(d.read(d.params.out, 2 * V), [0.0; 2 * V]);
    assert!(!d.memory.is_written(d.params.pool.state, 1));
}

#[test]
fn state_nobody_wrote_is_reported() {
    let x = Inputs::new(1);
    let d = Decode::new(&x, (V * K) as u32, 1, &[0], 2);
    let fault = launch(&d.memory, &d.launch()).unwrap_err();
    assert!(matches!(fault.kind, FaultKind::Uninitialised { .. }));
    let text = fault.to_string();
    assert!(
        text.starts_with("gdn_decode_f32_bf16_k128_r8, block (0, 0, 0), thread 0 (warp 0, lane 0): "),
        "{text}"
    );
    assert!(text.ends_with("; byte 0 of `state` (65536 bytes)"), "{text}");
}

#[test]
fn grid_too_large_for_the_tiles_is_reported() {
    // One tile too many: head 1 of 1.
    let x = Inputs::new(1);
    let d = Decode::new(&x, (V * K) as u32, 1, &[0], 2);
    d.memory.write(d.params.pool.state, cast_slice(&Numbers(4).f32(V * K)));
    let mut wrong = d.launch();
    wrong.grid[0] += 1;
    let fault = launch(&d.memory, &wrong).unwrap_err();
    assert_eq!(fault.block, [d.tiles(), 0, 0]);
    let text = fault.to_string();
    assert!(
        // The keys of a head that is not there are the first to be asked for.
        text.ends_with("is outside every extent; 0 bytes past the end of `k` (256 bytes)"),
        "{text}"
    );
}

#[test]
fn decay_of_one_half_halves_the_state() {
    // beta 0: nothing is corrected, so the state is exactly scaled by exp(-ln 2).
    let x = Inputs::new(1);
    let state = Numbers(5).f32(V * K);
    let mut d = Decode::new(&x, (V * K) as u32, 1, &[0], 1);
    d.memory.write(d.params.pool.state, cast_slice(&state));
    (d.params.gate.a_dtype, d.params.gate.b_dtype) = (DType::F32 as u32, DType::F32 as u32);
    d.params.gate.a = d.input("log decay", &[-LN_2 as f32]);
    d.params.gate.b = d.input("beta", &[0f32]);
    d.params.layer.flags |= flags::DECAY_GIVEN | flags::BETA_GIVEN;
    launch(&d.memory, &d.launch()).unwrap();
    let want: Vec<f64> = state.iter().map(|&h| f64::from(h) / 2.0).collect();
    assert!(error(&d.read(d.params.pool.state, V * K), &want) < 1e-7);
}
