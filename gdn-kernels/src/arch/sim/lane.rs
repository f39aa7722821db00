//! One thread of a block: the coroutine its kernel runs in, and how kernel code finds the thread it is.
//!
//! Kernel code calls free functions (`thread::thread_idx_x()`), so the running lane is a thread-local pointer,
//! set for as long as its coroutine is resumed. A lane leaves its coroutine only by a [`Stop`]: to wait for
//! others, or because of a fault, in which case it is never resumed but unwound when the block is dropped.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};

use super::extent::Access;
use super::fault::{FaultKind, Other, Pattern};
use super::global_memory::Place;
use super::launch::Launch;
use super::scheduler::Block;
use super::touches::By;

/// Bytes of a coroutine's stack, above a guard page. Measured on x86-64: the decode kernels fit in 8 KiB when
/// optimised and in 12 KiB when not, a panic that prints a backtrace in 16 KiB. Only touched pages cost memory.
const STACK: usize = 128 << 10;

/// Why a lane left its coroutine.
pub(super) enum Stop {
    /// It offers `bits`, and continues with those of the lane that the pattern names.
    Shuffle { bits: u32, pattern: Pattern },
    /// It waits for its warp.
    WarpSync,
    /// It waits for its block.
    Barrier,
    /// It did what it must not; it does not continue.
    Fault(Box<FaultKind>),
}

/// Where a thread stands between two resumptions.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum At {
    /// Not yet started.
    Start,
    /// In a shuffle.
    Shuffle { bits: u32, pattern: Pattern },
    /// In `sync_warp`.
    WarpSync,
    /// In `sync_threads`.
    Barrier,
    /// Past the end of the kernel.
    Returned,
}

/// What kernel code can ask about the thread it is.
pub(super) struct Lane<'a> {
    pub(super) block: &'a Block<'a>,
    /// Thread within the block.
    pub(super) thread: u32,
    /// The way out of the coroutine; null before it starts.
    yielder: Cell<*const Yielder<u32, Stop>>,
    /// Whether it has waited for the launch's predecessor.
    waited: Cell<bool>,
    /// Copies to shared memory that it has begun: where each goes, and its bytes.
    copies: RefCell<Vec<(u32, [u8; 16])>>,
}

thread_local! {
    /// The running lane; null outside of kernel code.
    static CURRENT: Cell<*const Lane<'static>> = const { Cell::new(ptr::null()) };
    /// Stacks of finished coroutines.
    static STACKS: RefCell<Vec<DefaultStack>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with the running lane.
pub(super) fn current<R>(f: impl FnOnce(&Lane<'_>) -> R) -> R {
    let lane = CURRENT.get();
    assert!(!lane.is_null(), "kernel code runs only inside `sim::launch`");
    // SAFETY: `Thread::resume` set the pointer to a lane that outlives its coroutine, and kernel code, which
    // alone calls this, runs nowhere but in that coroutine while it is resumed.
    f(unsafe { &*lane })
}

impl<'a> Lane<'a> {
    pub(super) fn new(block: &'a Block<'a>, thread: u32) -> Lane<'a> {
        Lane { block, thread, yielder: Cell::new(ptr::null()), waited: Cell::new(false), copies: RefCell::default() }
    }

    /// Leaves the coroutine until the scheduler resumes it, with the returned bits.
    pub(super) fn stop(&self, stop: Stop) -> u32 {
        // SAFETY: kernel code runs inside the coroutine, whose yielder was set before the kernel was called
        // and lives as long as its stack.
        unsafe { &*self.yielder.get() }.suspend(stop)
    }

    /// Waits for the predecessor, which in the simulator has run.
    pub(super) fn wait(&self) {
        self.waited.set(true);
    }

    /// In an early launch whose predecessor the thread has not waited for: what it may read all the same.
    fn readable_before_wait(&self) -> Option<&[&str]> {
        self.block.launch.early.filter(|_| !self.waited.get())
    }

    /// Lets the successor start, or ends the launch if the thread has not waited.
    pub(super) fn trigger(&self) {
        let result = self.readable_before_wait().map_or(Ok(()), |_| Err(FaultKind::TriggerBeforeWait));
        self.checked(result);
    }

    /// Loads up to 16 bytes, or ends the launch.
    pub(super) fn load(&self, access: Access) -> [u8; 16] {
        let place = self.place(access);
        let Launch { extents, .. } = self.block.launch;
        let value = self.checked(access.load(self.block.memory, place, extents));
        self.touch(access, place);
        value
    }

    /// Stores the first bytes of `value`, or ends the launch.
    pub(super) fn store(&self, access: Access, value: &[u8; 16]) {
        let place = self.place(access);
        self.block.memory.store(place, &value[..access.bytes as usize]);
        self.touch(access, place);
    }

    /// Begins a copy of 16 bytes to the block's shared memory at `byte`, or ends the launch.
    pub(super) fn begin_copy(&self, byte: u32, from: Access) {
        let bytes = self.load(from);
        if !byte.is_multiple_of(16) {
            self.checked::<()>(Err(FaultKind::SharedMisaligned { byte, bytes: 16 }));
        }
        self.copies.borrow_mut().push((byte, bytes));
    }

    /// Ends the copies that the thread has begun.
    pub(super) fn wait_copies(&self) {
        for (byte, bytes) in self.copies.take() {
            for (i, word) in (0..).zip(bytes.as_chunks().0) {
                let stored =
                    self.block.shared.borrow_mut().store(self.thread, byte + 4 * i, u32::from_le_bytes(*word));
                self.checked(stored);
            }
        }
    }

    /// Loads what an access would, which is none: it need not wait, and races with nothing.
    pub(super) fn prefetch(&self, access: Access) {
        let (memory, extents) = (self.block.memory, self.block.launch.extents);
        let place = self.checked(access.place(memory, extents));
        self.checked(access.load(memory, place, extents));
    }

    /// Where an access of the thread goes; ends the launch if it must wait for the predecessor.
    fn place(&self, access: Access) -> Place {
        let extents = self.block.launch.extents;
        if let Some(readable) = self.readable_before_wait() {
            self.checked(access.check_before_wait(extents, readable));
        }
        self.checked(access.place(self.block.memory, extents))
    }

    /// Ends the launch if an access of the thread races with another block's.
    fn touch(&self, access: Access, place: Place) {
        let by = By { block: self.block.number, thread: self.thread };
        let touched = self.block.touches.add(access, place, by).map_err(|other| {
            let Launch { extents, .. } = self.block.launch;
            let index = |By { block, .. }| self.block.launch.index(block);
            let other = other.map(|(by, store)| Other { block: index(by), thread: by.thread, store });
            access.races(other, extents)
        });
        self.checked(touched);
    }

    /// The value, or the end of the launch.
    pub(super) fn checked<T>(&self, result: Result<T, FaultKind>) -> T {
        match result {
            Ok(value) => value,
            Err(kind) => {
                self.stop(Stop::Fault(Box::new(kind)));
                unreachable!("a lane is not resumed after a fault")
            }
        }
    }

    /// The body of the coroutine.
    fn run(&self, yielder: &Yielder<u32, Stop>) {
        self.yielder.set(yielder);
        let launch = self.block.launch;
        // SAFETY: what a kernel must be promised is that the addresses in its parameters may be accessed, and
        // here it accesses them only through `interface`, which refuses the others. The parameters have the
        // size of the kernel's struct (`Launch::check`), and any bytes make a valid one.
        unsafe { (launch.kernel.run)(launch.params) }
    }
}

/// A lane and its coroutine.
pub(super) struct Thread<'a> {
    lane: &'a Lane<'a>,
    /// Present until the thread is dropped.
    coroutine: Option<Coroutine<u32, Stop, ()>>,
    /// Where it stands.
    pub(super) at: At,
}

impl<'a> Thread<'a> {
    /// A thread that has not started.
    pub(super) fn new(lane: &'a Lane<'a>) -> Thread<'a> {
        let pooled = STACKS.with_borrow_mut(Vec::pop);
        let stack = pooled.unwrap_or_else(|| DefaultStack::new(STACK).expect("no memory for a stack"));
        let coroutine = Coroutine::with_stack(stack, |yielder, _| current(|lane| lane.run(yielder)));
        Thread { lane, coroutine: Some(coroutine), at: At::Start }
    }

    /// Thread within the block.
    pub(super) fn index(&self) -> u32 {
        self.lane.thread
    }

    /// Runs the thread from where it stands to its next stop. One that has returned stays there.
    pub(super) fn resume(&mut self, answer: u32) -> Result<(), FaultKind> {
        if self.at == At::Returned {
            return Ok(());
        }
        let coroutine = self.coroutine.as_mut().expect("present until drop");
        CURRENT.set(ptr::from_ref(self.lane).cast());
        let result = catch_unwind(AssertUnwindSafe(|| coroutine.resume(answer)));
        CURRENT.set(ptr::null());
        self.at = match result {
            Ok(CoroutineResult::Return(())) => At::Returned,
            Ok(CoroutineResult::Yield(Stop::Shuffle { bits, pattern })) => At::Shuffle { bits, pattern },
            Ok(CoroutineResult::Yield(Stop::WarpSync)) => At::WarpSync,
            Ok(CoroutineResult::Yield(Stop::Barrier)) => At::Barrier,
            Ok(CoroutineResult::Yield(Stop::Fault(kind))) => return Err(*kind),
            Err(payload) => return Err(FaultKind::Panicked(message(&*payload))),
        };
        Ok(())
    }
}

impl Drop for Thread<'_> {
    /// Unwinds a suspended coroutine and keeps its stack for the next.
    fn drop(&mut self) {
        if let Some(mut coroutine) = self.coroutine.take() {
            coroutine.force_unwind();
            let stack = coroutine.into_stack();
            STACKS.with_borrow_mut(|stacks| stacks.push(stack));
        }
    }
}

/// What a panic said.
fn message(payload: &(dyn Any + Send)) -> String {
    let literal = payload.downcast_ref::<&str>().map(|text| text.to_string());
    literal.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}
