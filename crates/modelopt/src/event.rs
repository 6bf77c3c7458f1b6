//! What a run tells whoever waits for it, as data: only the program that shows it has words for it.

use modelopt_report as report;

/// What the library is doing.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Progress {
    /// A step began.
    Step(Step),
    /// So many of so many parts of the current step are done.
    Part {
        /// Parts done.
        done: usize,
        /// Parts in all.
        total: usize,
    },
    /// A search ran and judged a plan.
    Trial(Box<report::Trial>),
    /// What comes next takes long.
    Long {
        /// What comes.
        step: Step,
        /// How long it takes at most, by what the first run took.
        seconds: u64,
    },
}

/// A step of a run. Some come more than once, and no run has all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// Models are read.
    Loading,
    /// The model is prepared, and the plan to begin with is made.
    Planning,
    /// The original is loaded into the target and run, on inputs that it runs on.
    PreparingOriginal,
    /// Layers are measured as models of their own, in each form.
    MeasuringLayers,
    /// The original is run with what flows through it as outputs.
    MeasuringActivations,
    /// A plan is searched for.
    Searching,
    /// What computes in 16 bits and has to stay float32 is looked for.
    MixingPrecision,
    /// A plan is carried out, run and judged.
    TryingPlan,
    /// What rounding each layer does to the outputs is measured.
    MeasuringLayerCosts,
    /// The same of all layers together.
    MeasuringWholePlan,
    /// Layers that cost most on the worst sample are measured on all samples.
    ConfirmingLayerCosts,
    /// The latency of a plan is measured beside the original's.
    TimingPlan,
    /// The candidate is written beside its target.
    WritingCandidate,
    /// The candidate is loaded into the target.
    PreparingCandidate,
    /// Both models are run on all samples.
    Comparing,
    /// The latency of models is measured.
    MeasuringLatency,
    /// The user's own metric is asked.
    EvaluatingMetric,
    /// The layers that parity fails for are looked for.
    FindingCulprits,
    /// The layers that became slower are looked for.
    FindingSlowLayers,
    /// A gentler scheme than the one that was asked for is tried.
    TryingGentlerScheme,
    /// The candidate is put in its place.
    Emitting,
}
