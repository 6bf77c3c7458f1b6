//! Outputs of both models taken in sample by sample.

use std::sync::Arc;

use indexmap::IndexMap;
use modelopt_graph::Tensor;

use crate::elements::Floats;
use crate::exact;
use crate::parity::{
    Decisions, FloatParity, OutputParity, Parity, PartParity, Selected, SentinelParity, Tolerance,
};
use crate::profile::{OutputProfile, Profile};
use crate::scores::Agreement;
use crate::sums::PartFigures;

/// Compares outputs sample by sample; holds figures, not tensors.
#[derive(Clone, Debug)]
pub struct Accumulator {
    profile: Arc<Profile>,
    close: Tolerance,
    parity: Parity,
    tallies: Vec<Tally>,
}

/// What was seen of one output, beside its figures.
#[derive(Clone, Debug, Default)]
struct Tally {
    agreement: Agreement,
    parts: Vec<PartTally>,
    sentinels: Vec<(u64, u64)>,
    decisions: Option<Decisions>,
    /// Elements of integers compared.
    compared: u64,
}

/// The worst of one part.
#[derive(Clone, Debug)]
struct PartTally {
    elements: u64,
    max_abs_error: f64,
    resolved: Option<(f64, String)>,
    plain: Option<(f64, String)>,
}

impl PartTally {
    fn new() -> Self {
        PartTally { elements: 0, max_abs_error: 0.0, resolved: None, plain: None }
    }

    fn add(&mut self, sample: &str, figures: &PartFigures) {
        if figures.elements == 0 {
            return;
        }
        self.elements += figures.elements;
        if !(self.max_abs_error.is_nan() || figures.max_abs_error <= self.max_abs_error) {
            self.max_abs_error = figures.max_abs_error;
        }
        let lower = |worst: &mut Option<(f64, String)>, ratio: f64| {
            let better = |known: f64| known.is_nan() || known <= ratio;
            if worst.as_ref().is_none_or(|(known, _)| !better(*known)) {
                *worst = Some((ratio, sample.to_owned()));
            }
        };
        lower(&mut self.plain, figures.plain_db);
        if let Some(resolved) = figures.resolved_db {
            lower(&mut self.resolved, resolved);
        }
    }

    /// The lowest ratio of the samples that have errors which the type resolves, with the sample; of
    /// all samples where none have, unless there are others that were not looked at.
    fn worst(&self, others: bool) -> Option<(f64, &str)> {
        let (plain, sample) = self.plain.as_ref()?;
        match &self.resolved {
            Some((resolved, sample)) => Some((*resolved, sample)),
            None if others => Some((f64::INFINITY, sample)),
            None => Some((*plain, sample)),
        }
    }
}

impl Accumulator {
    /// No samples yet, of those that the profile is of.
    pub fn new(profile: Arc<Profile>, close: Tolerance) -> Self {
        Accumulator { profile, close, parity: Parity::default(), tallies: Vec::new() }
    }

    /// Takes in the outputs of both models for one sample.
    pub fn add(
        &mut self,
        sample: &str,
        synthetic: bool,
        original: &IndexMap<String, Tensor>,
        candidate: &IndexMap<String, Tensor>,
    ) {
        self.parity.samples += 1;
        self.parity.synthetic |= synthetic;
        let profile = Arc::clone(&self.profile);
        for (name, tensor) in original {
            let theirs = candidate.get(name);
            // What a candidate does not show cannot be judged beside its outputs.
            if theirs.is_some() || !profile.origins().is_witness(name) {
                self.add_output(sample, name, tensor, theirs, original);
            }
        }
        for name in candidate.keys() {
            if !original.contains_key(name) && !self.parity.extra_outputs.contains(name) {
                self.parity.extra_outputs.push(name.clone());
            }
        }
    }

    /// The figures over all samples taken in.
    pub fn finish(self) -> Parity {
        let Accumulator { profile, mut parity, tallies, .. } = self;
        let others = parity.samples < profile.samples();
        for (output, tally) in parity.outputs.iter_mut().zip(tallies) {
            let unknown = OutputProfile::unknown(&output.name);
            let known = profile.output(&output.name).unwrap_or(&unknown);
            output.settle(tally, known, others);
            let itself = profile.unsteady().find(|(name, _)| *name == output.name);
            output.itself_db = itself.map(|(_, db)| db);
        }
        parity
    }

    fn add_output(
        &mut self,
        sample: &str,
        name: &str,
        original: &Tensor,
        candidate: Option<&Tensor>,
        all: &IndexMap<String, Tensor>,
    ) {
        let at = self.parity.outputs.iter().position(|output| output.name == name);
        let at = at.unwrap_or_else(|| {
            let mut output = OutputParity::new(name, original, candidate);
            output.witness = self.profile.origins().is_witness(name);
            let selection = self.profile.origins().selection(name);
            output.selected = selection.map(|selection| Selected {
                by: selection.op.clone(),
                reads: selection.reads.clone(),
            });
            self.parity.outputs.push(output);
            self.tallies.push(Tally::default());
            self.parity.outputs.len() - 1
        });
        let (output, tally) = (&mut self.parity.outputs[at], &mut self.tallies[at]);
        output.elements += original.len() as u64;
        output.compare_forms(original, candidate);
        let Some(candidate) = candidate.filter(|tensor| tensor.shape() == original.shape()) else {
            return;
        };
        let pair = (original, candidate);
        if let (Some(a), Some(b)) = (Floats::of(original), Floats::of(candidate)) {
            tally.add_floats(sample, output, original.shape(), (&a, &b), self.close, &self.profile);
        } else if original.dtype() == candidate.dtype() {
            *output.mismatches.get_or_insert(0) += exact::mismatches(original, candidate);
            if self.profile.origins().is_from_floats(name) {
                tally.compared += original.len() as u64;
            }
            if let Some(choice) = self.profile.origins().choice(name)
                && let Some(among) = all.get(&choice.value)
            {
                let decisions = tally.decisions.get_or_insert_default();
                let beyond = self.profile.decided_beyond();
                if decisions.add_places(sample, choice, among, pair, beyond) {
                    decisions.among = Some(choice.value.clone());
                }
            }
        }
    }
}

impl Tally {
    fn add_floats(
        &mut self,
        sample: &str,
        output: &mut OutputParity,
        shape: &[usize],
        (a, b): (&Floats<'_>, &Floats<'_>),
        close: Tolerance,
        profile: &Profile,
    ) {
        let unknown;
        let known = if let Some(known) = profile.output(&output.name) {
            known
        } else {
            unknown = OutputProfile::unknown(&output.name);
            &unknown
        };
        let figures = FloatParity::of(sample, shape, (a, b), close, known);
        self.parts.resize_with(figures.parts.len(), PartTally::new);
        for (tally, part) in self.parts.iter_mut().zip(&figures.parts) {
            tally.add(sample, part);
        }
        self.sentinels.resize(figures.sentinels.len(), (0, 0));
        for (sum, (elements, changed)) in self.sentinels.iter_mut().zip(&figures.sentinels) {
            sum.0 += elements;
            sum.1 += changed;
        }
        for rows in &known.rows {
            let mut decisions = Decisions::default();
            decisions.add_rows(sample, shape, rows, (a, b), profile.decided_beyond());
            self.decisions.get_or_insert_default().merge(decisions);
        }
        match &mut output.float {
            Some(float) => float.worsen(figures.whole),
            none => *none = Some(figures.whole),
        }
        self.agreement.add(shape, a, b);
    }
}

impl OutputParity {
    fn new(name: &str, original: &Tensor, candidate: Option<&Tensor>) -> Self {
        OutputParity {
            name: name.to_owned(),
            elements: 0,
            present: true,
            type_equal: true,
            shape_equal: true,
            original: original.into(),
            candidate: candidate.map(Into::into),
            float: None,
            mismatches: None,
            agreement: None,
            parts: Vec::new(),
            sentinels: Vec::new(),
            decisions: None,
            itself_db: None,
            witness: false,
            selected: None,
        }
    }

    /// Takes in what can be said when all samples were seen; `others`: whether there are samples
    /// that were not looked at.
    fn settle(&mut self, tally: Tally, profile: &OutputProfile, others: bool) {
        self.decisions = tally.decisions.filter(|decisions| decisions.rows > 0);
        if let Some(mismatches) = self.mismatches.filter(|_| tally.compared > 0) {
            self.agreement = Some(1.0 - mismatches as f64 / tally.compared as f64);
        }
        if profile.is_nan {
            // What cannot be compared is not equal.
            self.float = None;
        }
        let Some(float) = &mut self.float else { return };
        float.top1 = tally.agreement.top1();
        float.top5 = tally.agreement.top5();
        let worst = tally.parts.iter().filter_map(|part| part.worst(others));
        let lowest = worst.reduce(|a, b| if a.0.is_nan() || a.0 <= b.0 { a } else { b });
        if let Some((sqnr_db, sample)) = lowest {
            float.sqnr_db = sqnr_db;
            sample.clone_into(&mut float.worst_sample);
        }
        let sentinels = profile.bands.iter().zip(&tally.sentinels);
        let sentinels = sentinels.filter_map(|(band, counts)| Some((band.sentinel?, counts)));
        self.sentinels = sentinels
            .map(|(value, &(elements, changed))| SentinelParity { value, elements, changed })
            .collect();
        if tally.parts.len() < 2 {
            return;
        }
        let by_value = profile.bands.iter().filter(|band| band.sentinel.is_none());
        let by_value =
            by_value.map(|band| (format!("{} from ±{:.3e}", self.name, band.low), false));
        let by_index = profile.parts.iter().map(|part| (part.name.clone(), part.probability));
        let names = by_index.chain(by_value);
        self.parts = names
            .zip(&tally.parts)
            .filter_map(|((name, probability), part)| {
                let (sqnr_db, sample) = part.worst(others)?;
                Some(PartParity {
                    name,
                    elements: part.elements,
                    probability,
                    sqnr_db,
                    worst_sample: sample.to_owned(),
                    max_abs_error: part.max_abs_error,
                })
            })
            .collect();
    }

    fn compare_forms(&mut self, original: &Tensor, candidate: Option<&Tensor>) {
        let present = candidate.is_some();
        let type_equal = candidate.is_none_or(|tensor| tensor.dtype() == original.dtype());
        let shape_equal = candidate.is_none_or(|tensor| tensor.shape() == original.shape());
        let equal_so_far = self.present && self.type_equal && self.shape_equal;
        if equal_so_far && !(present && type_equal && shape_equal) {
            self.original = original.into();
            self.candidate = candidate.map(Into::into);
        }
        self.present &= present;
        self.type_equal &= type_equal;
        self.shape_equal &= shape_equal;
    }
}

#[cfg(test)]
mod tests {
    use half::f16;
    use modelopt_graph::Element;
    use proptest::prelude::*;

    use super::*;
    use crate::profile::testing::profile_of;

    type Outputs = IndexMap<String, Tensor>;

    fn outputs<const N: usize>(outputs: [(&str, Tensor); N]) -> Outputs {
        outputs.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect()
    }

    fn row<T: Element>(elements: &[T]) -> Tensor {
        Tensor::of(vec![1, elements.len()], elements).unwrap()
    }

    fn parity_of(samples: &[(&str, Outputs, Outputs)]) -> Parity {
        let originals: Vec<Outputs> =
            samples.iter().map(|(_, original, _)| original.clone()).collect();
        let profile = Arc::new(profile_of(&originals));
        let mut accumulator = Accumulator::new(profile, Tolerance::default());
        for (name, original, candidate) in samples {
            accumulator.add(name, false, original, candidate);
        }
        accumulator.finish()
    }

    fn output_of(original: Tensor, candidate: Tensor) -> OutputParity {
        parity_of(&[("s", outputs([("y", original)]), outputs([("y", candidate)]))])
            .outputs
            .remove(0)
    }

    #[test]
    fn the_worst_sample_is_named() {
        let original = outputs([("y", row(&[1.0f32, 2.0]))]);
        let near = outputs([("y", row(&[1.0f32, 2.01]))]);
        let far = outputs([("y", row(&[1.5f32, 2.0]))]);
        let parity = parity_of(&[
            ("near", original.clone(), near.clone()),
            ("far", original.clone(), far),
            ("equal", original.clone(), original.clone()),
            ("near again", original, near),
        ]);
        let output = &parity.outputs[0];
        let float = output.float.as_ref().unwrap();
        assert_eq!((parity.samples, parity.synthetic), (4, false));
        assert_eq!((output.elements, output.mismatches), (8, None));
        assert_eq!((float.worst_sample.as_str(), float.max_abs_error), ("far", 0.5));
    }

    #[test]
    fn agreement_is_a_share_of_all_rows_not_the_worst_sample() {
        let ones = outputs([("y", row(&[0.0f32, 1.0]))]);
        let swapped = outputs([("y", row(&[1.0f32, 0.0]))]);
        let parity = parity_of(&[
            ("1", ones.clone(), ones.clone()),
            ("2", ones.clone(), swapped),
            ("3", ones.clone(), ones.clone()),
            ("4", ones.clone(), ones),
        ]);
        assert_eq!(parity.outputs[0].float.as_ref().unwrap().top1, Some(0.75));
    }

    #[test]
    fn scalars_and_empty_outputs_compare() {
        let empty = Tensor::of::<f32>(vec![0, 4], &[]).unwrap();
        let parity = parity_of(&[(
            "s",
            outputs([("scalar", Tensor::scalar(2.0f32)), ("empty", empty.clone())]),
            outputs([("scalar", Tensor::scalar(1.0f32)), ("empty", empty)]),
        )]);
        let floats: Vec<_> =
            parity.outputs.iter().map(|output| output.float.as_ref().unwrap()).collect();
        assert_eq!((floats[0].max_abs_error, floats[0].top1), (1.0, None));
        assert_eq!((floats[1].sqnr_db, floats[1].top1), (f64::INFINITY, None));
        assert_eq!(parity.outputs[1].elements, 0);
    }

    #[test]
    fn outputs_keep_the_order_of_the_original() {
        let original = outputs([("b", row(&[1i32])), ("a", row(&[1i32]))]);
        let candidate = outputs([("a", row(&[1i32])), ("b", row(&[1i32]))]);
        let parity = parity_of(&[("s", original, candidate)]);
        let names: Vec<_> = parity.outputs.iter().map(|output| output.name.as_str()).collect();
        assert_eq!(names, ["b", "a"]);
    }

    #[test]
    fn an_output_that_comes_late_is_compared_too() {
        let early = outputs([("a", row(&[1i32]))]);
        let late = outputs([("a", row(&[1i32])), ("b", row(&[1i32]))]);
        let parity = parity_of(&[("1", early.clone(), early), ("2", late.clone(), late)]);
        assert_eq!(parity.outputs[1].mismatches, Some(0));
        assert_eq!(parity.extra_outputs, Vec::<String>::new());
    }

    #[test]
    fn one_synthetic_sample_marks_them_all() {
        let profile = Arc::new(profile_of(&[]));
        let mut accumulator = Accumulator::new(profile, Tolerance::default());
        for synthetic in [false, true, false] {
            accumulator.add("s", synthetic, &Outputs::new(), &Outputs::new());
        }
        assert!(accumulator.finish().synthetic);
    }

    #[test]
    fn missing_and_extra_outputs_are_told() {
        let original = outputs([("a", row(&[1.0f32])), ("b", row(&[1i64]))]);
        let candidate = outputs([("c", row(&[1.0f32])), ("a", row(&[1.0f32]))]);
        let parity = parity_of(&[
            ("1", original.clone(), original.clone()),
            ("2", original.clone(), candidate.clone()),
            ("3", original, candidate),
        ]);
        assert_eq!(parity.extra_outputs, ["c"]);
        assert!(parity.outputs[0].present && !parity.outputs[1].present);
        assert_eq!(parity.outputs[1].candidate, None);
    }

    #[test]
    fn another_shape_is_told_and_not_compared() {
        let output = output_of(row(&[1.0f32, 2.0]), row(&[1.0f32]));
        assert!(output.type_equal && !output.shape_equal);
        assert_eq!(output.original.to_string(), "float[1, 2]");
        assert_eq!(output.candidate.unwrap().to_string(), "float[1, 1]");
        assert_eq!(output.float, None);
    }

    #[test]
    fn the_first_sample_that_differs_is_shown() {
        let original = outputs([("y", row(&[1.0f32]))]);
        let wide = outputs([("y", row(&[1.0f32, 2.0]))]);
        let parity = parity_of(&[
            ("1", original.clone(), original.clone()),
            ("2", wide, original.clone()),
            ("3", original.clone(), outputs([("y", row(&[1i64]))])),
        ]);
        let output = &parity.outputs[0];
        assert_eq!(output.original.shape, [1, 2]);
        assert!(!output.type_equal && !output.shape_equal);
        assert!(output.float.is_some());
    }

    #[test]
    fn another_float_type_is_told_and_compared() {
        let output = output_of(row(&[0.1f32, 2.0]), row(&[f16::from_f32(0.1), f16::ONE]));
        assert!(!output.type_equal);
        assert_eq!(output.candidate.unwrap().dtype, "float16");
        assert_eq!(output.float.unwrap().max_abs_error, 1.0);
    }

    #[test]
    fn another_integer_type_is_told_and_not_compared() {
        let output = output_of(row(&[1i64]), row(&[1i32]));
        assert!(!output.type_equal && output.shape_equal);
        assert_eq!((output.float, output.mismatches), (None, None));
    }

    #[test]
    fn integer_mismatches_add_up() {
        let original = outputs([("y", row(&[1i64, 2, 3]))]);
        let candidate = outputs([("y", row(&[0i64, 2, 0]))]);
        let parity = parity_of(&[
            ("1", original.clone(), candidate.clone()),
            ("2", original.clone(), original.clone()),
            ("3", original, candidate),
        ]);
        assert_eq!(parity.outputs[0].mismatches, Some(4));
    }

    #[test]
    fn reads_back_what_it_writes() {
        let parity = parity_of(&[(
            "s",
            outputs([("y", row(&[0.0f32, 1.0])), ("n", row(&[1i64]))]),
            outputs([("y", row(&[0.0f32, 1.0])), ("x", row(&[1i64]))]),
        )]);
        let json = serde_json::to_string(&parity).unwrap();
        assert!(json.contains(r#""sqnr_db":"inf""#), "{json}");
        assert_eq!(serde_json::from_str::<Parity>(&json).unwrap(), parity);
    }

    #[test]
    fn what_is_nan_throughout_is_not_equal() {
        let nan = row(&[f32::NAN, f32::NAN]);
        assert_eq!(output_of(nan.clone(), nan.clone()).float, None);
        let infinite = row(&[f32::NEG_INFINITY]);
        assert!(output_of(infinite.clone(), infinite).float.is_some());
        let number = row(&[f32::NAN, 1.0]);
        assert!(output_of(number.clone(), number).float.is_some());
    }

    #[test]
    fn what_differs_from_itself_is_held_to_that() {
        let limit = |itself_db: Option<f64>| {
            let output = output_of(row(&[1.0f32]), row(&[1.0f32]));
            OutputParity { itself_db, ..output }.attainable_db(20.0)
        };
        assert_eq!([None, Some(50.0), Some(18.0), Some(5.0)].map(limit), [20.0, 20.0, 15.0, 20.0]);
    }

    proptest! {
        #[test]
        fn the_order_of_samples_does_not_matter(
            samples in prop::collection::vec(
                prop::collection::vec((-10.0f32..10.0, -10.0f32..10.0), 6),
                1..6,
            ),
        ) {
            let samples: Vec<_> = samples.into_iter().enumerate().map(|(i, pairs)| {
                let (original, candidate): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
                (i.to_string(), outputs([("y", row(&original))]), outputs([("y", row(&candidate))]))
            }).collect();
            let originals: Vec<Outputs> =
                samples.iter().map(|(_, original, _)| original.clone()).collect();
            let profile = Arc::new(profile_of(&originals));
            let parity = |order: &mut dyn Iterator<Item = &(String, Outputs, Outputs)>| {
                let profile = Arc::clone(&profile);
                let mut accumulator = Accumulator::new(profile, Tolerance::default());
                for (name, original, candidate) in order {
                    accumulator.add(name, false, original, candidate);
                }
                accumulator.finish()
            };
            let forwards = parity(&mut samples.iter());
            prop_assert_eq!(forwards, parity(&mut samples.iter().rev()));
        }
    }
}
