//! How much is tried where nobody says how long it may take.
//!
//! A search is counted, not timed, so that the same model gives the same plan on any machine. Where
//! a single run takes so long that the count would take more than five minutes, fewer are made: the
//! count is halved, as often as needed, by what the first run took. What is found then depends on
//! the machine, and a warning says so. A named runtime or a budget of time makes the count as
//! large as it is meant to be.

use crate::config::Config;
use crate::runtime_choice::RuntimeChoice;
use crate::search::tuning::PatienceTuning;
use crate::target::Rig;
use crate::warning::Warning;
use crate::{Progress, Step};

/// What one run takes, and whether that bounds what is tried.
#[derive(Clone, Debug)]
pub(crate) struct Patience {
    /// One run of the original, in seconds; none if that was not measured.
    run: Option<f64>,
    bounded: bool,
    tuning: PatienceTuning,
}

impl Patience {
    pub(crate) fn of(rig: &Rig<'_>, config: &Config) -> Self {
        let bounded = config.runtime == RuntimeChoice::Auto && config.search.time_budget.is_none();
        let run = rig.cost.and_then(|cost| Some(cost.run_ms? * 1e-3));
        Patience { run, bounded, tuning: PatienceTuning::default() }
    }

    /// As much as is wanted.
    #[cfg(test)]
    pub(crate) fn unbounded() -> Self {
        Patience { run: None, bounded: false, tuning: PatienceTuning::default() }
    }

    /// How many of `wanted` steps may be made that take so many runs each; never fewer than
    /// `fewest`.
    pub(crate) fn allowed(&self, wanted: usize, fewest: usize, runs_each: f64) -> usize {
        let (Some(run), true) = (self.run, self.bounded) else { return wanted };
        let mut count = wanted;
        while count > fewest && count as f64 * runs_each * run > self.tuning.most_seconds {
            count = (count / 2).max(fewest);
        }
        count
    }

    /// Tells who waits how long a step of so many runs will take, where that is long.
    pub(crate) fn announce(&self, step: Step, runs: f64, progress: &mut dyn FnMut(Progress)) {
        let seconds = self.run.unwrap_or_default() * runs;
        if seconds > self.tuning.worth_saying {
            progress(Progress::Long { step, seconds: seconds as u64 });
        }
    }

    /// What a search that was cut short says.
    pub(crate) fn warning(&self, wanted: usize, allowed: usize) -> Option<Warning> {
        let run_seconds = self.run.unwrap_or_default();
        (allowed < wanted).then_some(Warning::FewerTrials { allowed, wanted, run_seconds })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_too_long_is_halved() {
        let patience = |run, bounded| Patience { run, bounded, tuning: PatienceTuning::default() };
        assert_eq!(patience(Some(0.1), true).allowed(25, 3, 4.0), 25);
        assert_eq!(patience(Some(10.0), true).allowed(25, 3, 4.0), 6);
        assert_eq!(patience(Some(1000.0), true).allowed(25, 3, 4.0), 3);
        assert_eq!(patience(Some(1000.0), false).allowed(25, 3, 4.0), 25);
        assert_eq!(patience(None, true).allowed(25, 3, 4.0), 25);
        let warning = Warning::FewerTrials { allowed: 6, wanted: 25, run_seconds: 10.0 };
        assert_eq!(patience(Some(10.0), true).warning(25, 6), Some(warning));
        assert_eq!(patience(Some(10.0), true).warning(25, 25), None);
    }

    #[test]
    fn only_what_takes_long_is_announced() {
        let tuning = PatienceTuning::default();
        let patience = Patience { run: Some(2.0), bounded: true, tuning };
        let mut told = Vec::new();
        patience.announce(Step::Loading, 3.0, &mut |event| told.push(event));
        patience.announce(Step::Searching, 30.0, &mut |event| told.push(event));
        assert_eq!(told, [Progress::Long { step: Step::Searching, seconds: 60 }]);
    }
}
