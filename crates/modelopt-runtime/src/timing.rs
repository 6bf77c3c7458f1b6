//! Times runs where sessions are, so that nothing but the runs is timed.

use std::time::Instant;

use indexmap::IndexMap;
use modelopt_graph::Tensor;

use crate::worker::{self, Remote};
use crate::{Rounds, RuntimeError, Session};

/// A session and what it is timed on.
pub struct Timed<'a> {
    /// The session.
    pub session: &'a mut dyn Session,
    /// Its inputs.
    pub inputs: &'a IndexMap<String, Tensor>,
}

/// Runs sessions one after the other, round by round, and gives the times of each in milliseconds.
/// Getting inputs to a session and outputs from it is no part of a time, nor is dropping outputs.
///
/// # Errors
/// The first of any session.
pub fn time_in_turn(
    sessions: &mut [Timed<'_>],
    rounds: &Rounds,
) -> Result<Vec<Vec<f64>>, RuntimeError> {
    let remote: Option<Vec<Remote<'_>>> =
        sessions.iter_mut().map(|timed| timed.session.remote(timed.inputs)).collect();
    if let Some(together) = remote.and_then(|mut remote| worker::time_together(&mut remote, rounds))
    {
        return together;
    }
    let mut times = vec![Vec::new(); sessions.len()];
    let started = Instant::now();
    for done in 1.. {
        for (timed, times) in sessions.iter_mut().zip(&mut times) {
            times.push(time(timed)?);
        }
        if rounds.are_over(done, started.elapsed().as_secs_f64()) {
            break;
        }
    }
    Ok(times)
}

/// One run, in milliseconds.
fn time(timed: &mut Timed<'_>) -> Result<f64, RuntimeError> {
    if let Some(remote) = timed.session.remote(timed.inputs)
        && let Some(times) = worker::time_together(&mut [remote], &Rounds::exactly(1))
    {
        return Ok(times?.into_iter().flatten().next().unwrap_or(f64::NAN));
    }
    let started = Instant::now();
    let outputs = timed.session.run(timed.inputs)?;
    let elapsed = started.elapsed();
    drop(outputs);
    Ok(elapsed.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::*;
    use crate::Outputs;

    /// Takes a while, and notes its turns.
    struct Noting(Arc<Mutex<Vec<usize>>>, usize);

    impl Session for Noting {
        fn run(&mut self, _: &IndexMap<String, Tensor>) -> Result<Outputs, RuntimeError> {
            std::thread::sleep(Duration::from_millis(2));
            self.0.lock().unwrap().push(self.1);
            Ok(Outputs::new())
        }
    }

    /// The turns that two sessions had.
    fn turns(rounds: &Rounds) -> Vec<usize> {
        let noted = Arc::default();
        let (mut first, mut second) = (Noting(Arc::clone(&noted), 0), Noting(noted.clone(), 1));
        let inputs = IndexMap::new();
        let mut sessions = [
            Timed { session: &mut first, inputs: &inputs },
            Timed { session: &mut second, inputs: &inputs },
        ];
        let times = time_in_turn(&mut sessions, rounds).unwrap();
        let noted = noted.lock().unwrap().clone();
        assert_eq!(times.iter().map(Vec::len).sum::<usize>(), noted.len());
        assert!(times.iter().flatten().all(|&ms| ms >= 2.0), "{times:?}");
        noted
    }

    #[test]
    fn sessions_take_turns_as_often_as_asked() {
        assert_eq!(turns(&Rounds::exactly(3)), [0, 1, 0, 1, 0, 1]);
    }

    #[test]
    fn enough_is_enough_and_too_long_is_too_long() {
        let rounds = Rounds { count: 2, seconds: 0.0, fewest: 1, most: 100, most_seconds: 100.0 };
        assert_eq!(turns(&rounds).len(), 4);
        assert_eq!(turns(&Rounds { count: 50, most: 3, ..rounds }).len(), 6);
        assert_eq!(turns(&Rounds { count: 50, fewest: 4, most_seconds: 0.0, ..rounds }).len(), 8);
        assert!(turns(&Rounds { seconds: 0.02, ..rounds }).len() > 4);
    }
}
