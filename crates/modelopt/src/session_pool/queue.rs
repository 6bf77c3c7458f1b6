//! What lanes take their work from.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Numbers of runs, given out one after the other, and not too far ahead of those that were seen: what
/// was not seen yet is in memory.
pub(super) struct Queue {
    count: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lanes: usize,
    next: usize,
    seen: usize,
    ended: bool,
}

impl State {
    /// How many may be taken before the next is seen. One lane alone waits for who sees, so that nothing
    /// is run in vain.
    fn ahead(&self) -> usize {
        if self.lanes > 1 { 2 * self.lanes } else { 1 }
    }
}

impl Queue {
    /// Numbers below `count`.
    pub(super) fn new(count: usize) -> Self {
        Queue { count, state: Mutex::default(), changed: Condvar::new() }
    }

    /// One more takes from here.
    pub(super) fn add_lane(&self) {
        self.change(|state| state.lanes += 1);
    }

    /// One that was added takes nothing.
    pub(super) fn drop_lane(&self) {
        self.change(|state| state.lanes -= 1);
    }

    /// How many take from here.
    pub(super) fn lanes(&self) -> usize {
        self.state().lanes
    }

    /// How many numbers nobody has taken yet.
    pub(super) fn left(&self) -> usize {
        self.count - self.state().next
    }

    /// The next number, once it may be taken; none if there is none.
    pub(super) fn take(&self) -> Option<usize> {
        let too_early = |state: &mut State| {
            !state.ended && state.next < self.count && state.next >= state.seen + state.ahead()
        };
        let waited = self.changed.wait_while(self.state(), too_early);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        let next = state.next;
        (!state.ended && next < self.count).then(|| {
            state.next += 1;
            next
        })
    }

    /// The next output was seen.
    pub(super) fn saw(&self) {
        self.change(|state| state.seen += 1);
    }

    /// Nothing more is given out.
    pub(super) fn end(&self) {
        self.change(|state| state.ended = true);
    }

    /// Ends it when it is dropped, so that no lane waits for somebody who panicked.
    pub(super) fn ending(&self) -> Ending<'_> {
        Ending(self)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    /// The numbers are sound whatever became of a thread that held the lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Queue::ending`].
pub(super) struct Ending<'a>(&'a Queue);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_lane_waits_until_its_output_was_seen() {
        let queue = Queue::new(2);
        queue.add_lane();
        assert_eq!(queue.take(), Some(0));
        std::thread::scope(|scope| {
            let next = scope.spawn(|| queue.take());
            assert!(!next.is_finished());
            queue.saw();
            assert_eq!(next.join().unwrap(), Some(1));
        });
        assert_eq!(queue.take(), None);
    }

    #[test]
    fn several_lanes_run_ahead_but_not_for_ever() {
        let queue = Queue::new(100);
        queue.add_lane();
        queue.add_lane();
        let taken: Vec<usize> = (0..4).filter_map(|_| queue.take()).collect();
        assert_eq!(taken, [0, 1, 2, 3]);
        std::thread::scope(|scope| {
            let next = scope.spawn(|| queue.take());
            queue.end();
            assert_eq!(next.join().unwrap(), None, "nothing is taken after the end");
        });
    }

    #[test]
    fn what_is_left_is_what_nobody_took() {
        let queue = Queue::new(3);
        queue.add_lane();
        queue.add_lane();
        queue.take();
        assert_eq!(queue.left(), 2);
        queue.drop_lane();
        assert_eq!(queue.lanes(), 1);
        drop(queue.ending());
        assert_eq!((queue.take(), queue.left()), (None, 2));
    }

    #[test]
    fn nothing_is_taken_from_an_empty_one() {
        assert_eq!(Queue::new(0).take(), None);
    }
}
