//! What a problem runs on: the simulator, or the GPU at hand.

use anyhow::{Context as _, Result, anyhow};
use gdn_host::call::Extent;
use gdn_host::driver::{Context, DeviceBuffer, Driver, Graph, OwnedStream, Stream};
use gdn_host::plan::Overlap;
use gdn_host::{
    Caps, Code, Files, Gdn, Launch, ModuleKey, Operation, ReplayLayer, Tile, Tuning, all_modules,
};
use gdn_kernels::arch::sim;
use std::collections::HashMap;

/// The byte that memory nobody wrote reads as.
pub const POISON: u8 = 0xA5;

/// Tokens of a long run where nobody asked for more.
const SHORT_RUN: u64 = 2100;

/// Something with memory that runs operations.
pub trait Device {
    /// For people: the GPU's name, or the simulator's.
    fn name(&self) -> String;
    /// What plans are made for.
    fn caps(&self) -> Caps;
    /// Tokens that it takes one after the other in a few seconds, if they are small.
    fn tokens_of_a_long_run(&self) -> u64 {
        SHORT_RUN
    }
    /// Frees all memory.
    fn reset(&mut self);
    /// Uninitialised memory; reads as [`POISON`].
    fn alloc(&mut self, bytes: u64) -> Result<u64>;
    /// Copies to the device.
    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<()>;
    /// Copies from the device.
    fn read(&self, address: u64, bytes: u64) -> Result<Vec<u8>>;
    /// Checks, plans and runs calls one behind the other, each launched as asked, and waits for the last.
    fn run_all(&mut self, calls: &[&dyn Operation], launch: Launch) -> Result<()>;
    /// Runs sequences of calls side by side where the device can, else one behind the other, and waits for all of them. Under a
    /// number the device may keep a graph of them and replay it: until [`Self::reset`] the same number stands for the same
    /// calls. Says whether it did.
    fn run_side_by_side(
        &mut self,
        lanes: &[Vec<Box<dyn Operation + '_>>],
        _graph: Option<u64>,
    ) -> Result<bool> {
        for lane in lanes {
            let calls: Vec<&dyn Operation> = lane.iter().map(|call| &**call).collect();
            self.run_all(&calls, Launch::default())?;
        }
        Ok(false)
    }
    /// Checks, plans and runs a call, and waits for it.
    fn run(&mut self, call: &dyn Operation, tile: Tile) -> Result<()> {
        self.run_all(&[call], tile.into())
    }
}

/// Puts bytes into fresh memory.
pub fn place(device: &mut dyn Device, bytes: &[u8]) -> Result<u64> {
    let address = device.alloc(bytes.len() as u64)?;
    device.write(address, bytes)?;
    Ok(address)
}

/// Puts the table of layers into fresh memory, as kernels read it.
pub fn place_layers(device: &mut dyn Device, layers: &[ReplayLayer]) -> Result<u64> {
    place(device, &layers.iter().flat_map(ReplayLayer::row).collect::<Vec<u8>>())
}

/// The lane-accurate simulator.
pub struct Sim {
    memory: sim::Memory,
    sms: u32,
}

impl Default for Sim {
    /// With an H100's multiprocessors.
    fn default() -> Sim {
        Sim::of(132)
    }
}

impl Device for Sim {
    fn name(&self) -> String {
        "simulator".into()
    }

    /// The part that is simulated: an H100's dispatch, but for the number of multiprocessors.
    fn caps(&self) -> Caps {
        Caps { sms: self.sms, compute: 90, memory_gbps: 25 * self.sms }
    }

    fn reset(&mut self) {
        self.memory = sim::Memory::new();
    }

    fn alloc(&mut self, bytes: u64) -> Result<u64> {
        Ok(self.memory.alloc(bytes))
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        self.memory.write(address, bytes);
        Ok(())
    }

    fn read(&self, address: u64, bytes: u64) -> Result<Vec<u8>> {
        Ok(self.memory.read(address, bytes as usize))
    }

    fn run_all(&mut self, calls: &[&dyn Operation], launch: Launch) -> Result<()> {
        calls.iter().try_for_each(|call| self.run_one(*call, launch))
    }
}

impl Sim {
    /// The simulator of a part with so many multiprocessors: with few of them a small batch is planned as a large one.
    pub fn of(sms: u32) -> Sim {
        Sim { memory: sim::Memory::default(), sms }
    }

    fn run_one(&self, call: &dyn Operation, launch: Launch) -> Result<()> {
        let caps = self.caps();
        let plan = launch.plan(call, &caps, Tuning::nearest(&caps))?;
        if call.is_empty() {
            return Ok(());
        }
        let entry = plan.entry();
        let kernel = gdn_kernels::KERNELS.iter().find(|k| k.name == entry);
        let kernel = kernel.with_context(|| format!("the table has no kernel {entry}"))?;
        let params = call.params(&plan);
        let extent = |e: &Extent| sim::Extent {
            name: e.field,
            address: e.address,
            bytes: e.span(),
            writable: e.written,
        };
        let mut extents = Vec::new();
        call.each_extent(&mut |e| extents.push(extent(e)));
        let launch = sim::Launch {
            kernel,
            grid: plan.grid,
            block: plan.block(),
            shared_bytes: 0,
            params: params.as_bytes(),
            extents: &extents,
            early: plan.early.then(|| read_before_wait(call.overlap())),
        };
        sim::launch(&self.memory, &launch).map_err(|fault| anyhow!("{fault}"))
    }
}

/// The arguments that a kernel launched early may read before its predecessor is done.
fn read_before_wait(overlap: Overlap) -> &'static [&'static str] {
    match overlap {
        Overlap::States => &["slots", "write_slots", "start"],
        Overlap::Start | Overlap::Never => &[],
    }
}

/// The memory of this process, where the oracle runs the calls: `gdn_host::reference::host`.
#[derive(Default)]
pub struct Host {
    buffers: Vec<Vec<u128>>,
}

impl Host {
    /// Where bytes at an address lie, if a buffer has them.
    fn place(&self, address: u64, bytes: usize) -> Result<*mut u8> {
        let holds = |buffer: &&Vec<u128>| {
            let begin = buffer.as_ptr() as u64;
            let end = begin + size_of_val(buffer.as_slice()) as u64;
            begin <= address && address + bytes as u64 <= end
        };
        self.buffers.iter().find(holds).context("address of no buffer")?;
        Ok(std::ptr::with_exposed_provenance_mut(address as usize))
    }
}

impl Device for Host {
    fn name(&self) -> String {
        "oracle on host memory".into()
    }

    fn caps(&self) -> Caps {
        Sim::default().caps()
    }

    fn reset(&mut self) {
        self.buffers.clear();
    }

    fn alloc(&mut self, bytes: u64) -> Result<u64> {
        let words = (bytes as usize).div_ceil(size_of::<u128>()).max(1);
        self.buffers.push(vec![u128::from_ne_bytes([POISON; 16]); words]);
        let buffer = self.buffers.last_mut().context("no buffer")?;
        Ok(buffer.as_mut_ptr().expose_provenance() as u64)
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        if !bytes.is_empty() {
            let place = self.place(address, bytes.len())?;
            // SAFETY: the buffer has them, and its address was exposed by `alloc`.
            unsafe { place.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        }
        Ok(())
    }

    fn read(&self, address: u64, bytes: u64) -> Result<Vec<u8>> {
        if bytes == 0 {
            return Ok(Vec::new());
        }
        let place = self.place(address, bytes as usize)?;
        // SAFETY: as above.
        Ok(unsafe { std::slice::from_raw_parts(place, bytes as usize) }.to_vec())
    }

    fn run_all(&mut self, calls: &[&dyn Operation], _launch: Launch) -> Result<()> {
        for call in calls {
            // SAFETY: the call's addresses come from `alloc`, which filled and exposed the memory; nobody else has it.
            unsafe { gdn_host::reference::host::run(*call)? };
        }
        Ok(())
    }
}

/// A GPU, through its primary context.
pub struct Gpu {
    gdn: Gdn,
    buffers: Vec<DeviceBuffer>,
    /// A stream for each of the sequences that run side by side.
    lanes: Vec<OwnedStream>,
    /// Recorded sequences by number, a graph for each lane.
    graphs: HashMap<u64, Vec<Graph>>,
    long_run: u64,
    context: Context,
}

impl Gpu {
    /// The same GPU, which takes a hundred thousand tokens where a test wants a long run: seconds, but minutes under a tool that
    /// looks at every access.
    pub fn for_long_runs(self) -> Gpu {
        Gpu { long_run: 100_000, ..self }
    }

    /// Opens the first GPU and loads every module from the code named.
    pub fn open(code: Code) -> Result<Gpu> {
        Self::open_with(&all_modules(), code)
    }

    /// [`Self::open`] for some modules.
    pub fn open_with(modules: &[ModuleKey], code: Code) -> Result<Gpu> {
        Self::open_from(modules, code, Files::Embedded)
    }

    /// [`Self::open_with`] from files that the caller brings.
    pub fn open_from(modules: &[ModuleKey], code: Code, files: Files) -> Result<Gpu> {
        Self::open_in(Context::primary(0)?, modules, code, files)
    }

    /// Opens any GPU, and makes it the calling thread's current one.
    pub fn open_on(ordinal: u32, modules: &[ModuleKey]) -> Result<Gpu> {
        Self::open_in(Context::primary(ordinal)?, modules, Code::Auto, Files::Embedded)
    }

    /// `context` is current.
    fn open_in(context: Context, modules: &[ModuleKey], code: Code, files: Files) -> Result<Gpu> {
        let gdn = Gdn::load_from(modules, code, files)?;
        Ok(Gpu {
            gdn,
            buffers: Vec::new(),
            lanes: Vec::new(),
            graphs: HashMap::new(),
            long_run: SHORT_RUN,
            context,
        })
    }

    /// The loaded kernels.
    pub fn gdn(&self) -> &Gdn {
        &self.gdn
    }

    /// The context everything lives in.
    pub fn context(&self) -> &Context {
        &self.context
    }

    fn buffer(&self, address: u64) -> Result<(&DeviceBuffer, usize)> {
        let holds = |b: &&DeviceBuffer| (b.address()..b.address() + b.len() as u64).contains(&address);
        let buffer = self.buffers.iter().rev().find(holds).context("address of no buffer")?;
        Ok((buffer, (address - buffer.address()) as usize))
    }
}

impl Device for Gpu {
    fn name(&self) -> String {
        self.context.device().name().unwrap_or_else(|e| e.to_string())
    }

    fn caps(&self) -> Caps {
        *self.gdn.caps()
    }

    fn tokens_of_a_long_run(&self) -> u64 {
        self.long_run
    }

    fn reset(&mut self) {
        self.graphs.clear();
        self.buffers.clear();
    }

    fn alloc(&mut self, bytes: u64) -> Result<u64> {
        let buffer = DeviceBuffer::alloc(&self.context, bytes as usize)?;
        buffer.fill(POISON)?;
        let address = buffer.address();
        self.buffers.push(buffer);
        Ok(address)
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let (buffer, offset) = self.buffer(address)?;
        Ok(buffer.write(offset, bytes)?)
    }

    fn read(&self, address: u64, bytes: u64) -> Result<Vec<u8>> {
        if bytes == 0 {
            return Ok(Vec::new());
        }
        let (buffer, offset) = self.buffer(address)?;
        Ok(buffer.read(offset, bytes as usize)?)
    }

    fn run_all(&mut self, calls: &[&dyn Operation], launch: Launch) -> Result<()> {
        // What filled the memory went through the default stream.
        self.context.synchronize()?;
        let stream = OwnedStream::new(&self.context)?;
        for call in calls {
            // SAFETY: the call's addresses come from `alloc`, the context is current since `open`, and the stream is
            // waited for below.
            unsafe { self.gdn.run_with(*call, launch, stream.as_stream())? };
        }
        Ok(stream.synchronize()?)
    }

    fn run_side_by_side(
        &mut self,
        lanes: &[Vec<Box<dyn Operation + '_>>],
        graph: Option<u64>,
    ) -> Result<bool> {
        while self.lanes.len() < lanes.len() {
            self.lanes.push(OwnedStream::new(&self.context)?);
        }
        // The calls' addresses come from `alloc`, the context is current since `open`, writes have waited until they were done, the
        // streams are waited for below, and graphs go before the memory does.
        let queue = |lane: &[Box<dyn Operation + '_>], stream: Stream| {
            // SAFETY: as said above.
            lane.iter().try_for_each(|call| unsafe { self.gdn.run(call.as_ref(), stream) })
        };
        match graph {
            None => lanes.iter().zip(&self.lanes).try_for_each(|(lane, on)| queue(lane, on.as_stream()))?,
            Some(number) => {
                if !self.graphs.contains_key(&number) {
                    let record = |(lane, on): (&Vec<_>, _)| Graph::capture(on, |stream| queue(lane, stream));
                    let recorded = lanes.iter().zip(&self.lanes).map(record).collect::<Result<_, _>>()?;
                    self.graphs.insert(number, recorded);
                }
                for (graph, on) in self.graphs[&number].iter().zip(&self.lanes) {
                    // SAFETY: as said above.
                    unsafe { graph.launch(on.as_stream())? };
                }
            }
        }
        self.lanes.iter().try_for_each(OwnedStream::synchronize)?;
        Ok(graph.is_some())
    }
}

/// The GPU if there is one, else the simulator, and in that case why.
pub fn best() -> Result<(Box<dyn Device>, Option<String>)> {
    match Driver::open() {
        Err(reason) => Ok((Box::new(Sim::default()), Some(reason.to_string()))),
        Ok(_) => match Gpu::open(Code::Auto) {
            Ok(gpu) => Ok((Box::new(gpu), None)),
            Err(reason) => Ok((Box::new(Sim::default()), Some(format!("{reason:#}")))),
        },
    }
}
