//! Progress on stderr, for people who wait.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use modelopt::Progress;

/// One line that says what is going on; silent where stderr is not a terminal.
pub(crate) struct Bar {
    bar: ProgressBar,
    step: &'static str,
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
        Bar { bar, step: "" }
    }

    pub(crate) fn show(&mut self, event: &Progress) {
        match event {
            Progress::Step(step) => {
                self.step = step;
                self.bar.set_message(*step);
            }
            Progress::Part { done, total } => {
                self.bar.set_message(format!("{} {done}/{total}", self.step));
            }
            _ => {}
        }
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
