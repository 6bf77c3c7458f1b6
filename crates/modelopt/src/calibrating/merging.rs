//! Calibration files, read, written and put together.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use modelopt_calibrate::{Calibration, LayerDigests, MergeError};
use modelopt_graph::Model;
use modelopt_onnx as onnx;

use super::error::CalibrationError;
use crate::config::Config;
use crate::error::Error;
use crate::transform;

/// What the name of a file that is not finished ends in.
const TEMPORARY: &str = ".tmp";

/// Reads a calibration.
///
/// # Errors
///
/// If the file cannot be read, or is no calibration of this version.
pub fn read_calibration(path: &Path) -> Result<Calibration, Error> {
    let text = fs_err::read_to_string(path)?;
    let wrong = |source| CalibrationError::Read { path: path.to_owned(), source };
    Ok(Calibration::from_toml(&text).map_err(wrong)?)
}

/// Reads a calibration that has to be of this model, as these settings prepare it.
///
/// # Errors
///
/// As [`read_calibration`]; where it is of another model, with the layers that differ; and where the model
/// cannot be read.
pub fn read_calibration_of(
    path: &Path,
    model: &Path,
    config: &Config,
) -> Result<Calibration, Error> {
    let prepared = transform::prepared(&onnx::load(model)?, config)?;
    calibration_of(path, model, &prepared)
}

/// The calibration that settings name, if they do, for a model that is prepared already.
pub(crate) fn given(
    config: &Config,
    model: &Path,
    prepared: &Model,
) -> Result<Option<Calibration>, Error> {
    let path = config.calibration.as_ref();
    path.map(|path| calibration_of(path, model, prepared)).transpose()
}

/// The same for a model that is prepared already.
fn calibration_of(path: &Path, model: &Path, prepared: &Model) -> Result<Calibration, Error> {
    let calibration = read_calibration(path)?;
    let checked = calibration.check(&onnx::digest(model)?, &LayerDigests::of(prepared));
    checked.map_err(|mismatch| {
        let (path, mismatch) = (path.to_owned(), Box::new(mismatch));
        CalibrationError::OtherModel { path, mismatch }
    })?;
    Ok(calibration)
}

/// Writes a calibration: whenever this is interrupted, the file is the old one or the new one.
///
/// # Errors
///
/// If the file cannot be written.
pub fn write_calibration(calibration: &Calibration, path: &Path) -> Result<(), Error> {
    let text = calibration.to_toml().map_err(io::Error::other);
    Ok(replace(path, text)?)
}

/// Puts calibrations of shards together: the same as one of all their samples, to the last byte, in
/// whatever order they come.
///
/// # Errors
///
/// If one cannot be read, or does not go with the others: it is named.
pub fn merge_calibrations(paths: &[PathBuf]) -> Result<Calibration, Error> {
    let Some((first, others)) = paths.split_first() else {
        return Err(CalibrationError::NoSamples.into());
    };
    let mut sum = read_calibration(first)?;
    let mut before = vec![(first, sum.samples().clone())];
    for path in others {
        let own = read_calibration(path)?;
        sum.merge(&own).map_err(|source| {
            let twice = match &source {
                MergeError::Sample(place) => {
                    before.iter().find(|(_, samples)| samples.contains(place))
                }
                _ => None,
            };
            let (with, source) = (twice.map_or(first, |(with, _)| with).clone(), Box::new(source));
            CalibrationError::Merge { path: path.clone(), with, source }
        })?;
        before.push((path, own.samples().clone()));
    }
    Ok(sum)
}

/// Writes a text beside a file and puts it in its place.
pub(super) fn replace(path: &Path, text: io::Result<String>) -> Result<(), CalibrationError> {
    let write = || {
        let text = text?;
        let beside = beside(path, TEMPORARY);
        let mut file = File::create(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    };
    write().map_err(|cause| CalibrationError::Write { path: path.to_owned(), cause })
}

/// The file of the same name with something behind it.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}
