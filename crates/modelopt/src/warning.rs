//! What the user should know of a run, as data: only the command line knows its flags.

mod words;

use modelopt_rewrite::{Precision, RandomOperator, Scheme};
use modelopt_runtime::{LeftOut, RuntimeKind};

use crate::found_inputs::FoundInputs;

/// Something to know of a run that is no failure. Its `Display` is a sentence that names no setting of
/// any program.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Warning {
    /// The models were judged on inputs that were invented.
    #[error("judged on invented inputs: parity on real ones may differ")]
    InventedInputs,
    /// The first guess of inputs did not suit the model; these do.
    #[error("inputs as they are guessed first do not suit the model; found for it: {}", words::found(.0))]
    FoundInputs(FoundInputs),
    /// What is odd about an input that was given, such as elements that are NaN, in a sentence.
    #[error("{0}")]
    OddInput(String),
    /// Operators that are not random behave as in training.
    #[error("{}", words::in_training(.operators))]
    InTraining {
        /// The operators; at least one.
        operators: Vec<RandomOperator>,
    },
    /// Both models were run with the same noise, because they are random.
    #[error("{}; both models were run with the same noise to be compared, the files themselves stay random{}", words::random(.operators), words::evaluation(.operators))]
    SameNoise {
        /// The random operators.
        operators: Vec<RandomOperator>,
    },
    /// The original is random, and was run as it is.
    #[error("{}: the original differs from itself from run to run, so the figures say little of what changed", words::random(.operators))]
    RandomOriginal {
        /// The random operators.
        operators: Vec<RandomOperator>,
    },
    /// Operators that cannot be given the same noise in both models.
    #[error("{} cannot be given the same noise: {reason}", words::named(.labels.iter().map(String::as_str)))]
    LeftRandom {
        /// Operators and names of the nodes; at least one.
        labels: Vec<String>,
        /// Why the first of them cannot.
        reason: String,
    },
    /// Outputs of the original that differ from run to run on the same inputs.
    #[error("the original differs from itself from run to run, and cannot be judged more closely than that: {}", words::ratios(.outputs))]
    Unsteady {
        /// Name of each, and its ratio to itself in dB.
        outputs: Vec<(String, f64)>,
    },
    /// Outputs that were not compared, because the runtime cannot return them.
    #[error("not compared, because {runtime} cannot return it: {}{}", words::joined(.outputs), words::elsewhere(*.elsewhere))]
    NotReturned {
        /// Name of the runtime.
        runtime: String,
        /// The outputs.
        outputs: Vec<LeftOut>,
        /// A runtime that may return more.
        elsewhere: Option<RuntimeKind>,
    },
    /// The candidate does not run.
    #[error("{0}")]
    CandidateFails(String),
    /// Nothing could be proven, and the candidate is emitted all the same, as it was asked for.
    #[error("emitted without proof: {reason}")]
    Unproven {
        /// Why nothing could be proven.
        reason: String,
    },
    /// The candidate has another IR version than the original.
    #[error(
        "the IR version changes from {before} to {after}: weights that change are no longer among the inputs, where version {before} wants all of them"
    )]
    FormatChanges {
        /// Version of the original.
        before: i64,
        /// Version of the candidate.
        after: i64,
    },
    /// The plan changes no layer; the model is emitted as it is.
    #[error("nothing to do: {}", words::nothing_to_do(*.layers, *.narrow_already))]
    NothingToDo {
        /// How many layers there are.
        layers: usize,
        /// Whether that is because weights are of 16 bits already.
        narrow_already: bool,
    },
    /// The plan changes no layer, because it would depend on outputs that differ from run to run.
    #[error(
        "all {layers} layers are kept: outputs that differ from run to run prove nothing; the model is emitted as it is"
    )]
    KeptUnproven {
        /// How many layers there are.
        layers: usize,
    },
    /// The candidate would be no smaller and no faster; the model is emitted as it is.
    #[error(
        "nothing to gain: it would be {more_bytes} bytes larger and not faster; the model is emitted as it is"
    )]
    NothingToGain {
        /// By how much it would be larger, in bytes.
        more_bytes: u64,
    },
    /// Every plan is slower than the limit allows; the model is emitted as it is.
    #[error(
        "every plan is slower than the limit allows on {runtime}: the model is emitted as it is"
    )]
    AllSlower {
        /// Name of the runtime.
        runtime: String,
    },
    /// The model computes in 16 bits, which everybody expects to be fast and processors are not.
    #[error("{} is not computed faster on CPUs, where runtimes cast or emulate it", .precision.dtype())]
    SlowOnProcessors {
        /// What it computes in.
        precision: Precision,
        /// The scheme that only stores weights in it, which costs no time.
        stored: Option<Scheme>,
    },
    /// Computing in 16 bits, as it was asked for, is slower than the limit allows.
    #[error("computed in {} it takes {ratio:.2}x of the time here, {}", .precision.dtype(), words::instead(.stored.is_some()))]
    SlowerIn16Bits {
        /// What the model was to compute in.
        precision: Precision,
        /// The candidate's time divided by the original's.
        ratio: f64,
        /// A limit that would let it pass.
        allowance: f64,
        /// The scheme that only stores weights, which was taken instead; none if there are no
        /// weights to store, and the model is emitted as it is.
        stored: Option<Scheme>,
    },
    /// A search made fewer trials, because one run takes long.
    #[error(
        "only {allowed} of {wanted} trials were made, because one run takes {run_seconds:.1} s"
    )]
    FewerTrials {
        /// Trials that were allowed.
        allowed: usize,
        /// Trials that would have been made.
        wanted: usize,
        /// What one run of the original takes, in seconds.
        run_seconds: f64,
    },
    /// A search could not look at activations.
    #[error("activations could not be measured: {reason}")]
    UnseenActivations {
        /// Why.
        reason: String,
    },
    /// Which activations 16 bits have no range for is not known.
    #[error("activations could not be measured, so that their range is not known: {reason}")]
    UnknownRanges {
        /// Why.
        reason: String,
    },
    /// Activations are not smoothed, though that was asked for.
    #[error("activations are not smoothed: {reason}")]
    NotSmoothed {
        /// Why.
        reason: String,
    },
    /// A search went by the errors of the layers' own outputs, not by what those do to the model's.
    #[error("layers are ranked by their own error, not by what it does: {reason}")]
    RankedByOwnError {
        /// Why.
        reason: String,
    },
    /// Layers that could not be measured, because their shapes are known only while the model runs.
    #[error("{} layers are planned by the table: their shapes are known only while the model runs", .layers.len())]
    Unmeasured {
        /// Names of the layers.
        layers: Vec<String>,
    },
    /// Measurements of layers could not be kept.
    #[error("measurements are not kept: {reason}")]
    NotCached {
        /// Why.
        reason: String,
    },
}

impl Warning {
    /// What it is about, for programs: a name that stays.
    pub fn kind(&self) -> &'static str {
        match self {
            Warning::InventedInputs => "invented-inputs",
            Warning::FoundInputs(_) => "found-inputs",
            Warning::OddInput(_) => "odd-input",
            Warning::InTraining { .. } => "in-training",
            Warning::SameNoise { .. } => "same-noise",
            Warning::RandomOriginal { .. } => "random-original",
            Warning::LeftRandom { .. } => "left-random",
            Warning::Unsteady { .. } => "unsteady",
            Warning::NotReturned { .. } => "not-returned",
            Warning::CandidateFails(_) => "candidate-fails",
            Warning::Unproven { .. } => "unproven",
            Warning::FormatChanges { .. } => "format-changes",
            Warning::NothingToDo { .. } => "nothing-to-do",
            Warning::KeptUnproven { .. } => "kept-unproven",
            Warning::NothingToGain { .. } => "nothing-to-gain",
            Warning::AllSlower { .. } => "all-slower",
            Warning::SlowOnProcessors { .. } => "slow-on-processors",
            Warning::SlowerIn16Bits { .. } => "slower-in-16-bits",
            Warning::FewerTrials { .. } => "fewer-trials",
            Warning::UnseenActivations { .. } => "unseen-activations",
            Warning::UnknownRanges { .. } => "unknown-ranges",
            Warning::NotSmoothed { .. } => "not-smoothed",
            Warning::RankedByOwnError { .. } => "ranked-by-own-error",
            Warning::Unmeasured { .. } => "unmeasured",
            Warning::NotCached { .. } => "not-cached",
        }
    }
}
