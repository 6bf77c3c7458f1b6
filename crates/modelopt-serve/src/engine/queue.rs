//! Requests of one model that wait for a session.
//!
//! Sessions *pull*: a session that is free takes what waits, as much as can share a run (`line.rs`).

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::entry::Entry;
use super::line::{Choice, Line};
use super::settings::ModelSettings;
use crate::ServeError;

/// Whether requests are taken.
#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// None, because no session is there; they may be taken again.
    Broken(String),
    /// None any more; what waits is still answered.
    Draining,
    /// None any more, and nothing waits.
    Ended,
}

#[derive(Debug)]
struct State {
    line: Line,
    /// Sessions that wait for requests.
    idle: usize,
    /// Sessions that are there.
    sessions: usize,
    phase: Phase,
}

/// Requests of one model that wait for a session.
#[derive(Debug)]
pub(crate) struct Queue {
    model: String,
    max_waiting: usize,
    /// Whether requests may share a run.
    batching: AtomicBool,
    /// Requests that nobody waits for any more, and that may still lie here.
    abandoned: AtomicUsize,
    state: Mutex<State>,
    arrived: Condvar,
    closing: Condvar,
}

impl Queue {
    /// An empty queue of a model.
    pub(crate) fn new(model: &str, settings: &ModelSettings) -> Self {
        Queue {
            model: model.to_owned(),
            max_waiting: settings.max_queue_size,
            batching: AtomicBool::new(settings.max_batch_size > 1),
            abandoned: AtomicUsize::new(0),
            state: Mutex::new(State {
                line: Line::new(settings),
                idle: 0,
                sessions: settings.sessions,
                phase: Phase::Open,
            }),
            arrived: Condvar::new(),
            closing: Condvar::new(),
        }
    }

    /// Puts a request at the end of its level.
    ///
    /// # Errors
    /// At once, if too many wait or the model takes none.
    pub(crate) fn push(&self, entry: Entry, level: usize) -> Result<(), ServeError> {
        let mut state = self.lock();
        match &state.phase {
            Phase::Open => {}
            Phase::Broken(reason) => return Err(self.is_broken(reason)),
            Phase::Draining | Phase::Ended => return Err(self.is_stopping()),
        }
        // Whoever gave up does not keep others out.
        if state.line.len() >= self.max_waiting && self.abandoned.swap(0, Ordering::Relaxed) > 0 {
            state.line.forget_unwanted(Instant::now());
        }
        let waiting = state.line.len();
        if waiting >= self.max_waiting {
            return Err(ServeError::QueueFull { model: self.model.clone(), waiting });
        }
        state.line.push(entry, level);
        // Waking costs a call into the system, also where nobody sleeps.
        if state.idle > 0 {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// What to run next, as soon as there is something; none when there will be nothing any more.
    pub(crate) fn next(&self) -> Option<Vec<Entry>> {
        let mut state = self.lock();
        loop {
            let ends = matches!(state.phase, Phase::Draining | Phase::Ended);
            match state.line.choose(self.is_batching(), !ends, Instant::now()) {
                Choice::Run(entries) => {
                    if state.line.len() > 0 && state.idle > 0 {
                        self.arrived.notify_one();
                    }
                    return Some(entries);
                }
                Choice::Hold(time) => state = self.wait(state, Some(time)),
                Choice::Nothing if ends => return None,
                Choice::Nothing => state = self.wait(state, None),
            }
        }
    }

    /// Waits so long, or less where the queue is being closed; whether it still goes on.
    pub(crate) fn pause(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut state = self.lock();
        while matches!(state.phase, Phase::Open | Phase::Broken(_)) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            let waited = self.closing.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }

    fn wait<'s>(
        &self,
        mut state: MutexGuard<'s, State>,
        time: Option<Duration>,
    ) -> MutexGuard<'s, State> {
        state.idle += 1;
        let mut state = match time {
            None => self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(time) => {
                self.arrived.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0
            }
        };
        state.idle -= 1;
        state
    }

    /// Takes no more requests; what waits is answered.
    pub(crate) fn drain(&self) {
        let mut state = self.lock();
        if matches!(state.phase, Phase::Open | Phase::Broken(_)) {
            state.phase = Phase::Draining;
        }
        self.wake_all();
    }

    /// Takes no more requests, and hands out what waits, with the reason.
    #[must_use]
    pub(crate) fn end(&self) -> (Vec<Entry>, ServeError) {
        let mut state = self.lock();
        state.phase = Phase::Ended;
        self.wake_all();
        (state.line.take_all(), self.is_stopping())
    }

    /// A session is gone. With the last one no requests are taken, and what waits is handed out.
    #[must_use]
    pub(crate) fn lose_session(&self, reason: &str) -> Vec<Entry> {
        let mut state = self.lock();
        state.sessions = state.sessions.saturating_sub(1);
        if state.sessions > 0 {
            return Vec::new();
        }
        if matches!(state.phase, Phase::Open | Phase::Broken(_)) {
            state.phase = Phase::Broken(reason.to_owned());
        }
        state.line.take_all()
    }

    /// A session that was gone is there again.
    pub(crate) fn regain_session(&self) {
        let mut state = self.lock();
        state.sessions += 1;
        if matches!(state.phase, Phase::Broken(_)) {
            state.phase = Phase::Open;
        }
    }

    fn wake_all(&self) {
        self.arrived.notify_all();
        self.closing.notify_all();
    }

    /// Why no requests are taken.
    pub(crate) fn closed(&self) -> Option<String> {
        match &self.lock().phase {
            Phase::Open => None,
            Phase::Broken(reason) => Some(reason.clone()),
            Phase::Draining | Phase::Ended => Some("it is being stopped".to_owned()),
        }
    }

    /// Requests that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().line.len()
    }

    /// Somebody gave up waiting.
    pub(crate) fn abandon(&self) {
        self.abandoned.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether requests may share a run.
    pub(crate) fn is_batching(&self) -> bool {
        self.batching.load(Ordering::Relaxed)
    }

    /// From now on each request runs alone.
    pub(crate) fn stop_batching(&self) {
        self.batching.store(false, Ordering::Relaxed);
    }

    /// What is said where no session is there.
    pub(crate) fn is_broken(&self, reason: &str) -> ServeError {
        ServeError::NotReady(format!("model '{}' is not ready: {reason}", self.model))
    }

    fn is_stopping(&self) -> ServeError {
        ServeError::NotReady(format!("model '{}' is being stopped", self.model))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::entry::Reply;
    use super::super::planted::row;
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn entry() -> (Entry, Reply) {
        Entry::new(row(&[1.0]), Vec::new(), Instant::now(), None)
    }

    /// A queue with so many requests; the replies keep them wanted.
    fn queue(settings: &ModelSettings, count: usize) -> (Arc<Queue>, Vec<Reply>) {
        let queue = Queue::new("m", settings);
        let replies = (0..count).map(|_| {
            let (entry, reply) = entry();
            queue.push(entry, 0).unwrap();
            reply
        });
        let replies = replies.collect();
        (Arc::new(queue), replies)
    }

    fn taker(queue: &Arc<Queue>) -> std::thread::JoinHandle<Option<usize>> {
        let queue = Arc::clone(queue);
        std::thread::spawn(move || queue.next().map(|taken| taken.len()))
    }

    #[test]
    fn a_session_waits_for_what_comes() {
        let (queue, _) = queue(&ModelSettings::default(), 0);
        let takers = [taker(&queue), taker(&queue)];
        let mut replies = Vec::new();
        for _ in 0..2 {
            std::thread::sleep(Duration::from_millis(10));
            let (entry, reply) = entry();
            replies.push(reply);
            queue.push(entry, 0).unwrap();
        }
        assert_eq!(takers.map(|taker| taker.join().unwrap()), [Some(1); 2]);
    }

    #[test]
    fn a_held_request_is_joined_by_those_that_come() {
        let settings = ModelSettings {
            max_queue_delay_microseconds: LONG.as_micros() as u64,
            max_batch_size: 2,
            ..ModelSettings::default()
        };
        let (queue, _replies) = queue(&settings, 1);
        let taker = taker(&queue);
        std::thread::sleep(Duration::from_millis(10));
        let (second, _reply) = entry();
        queue.push(second, 0).unwrap();
        assert_eq!(taker.join().unwrap(), Some(2));
    }

    #[test]
    fn draining_ends_holding_and_hands_out_what_waits() {
        let settings = ModelSettings {
            max_queue_delay_microseconds: LONG.as_micros() as u64,
            ..ModelSettings::default()
        };
        let (queue, _replies) = queue(&settings, 1);
        let first = taker(&queue);
        std::thread::sleep(Duration::from_millis(10));
        queue.drain();
        assert_eq!((first.join().unwrap(), queue.next().map(|left| left.len())), (Some(1), None));
        assert!(queue.push(entry().0, 0).is_err());
    }

    #[test]
    fn when_batching_stops_each_runs_alone() {
        let (queue, _replies) = queue(&ModelSettings::default(), 3);
        queue.stop_batching();
        assert_eq!((queue.next().unwrap().len(), queue.waiting()), (1, 2));
    }

    #[test]
    fn a_full_queue_refuses_at_once_and_forgets_who_gave_up() {
        let settings = ModelSettings { max_queue_size: 2, ..ModelSettings::default() };
        let (queue, mut replies) = queue(&settings, 2);
        let error = queue.push(entry().0, 0).unwrap_err();
        assert_eq!(error, ServeError::QueueFull { model: "m".to_owned(), waiting: 2 });
        drop(replies.pop());
        queue.abandon();
        let (third, _reply) = entry();
        queue.push(third, 0).unwrap();
        assert_eq!(queue.waiting(), 2);
    }

    #[test]
    fn with_the_last_session_a_queue_closes_and_with_the_first_it_opens() {
        let settings = ModelSettings { sessions: 2, ..ModelSettings::default() };
        let (queue, _replies) = queue(&settings, 2);
        assert_eq!(queue.lose_session("no memory").len(), 0);
        assert_eq!(queue.closed(), None);
        assert_eq!(queue.lose_session("no memory").len(), 2);
        let refused = queue.push(entry().0, 0).unwrap_err().to_string();
        assert_eq!(refused, "model 'm' is not ready: no memory");
        assert_eq!(queue.closed().unwrap(), "no memory");
        assert!(queue.pause(Duration::from_millis(1)));
        queue.regain_session();
        let (entry, _reply) = entry();
        queue.push(entry, 0).unwrap();
    }

    #[test]
    fn what_has_ended_does_not_begin_again() {
        let (queue, _replies) = queue(&ModelSettings::default(), 2);
        let (left, error) = queue.end();
        assert_eq!((left.len(), error.to_string().as_str()), (2, "model 'm' is being stopped"));
        queue.regain_session();
        assert_eq!(queue.push(entry().0, 0).unwrap_err(), error);
        assert!(queue.next().is_none() && !queue.pause(LONG));
    }
}
