//! Calibration of planted originals.
