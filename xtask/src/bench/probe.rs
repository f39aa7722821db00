//! Kernels that only benchmarks need, as PTX: a predecessor for decode, what memory allows, and one that does nothing.

use anyhow::{Context as _, Result};
use gdn_host::driver::{Context, Function, JitOptions, Module};
use std::ffi::CStr;

/// A kernel that lets its dependents start at once, waits for its predecessor (if launched early), keeps its multiprocessors
/// for a number of clocks, and stores a word a thread.
const PRODUCER: &CStr = c"
.version 7.8
.target sm_90
.address_size 64

.visible .entry gdn_bench_producer(.param .align 8 .b8 params[16])
.maxntid 128, 1, 1
{
    .reg .pred %p;
    .reg .b32 %r<5>;
    .reg .b64 %rd<7>;

    griddepcontrol.launch_dependents;
    griddepcontrol.wait;
    mov.u64 %rd1, %clock64;
    ld.param.u64 %rd2, [params];
    ld.param.u64 %rd3, [params+8];
    cvta.to.global.u64 %rd2, %rd2;
spin:
    mov.u64 %rd4, %clock64;
    sub.u64 %rd5, %rd4, %rd1;
    setp.lt.u64 %p, %rd5, %rd3;
    @%p bra spin;
    mov.u32 %r1, %ctaid.x;
    mov.u32 %r2, %ntid.x;
    mov.u32 %r3, %tid.x;
    mad.lo.u32 %r4, %r1, %r2, %r3;
    mul.wide.u32 %rd6, %r4, 4;
    add.u64 %rd2, %rd2, %rd6;
    st.global.u32 [%rd2], %r4;
    ret;
}
";

/// A thread reads four vectors of 16 bytes, a block's width apart, flips the bits of a mask in each word and stores them:
/// in place if source and target are one. Blocks go through the memory in its order, or slot by slot as a table lists them.
const MOVE: &CStr = c"
.version 7.4
.target sm_80
.address_size 64

.visible .entry gdn_bench_move(.param .align 8 .b8 params[40])
.maxntid 256, 1, 1
{
    .reg .pred %p<6>;
    .reg .b32 %r<10>;
    .reg .b32 %x<16>;
    .reg .b64 %rd<15>;

    ld.param.u64 %rd1, [params];
    ld.param.u64 %rd2, [params+8];
    ld.param.u64 %rd3, [params+16];
    ld.param.u64 %rd13, [params+24];
    ld.param.u32 %r1, [params+32];
    cvta.to.global.u64 %rd1, %rd1;
    cvta.to.global.u64 %rd2, %rd2;
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    setp.eq.u64 %p5, %rd13, 0;
    @%p5 bra in_order;
    ld.param.u32 %r6, [params+36];
    div.u32 %r7, %r2, %r6;
    rem.u32 %r8, %r2, %r6;
    cvta.to.global.u64 %rd13, %rd13;
    mul.wide.u32 %rd14, %r7, 4;
    add.u64 %rd13, %rd13, %rd14;
    ld.global.u32 %r9, [%rd13];
    mad.lo.u32 %r2, %r9, %r6, %r8;
in_order:
    shl.b32 %r5, %r3, 2;
    mul.wide.u32 %rd4, %r2, %r5;
    cvt.u64.u32 %rd5, %r4;
    add.u64 %rd4, %rd4, %rd5;
    cvt.u64.u32 %rd6, %r3;
    setp.lt.u64 %p1, %rd4, %rd3;
    add.u64 %rd7, %rd4, %rd6;
    setp.lt.u64 %p2, %rd7, %rd3;
    add.u64 %rd8, %rd7, %rd6;
    setp.lt.u64 %p3, %rd8, %rd3;
    add.u64 %rd9, %rd8, %rd6;
    setp.lt.u64 %p4, %rd9, %rd3;
    shl.b64 %rd4, %rd4, 4;
    shl.b64 %rd6, %rd6, 4;
    add.u64 %rd1, %rd1, %rd4;
    add.u64 %rd2, %rd2, %rd4;
    add.u64 %rd7, %rd1, %rd6;
    add.u64 %rd8, %rd7, %rd6;
    add.u64 %rd9, %rd8, %rd6;
    @%p1 ld.global.L1::no_allocate.v4.u32 {%x0, %x1, %x2, %x3}, [%rd1];
    @%p2 ld.global.L1::no_allocate.v4.u32 {%x4, %x5, %x6, %x7}, [%rd7];
    @%p3 ld.global.L1::no_allocate.v4.u32 {%x8, %x9, %x10, %x11}, [%rd8];
    @%p4 ld.global.L1::no_allocate.v4.u32 {%x12, %x13, %x14, %x15}, [%rd9];
    xor.b32 %x0, %x0, %r1;
    xor.b32 %x1, %x1, %r1;
    xor.b32 %x2, %x2, %r1;
    xor.b32 %x3, %x3, %r1;
    xor.b32 %x4, %x4, %r1;
    xor.b32 %x5, %x5, %r1;
    xor.b32 %x6, %x6, %r1;
    xor.b32 %x7, %x7, %r1;
    xor.b32 %x8, %x8, %r1;
    xor.b32 %x9, %x9, %r1;
    xor.b32 %x10, %x10, %r1;
    xor.b32 %x11, %x11, %r1;
    xor.b32 %x12, %x12, %r1;
    xor.b32 %x13, %x13, %r1;
    xor.b32 %x14, %x14, %r1;
    xor.b32 %x15, %x15, %r1;
    add.u64 %rd10, %rd2, %rd6;
    add.u64 %rd11, %rd10, %rd6;
    add.u64 %rd12, %rd11, %rd6;
    @%p1 st.global.cs.v4.u32 [%rd2], {%x0, %x1, %x2, %x3};
    @%p2 st.global.cs.v4.u32 [%rd10], {%x4, %x5, %x6, %x7};
    @%p3 st.global.cs.v4.u32 [%rd11], {%x8, %x9, %x10, %x11};
    @%p4 st.global.cs.v4.u32 [%rd12], {%x12, %x13, %x14, %x15};
    ret;
}
";

/// Loaded before anything is timed, so that the driver's own start is not.
const NOTHING: &CStr = c"
.version 7.0
.target sm_80
.address_size 64

.visible .entry gdn_bench_nothing()
{
    ret;
}
";

/// Argument of the producer.
#[repr(C)]
pub(super) struct ProducerParams {
    /// A word for each thread.
    pub(super) out: u64,
    /// Clocks of a multiprocessor that it takes.
    pub(super) clocks: u64,
}

/// Threads of a block of the producer.
pub(super) const PRODUCER_BLOCK: u32 = 128;

/// Argument of the roof's kernel.
#[repr(C)]
pub(super) struct MoveParams {
    /// What is read.
    pub(super) source: u64,
    /// What is written; the source itself, or apart from it.
    pub(super) target: u64,
    /// Vectors of 16 bytes.
    pub(super) vectors: u64,
    /// `u32[N]`: slots in the order in which blocks go through them; 0: that of the memory.
    pub(super) slots: u64,
    /// Bits of each word that are flipped.
    pub(super) mask: u32,
    /// Blocks that a slot takes; with `slots` only.
    pub(super) slot_blocks: u32,
}

/// Vectors of 16 bytes that a thread of the roof's kernel moves.
pub(super) const MOVE_VECTORS: u64 = 4;
/// Threads of its block at most.
pub(super) const MOVE_BLOCK: u32 = 256;

/// A kernel, with its module.
pub(super) struct Probe {
    pub(super) function: Function,
    _module: Module,
}

impl Probe {
    /// The producer; its PTX needs compute capability 9.0.
    pub(super) fn producer(context: &Context) -> Result<Probe> {
        load(context, PRODUCER, c"gdn_bench_producer")
    }

    /// The roof's kernel.
    pub(super) fn mover(context: &Context) -> Result<Probe> {
        load(context, MOVE, c"gdn_bench_move")
    }

    /// The kernel that does nothing.
    pub(super) fn nothing(context: &Context) -> Result<Probe> {
        load(context, NOTHING, c"gdn_bench_nothing")
    }
}

fn load(context: &Context, ptx: &CStr, name: &CStr) -> Result<Probe> {
    let module = Module::load(context, ptx, &JitOptions::default())
        .with_context(|| format!("{}", name.to_string_lossy()))?;
    Ok(Probe { function: module.function(name)?, _module: module })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The parameter blocks that the PTX declares are the structs.
    #[test]
    fn parameters_have_the_declared_sizes() {
        let declared = |ptx: &CStr| {
            let text = ptx.to_str().unwrap();
            let (_, after) = text.split_once("params[").unwrap();
            after.split_once(']').unwrap().0.parse::<usize>().unwrap()
        };
        assert_eq!(declared(PRODUCER), size_of::<ProducerParams>());
        assert_eq!(declared(MOVE), size_of::<MoveParams>());
    }
}
