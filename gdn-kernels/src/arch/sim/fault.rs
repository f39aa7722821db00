//! What went wrong in a simulated launch, and where.
//!
//! A fault names the kernel, block and thread, and for a global access the address and the extent closest to
//! it: enough to find the wrong index expression without running anything again.

use std::fmt;

/// The first fault of a launch: of the lowest block that has one, in the order its threads run.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// Entry name of the kernel.
    pub kernel: &'static str,
    /// Index of the block in the grid: x, y, z.
    pub block: [u32; 3],
    /// Thread within the block. Of several that wait for others in vain, the lowest.
    pub thread: u32,
    /// What happened.
    pub kind: FaultKind,
}

/// Whose value each lane gets in a shuffle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Lane `lane ^ mask`'s.
    Xor(u32),
    /// That of lane `lane` of the own group of `width` lanes; every lane names one.
    Broadcast {
        /// Lane within the group.
        lane: u32,
        /// Lanes of a group, a power of two.
        width: u32,
    },
}

impl Pattern {
    /// Whether lanes with these patterns exchange values in one shuffle.
    pub(super) fn meets(self, other: Pattern) -> bool {
        match (self, other) {
            (Pattern::Broadcast { width, .. }, Pattern::Broadcast { width: theirs, .. }) => width == theirs,
            _ => self == other,
        }
    }

    /// The lane that `lane` gets its value from. Like the hardware it looks at the low bits only.
    pub(super) fn source(self, lane: usize) -> usize {
        match self {
            Pattern::Xor(mask) => lane ^ (mask as usize % 32),
            Pattern::Broadcast { lane: source, width } => {
                let within = width as usize - 1;
                lane & !within | source as usize & within
            }
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Xor(mask) => write!(f, "shuffle_xor({mask})"),
            Pattern::Broadcast { lane, width } => write!(f, "broadcast({lane}, {width})"),
        }
    }
}

/// Kinds of fault. Addresses and sizes are in bytes; `others` says in words what the other threads did.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum FaultKind {
    /// A global access that does not lie wholly inside one extent.
    OutOfBounds {
        /// First byte of the access.
        address: u64,
        /// Bytes of the access.
        bytes: u32,
        /// Whether it is a store.
        store: bool,
        /// The closest extent.
        near: Option<Near>,
    },
    /// A global access inside an extent, but in memory that was never allocated: the extent is wrong.
    Unallocated {
        /// First byte of the access.
        address: u64,
        /// Bytes of the access.
        bytes: u32,
        /// Whether it is a store.
        store: bool,
        /// The extent.
        near: Option<Near>,
    },
    /// A store to an extent that is not writable.
    ReadOnly {
        /// First byte of the store.
        address: u64,
        /// Bytes of the store.
        bytes: u32,
        /// The extent.
        near: Option<Near>,
    },
    /// In an early launch, an access before the thread waited for the predecessor, which may still write there or read.
    BeforeWait {
        /// First byte of the access.
        address: u64,
        /// Bytes of the access.
        bytes: u32,
        /// Whether it is a store.
        store: bool,
        /// The closest extent.
        near: Option<Near>,
    },
    /// In an early launch, a successor let start before the thread waited for the predecessor: the successor's own wait, which
    /// is for this launch, would not reach that far back.
    TriggerBeforeWait,
    /// A global access at an address that is not a multiple of its size.
    Misaligned {
        /// First byte of the access.
        address: u64,
        /// Bytes of the access.
        bytes: u32,
        /// Whether it is a store.
        store: bool,
        /// The closest extent.
        near: Option<Near>,
    },
    /// A global load of a byte that was never written.
    Uninitialised {
        /// The first such byte.
        address: u64,
        /// The extent it lies in.
        near: Option<Near>,
    },
    /// Two accesses of different blocks to one byte of global memory, one of them a store: nothing orders blocks.
    GlobalRace {
        /// First byte of the access.
        address: u64,
        /// Bytes of the access.
        bytes: u32,
        /// Whether it is a store.
        store: bool,
        /// The other access; `None` if the launch, run again to find it, went another way.
        other: Option<Box<Other>>,
        /// The extent.
        near: Option<Near>,
    },
    /// A shuffle that some lanes of the warp did not come to.
    UnconvergedShuffle {
        /// The shuffle.
        pattern: Pattern,
        /// Where the other lanes were.
        others: String,
    },
    /// A shuffle whose lanes asked for different exchanges.
    MismatchedShuffle {
        /// What the reporting lane asked for.
        pattern: Pattern,
        /// What the other lanes passed.
        others: String,
    },
    /// A warp barrier that some lanes of the warp did not come to.
    UnconvergedWarpSync {
        /// Where the other lanes were.
        others: String,
    },
    /// A block barrier that some threads of the block did not come to.
    UnconvergedBarrier {
        /// Where the other threads were.
        others: String,
    },
    /// Two accesses to shared memory, one of them a store, that no barrier orders.
    SharedRace {
        /// First byte of the word both touched.
        byte: u32,
        /// Whether the reporting thread's access is the store.
        store: bool,
        /// The thread that touched the word before.
        other: u32,
        /// Whether that was a store.
        other_store: bool,
    },
    /// An access past the end of the block's shared memory.
    SharedOutOfBounds {
        /// First byte of the access.
        byte: u32,
        /// Bytes of the access.
        bytes: u32,
        /// Bytes of shared memory the launch asked for.
        limit: u32,
    },
    /// An access to shared memory at an offset that is not a multiple of its size.
    SharedMisaligned {
        /// First byte of the access.
        byte: u32,
        /// Bytes of the access.
        bytes: u32,
    },
    /// A load of a word of shared memory that no thread of the block stored.
    SharedUninitialised {
        /// First byte of the word.
        byte: u32,
    },
    /// A launch whose shape is not one the kernel or the hardware takes; block and thread are 0.
    Shape(String),
    /// Kernel code panicked, with this message.
    Panicked(String),
}

/// An access of another block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Other {
    /// Index of the block in the grid: x, y, z.
    pub block: [u32; 3],
    /// Thread within the block.
    pub thread: u32,
    /// Whether it is a store.
    pub store: bool,
}

/// The extent closest to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Near {
    /// Its name.
    pub name: &'static str,
    /// Its size in bytes.
    pub bytes: u64,
    /// The address, counted from the extent's start; negative when it lies before.
    pub offset: i128,
}

impl std::error::Error for Fault {}

impl Fault {
    /// Whether two blocks raced.
    pub(super) fn is_race(&self) -> bool {
        matches!(self.kind, FaultKind::GlobalRace { .. })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [x, y, z] = self.block;
        let (thread, warp, lane) = (self.thread, self.thread / 32, self.thread % 32);
        write!(f, "{}, ", self.kernel)?;
        if !matches!(self.kind, FaultKind::Shape(_)) {
            write!(f, "block ({x}, {y}, {z}), thread {thread} (warp {warp}, lane {lane}): ")?;
        }
        self.kind.fmt(f)
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use FaultKind::*;
        match self {
            OutOfBounds { address, bytes, store, near } => {
                let access = access(*store);
                write!(f, "{access} of {bytes} bytes at {address:#x} is outside every extent")?;
                tell_near(f, near)
            }
            Unallocated { address, bytes, store, near } => {
                let access = access(*store);
                write!(f, "{access} of {bytes} bytes at {address:#x}, where nothing is allocated")?;
                tell_near(f, near)
            }
            ReadOnly { address, bytes, near } => {
                write!(f, "store of {bytes} bytes at {address:#x} to read-only memory")?;
                tell_near(f, near)
            }
            BeforeWait { address, bytes, store, near } => {
                let access = access(*store);
                write!(f, "{access} of {bytes} bytes at {address:#x} before the wait for the predecessor")?;
                tell_near(f, near)
            }
            TriggerBeforeWait => write!(f, "the successor may start before the wait for the predecessor"),
            Misaligned { address, bytes, store, near } => {
                let access = access(*store);
                write!(f, "misaligned {access} of {bytes} bytes at {address:#x}")?;
                tell_near(f, near)
            }
            Uninitialised { address, near } => {
                write!(f, "load of the byte at {address:#x}, which was never written")?;
                tell_near(f, near)
            }
            GlobalRace { address, bytes, store, other, near } => {
                write!(f, "{} of {bytes} bytes at {address:#x} races with ", access(*store))?;
                match other {
                    Some(other) => {
                        let Other { block: [x, y, z], thread, store } = &**other;
                        write!(f, "a {} by block ({x}, {y}, {z}), thread {thread}", access(*store))?;
                    }
                    None => write!(f, "another block")?,
                }
                tell_near(f, near)
            }
            UnconvergedShuffle { pattern, others } => {
                write!(f, "{pattern} without the rest of the warp: {others}")
            }
            MismatchedShuffle { pattern, others } => {
                write!(f, "{pattern} meets other shuffles: {others}")
            }
            UnconvergedWarpSync { others } => {
                write!(f, "sync_warp without the rest of the warp: {others}")
            }
            UnconvergedBarrier { others } => {
                write!(f, "sync_threads without the rest of the block: {others}")
            }
            SharedRace { byte, store, other, other_store } => {
                let (mine, theirs) = (access(*store), access(*other_store));
                write!(
                    f,
                    "{mine} of shared byte {byte} races with a {theirs} by thread {other}: no barrier between"
                )
            }
            SharedOutOfBounds { byte, bytes, limit } => {
                write!(f, "access of {bytes} bytes at shared byte {byte}, past the launch's {limit}")
            }
            SharedMisaligned { byte, bytes } => {
                write!(f, "misaligned access of {bytes} bytes at shared byte {byte}")
            }
            SharedUninitialised { byte } => {
                write!(f, "load of shared byte {byte}, which was never written")
            }
            Shape(message) => write!(f, "launch refused: {message}"),
            Panicked(message) => write!(f, "panicked: {message}"),
        }
    }
}

fn access(store: bool) -> &'static str {
    if store { "store" } else { "load" }
}

fn tell_near(f: &mut fmt::Formatter<'_>, near: &Option<Near>) -> fmt::Result {
    match near {
        Some(near) => write!(f, "; {near}"),
        None => write!(f, "; the launch has no extents"),
    }
}

impl fmt::Display for Near {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Near { name, bytes, offset } = *self;
        if offset < 0 {
            write!(f, "{} bytes before `{name}` ({bytes} bytes)", -offset)
        } else if offset < bytes as i128 {
            write!(f, "byte {offset} of `{name}` ({bytes} bytes)")
        } else {
            let past = offset - bytes as i128;
            write!(f, "{past} bytes past the end of `{name}` ({bytes} bytes)")
        }
    }
}
