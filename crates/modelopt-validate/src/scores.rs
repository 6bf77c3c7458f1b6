//! Agreement on the best classes, for outputs that look like scores.

use crate::elements::Floats;
use crate::figures::share;
use crate::highest::Highest;

/// More columns than any vocabulary in use; beyond it the last dimension is hardly classes.
const MOST_CLASSES: usize = 200_000;
/// Below this the five highest are nearly all there are.
const FEWEST_FOR_TOP5: usize = 6;

/// Rows compared and rows that agree, over all samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Agreement {
    rows: u64,
    top1: u64,
    rows_of_six: u64,
    top5: u64,
}

impl Agreement {
    /// Adds the rows of a pair of outputs of the same shape, if they look like scores.
    pub(crate) fn add(&mut self, shape: &[usize], original: &Floats<'_>, candidate: &Floats<'_>) {
        let classes = match shape {
            [_, .., classes @ 2..=MOST_CLASSES] => *classes,
            _ => return,
        };
        let (mut originals, mut candidates) = (vec![0.0; classes], vec![0.0; classes]);
        for start in (0..original.len()).step_by(classes) {
            let originals = original.read(start, &mut originals);
            let candidates = candidate.read(start, &mut candidates);
            self.add_row(originals, candidates);
        }
    }

    fn add_row(&mut self, original: &[f64], candidate: &[f64]) {
        let Some(best) = Highest::of(original) else {
            return;
        };
        let chosen = Highest::of(candidate);
        let wide = original.len() >= FEWEST_FOR_TOP5;
        self.rows += 1;
        self.rows_of_six += u64::from(wide);
        if let Some(chosen) = chosen {
            self.top1 += u64::from(original[chosen.at] == best.value);
            self.top5 += u64::from(wide && rank(candidate, best.at) < 5);
        }
    }

    /// Share of rows that agree on the highest; `None` if no rows were compared.
    pub(crate) fn top1(&self) -> Option<f64> {
        (self.rows > 0).then(|| share(self.top1 as f64, self.rows as f64))
    }

    /// Share of rows with the original's highest among the candidate's five highest; `None` if
    /// no rows of six classes or more were compared.
    pub(crate) fn top5(&self) -> Option<f64> {
        (self.rows_of_six > 0).then(|| share(self.top5 as f64, self.rows_of_six as f64))
    }
}

/// How many classes come before `class`: those with a higher score, and equal ones before it.
fn rank(scores: &[f64], class: usize) -> usize {
    let score = scores[class];
    let higher = scores.iter().filter(|&&other| other > score).count();
    higher + scores[..class].iter().filter(|&&other| other == score).count()
}

#[cfg(test)]
mod tests {
    use modelopt_graph::Tensor;
    use proptest::prelude::*;

    use super::*;

    /// Classes by falling score, equal ones in their order.
    fn ranked(scores: &[f32]) -> Vec<usize> {
        let mut classes: Vec<usize> = (0..scores.len()).collect();
        classes.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        classes
    }

    fn few_levels() -> impl Strategy<Value = f32> {
        (0u8..6).prop_map(f32::from)
    }

    fn shares(shape: &[usize], original: &[f32], candidate: &[f32]) -> (Option<f64>, Option<f64>) {
        let original = Tensor::of(shape.to_vec(), original).unwrap();
        let candidate = Tensor::of(shape.to_vec(), candidate).unwrap();
        let mut agreement = Agreement::default();
        agreement.add(shape, &Floats::of(&original).unwrap(), &Floats::of(&candidate).unwrap());
        (agreement.top1(), agreement.top5())
    }

    fn top1(classes: usize, original: &[f32], candidate: &[f32]) -> Option<f64> {
        shares(&[original.len() / classes, classes], original, candidate).0
    }

    #[test]
    fn rows_are_compared_one_by_one() {
        let original = [0.1, 0.9, 0.8, 0.2, 0.3, 0.7];
        let candidate = [0.4, 0.6, 0.1, 0.9, 0.0, 1.0];
        assert_eq!(top1(2, &original, &candidate), Some(2.0 / 3.0));
        assert_eq!(shares(&[1, 3, 2], &original, &original), (Some(1.0), None));
    }

    #[test]
    fn only_what_looks_like_scores_is_compared() {
        let ten = [0.5; 10];
        assert_eq!(shares(&[10], &ten, &ten).0, None);
        assert_eq!(shares(&[10, 1], &ten, &ten).0, None);
        assert_eq!(shares(&[0, 10], &[], &[]).0, None);
        assert_eq!(shares(&[10, 0], &[], &[]).0, None);
        assert_eq!(shares(&[], &[1.0], &[1.0]).0, None);
        let many = vec![0.0; MOST_CLASSES + 1];
        assert_eq!(shares(&[1, MOST_CLASSES + 1], &many, &many).0, None);
        assert_eq!(shares(&[1, MOST_CLASSES], &many[1..], &many[1..]).0, Some(1.0));
    }

    #[test]
    fn a_tie_in_the_original_accepts_either_and_one_in_the_candidate_does_not() {
        assert_eq!(top1(3, &[1.0, 2.0, 2.0], &[0.0, 0.0, 1.0]), Some(1.0));
        assert_eq!(top1(3, &[1.0, 2.0, 3.0], &[7.0, 7.0, 7.0]), Some(0.0));
    }

    #[test]
    fn top5_looks_for_the_originals_best_in_the_candidates_five_best() {
        let original = [9.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        assert_eq!(shares(&[1, 6], &original, &[5.0, 9.0, 8.0, 7.0, 6.0, 1.0]).1, Some(1.0));
        assert_eq!(shares(&[1, 6], &original, &[5.0, 9.0, 8.0, 7.0, 6.0, 5.5]).1, Some(0.0));
        assert_eq!(shares(&[1, 5], &original[..5], &original[..5]).1, None);
    }

    #[test]
    fn a_constant_candidate_does_not_rank_the_last_class_among_five() {
        let original = [0.0, 0.0, 0.0, 0.0, 0.0, 1.0];
        assert_eq!(shares(&[1, 6], &original, &[3.0; 6]), (Some(0.0), Some(0.0)));
    }

    #[test]
    fn nan_in_the_original_leaves_the_row_out_and_in_the_candidate_disagrees() {
        let original = [f32::NAN, 1.0, 0.0, 1.0];
        assert_eq!(top1(2, &original, &[0.0, 1.0, 0.0, 1.0]), Some(1.0));
        assert_eq!(top1(2, &original, &[0.0, 1.0, f32::NAN, 1.0]), Some(0.0));
        assert_eq!(top1(2, &[f32::NAN, 1.0], &[0.0, 1.0]), None);
    }

    #[test]
    fn samples_with_more_rows_weigh_more() {
        let mut agreement = Agreement::default();
        for (original, candidate) in [
            (vec![0.0f32, 1.0], vec![1.0f32, 0.0]),
            (vec![0.0, 1.0, 0.0, 1.0, 0.0, 1.0], vec![0.0, 1.0, 0.0, 1.0, 0.0, 1.0]),
        ] {
            let shape = vec![original.len() / 2, 2];
            let original = Tensor::of(shape.clone(), &original).unwrap();
            let candidate = Tensor::of(shape.clone(), &candidate).unwrap();
            let (original, candidate) =
                (Floats::of(&original).unwrap(), Floats::of(&candidate).unwrap());
            agreement.add(&shape, &original, &candidate);
        }
        assert_eq!(agreement.top1(), Some(0.75));
    }

    proptest! {
        #[test]
        fn agreement_is_that_of_sorting(
            pairs in prop::collection::vec((few_levels(), few_levels()), 6..40),
        ) {
            let (original, candidate): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
            let (ours, theirs) = (ranked(&original), ranked(&candidate));
            let (top1, top5) = shares(&[1, original.len()], &original, &candidate);
            let agrees = original[ours[0]] == original[theirs[0]];
            prop_assert_eq!(top1, Some(f64::from(u8::from(agrees))));
            prop_assert_eq!(top5, Some(f64::from(u8::from(theirs[..5].contains(&ours[0])))));
        }
    }

    #[test]
    fn masked_classes_are_ordinary_scores() {
        let masked = [f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY, f32::NEG_INFINITY];
        assert_eq!(top1(2, &masked, &masked), Some(1.0));
    }
}
