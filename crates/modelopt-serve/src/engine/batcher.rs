//! Runs requests together, and tells each its part.
//!
//! A run that fails, or whose outputs have no row for each row, is repeated with one request at a time:
//! only the request that is at fault fails, and nobody gets another's rows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use modelopt_runtime::Outputs;

use super::entry::Entry;
use super::held::{Failure, Held};
use super::queue::Queue;
use super::rows::{split, stack};
use super::statistics::{Answered, Counters, Steps};
use crate::{Answer, ServeError, Timing};

/// Answers the requests of one model.
#[derive(Debug)]
pub(crate) struct Batcher {
    pub(crate) model: String,
    /// What goes out where nobody says what is wanted; a runtime may return more.
    pub(crate) outputs: Vec<String>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) counters: Arc<Counters>,
}

/// A run with its requests.
struct Done {
    /// When they were taken out of the queue.
    taken: Instant,
    rows: usize,
    steps: Steps,
}

impl Batcher {
    /// Answers requests that can share a run.
    pub(crate) fn answer(&self, held: &mut Held, entries: Vec<Entry>) {
        let taken = Instant::now();
        if entries.len() > 1 {
            self.answer_together(held, entries, taken);
        } else {
            self.answer_alone(held, entries, taken);
        }
    }

    /// Tells requests that nothing will come.
    pub(crate) fn refuse(&self, entries: Vec<Entry>, error: &ServeError) {
        for entry in entries {
            let after = entry.since.elapsed();
            if entry.answer(Err(error.clone())) {
                self.counters.failed(error, after);
            }
        }
    }

    fn answer_together(&self, held: &mut Held, entries: Vec<Entry>, taken: Instant) {
        let counts: Option<Vec<usize>> = entries.iter().map(|entry| entry.rows).collect();
        let stacked = stack(&entries.iter().map(|entry| &entry.inputs).collect::<Vec<_>>());
        let (Some(counts), Some(inputs)) = (counts, stacked) else {
            return self.answer_alone(held, entries, taken);
        };
        let ready = Instant::now();
        let outputs = match held.run(&inputs) {
            Ok(outputs) => outputs,
            Err(Failure::Hung(error)) => return self.refuse(entries, &error),
            Err(Failure::Gone(reason)) => {
                return self.refuse(entries, &self.queue.is_broken(&reason));
            }
            Err(Failure::Refused(error)) => {
                let (model, requests) = (&self.model, entries.len());
                tracing::debug!(model, requests, %error, "a batch failed and is run one by one");
                return self.answer_alone(held, entries, taken);
            }
        };
        let ran = Instant::now();
        let Some(parts) = split(&outputs, &counts) else {
            self.queue.stop_batching();
            tracing::warn!(
                model = self.model,
                "an output has no row for each row of a batch: requests run alone from now on"
            );
            return self.answer_alone(held, entries, taken);
        };
        let steps = Steps { input: ready - taken, infer: ran - ready, output: ran.elapsed() };
        self.tell(entries, parts, &Done { taken, rows: counts.iter().sum(), steps });
    }

    fn answer_alone(&self, held: &mut Held, entries: Vec<Entry>, taken: Instant) {
        let mut entries = entries.into_iter();
        while let Some(entry) = entries.next() {
            let started = Instant::now();
            if !entry.is_wanted(started) {
                continue;
            }
            match held.run(&entry.inputs) {
                Ok(outputs) => {
                    let rows = entry.rows.unwrap_or(1);
                    let steps = Steps { infer: started.elapsed(), ..Steps::default() };
                    self.tell(vec![entry], vec![outputs], &Done { taken, rows, steps });
                }
                Err(Failure::Refused(error) | Failure::Hung(error)) => {
                    self.refuse(vec![entry], &error);
                }
                Err(Failure::Gone(reason)) => {
                    let rest = std::iter::once(entry).chain(entries.by_ref()).collect();
                    self.refuse(rest, &self.queue.is_broken(&reason));
                }
            }
        }
    }

    fn tell(&self, entries: Vec<Entry>, parts: Vec<Outputs>, done: &Done) {
        let compute = done.steps.total();
        let told: Vec<(Entry, Result<Outputs, ServeError>)> = entries
            .into_iter()
            .zip(parts)
            .map(|(entry, outputs)| {
                let chosen = self.chosen(outputs, &entry.outputs);
                (entry, chosen)
            })
            .collect();
        let answered: Vec<Answered> = told
            .iter()
            .filter(|(_, outputs)| outputs.is_ok())
            .map(|(entry, _)| Answered {
                queue: queued(entry, done.taken),
                total: entry.since.elapsed(),
            })
            .collect();
        // Whoever has an answer finds it in the figures.
        self.counters.ran(done.rows, done.steps, &answered);
        for (entry, outputs) in told {
            let queue = queued(&entry, done.taken);
            let timing = Timing { queue, compute, batch_rows: done.rows };
            match outputs {
                Ok(outputs) => {
                    entry.answer(Ok(Answer { outputs, timing }));
                }
                Err(error) => self.refuse(vec![entry], &error),
            }
        }
    }

    /// The outputs that are wanted, in the order in which they are.
    fn chosen(&self, outputs: Outputs, wanted: &[String]) -> Result<Outputs, ServeError> {
        let wanted = if wanted.is_empty() { &self.outputs } else { wanted };
        if wanted.len() == outputs.len() && wanted.iter().eq(outputs.keys()) {
            return Ok(outputs);
        }
        let chosen = wanted.iter().map(|name| {
            let tensor = outputs.get(name).cloned().ok_or_else(|| {
                ServeError::Unsupported(format!("the runtime does not return output '{name}'"))
            })?;
            Ok((name.clone(), tensor))
        });
        chosen.collect()
    }
}

fn queued(entry: &Entry, taken: Instant) -> Duration {
    taken.saturating_duration_since(entry.since)
}

#[cfg(test)]
mod tests {
    use super::super::entry::Reply;
    use super::super::planted::{self, Planted, row, rows};
    use super::super::rows::Tensors;
    use super::super::settings::ModelSettings;
    use super::super::statistics::Statistics;
    use super::*;

    struct Rig {
        batcher: Batcher,
        held: Held,
    }

    impl Rig {
        fn new(planted: &Planted) -> Self {
            let queue = Arc::new(Queue::new("m", &ModelSettings::default()));
            let (model, outputs) = ("m".to_owned(), vec!["y".to_owned()]);
            let batcher = Batcher { model, outputs, queue, counters: Arc::default() };
            Rig { batcher, held: Held::new(Arc::new(planted.maker())) }
        }

        fn answers(&mut self, inputs: &[Tensors]) -> Vec<Result<Answer, ServeError>> {
            let asked = inputs
                .iter()
                .map(|inputs| Entry::new(inputs.clone(), Vec::new(), Instant::now(), None));
            let (entries, replies): (Vec<Entry>, Vec<Reply>) = asked.unzip();
            self.batcher.answer(&mut self.held, entries);
            replies.into_iter().map(|mut reply| reply.try_recv().unwrap()).collect()
        }

        fn counts(&self) -> Statistics {
            self.batcher.counters.snapshot()
        }
    }

    /// In thousandths.
    fn first(answer: &Result<Answer, ServeError>) -> i64 {
        planted::first(&answer.as_ref().unwrap().outputs)
    }

    #[test]
    fn each_gets_its_own_rows_of_a_batch() {
        let planted = Planted::doubling();
        let mut rig = Rig::new(&planted);
        let answers = rig.answers(&[row(&[1.0]), rows(2, &[2.0, 3.0]), row(&[4.0])]);
        assert_eq!(answers.iter().map(first).collect::<Vec<_>>(), [2000, 4000, 8000]);
        let middle = answers[1].as_ref().unwrap();
        assert_eq!(middle.outputs["y"].to_f32().unwrap()[..], [4.0, 6.0]);
        assert_eq!(middle.timing.batch_rows, 4);
        assert_eq!(planted.runs(), [4]);
        let counts = rig.counts();
        assert_eq!(
            (counts.success.count, counts.inference_count, counts.execution_count),
            (3, 4, 1)
        );
    }

    #[test]
    fn of_a_batch_that_fails_only_the_guilty_request_does() {
        for planted in [Planted::doubling().refusing(13.0), Planted::doubling().panicking_at(13.0)]
        {
            let mut rig = Rig::new(&planted);
            let inputs: Vec<Tensors> = (0..32).map(|number| row(&[number as f32])).collect();
            let answers = rig.answers(&inputs);
            let failed: Vec<usize> = (0..32).filter(|&at| answers[at].is_err()).collect();
            assert_eq!(failed, [13]);
            assert!(
                (0..32).filter(|&at| at != 13).all(|at| first(&answers[at]) == 2000 * at as i64)
            );
            assert_eq!(answers[13].as_ref().unwrap_err().status(), 500);
            let counts = rig.counts();
            assert_eq!((counts.success.count, counts.failures.failed), (31, 1));
            assert_eq!(counts.execution_count, 31);
        }
    }

    #[test]
    fn outputs_without_rows_switch_batching_off() {
        let planted = Planted::computing(|x| vec![x.iter().sum()]);
        let mut rig = Rig::new(&planted);
        let answers = rig.answers(&[row(&[1.0, 2.0]), row(&[3.0, 4.0]), row(&[5.0, 6.0])]);
        assert_eq!(answers.iter().map(first).collect::<Vec<_>>(), [3000, 7000, 11000]);
        assert!(!rig.batcher.queue.is_batching());
        assert_eq!(planted.runs(), [3, 1, 1, 1]);
    }

    #[test]
    fn where_no_session_can_be_made_all_are_told_why() {
        let planted = Planted::doubling().panicking_at(13.0);
        let mut rig = Rig::new(&planted);
        rig.held.restore().unwrap();
        planted.load_no_more("no memory");
        let answers = rig.answers(&[row(&[1.0]), row(&[13.0])]);
        for answer in answers {
            let error = answer.unwrap_err();
            assert_eq!(
                error.to_string(),
                "model 'm' is not ready: planted cannot load it: no memory"
            );
        }
        assert_eq!(rig.counts().failures.rejected, 2);
    }

    #[test]
    fn wanted_outputs_come_in_their_order_and_missing_ones_are_named() {
        let outputs =
            Outputs::from(["a", "b", "c"].map(|name| (name.to_owned(), row(&[1.0])["x"].clone())));
        let mut rig = Rig::new(&Planted::doubling());
        rig.batcher.outputs = vec!["b".to_owned(), "c".to_owned()];
        let chosen = |wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(|&name| name.to_owned()).collect();
            let chosen = rig.batcher.chosen(outputs.clone(), &wanted)?;
            Ok::<_, ServeError>(chosen.into_keys().collect::<Vec<_>>().join(" "))
        };
        assert_eq!(chosen(&["c", "a"]).unwrap(), "c a");
        // What goes out by itself is what the signature has.
        assert_eq!(chosen(&[]).unwrap(), "b c");
        let error = chosen(&["z"]).unwrap_err();
        assert_eq!(error.to_string(), "the runtime does not return output 'z'");
    }
}
