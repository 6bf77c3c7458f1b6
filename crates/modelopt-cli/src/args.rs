//! The command line, as people read it in `--help`.

mod bench;
mod calibrate;
mod compare;
mod convert;
mod forms_help;
mod gate;
mod judging;
mod making;
mod metric;
mod plan;
mod planning;
mod quantize;
mod report;
mod running;
mod serve;
mod upgrade;
mod values;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub(crate) use bench::Bench;
pub(crate) use calibrate::Calibrate;
pub(crate) use compare::Compare;
pub(crate) use convert::Convert;
pub(crate) use gate::{Enforcing, Gate};
pub(crate) use judging::Judging;
pub(crate) use making::{Files, Making};
pub(crate) use metric::Measuring;
pub(crate) use plan::Plan;
pub(crate) use planning::{Integers, Planning, Precision, Selection};
pub(crate) use quantize::{Quantize, Searching};
pub(crate) use report::{FormatArgument, Report};
pub(crate) use running::{Running, SameNoiseArgument, Sampling, Target};
pub(crate) use serve::{ModelArguments, Serve, ServeFile, ServerArguments};
pub(crate) use upgrade::Upgrade;
pub(crate) use values::Wanted;

/// Makes ONNX models smaller and faster, and proves that they still are the same model.
#[derive(Debug, Parser)]
#[command(
    name = "modelopt",
    version,
    propagate_version = true,
    after_help = "Exit codes: 0 done; 1 error; 2 wrong usage; 3 the gate said no and nothing was written; 130 stopped by Ctrl-C."
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Args, Debug)]
pub(crate) struct Common {
    /// Print one JSON document on stdout instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// No progress and no summary; errors and warnings only
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Settings file [default: modelopt.toml in the current folder, if there is one]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Quantize a model, and write it only if it still agrees with the original
    #[command(after_help = QUANTIZE_EXAMPLES)]
    Quantize(Quantize),
    /// Convert a model to float16 or bfloat16, and write it only if it still agrees
    #[command(after_help = CONVERT_EXAMPLES)]
    Convert(Convert),
    /// Bring a model to a newer operator set, and write it only if it still computes the same
    #[command(after_help = UPGRADE_EXAMPLES)]
    Upgrade(Upgrade),
    /// Show what would be done to each layer, and why; or what each layer costs
    #[command(after_help = PLAN_EXAMPLES)]
    Plan(Plan),
    /// Observe what flows through a model on real inputs, as a file that plans take ranges from
    #[command(after_help = CALIBRATE_EXAMPLES)]
    Calibrate(Calibrate),
    /// Run two models on the same inputs and judge how close they are
    Compare(Compare),
    /// Measure the latency of models, on several runtimes, thread counts and sizes
    #[command(after_help = BENCH_EXAMPLES)]
    Bench(Bench),
    /// Show what is in a model: inputs, outputs, operators, weights
    Inspect(Inspect),
    /// Render a report, or hold it against an earlier one
    #[command(after_help = REPORT_EXAMPLES)]
    Report(Report),
    /// Answer requests over HTTP with a model, or with a folder of models and versions
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(Box<Serve>),
    /// Print a completion script for a shell
    Completions {
        /// Shell
        shell: clap_complete::Shell,
    },
    /// Write man pages into a folder
    Man {
        /// Folder
        folder: PathBuf,
    },
    /// Run models for a parent process
    #[command(hide = true)]
    Worker,
}

const QUANTIZE_EXAMPLES: &str = "\
Examples:
  modelopt quantize model.onnx -o model.int8.onnx --samples inputs/
  modelopt quantize model.onnx -o small.onnx --min-sqnr 30 --objective size --time-budget 5m
  modelopt quantize model.onnx -o small.onnx --scheme int8-weights
  modelopt quantize model.onnx -o fast.onnx --exclude '/decoder/*' --explain
  modelopt quantize model.onnx -o out.onnx --dim batch=1 --input sr=16000
  modelopt quantize model.onnx -o out.onnx --runtime onnxruntime,rten --report report/";

const CONVERT_EXAMPLES: &str = "\
Examples:
  modelopt convert model.onnx -o model.fp16.onnx --to fp16-weights
  modelopt convert model.onnx -o model.fp16.onnx --to fp16 --samples inputs/ --explain
  modelopt convert model.onnx -o model.fp16.onnx --to fp16 --io fp16
  modelopt convert model.onnx -o model.bf16.onnx --to bf16 --exclude Softmax";

const UPGRADE_EXAMPLES: &str = "\
Examples:
  modelopt upgrade model.onnx -o model.new.onnx --samples inputs/
  modelopt upgrade model.onnx -o model.op17.onnx --opset 17
  modelopt upgrade model.onnx --in-place --runtime onnxruntime";

const PLAN_EXAMPLES: &str = "\
Examples:
  modelopt plan model.onnx --runtime onnxruntime --save plan.toml
  modelopt plan model.onnx --runtime onnxruntime --samples inputs/ --sensitivity";

const CALIBRATE_EXAMPLES: &str = "\
Examples:
  modelopt calibrate model.onnx --samples inputs/ -o model.calibration
  modelopt calibrate model.onnx --samples inputs/ -o model.calibration --resume
  modelopt calibrate model.onnx --samples inputs/ --shard 1/2 -o part-1.calibration
  modelopt calibrate model.onnx --samples inputs/ --shard 2/2 -o part-2.calibration
  modelopt calibrate --merge part-1.calibration part-2.calibration -o model.calibration

Shards may be made anywhere, at the same time; merged they are the file of one run, to the last byte.";

const BENCH_EXAMPLES: &str = "\
Examples:
  modelopt bench model.onnx model.int8.onnx --runtime onnxruntime,tract,rten
  modelopt bench model.onnx --runtime onnxruntime --threads 1,2,4 --dim batch=1,8";

const REPORT_EXAMPLES: &str = "\
Examples:
  modelopt report report/report.json --format html > report.html
  modelopt report new/report.json --baseline old/report.json --max-sqnr-loss 2";

const SERVE_EXAMPLES: &str = "\
Examples:
  modelopt serve model.onnx
  modelopt serve models/ --runtime onnxruntime --port 9000 --poll-seconds 10
  modelopt serve model.onnx --jwt-algorithm RS256 --jwt-key key.pub.pem --rate-limit 100
  modelopt serve --config serve.toml

A setting is taken from its flag, then from its variable, then from the file that --config or
MODELOPT_SERVE_CONFIG names, where its key is the flag without dashes. SIGTERM ends the server when it has
answered what it took; SIGHUP has it read models, keys and certificate again.";

#[derive(Args, Debug)]
pub(crate) struct Inspect {
    /// Model; - reads from stdin
    pub(crate) input: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    /// The files that docs/ci.md gives away call the program as it is.
    #[test]
    fn the_ci_files_call_it_rightly() {
        for name in ["github-actions.yml", "gitlab-ci.yml"] {
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/ci/");
            let text = std::fs::read_to_string(format!("{folder}{name}")).unwrap();
            let mut commands: Vec<String> = Vec::new();
            let mut goes_on = false;
            for line in text.lines().map(str::trim) {
                let line = line.strip_prefix("run: ").unwrap_or(line);
                if line.starts_with("modelopt ") {
                    commands.push(line.to_owned());
                    goes_on = true;
                } else if goes_on && line.starts_with("--") {
                    let last = commands.last_mut().unwrap();
                    *last = format!("{last} {line}");
                } else {
                    goes_on = false;
                }
            }
            assert_eq!(commands.len(), 2, "{name}: {commands:?}");
            for command in commands {
                let command = command.split(" || ").next().unwrap();
                let parsed = Arguments::try_parse_from(command.split_whitespace());
                assert!(parsed.is_ok(), "{name}: {command}: {}", parsed.unwrap_err());
            }
        }
    }
}
