//! `modelopt bench`.

use std::path::PathBuf;

use clap::Args;

use super::running::Target;

#[derive(Args, Debug)]
pub(crate) struct Bench {
    /// Models
    #[arg(required = true)]
    pub(crate) models: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) target: Target,
    /// Thread counts; 0 for all of the machine
    #[arg(long, value_delimiter = ',', value_name = "N[,N…]")]
    pub(crate) threads: Vec<usize>,
    /// Real inputs, of which the first is measured; invented ones are used otherwise
    #[arg(long, value_name = "PATH")]
    pub(crate) samples: Option<PathBuf>,
    /// Sizes of a symbolic dimension of invented inputs: NAME=SIZE[,SIZE…], or INPUT.AXIS=…
    #[arg(long, value_name = "NAME=SIZE[,SIZE…]", conflicts_with = "samples")]
    pub(crate) dim: Vec<String>,
    /// Value of an invented input: NAME=VALUE, or NAME=VALUE,VALUE,…
    #[arg(long = "input", value_name = "NAME=VALUE", conflicts_with = "samples")]
    pub(crate) fixed: Vec<String>,
}
