//! Progress that outlives the process.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use modelopt_calibrate::{Calibration, Moment, Observations, Position, Unfinished};

use super::CalibrateOptions;
use super::error::CalibrationError;
use super::merging::replace;
use crate::error::Error;

/// Keeps the progress of a calibration in a file.
pub(super) struct Keeper {
    path: Option<PathBuf>,
    resume: bool,
    every: Duration,
    last: Instant,
}

impl Keeper {
    pub(super) fn new(options: &CalibrateOptions) -> Self {
        let path = options.progress_file.clone();
        Keeper { path, resume: options.resume, every: options.save_every, last: Instant::now() }
    }

    /// What an earlier run got to, if this one is to go on from there and there was one. It must be of
    /// the same model and samples as `blank`.
    pub(super) fn begun(
        &self,
        blank: &Calibration,
    ) -> Result<Option<(Observations, Position)>, Error> {
        let Some(path) = self.path.as_ref().filter(|path| self.resume && path.exists()) else {
            return Ok(None);
        };
        let path = path.clone();
        let text = fs_err::read_to_string(&path)?;
        let Unfinished { calibration, position } = match Unfinished::from_toml(&text) {
            Ok(unfinished) => unfinished,
            Err(source) => return Err(CalibrationError::Progress { path, source }.into()),
        };
        let mismatch = calibration.differences(blank);
        if calibration.model() != blank.model() || !mismatch.is_empty() {
            return Err(CalibrationError::BegunWithOtherModel {
                path,
                mismatch: Box::new(mismatch),
            }
            .into());
        }
        if calibration.runtime() != blank.runtime() {
            let named = |of: &Calibration| of.runtime().unwrap_or_default().to_owned();
            let (own, other) = (named(&calibration), named(blank));
            return Err(CalibrationError::BegunInOtherRuntime { path, own, other }.into());
        }
        if (calibration.list(), calibration.samples()) != (blank.list(), blank.samples()) {
            return Err(CalibrationError::BegunWithOtherSamples { path }.into());
        }
        Ok(Some((calibration.observations().clone(), position)))
    }

    /// Keeps where a pass is, if it is time to, or now.
    pub(super) fn keep(
        &mut self,
        blank: &Calibration,
        moment: &Moment<'_>,
        now: bool,
    ) -> Result<(), Error> {
        let Some(path) = self.path.as_ref().filter(|_| now || self.last.elapsed() >= self.every)
        else {
            return Ok(());
        };
        let calibration = blank.having(moment.observations.clone());
        let unfinished = Unfinished { calibration, position: moment.position.clone() };
        replace(path, unfinished.to_toml().map_err(io::Error::other))?;
        self.last = Instant::now();
        Ok(())
    }
}
