//! Carries a plan out, runs what comes of it beside the original, and compares: the step that
//! search, repair and the naming of layers have in common.

use std::borrow::Cow;
use std::collections::HashMap;

use modelopt_graph::{Model, Tensor};
use modelopt_onnx::{SaveOptions, Staged};
use modelopt_rewrite::{self as rewrite, Plan};
use modelopt_runtime::{Outputs, Sample, SampleKind, Session};
use modelopt_validate::{Accumulator, Parity, Tolerance};

use crate::casting::Casting;
use crate::lanes::Lanes;
use crate::run::{self, Bench, Place};

/// The most that outputs of the original may take to be kept, in bytes.
const MOST_KEPT: usize = 1 << 30;

/// A model, where it runs, and what the original makes of the samples.
pub(crate) struct Prover<'a, 'b> {
    pub(crate) prepared: &'a Model,
    pub(crate) samples: &'a [Sample],
    /// Where models are loaded.
    pub(crate) place: &'a Place<'b>,
    original: &'a mut dyn Session,
    casting: Option<&'a Casting>,
    /// By place of the sample.
    references: HashMap<usize, Outputs>,
    kept: usize,
    peaks: Option<HashMap<String, f64>>,
}

/// What came of a plan.
pub(crate) struct Proved {
    pub(crate) parity: Parity,
    /// Size of the candidate, in bytes.
    pub(crate) bytes: u64,
}

impl<'a, 'b> Prover<'a, 'b> {
    pub(crate) fn new(
        prepared: &'a Model,
        samples: &'a [Sample],
        bench: &'a mut Bench<'b>,
        casting: Option<&'a Casting>,
    ) -> Self {
        let (original, place) = bench.parts();
        Prover {
            prepared,
            samples,
            place,
            original,
            casting,
            references: HashMap::new(),
            kept: 0,
            peaks: None,
        }
    }

    /// The places of all samples.
    pub(crate) fn all(&self) -> Vec<usize> {
        (0..self.samples.len()).collect()
    }

    /// The place of a sample.
    pub(crate) fn place(&self, name: &str) -> Option<usize> {
        self.samples.iter().position(|sample| sample.name == name)
    }

    /// Errors of some samples are judged beside what the outputs are on all.
    fn accumulator(&mut self, samples: &[usize]) -> Result<Accumulator, String> {
        let accumulator = Accumulator::new(Tolerance::default());
        if samples.len() == self.samples.len() {
            return Ok(accumulator);
        }
        Ok(accumulator.beside(self.peaks()?))
    }

    /// Runs the model under a plan on some of the samples; why it cannot be run otherwise.
    pub(crate) fn prove(&mut self, plan: &Plan, samples: &[usize]) -> Result<Proved, String> {
        let mut model = self.prepared.clone();
        rewrite::apply(&mut model, plan).map_err(|error| error.to_string())?;
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let path = folder.path().join("trial.onnx");
        let staged = Staged::write(&model, &path, SaveOptions::default());
        let staged = staged.map_err(|error| error.to_string())?;
        let (all, place) = (self.samples, self.place);
        let mut lanes = Lanes::new(place, staged.path().to_owned(), self.casting.cloned())?;
        let mut parity = self.accumulator(samples)?;
        let sample = |index: usize| samples.get(index).and_then(|&place| all.get(place));
        let inputs = |index| sample(index).map(|sample| sample.inputs.clone()).unwrap_or_default();
        lanes.run(place, samples.len(), inputs, &mut |index, outputs| {
            if let (Some(sample), Some(&place)) = (sample(index), samples.get(index)) {
                let synthetic = sample.kind == SampleKind::Synthetic;
                parity.add(&sample.name, synthetic, &*self.reference(place)?, outputs);
            }
            Ok(())
        })?;
        Ok(Proved { parity: parity.finish(), bytes: staged.size() })
    }

    /// The largest magnitudes of the original's outputs over all samples, by name.
    pub(crate) fn peaks(&mut self) -> Result<HashMap<String, f64>, String> {
        if let Some(peaks) = &self.peaks {
            return Ok(peaks.clone());
        }
        let mut peaks: HashMap<String, f64> = HashMap::new();
        for place in self.all() {
            for (name, tensor) in self.reference(place)?.iter() {
                let numbers = tensor.to_f32().unwrap_or_default();
                let finite = numbers.iter().filter(|x| x.is_finite());
                let peak = finite.fold(0f32, |peak, x| peak.max(x.abs()));
                let known = peaks.entry(name.clone()).or_default();
                *known = known.max(f64::from(peak));
            }
        }
        self.peaks = Some(peaks.clone());
        Ok(peaks)
    }

    /// What the original makes of a sample.
    pub(crate) fn reference(&mut self, place: usize) -> Result<Cow<'_, Outputs>, String> {
        if !self.references.contains_key(&place) {
            let sample = self.samples.get(place).ok_or("there is no such sample")?;
            let outputs = self.original.run(&sample.inputs);
            let outputs = outputs.map_err(|error| run::without_path(&error))?;
            let size: usize = outputs.values().map(Tensor::byte_len).sum();
            if self.kept + size > MOST_KEPT {
                return Ok(Cow::Owned(outputs));
            }
            self.kept += size;
            self.references.insert(place, outputs);
        }
        self.references.get(&place).map(Cow::Borrowed).ok_or_else(|| "not run".to_owned())
    }
}

/// The lowest SQNR of any float output, in dB, and the sample that it comes from.
pub(crate) fn worst_sqnr(parity: &Parity) -> Option<(f64, &str)> {
    let floats = parity.outputs.iter().filter_map(|output| output.float.as_ref());
    let worst = floats.min_by(|a, b| a.sqnr_db.total_cmp(&b.sqnr_db))?;
    Some((worst.sqnr_db, &worst.worst_sample))
}

/// Noise power relative to the signal's.
pub(crate) fn noise(sqnr_db: f64) -> f64 {
    if sqnr_db.is_nan() { f64::INFINITY } else { 10f64.powf(-sqnr_db / 10.0) }
}
