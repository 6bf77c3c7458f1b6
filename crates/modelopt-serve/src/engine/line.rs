//! The order in which requests are answered, and which of them run together.
//!
//! Batches are counted in rows. What came first is answered first, but for priorities; a request that
//! could be joined by others is held back only where a delay is set, and only so long.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::entry::Entry;
use super::settings::ModelSettings;

/// What decides which requests run together.
#[derive(Debug)]
struct Rules {
    max_rows: usize,
    preferred: Vec<usize>,
    delay: Duration,
}

/// Requests by priority, the first to be answered first, and each level in order of arrival.
#[derive(Debug)]
pub(crate) struct Line {
    rules: Rules,
    levels: Vec<VecDeque<Entry>>,
    waiting: usize,
}

/// What a session that is free is to do.
#[derive(Debug)]
pub(crate) enum Choice {
    /// These.
    Run(Vec<Entry>),
    /// Nothing yet: others may come that share a run with what waits.
    Hold(Duration),
    /// Nothing waits.
    Nothing,
}

impl Line {
    /// An empty one.
    pub(crate) fn new(settings: &ModelSettings) -> Self {
        let rules = Rules {
            max_rows: settings.max_batch_size,
            preferred: settings.preferred_batch_size.clone(),
            delay: settings.delay(),
        };
        let levels = (0..settings.levels()).map(|_| VecDeque::new()).collect();
        Line { rules, levels, waiting: 0 }
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting
    }

    /// Puts a request at the end of a level, or of the last.
    pub(crate) fn push(&mut self, entry: Entry, level: usize) {
        let last = self.levels.len().saturating_sub(1);
        if let Some(queue) = self.levels.get_mut(level.min(last)) {
            queue.push_back(entry);
            self.waiting += 1;
        }
    }

    /// What to run now. `batches` is whether requests may share a run, and `holds` whether any may be held
    /// back for others.
    pub(crate) fn choose(&mut self, batches: bool, holds: bool, now: Instant) -> Choice {
        self.forget_unwanted_heads(now);
        let Some(head) = self.levels.iter().find_map(VecDeque::front) else {
            return Choice::Nothing;
        };
        if !batches || head.rows.is_none_or(|rows| rows > self.rules.max_rows) {
            return self.take_head();
        }
        let until = head.since + self.rules.delay;
        let group = self.group(now);
        let is_held = holds
            && now < until
            && !group.is_full
            // Nobody is held for longer than they can wait.
            && group.deadline.is_none_or(|deadline| until < deadline);
        match group.preferred {
            Some(size) => self.take(&group.places, size),
            None if is_held => Choice::Hold(until.saturating_duration_since(now)),
            None => self.take(&group.places, group.places.len()),
        }
    }

    /// The first request and those that can share its batch, in the order in which they are answered.
    fn group(&self, now: Instant) -> Group {
        let rules = &self.rules;
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
            total += rows;
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

    fn take_head(&mut self) -> Choice {
        let entry = self.levels.iter_mut().find_map(VecDeque::pop_front);
        self.waiting = self.waiting.saturating_sub(1);
        Choice::Run(entry.into_iter().collect())
    }

    /// The first of these places.
    fn take(&mut self, places: &[(usize, usize)], size: usize) -> Choice {
        let mut taken = Vec::with_capacity(size);
        // From the back, so that places stay what they are.
        for &(level, place) in places.iter().take(size).rev() {
            taken.extend(self.levels.get_mut(level).and_then(|queue| queue.remove(place)));
        }
        taken.reverse();
        self.waiting = self.waiting.saturating_sub(taken.len());
        Choice::Run(taken)
    }

    /// All of it.
    pub(crate) fn take_all(&mut self) -> Vec<Entry> {
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

    /// Drops what nobody waits for any more.
    pub(crate) fn forget_unwanted(&mut self, now: Instant) {
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
    use super::super::entry::Reply;
    use super::super::planted;
    use super::*;

    const DELAY: Duration = Duration::from_millis(40);

    /// Requests of so many rows each; the replies keep them wanted.
    struct Rig {
        line: Line,
        now: Instant,
        replies: Vec<Reply>,
    }

    impl Rig {
        fn new(settings: &ModelSettings, rows: &[usize]) -> Self {
            let (line, now, replies) = (Line::new(settings), Instant::now(), Vec::new());
            let mut rig = Rig { line, now, replies };
            for &rows in rows {
                rig.push(rows, 2, 0);
            }
            rig
        }

        fn push(&mut self, rows: usize, width: usize, level: usize) {
            self.push_timed(rows, width, level, None);
        }

        fn push_timed(&mut self, rows: usize, width: usize, level: usize, wait: Option<Duration>) {
            let inputs = planted::rows(rows, &vec![0.0; rows * width]);
            let deadline = wait.map(|wait| self.now + wait);
            let (entry, reply) = Entry::new(inputs, Vec::new(), self.now, deadline);
            self.replies.push(reply);
            self.line.push(entry, level);
        }

        /// The rows of what is to run after a time; none where something is held.
        fn after(&mut self, time: Duration) -> Option<Vec<usize>> {
            match self.line.choose(true, true, self.now + time) {
                Choice::Run(entries) => Some(entries.iter().map(|one| one.rows.unwrap()).collect()),
                Choice::Hold(left) => {
                    assert_eq!(left + time, DELAY);
                    None
                }
                Choice::Nothing => Some(Vec::new()),
            }
        }

        fn at_once(&mut self) -> Option<Vec<usize>> {
            self.after(Duration::ZERO)
        }
    }

    fn sized(max_batch_size: usize) -> ModelSettings {
        ModelSettings { max_batch_size, ..ModelSettings::default() }
    }

    fn held(max_batch_size: usize) -> ModelSettings {
        let delay = DELAY.as_micros() as u64;
        ModelSettings { max_queue_delay_microseconds: delay, ..sized(max_batch_size) }
    }

    #[test]
    fn batches_are_counted_in_rows_and_keep_the_order() {
        let mut rig = Rig::new(&sized(4), &[1, 2, 2, 1, 9, 4, 1]);
        let taken: Vec<_> = (0..6).map(|_| rig.at_once().unwrap()).collect();
        assert_eq!(taken, [vec![1, 2], vec![2, 1], vec![9], vec![4], vec![1], vec![]]);
        assert_eq!(rig.line.len(), 0);
    }

    #[test]
    fn without_batching_each_runs_alone() {
        for (settings, batches) in [(sized(0), true), (sized(1), true), (sized(4), false)] {
            let mut rig = Rig::new(&settings, &[1, 1]);
            let Choice::Run(taken) = rig.line.choose(batches, true, rig.now) else { panic!() };
            assert_eq!((taken.len(), rig.line.len()), (1, 1));
        }
    }

    #[test]
    fn other_shapes_wait_for_a_batch_of_their_own() {
        let mut rig = Rig::new(&sized(8), &[1]);
        rig.push(1, 3, 0);
        rig.push(2, 2, 0);
        assert_eq!([rig.at_once().unwrap(), rig.at_once().unwrap()], [vec![1, 2], vec![1]]);
    }

    #[test]
    fn the_oldest_is_held_for_others_and_never_longer_than_the_delay() {
        let mut rig = Rig::new(&held(4), &[1, 1]);
        assert_eq!(rig.at_once(), None);
        assert_eq!(rig.after(DELAY / 2), None);
        rig.push(1, 2, 0);
        assert_eq!(rig.after(DELAY).unwrap(), [1, 1, 1]);
    }

    #[test]
    fn preferred_sizes_run_at_once_and_the_rest_waits_its_time() {
        let settings = ModelSettings { preferred_batch_size: vec![4, 2], ..held(8) };
        let mut rig = Rig::new(&settings, &[1; 7]);
        assert_eq!([rig.at_once().unwrap().len(), rig.at_once().unwrap().len()], [4, 2]);
        assert_eq!(rig.at_once(), None);
        assert_eq!(rig.after(DELAY).unwrap(), [1]);
    }

    #[test]
    fn what_nobody_could_join_is_not_held() {
        let mut rig = Rig::new(&held(3), &[1, 1, 1, 2, 2]);
        assert_eq!(rig.at_once().unwrap(), [1, 1, 1]);
        // Two and two are more than three.
        assert_eq!(rig.at_once().unwrap(), [2]);
        assert_eq!(rig.at_once(), None);
        let Choice::Run(last) = rig.line.choose(true, false, rig.now) else { panic!() };
        assert_eq!(last.len(), 1);
        // One that fits into no batch has nobody to wait for.
        rig.push(7, 2, 0);
        assert_eq!(rig.at_once().unwrap(), [7]);
    }

    #[test]
    fn nobody_is_held_beyond_their_deadline() {
        let mut rig = Rig::new(&held(8), &[1]);
        rig.push_timed(1, 2, 0, Some(DELAY * 2));
        assert_eq!(rig.at_once(), None);
        rig.push_timed(1, 2, 0, Some(DELAY / 2));
        assert_eq!(rig.at_once().unwrap(), [1, 1, 1]);
    }

    #[test]
    fn what_is_late_or_given_up_is_not_run() {
        let mut rig = Rig::new(&sized(8), &[]);
        rig.push_timed(1, 2, 0, Some(DELAY));
        for rows in [2, 3, 4] {
            rig.push(rows, 2, 0);
        }
        // Those of two and of four rows.
        drop((rig.replies.remove(3), rig.replies.remove(1)));
        assert_eq!(rig.after(DELAY).unwrap(), [3]);
        assert!(rig.replies[0].try_recv().is_err());
        rig.line.forget_unwanted(rig.now);
        assert_eq!(rig.line.len(), 0);
    }

    #[test]
    fn the_first_level_is_answered_first_and_filled_up_from_others() {
        let settings = ModelSettings { priority_levels: 2, ..sized(4) };
        let mut rig = Rig::new(&settings, &[]);
        for (rows, level) in [(1, 1), (2, 1), (3, 0), (1, 7)] {
            rig.push(rows, 2, level);
        }
        assert_eq!([rig.at_once().unwrap(), rig.at_once().unwrap()], [vec![3, 1], vec![2, 1]]);
    }
}
