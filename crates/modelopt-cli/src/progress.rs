//! Progress on stderr, for people who wait.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use modelopt::Progress;

use crate::show;

/// One line that says what is going on; silent where stderr is not a terminal.
pub(crate) struct Bar {
    shown: ProgressBar,
    step: &'static str,
    trials: usize,
    quiet: bool,
}

impl Bar {
    pub(crate) fn new(quiet: bool) -> Self {
        let target =
            if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        Bar { shown: bar, step: "", trials: 0, quiet }
    }

    pub(crate) fn show(&mut self, event: &Progress) {
        match event {
            Progress::Step(step) => {
                self.step = show::step(*step);
                self.shown.set_message(self.step);
            }
            Progress::Part { done, total } => {
                self.shown.set_message(format!("{} {done}/{total}", self.step));
            }
            Progress::Trial(trial) => {
                let sqnr = trial.sqnr_db.map_or_else(|| "-".to_owned(), show::decibels);
                let result = if trial.pass { "passes" } else { "fails" };
                let size = show::bytes(trial.bytes);
                self.trials += 1;
                let line =
                    format!("trial {}: {}: {sqnr}, {size}: {result}", self.trials, trial.what);
                self.shown.println(show::plain(&line));
            }
            Progress::Long { step, seconds } => {
                let line = format!("{} takes up to {}", show::step(*step), duration(*seconds));
                // Whoever reads a log waits, too.
                if self.shown.is_hidden() && !self.quiet {
                    eprintln!("{line}");
                } else {
                    self.shown.println(line);
                }
            }
            _ => {}
        }
    }

    pub(crate) fn finish(&self) {
        self.shown.finish_and_clear();
    }
}

/// A time for people: in seconds, or in minutes from two on.
fn duration(seconds: u64) -> String {
    if seconds < 120 { format!("{seconds} s") } else { format!("{} minutes", seconds.div_ceil(60)) }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.shown.finish_and_clear();
    }
}
