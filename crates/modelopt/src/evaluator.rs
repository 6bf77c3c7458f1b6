//! Carries a plan out, runs what comes of it beside the original, and compares: the step that
//! search and the naming of layers have in common.

use std::borrow::Cow;
use std::sync::Arc;

use modelopt_rewrite::{Plan, Prepared};
use modelopt_runtime::{Outputs, Sample, SampleKind};
use modelopt_validate::{Accumulator, CompareError, Parity, Profile, References, Tolerance};

use crate::io_cast::IoCast;
use crate::scratch::Scratch;
use crate::session_pool::SessionPool;
use crate::target::{Host, Rig};
use crate::trial_error::TrialError;
use crate::witness;

/// A model, where it runs, and what the original makes of the samples.
pub(crate) struct Prover<'a, 'b> {
    pub(crate) prepared: &'a Prepared,
    pub(crate) samples: &'a [Sample],
    /// Where models are loaded.
    pub(crate) host: &'a Host<'b>,
    references: References<'a>,
    profile: Arc<Profile>,
    casting: Option<&'a IoCast>,
}

/// What came of a plan.
pub(crate) struct Proved {
    pub(crate) parity: Parity,
    /// Size of the candidate, in bytes.
    pub(crate) bytes: u64,
}

impl<'a, 'b> Prover<'a, 'b> {
    pub(crate) fn new(
        prepared: &'a Prepared,
        samples: &'a [Sample],
        rig: &'a mut Rig<'b>,
        casting: Option<&'a IoCast>,
    ) -> Self {
        let (references, profile, host) = rig.judging(samples);
        Prover { prepared, samples, host, references, profile, casting }
    }

    /// A comparison by the same measure as the verdict's.
    pub(crate) fn accumulator(&self) -> Accumulator {
        Accumulator::new(Arc::clone(&self.profile), Tolerance::default())
    }

    /// Names of values that are judged beside the outputs.
    pub(crate) fn witnesses(&self) -> &[String] {
        self.profile.witnesses()
    }

    /// The places of all samples.
    pub(crate) fn all(&self) -> Vec<usize> {
        (0..self.samples.len()).collect()
    }

    /// The place of a sample.
    pub(crate) fn place(&self, name: &str) -> Option<usize> {
        self.samples.iter().position(|sample| sample.name == name)
    }

    /// Runs the model under a plan on some of the samples; why it cannot be run otherwise.
    pub(crate) fn prove(&mut self, plan: &Plan, samples: &[usize]) -> Result<Proved, TrialError> {
        let (mut model, _) = self.prepared.apply(plan)?;
        witness::show_named(&mut model, self.witnesses());
        let scratch = Scratch::new()?;
        let staged = scratch.write(&self.host.copies.of(&model), "trial.onnx")?;
        let (all, host) = (self.samples, self.host);
        let mut pool = SessionPool::new(host, staged.path().to_owned(), self.casting.cloned())?;
        let mut parity = self.accumulator();
        let sample = |index: usize| samples.get(index).and_then(|&place| all.get(place));
        let inputs = |index| sample(index).map(|sample| sample.inputs.clone()).unwrap_or_default();
        pool.run(host, samples.len(), inputs, &mut |index, outputs| {
            if let (Some(sample), Some(&place)) = (sample(index), samples.get(index)) {
                let synthetic = sample.kind == SampleKind::Synthetic;
                parity.add(&sample.name, synthetic, &*self.reference(place)?, outputs);
            }
            Ok(())
        })?;
        Ok(Proved { parity: parity.finish(), bytes: host.copies.size_without(staged.size()) })
    }

    /// What the original makes of a sample.
    pub(crate) fn reference(&mut self, place: usize) -> Result<Cow<'_, Outputs>, String> {
        self.references.get(place).map_err(|error| match &error {
            CompareError::Run { source, .. } => source.without_path(),
            _ => error.to_string(),
        })
    }
}

/// The lowest SQNR of any float output, in dB, and the sample that it comes from.
pub(crate) fn worst_sqnr(parity: &Parity) -> Option<(f64, &str)> {
    let floats = parity.judged().filter_map(|output| output.float.as_ref());
    let worst = floats.min_by(|a, b| a.sqnr_db.total_cmp(&b.sqnr_db))?;
    Some((worst.sqnr_db, &worst.worst_sample))
}

/// Noise power relative to the signal's.
pub(crate) fn noise(sqnr_db: f64) -> f64 {
    if sqnr_db.is_nan() { f64::INFINITY } else { 10f64.powf(-sqnr_db / 10.0) }
}

#[cfg(test)]
mod tests {
    use modelopt_rewrite::Scheme;

    use super::*;
    use crate::testing::{Bed, Layer};

    #[test]
    fn a_plan_that_changes_nothing_gives_the_same_outputs() {
        let bed = Bed::of(&[Layer::Even; 2], 20.0);
        let plan = bed.plan(Scheme::KEEP);
        let proved = bed.prove(|mut prover| {
            let all = prover.all();
            prover.prove(&plan, &all).unwrap()
        });
        assert!(worst_sqnr(&proved.parity).unwrap().0 > 100.0);
    }

    #[test]
    fn int8_is_smaller_and_loses_something() {
        let bed = Bed::of(&[Layer::Even; 2], 20.0);
        let [kept, int8] = [Scheme::KEEP, Scheme::INT8_WEIGHTS].map(|scheme| {
            let plan = bed.plan(scheme);
            bed.prove(|mut prover| {
                let all = prover.all();
                prover.prove(&plan, &all).unwrap()
            })
        });
        assert!(int8.bytes * 2 < kept.bytes, "{} {}", int8.bytes, kept.bytes);
        let (sqnr_db, sample) = worst_sqnr(&int8.parity).unwrap();
        assert!((20.0..60.0).contains(&sqnr_db), "{sqnr_db}");
        assert!(!sample.is_empty());
    }

    #[test]
    fn a_plan_for_another_model_is_refused_or_changes_nothing() {
        let bed = Bed::of(&[Layer::Even; 2], 20.0);
        let other = Bed::of(&[Layer::Even; 3], 20.0);
        let plan = other.plan(Scheme::INT8_WEIGHTS);
        let error = modelopt_rewrite::plan_from(&bed.prepared, &plan).unwrap_err();
        assert!(matches!(TrialError::from(error), TrialError::Refused(_)));
    }

    #[test]
    fn samples_have_places() {
        let bed = Bed::of(&[Layer::Even], 20.0);
        bed.prove(|mut prover| {
            let all = prover.all();
            let name = prover.samples[all[0]].name.clone();
            assert_eq!(prover.place(&name), Some(0));
            assert_eq!(prover.place("no such sample"), None);
            assert!(prover.reference(0).unwrap().len() == 1);
        });
    }

    #[test]
    fn noise_is_what_the_ratio_says() {
        assert!((noise(20.0) - 0.01).abs() < 1e-12);
        assert!(noise(f64::INFINITY) < 1e-300);
        assert!(noise(f64::NAN).is_infinite(), "what cannot be told is not good");
    }
}

#[cfg(test)]
mod planted;
