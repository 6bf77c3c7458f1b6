//! `modelopt calibrate`.

use std::path::PathBuf;

use clap::Args;
use modelopt::Shard;

use super::running::Target;
use super::values::seconds;

#[derive(Args, Debug)]
pub(crate) struct Calibrate {
    /// Model; - reads from stdin
    #[arg(required_unless_present = "merge", conflicts_with = "merge")]
    pub(crate) input: Option<PathBuf>,
    /// Where the calibration goes
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Real inputs: an .npz (keys are input names), a folder of them, a folder of NAME.npy, or a
    /// folder with `test_data_set_*`; they are read one at a time
    #[arg(long, value_name = "PATH", required_unless_present = "merge", conflicts_with = "merge")]
    pub(crate) samples: Option<PathBuf>,
    /// Put calibrations of shards together instead, in any order
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(crate) merge: Vec<PathBuf>,
    /// Only one of N parts of the samples: 1/N to N/N
    #[arg(long, value_name = "I/N", conflicts_with = "merge")]
    pub(crate) shard: Option<Shard>,
    /// Go on where an interrupted run was; from the beginning if there was none
    ///
    /// Progress is kept in FILE.partial beside the output.
    #[arg(long, conflicts_with = "merge")]
    pub(crate) resume: bool,
    /// How often progress is kept, in seconds; 0 for after every sample [default: 30]
    #[arg(long, value_parser = seconds, value_name = "S", conflicts_with = "merge")]
    pub(crate) save_every: Option<f64>,
    #[command(flatten)]
    pub(crate) target: Target,
    /// Threads for the runtime; 0 for all
    #[arg(long, value_name = "N", help_heading = "Validation")]
    pub(crate) threads: Option<usize>,
}
