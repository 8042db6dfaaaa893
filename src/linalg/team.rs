//! Threads that split a loop and stay awake between loops.
//!
//! Generating a token runs some hundred loops of 10 to 100 µs each. Workers therefore spin for
//! a short while before they sleep: a loop starts within about a microsecond while a model is
//! running, and an idle team uses no processor.
#![expect(unsafe_code, reason = "lends a borrowed closure to other threads; audited here")]
use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// How long a worker waits awake for the next loop.
const SPIN: Duration = Duration::from_micros(300);

type Task<'a> = &'a (dyn Fn(usize) + Sync);

/// A fixed set of threads, the caller's own among them.
pub struct Team {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// Counts loops; odd or even has no meaning, a change is the signal.
    epoch: AtomicU64,
    /// Points to the caller's `Task` while a loop runs.
    task: AtomicPtr<()>,
    len: AtomicUsize,
    next: AtomicUsize,
    /// Workers that have not finished the current loop.
    running: AtomicUsize,
    /// A loop is under way: a nested one runs on its own thread.
    busy: AtomicBool,
    stop: AtomicBool,
    asleep: Mutex<usize>,
    wake: Condvar,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Team {
    /// A team of `threads` threads (at least one, the caller), or of as many as the system gives.
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let workers = (1..threads)
            .map_while(|_| {
                let shared = Arc::clone(&shared);
                std::thread::Builder::new().spawn(move || shared.work()).ok()
            })
            .collect();
        Self { shared, workers }
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `task(i)` once for each `i < len`, in any order, on all threads; returns when all
    /// calls have returned. A loop inside a loop runs on the thread that asks for it.
    ///
    /// # Panics
    /// When a call panics, after the others have ended.
    pub fn run(&self, len: usize, task: impl Fn(usize) + Sync) {
        let s = &*self.shared;
        if len < 2 || self.workers.is_empty() || s.busy.swap(true, Ordering::Acquire) {
            return (0..len).for_each(task);
        }
        let task: Task<'_> = &task;
        s.task.store((&raw const task).cast_mut().cast(), Ordering::Relaxed);
        s.len.store(len, Ordering::Relaxed);
        s.next.store(0, Ordering::Relaxed);
        s.running.store(self.workers.len(), Ordering::Relaxed);
        {
            let asleep = s.asleep.lock().unwrap_or_else(PoisonError::into_inner);
            s.epoch.fetch_add(1, Ordering::Release);
            if *asleep > 0 {
                s.wake.notify_all();
            }
        }
        s.take(task);
        let mut spins = 0_u32;
        while s.running.load(Ordering::Acquire) > 0 {
            wait(&mut spins);
        }
        s.busy.store(false, Ordering::Release);
        let panic = s.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    /// Calls `task(i, item)` once for each item. Items may be disjoint mutable parts of one array.
    pub fn each<T: Send>(&self, items: Vec<T>, task: impl Fn(usize, T) + Sync) {
        let items: Vec<_> = items.into_iter().map(|item| Mutex::new(Some(item))).collect();
        self.run(items.len(), |i| {
            let item = items[i].lock().unwrap_or_else(PoisonError::into_inner).take();
            task(i, item.expect("each index is handed out once"));
        });
    }
}

fn wait(spins: &mut u32) {
    *spins += 1;
    if spins.is_multiple_of(1024) { std::thread::yield_now() } else { std::hint::spin_loop() }
}

impl Shared {
    /// Takes indices until none is left; keeps the first panic for the caller.
    fn take(&self, task: Task<'_>) {
        let caught = catch_unwind(AssertUnwindSafe(|| {
            let len = self.len.load(Ordering::Relaxed);
            loop {
                let i = self.next.fetch_add(1, Ordering::Relaxed);
                if i >= len {
                    break;
                }
                task(i);
            }
        }));
        if let Err(panic) = caught {
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
        }
    }

    fn work(&self) {
        let mut seen = 0;
        while self.next_epoch(&mut seen) {
            // SAFETY: the pointer was stored before the epoch changed (release/acquire), and the
            // caller keeps the task alive until `running` is zero, which is set below.
            let task: Task<'_> = unsafe { *self.task.load(Ordering::Relaxed).cast::<Task<'_>>() };
            self.take(task);
            self.running.fetch_sub(1, Ordering::Release);
        }
    }

    /// Waits for a loop; false when the team is dropped.
    fn next_epoch(&self, seen: &mut u64) -> bool {
        let began = Instant::now();
        let mut spins = 0;
        let changed = |seen: u64| self.epoch.load(Ordering::Acquire) != seen;
        while !changed(*seen) {
            wait(&mut spins);
            if spins.is_multiple_of(1024) && began.elapsed() > SPIN {
                let mut asleep = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
                *asleep += 1;
                while !changed(*seen) {
                    asleep = self.wake.wait(asleep).unwrap_or_else(PoisonError::into_inner);
                }
                *asleep -= 1;
            }
        }
        *seen = self.epoch.load(Ordering::Acquire);
        !self.stop.load(Ordering::Acquire)
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        {
            let _asleep = self.shared.asleep.lock().unwrap_or_else(PoisonError::into_inner);
            self.shared.epoch.fetch_add(1, Ordering::Release);
            self.shared.wake.notify_all();
        }
        for worker in self.workers.drain(..) {
            // A worker's panic was already handed to the caller of its loop.
            drop(worker.join());
        }
    }
}

impl std::fmt::Debug for Team {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Team({})", self.threads())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_is_called_once_in_loop_after_loop() {
        let team = Team::new(4);
        for len in [0, 1, 2, 3, 100, 1000] {
            let calls: Vec<_> = (0..len).map(|_| AtomicUsize::new(0)).collect();
            team.run(len, |i| {
                calls[i].fetch_add(1, Ordering::Relaxed);
            });
            assert!(calls.iter().all(|c| c.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn a_sleeping_team_wakes_up() {
        let team = Team::new(3);
        std::thread::sleep(SPIN * 20);
        let sum = AtomicUsize::new(0);
        team.run(50, |i| {
            sum.fetch_add(i, Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 49 * 50 / 2);
    }

    #[test]
    fn a_nested_loop_runs_in_place() {
        let team = Team::new(2);
        let sum = AtomicUsize::new(0);
        team.run(8, |_| {
            team.run(8, |_| {
                sum.fetch_add(1, Ordering::Relaxed);
            });
        });
        assert_eq!(sum.into_inner(), 64);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_team_lives_on() {
        let team = Team::new(2);
        let caught = catch_unwind(AssertUnwindSafe(|| team.run(9, |i| assert!(i != 5))));
        assert!(caught.is_err());
        let mut parts = [0, 0, 0];
        team.each(parts.iter_mut().collect(), |i, part| *part = i + 1);
        assert_eq!(parts, [1, 2, 3]);
    }
}
