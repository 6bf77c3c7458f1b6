//! What the user should know of a run, as data: only the command line knows its flags.

mod words;

use modelopt_rewrite::{Precision, RandomOperator, Scheme};
use modelopt_runtime::{LeftOut, Oddity, RuntimeKind};

use crate::found_inputs::FoundInputs;
use crate::hint::Hint;

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
    OddInput(Oddity),
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
        /// What may help to prove it.
        hint: Option<Hint>,
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
    /// The operators are of a newer version than they were.
    #[error(
        "the operator set is raised from {before} to {after}: before, no operator has int8 weights with a scale for each channel"
    )]
    OperatorSetRaised {
        /// Version of the original.
        before: i64,
        /// Version of the candidate.
        after: i64,
    },
    /// How computing on integers is to be written decides nothing.
    #[error("no layer takes ranges, so that the format of quantized operators decides nothing")]
    UnusedQuantFormat,
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
    #[error("activations could not be measured, so that their ranges are not known: {reason}")]
    UnknownRanges {
        /// Why.
        reason: String,
    },
    /// Layers could compute on integers by ranges, which nobody knows.
    #[error(
        "layers could compute on integers from one to the next, which is faster there, but invented inputs do not tell the ranges of real ones"
    )]
    RangesNeedSamples,
    /// Ranges are those of invented inputs.
    #[error("ranges of tensors are those of invented inputs; real ones may lie beyond them")]
    InventedRanges,
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
            Warning::OperatorSetRaised { .. } => "operator-set-raised",
            Warning::UnusedQuantFormat => "unused-quant-format",
            Warning::NothingToDo { .. } => "nothing-to-do",
            Warning::KeptUnproven { .. } => "kept-unproven",
            Warning::NothingToGain { .. } => "nothing-to-gain",
            Warning::AllSlower { .. } => "all-slower",
            Warning::SlowOnProcessors { .. } => "slow-on-processors",
            Warning::SlowerIn16Bits { .. } => "slower-in-16-bits",
            Warning::FewerTrials { .. } => "fewer-trials",
            Warning::UnseenActivations { .. } => "unseen-activations",
            Warning::UnknownRanges { .. } => "unknown-ranges",
            Warning::RangesNeedSamples => "ranges-need-samples",
            Warning::InventedRanges => "invented-ranges",
            Warning::NotSmoothed { .. } => "not-smoothed",
            Warning::RankedByOwnError { .. } => "ranked-by-own-error",
            Warning::Unmeasured { .. } => "unmeasured",
            Warning::NotCached { .. } => "not-cached",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use modelopt_rewrite::random_operators;
    use xtask::testdata::fixture;

    use super::*;

    /// The operators of a model that is random.
    fn operators(name: &str) -> Vec<RandomOperator> {
        let model = modelopt_onnx::load(&fixture(format!("random/{name}.onnx"))).unwrap();
        random_operators(&model)
    }

    fn reason() -> String {
        "planted".to_owned()
    }

    /// One of each.
    fn all() -> Vec<Warning> {
        let operators = operators("normal_like");
        let outputs = vec![("y".to_owned(), 31.25), ("z".to_owned(), 40.0)];
        let left = vec![LeftOut { output: "s".to_owned(), ty: "sequence".to_owned() }];
        let precision = Precision::Fp16;
        vec![
            Warning::InventedInputs,
            Warning::FoundInputs(FoundInputs::default()),
            Warning::OddInput(Oddity::More(2)),
            Warning::InTraining { operators: operators.clone() },
            Warning::SameNoise { operators: operators.clone() },
            Warning::RandomOriginal { operators },
            Warning::LeftRandom { labels: vec![reason()], reason: reason() },
            Warning::Unsteady { outputs },
            Warning::NotReturned { runtime: reason(), outputs: left, elsewhere: None },
            Warning::CandidateFails(reason()),
            Warning::Unproven { reason: reason(), hint: None },
            Warning::FormatChanges { before: 3, after: 4 },
            Warning::OperatorSetRaised { before: 11, after: 13 },
            Warning::UnusedQuantFormat,
            Warning::NothingToDo { layers: 2, narrow_already: false },
            Warning::KeptUnproven { layers: 2 },
            Warning::NothingToGain { more_bytes: 7 },
            Warning::AllSlower { runtime: reason() },
            Warning::SlowOnProcessors { precision, stored: None },
            Warning::SlowerIn16Bits { precision, ratio: 1.5, allowance: 1.55, stored: None },
            Warning::FewerTrials { allowed: 6, wanted: 25, run_seconds: 10.0 },
            Warning::UnseenActivations { reason: reason() },
            Warning::UnknownRanges { reason: reason() },
            Warning::RangesNeedSamples,
            Warning::InventedRanges,
            Warning::NotSmoothed { reason: reason() },
            Warning::RankedByOwnError { reason: reason() },
            Warning::Unmeasured { layers: vec![reason()] },
            Warning::NotCached { reason: reason() },
        ]
    }

    #[test]
    fn kinds_are_names_of_their_own_and_sentences_name_no_flag() {
        let all = all();
        let kinds: BTreeSet<&str> = all.iter().map(Warning::kind).collect();
        assert_eq!(kinds.len(), all.len());
        let is_name = |kind: &&str| {
            kind.split('-').all(|word| {
                !word.is_empty()
                    && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
            })
        };
        assert!(kinds.iter().all(is_name), "{kinds:?}");
        for warning in all {
            let said = warning.to_string();
            assert!(!said.is_empty() && !said.contains("--"), "{warning:?}: {said}");
        }
    }

    #[test]
    fn operators_that_do_the_same_are_told_together() {
        let (noise, dropout) = (operators("normal_like"), operators("dropout"));
        let said = |operators: Vec<RandomOperator>| Warning::SameNoise { operators }.to_string();
        let one = said(noise.clone());
        assert_eq!(
            one,
            "RandomNormalLike 'noise' draws random numbers; both models were run with the same noise \
             to be compared, the files themselves stay random"
        );
        let many = said([vec![noise[0].clone(); 5], dropout.clone()].concat());
        assert!(many.contains("'noise' and 2 more draw random numbers; Dropout"), "{many}");
        assert!(many.ends_with("export in evaluation mode if it is not meant to"), "{many}");
        let both = said(vec![dropout[0].clone(); 2]);
        assert!(both.contains("are in training mode: they drop elements at random"), "{both}");
        let batch = operators("batchnorm");
        let said = |operators: Vec<RandomOperator>| Warning::InTraining { operators }.to_string();
        assert!(said(batch.clone()).ends_with("if it is not meant to"), "{}", said(batch.clone()));
        assert!(said(vec![batch[0].clone(); 2]).contains("they normalize by the batch at hand"));
    }

    #[test]
    fn nothing_to_do_says_why() {
        let said =
            |layers, narrow_already| Warning::NothingToDo { layers, narrow_already }.to_string();
        assert_eq!(
            [said(0, false), said(1, false), said(5, false), said(5, true)],
            [
                "nothing to do: the model has no float weights; it is emitted as it is",
                "nothing to do: the only layer is kept; the model is emitted as it is",
                "nothing to do: all 5 layers are kept; the model is emitted as it is",
                "nothing to do: the weights are 16-bit already; the model is emitted as it is",
            ]
        );
    }
}
