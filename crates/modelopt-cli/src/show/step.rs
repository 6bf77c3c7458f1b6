//! What is going on, in words.

use modelopt::Step;

/// A step as it stands on the line of progress.
pub(crate) fn step(step: Step) -> &'static str {
    match step {
        Step::Loading => "loading",
        Step::Planning => "planning",
        Step::PreparingOriginal => "preparing the original",
        Step::MeasuringLayers => "measuring layers",
        Step::MeasuringActivations => "measuring activations",
        Step::Searching => "searching for a plan",
        Step::MixingPrecision => "looking for what must stay float32",
        Step::TryingPlan => "trying a plan",
        Step::MeasuringLayerCosts => "measuring what each layer costs",
        Step::MeasuringWholePlan => "measuring the plan under switches",
        Step::ConfirmingLayerCosts => "measuring the worst of them on all samples",
        Step::TimingPlan => "measuring a plan",
        Step::WritingCandidate => "writing the candidate",
        Step::PreparingCandidate => "preparing the candidate",
        Step::Comparing => "comparing",
        Step::MeasuringLatency => "measuring latency",
        Step::EvaluatingMetric => "evaluating the metric",
        Step::FindingCulprits => "looking for the layers to blame",
        Step::FindingSlowLayers => "looking for the layers that became slower",
        Step::TryingGentlerScheme => "trying a gentler scheme",
        Step::Emitting => "emitting",
        _ => "working",
    }
}
