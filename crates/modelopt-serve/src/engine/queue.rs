//! Requests of one model that wait for a session.
//!
//! Sessions *pull*: a session that is free takes what waits, as much as fits into a batch. Nothing is
//! held back unless a delay is set, and then only where fewer rows wait than fill a batch.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::rows::{Tensors, alike, rows_of};
use super::settings::ModelSettings;
use crate::{Answer, ServeError};

/// A request that waits.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) inputs: Tensors,
    /// The outputs that are wanted; all where there are none.
    pub(crate) outputs: Vec<String>,
    /// None where it cannot share a batch.
    pub(crate) rows: Option<usize>,
    pub(crate) since: Instant,
    deadline: Option<Instant>,
    reply: oneshot::Sender<Result<Answer, ServeError>>,
}

/// Where the answer to an [`Entry`] comes.
pub(crate) type Reply = oneshot::Receiver<Result<Answer, ServeError>>;

impl Entry {
    /// A request, and where its answer comes.
    pub(crate) fn new(
        inputs: Tensors,
        outputs: Vec<String>,
        since: Instant,
        deadline: Option<Instant>,
    ) -> (Self, Reply) {
        let (reply, answer) = oneshot::channel();
        let rows = rows_of(&inputs);
        (Entry { inputs, outputs, rows, since, deadline, reply }, answer)
    }

    /// Answers it; whether somebody was there to hear it.
    pub(crate) fn answer(self, result: Result<Answer, ServeError>) -> bool {
        self.reply.send(result).is_ok()
    }

    /// Whether somebody still waits for it, and may get an answer in time.
    pub(crate) fn is_wanted(&self, now: Instant) -> bool {
        !self.reply.is_closed() && self.deadline.is_none_or(|deadline| now < deadline)
    }

    fn fits(&self, other: &Entry) -> bool {
        self.outputs == other.outputs && alike(&self.inputs, &other.inputs)
    }
}

/// What decides which requests run together.
#[derive(Debug)]
struct Rules {
    max_rows: usize,
    /// Ascending.
    preferred: Vec<usize>,
    delay: Duration,
    max_waiting: usize,
}

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
    /// By priority, the first to be answered first; each in order of arrival.
    levels: Vec<VecDeque<Entry>>,
    waiting: usize,
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
    rules: Rules,
    /// Whether requests may share a run.
    batching: AtomicBool,
    /// Requests that nobody waits for any more, and that may still lie here.
    abandoned: AtomicUsize,
    state: Mutex<State>,
    arrived: Condvar,
    closing: Condvar,
}

/// What a session is to do.
enum Next {
    Run(Vec<Entry>),
    /// Until something arrives, or until then.
    Wait(Option<Duration>),
    End,
}

impl Queue {
    /// An empty queue of a model.
    pub(crate) fn new(model: &str, settings: &ModelSettings) -> Self {
        let mut preferred = settings.preferred_batch_size.clone();
        preferred.sort_unstable();
        Queue {
            model: model.to_owned(),
            rules: Rules {
                max_rows: settings.max_batch_size,
                preferred,
                delay: settings.delay(),
                max_waiting: settings.max_queue_size,
            },
            batching: AtomicBool::new(settings.max_batch_size > 1),
            abandoned: AtomicUsize::new(0),
            state: Mutex::new(State {
                levels: (0..settings.levels()).map(|_| VecDeque::new()).collect(),
                waiting: 0,
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
        if state.waiting >= self.rules.max_waiting && self.abandoned.swap(0, Ordering::Relaxed) > 0
        {
            state.forget_unwanted(Instant::now());
        }
        if state.waiting >= self.rules.max_waiting {
            return Err(ServeError::QueueFull {
                model: self.model.clone(),
                waiting: state.waiting,
            });
        }
        let last = state.levels.len().saturating_sub(1);
        if let Some(queue) = state.levels.get_mut(level.min(last)) {
            queue.push_back(entry);
            state.waiting += 1;
        }
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
            match state.next(&self.rules, self.is_batching(), Instant::now()) {
                Next::Run(entries) => {
                    if state.waiting > 0 && state.idle > 0 {
                        self.arrived.notify_one();
                    }
                    return Some(entries);
                }
                Next::End => return None,
                Next::Wait(time) => state = self.wait(state, time),
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
        (state.take_all(), self.is_stopping())
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
        state.take_all()
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
        self.lock().waiting
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

impl State {
    fn next(&mut self, rules: &Rules, batching: bool, now: Instant) -> Next {
        self.forget_unwanted_heads(now);
        let Some(head) = self.levels.iter().find_map(VecDeque::front) else {
            let ends = matches!(self.phase, Phase::Draining | Phase::Ended);
            return if ends { Next::End } else { Next::Wait(None) };
        };
        let Some(rows) = head.rows.filter(|&rows| batching && rows <= rules.max_rows) else {
            return self.take_head();
        };
        let until = head.since + rules.delay;
        let group = self.group(rules, rows, now);
        let size = group.preferred.or_else(|| {
            let held = !group.is_full
                && now < until
                && self.phase != Phase::Draining
                // Nobody is held for longer than they can wait.
                && group.deadline.is_none_or(|deadline| until < deadline);
            (!held).then_some(group.places.len())
        });
        match size {
            Some(size) => self.take(&group.places, size),
            None => Next::Wait(Some(until.saturating_duration_since(now))),
        }
    }

    /// The first request and those that can share its batch, in the order in which they are answered.
    fn group(&self, rules: &Rules, head_rows: usize, now: Instant) -> Group {
        let mut group = Group::default();
        let Some(head) = self.levels.iter().find_map(VecDeque::front) else { return group };
        let mut total = 0;
        let entries = self.levels.iter().enumerate().flat_map(|(level, queue)| {
            queue.iter().enumerate().map(move |(place, entry)| ((level, place), entry))
        });
        for (place, entry) in entries {
            let is_head = total == 0;
            let Some(rows) = entry.rows.filter(|_| is_head || entry.fits(head)) else { continue };
            if !is_head && !entry.is_wanted(now) {
                continue;
            }
            // Those that came first are not overtaken by smaller ones.
            if total + rows > rules.max_rows {
                group.is_full = true;
                break;
            }
            total += if is_head { head_rows } else { rows };
            group.places.push(place);
            group.deadline = group.deadline.into_iter().chain(entry.deadline).min();
            if rules.preferred.contains(&total) {
                group.preferred = Some(group.places.len());
            }
            if total == rules.max_rows {
                group.is_full = true;
                break;
            }
        }
        group
    }

    fn take_head(&mut self) -> Next {
        let entry = self.levels.iter_mut().find_map(VecDeque::pop_front);
        self.waiting = self.waiting.saturating_sub(1);
        Next::Run(entry.into_iter().collect())
    }

    /// The first of these places.
    fn take(&mut self, places: &[(usize, usize)], size: usize) -> Next {
        let mut taken = Vec::with_capacity(size);
        // From the back, so that places stay what they are.
        for &(level, place) in places.iter().take(size).rev() {
            taken.extend(self.levels.get_mut(level).and_then(|queue| queue.remove(place)));
        }
        taken.reverse();
        self.waiting = self.waiting.saturating_sub(taken.len());
        Next::Run(taken)
    }

    fn take_all(&mut self) -> Vec<Entry> {
        self.waiting = 0;
        self.levels.iter_mut().flat_map(std::mem::take).collect()
    }

    fn forget_unwanted_heads(&mut self, now: Instant) {
        for queue in &mut self.levels {
            while queue.front().is_some_and(|entry| !entry.is_wanted(now)) {
                queue.pop_front();
                self.waiting = self.waiting.saturating_sub(1);
            }
        }
    }

    fn forget_unwanted(&mut self, now: Instant) {
        for queue in &mut self.levels {
            queue.retain(|entry| entry.is_wanted(now));
        }
        self.waiting = self.levels.iter().map(VecDeque::len).sum();
    }
}

/// Requests that can run together.
#[derive(Debug, Default)]
struct Group {
    /// Level and place in it.
    places: Vec<(usize, usize)>,
    /// How many of them make the largest preferred batch.
    preferred: Option<usize>,
    /// Whether no other would fit.
    is_full: bool,
    /// The earliest.
    deadline: Option<Instant>,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use modelopt_graph::Tensor;

    use super::*;

    const SOON: Duration = Duration::from_millis(400);

    fn entry(rows: usize, width: usize) -> (Entry, Reply) {
        timed(rows, width, None)
    }

    fn timed(rows: usize, width: usize, timeout: Option<Duration>) -> (Entry, Reply) {
        let x = Tensor::of(vec![rows, width], &vec![0f32; rows * width]).unwrap();
        let inputs = Tensors::from([("x".to_owned(), x)]);
        let now = Instant::now();
        Entry::new(inputs, Vec::new(), now, timeout.map(|timeout| now + timeout))
    }

    /// A queue with requests of so many rows; the replies keep them alive.
    fn queue(settings: &ModelSettings, rows: &[usize]) -> (Queue, Vec<Reply>) {
        let queue = Queue::new("m", settings);
        let replies = rows.iter().map(|&rows| {
            let (entry, reply) = entry(rows, 2);
            queue.push(entry, 0).unwrap();
            reply
        });
        let replies = replies.collect();
        (queue, replies)
    }

    fn rows(entries: &[Entry]) -> Vec<usize> {
        entries.iter().map(|entry| entry.rows.unwrap()).collect()
    }

    fn sized(max_batch_size: usize) -> ModelSettings {
        ModelSettings { max_batch_size, ..ModelSettings::default() }
    }

    #[test]
    fn batches_are_counted_in_rows_and_keep_the_order() {
        let (queue, _replies) = queue(&sized(4), &[1, 2, 2, 1, 9, 4, 1]);
        let taken: Vec<_> = (0..5).map(|_| rows(&queue.next().unwrap())).collect();
        assert_eq!(taken, [vec![1, 2], vec![2, 1], vec![9], vec![4], vec![1]]);
        assert_eq!(queue.waiting(), 0);
    }

    #[test]
    fn without_batching_each_runs_alone() {
        for settings in [sized(0), sized(1)] {
            let (queue, _replies) = queue(&settings, &[1, 1]);
            assert_eq!(queue.next().unwrap().len(), 1);
        }
        let (queue, _replies) = queue(&sized(4), &[1, 1, 1]);
        queue.stop_batching();
        assert_eq!((queue.next().unwrap().len(), queue.waiting()), (1, 2));
    }

    #[test]
    fn other_shapes_and_outputs_do_not_share_a_batch() {
        let queue = Queue::new("m", &sized(8));
        let (a, _a) = entry(1, 2);
        let (b, _b) = entry(1, 3);
        let (mut c, _c) = entry(1, 2);
        c.outputs = vec!["y".to_owned()];
        let (d, _d) = entry(2, 2);
        for entry in [a, b, c, d] {
            queue.push(entry, 0).unwrap();
        }
        let taken: Vec<_> = (0..3).map(|_| rows(&queue.next().unwrap())).collect();
        assert_eq!(taken, [vec![1, 2], vec![1], vec![1]]);
    }

    #[test]
    fn preferred_sizes_run_at_once_and_the_rest_waits_its_time() {
        let settings = ModelSettings {
            preferred_batch_size: vec![4, 2],
            max_queue_delay_microseconds: SOON.as_micros() as u64,
            ..sized(8)
        };
        let (queue, _replies) = queue(&settings, &[1; 7]);
        let started = Instant::now();
        assert_eq!([queue.next().unwrap().len(), queue.next().unwrap().len()], [4, 2]);
        assert!(started.elapsed() < SOON / 2);
        assert_eq!(queue.next().unwrap().len(), 1);
        assert!(started.elapsed() >= SOON / 2, "{:?}", started.elapsed());
    }

    #[test]
    fn a_full_batch_and_a_queue_that_ends_are_not_held() {
        let settings = ModelSettings { max_queue_delay_microseconds: 60_000_000, ..sized(3) };
        let (queue, _replies) = queue(&settings, &[1, 1, 1, 2, 2]);
        assert_eq!(queue.next().unwrap().len(), 3);
        // Two and two are more than three: nobody else can join the first.
        assert_eq!(queue.next().unwrap().len(), 1);
        queue.drain();
        assert_eq!(queue.next().unwrap().len(), 1);
        assert!(queue.next().is_none());
    }

    #[test]
    fn a_held_request_is_joined_by_those_that_come() {
        let settings = ModelSettings { max_queue_delay_microseconds: 20_000_000, ..sized(2) };
        let (queue, _replies) = queue(&settings, &[1]);
        let queue = Arc::new(queue);
        let taker = {
            let queue = Arc::clone(&queue);
            std::thread::spawn(move || queue.next().unwrap().len())
        };
        std::thread::sleep(Duration::from_millis(10));
        let (second, _reply) = entry(1, 2);
        queue.push(second, 0).unwrap();
        assert_eq!(taker.join().unwrap(), 2);
    }

    #[test]
    fn nobody_is_held_beyond_their_deadline() {
        let settings = ModelSettings { max_queue_delay_microseconds: 60_000_000, ..sized(8) };
        let queue = Queue::new("m", &settings);
        let (short, _reply) = timed(1, 2, Some(Duration::from_secs(30)));
        queue.push(short, 0).unwrap();
        assert_eq!(queue.next().unwrap().len(), 1);
    }

    #[test]
    fn what_is_late_or_given_up_is_not_run() {
        let queue = Queue::new("m", &sized(8));
        let (late, mut late_reply) = timed(1, 2, Some(Duration::ZERO));
        let (given_up, reply) = entry(1, 2);
        let (good, _reply) = entry(3, 2);
        let (also_given_up, other) = entry(1, 2);
        drop((reply, other));
        for entry in [late, given_up, good, also_given_up] {
            queue.push(entry, 0).unwrap();
        }
        assert_eq!(rows(&queue.next().unwrap()), [3]);
        assert!(late_reply.try_recv().is_err());
    }

    #[test]
    fn the_first_level_is_answered_first_and_filled_up_from_others() {
        let settings = ModelSettings { priority_levels: 2, ..sized(4) };
        let queue = Queue::new("m", &settings);
        let mut replies = Vec::new();
        for (count, level) in [(1, 1), (2, 1), (3, 0), (1, 1)] {
            let (entry, reply) = entry(count, 2);
            replies.push(reply);
            queue.push(entry, level).unwrap();
        }
        assert_eq!(rows(&queue.next().unwrap()), [3, 1]);
        assert_eq!(rows(&queue.next().unwrap()), [2, 1]);
    }

    #[test]
    fn a_full_queue_refuses_at_once_and_forgets_who_gave_up() {
        let settings = ModelSettings { max_queue_size: 2, ..sized(8) };
        let (queue, mut replies) = queue(&settings, &[1, 1]);
        let error = queue.push(entry(1, 2).0, 0).unwrap_err();
        assert_eq!(error, ServeError::QueueFull { model: "m".to_owned(), waiting: 2 });
        drop(replies.pop());
        queue.abandon();
        let (third, _reply) = entry(1, 2);
        queue.push(third, 0).unwrap();
        assert_eq!(queue.waiting(), 2);
    }

    #[test]
    fn a_queue_that_is_closed_refuses_with_its_reason() {
        let (queue, _replies) = queue(&sized(8), &[1, 1]);
        assert_eq!(queue.lose_session("no memory").len(), 2);
        let refused = |queue: &Queue| queue.push(entry(1, 2).0, 0).unwrap_err().to_string();
        assert_eq!(refused(&queue), "model 'm' is not ready: no memory");
        assert_eq!(queue.closed().unwrap(), "no memory");
        assert!(queue.pause(Duration::from_millis(1)));
        queue.regain_session();
        let (entry, _reply) = entry(1, 2);
        queue.push(entry, 0).unwrap();
        let (left, error) = queue.end();
        assert_eq!((left.len(), refused(&queue)), (1, error.to_string()));
        queue.regain_session();
        assert!(queue.next().is_none() && !queue.pause(SOON));
    }
}
