//! What is chosen: whether rows keep their highest element where its margin is more than an error
//! that is allowed could take, and whether integers that come from such a choice do.

use modelopt_graph::Tensor;

use crate::elements::Floats;
use crate::highest::Highest;
use crate::origin::Choice;
use crate::parity::Decisions;
use crate::profile::{Rows, fibers};

impl Decisions {
    /// Adds all rows of a pair of outputs of the same shape.
    pub(crate) fn add_rows(
        &mut self,
        sample: &str,
        shape: &[usize],
        rows: &Rows,
        (original, candidate): (&Floats<'_>, &Floats<'_>),
        beyond: f64,
    ) {
        let (mut ours, mut theirs): (Vec<f64>, Vec<f64>) = (Vec::new(), Vec::new());
        rows.fibers(shape, |at| {
            let read = |out: &mut Vec<f64>, from: &Floats<'_>| {
                out.clear();
                out.extend(at.iter().map(|&at| from.get(at)));
            };
            read(&mut ours, original);
            read(&mut theirs, candidate);
            let (Some(best), Some(chosen)) = (finite_highest(&ours), finite_highest(&theirs))
            else {
                return;
            };
            let finite: Vec<f64> = ours.iter().copied().filter(|x| x.is_finite()).collect();
            let size = rows.size(&finite);
            if size > 0.0 {
                let loss = (best.value - ours[chosen.at]).max(0.0) / size;
                self.add(sample, (best.value - best.next) / size, loss, beyond);
            }
        });
    }

    /// Adds integers that are places of chosen elements; whether they could be.
    pub(crate) fn add_places(
        &mut self,
        sample: &str,
        choice: &Choice,
        among: &Tensor,
        (original, candidate): (&Tensor, &Tensor),
        beyond: f64,
    ) -> bool {
        let (Some(floats), Some(ours), Some(theirs)) =
            (Floats::of(among), original.to_i64(), candidate.to_i64())
        else {
            return false;
        };
        let rank = among.shape().len() as i64;
        let axis = if choice.axis < 0 { choice.axis + rank } else { choice.axis };
        let Some(&classes) = usize::try_from(axis).ok().and_then(|axis| among.shape().get(axis))
        else {
            return false;
        };
        let rows = among.len().checked_div(classes).unwrap_or(0);
        if rows == 0 || ours.is_empty() || !ours.len().is_multiple_of(rows) {
            return false;
        }
        let each = ours.len() / rows;
        let inner: usize = among.shape()[axis as usize + 1..].iter().product();
        let looked = Rows::among(among.shape(), axis as usize, &floats);
        let mut row = 0;
        fibers(among.shape(), axis as usize, &[], |at| {
            let values: Vec<f64> = at.iter().map(|&at| floats.get(at)).collect();
            let size = looked.size(&values);
            let value = |place: i64| {
                let place = if place < 0 { place + classes as i64 } else { place };
                usize::try_from(place).ok().and_then(|place| values.get(place)).copied()
            };
            let (block, offset) = (row / inner, row % inner);
            row += 1;
            for turn in 0..each {
                let at = (block * each + turn) * inner + offset;
                let (Some(&our), Some(&their)) = (ours.get(at), theirs.get(at)) else { continue };
                let own = value(our).unwrap_or(f64::NAN);
                let margin = margin(&values, own) / size.max(f64::MIN_POSITIVE);
                let loss = match value(their) {
                    _ if our == their => 0.0,
                    Some(other) => (own - other).abs() / size.max(f64::MIN_POSITIVE),
                    None => f64::INFINITY,
                };
                self.add(sample, margin, loss, beyond);
            }
        });
        true
    }
}

/// The highest element of a row with a choice; `None` if there is a NaN or no finite one.
fn finite_highest(row: &[f64]) -> Option<Highest> {
    Highest::of(row).filter(|highest| row.len() > 1 && highest.value.is_finite())
}

/// The distance from an element to the nearest other one.
fn margin(values: &[f64], own: f64) -> f64 {
    let mut itself = true;
    let others = values.iter().filter(|&&x| {
        let skipped = itself && x == own;
        itself &= !skipped;
        !skipped
    });
    others.map(|x| (x - own).abs()).fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use indexmap::IndexMap;

    use super::*;
    use crate::profile::testing::profile_of;

    fn decisions(classes: usize, original: &[f32], candidate: &[f32]) -> Decisions {
        let shape = vec![original.len() / classes, classes];
        let original = Tensor::of(shape.clone(), original).unwrap();
        let candidate = Tensor::of(shape.clone(), candidate).unwrap();
        let outputs: IndexMap<_, _> = [("y".to_owned(), original.clone())].into();
        let profile = profile_of(&[outputs]);
        let mut decisions = Decisions::default();
        let pair = (Floats::of(&original).unwrap(), Floats::of(&candidate).unwrap());
        for rows in &profile.output("y").unwrap().rows {
            decisions.add_rows("s", &shape, rows, (&pair.0, &pair.1), 0.4);
        }
        decisions
    }

    #[test]
    fn a_clear_choice_that_is_lost_is_seen_and_a_toss_is_not() {
        let original = [0.9, 0.05, 0.05, 0.36, 0.34, 0.3];
        let toss = decisions(3, &original, &[0.8, 0.1, 0.1, 0.34, 0.36, 0.3]);
        assert_eq!((toss.rows, toss.decided, toss.kept), (2, 1, 1));
        assert!(toss.lost_margin < 0.1, "{toss:?}");
        let lost = decisions(3, &original, &[0.0, 0.5, 0.5, 0.36, 0.34, 0.3]);
        assert_eq!((lost.decided, lost.kept), (1, 0));
        assert!(lost.lost_margin > 0.8, "{lost:?}");
    }

    #[test]
    fn one_of_many_classes_that_is_gone_is_seen() {
        let mut original: Vec<f32> = (0..500).map(|i| (i as f32 * 1.7).sin()).collect();
        original[77] = 4.0;
        let mut candidate = original.clone();
        candidate[77] = 0.0;
        assert!(decisions(500, &original, &candidate).lost_margin > 0.4);
    }

    #[test]
    fn two_classes_that_nearly_tie_are_no_decision() {
        let even = decisions(2, &[1.001, 1.0], &[0.99, 1.01]);
        assert!(even.lost_margin < 0.01 && even.decided == 0, "{even:?}");
    }

    fn choice(original: &[i64], candidate: &[i64]) -> Decisions {
        let among = Tensor::of(vec![2, 3], &[5.0f32, 1.0, 0.0, 2.0, 2.01, -3.0]).unwrap();
        let tensor = |places: &[i64]| Tensor::of(vec![places.len()], places).unwrap();
        let choice = Choice { value: "l".into(), axis: -1 };
        let mut decisions = Decisions::default();
        let pair = (tensor(original), tensor(candidate));
        assert!(decisions.add_places("s", &choice, &among, (&pair.0, &pair.1), 0.4));
        decisions
    }

    #[test]
    fn integers_are_judged_by_what_they_choose_among() {
        let toss = choice(&[0, 1], &[0, 0]);
        assert_eq!((toss.rows, toss.decided, toss.kept), (2, 1, 1));
        assert!(toss.lost_margin < 0.01);
        assert!(choice(&[0, 1], &[2, 1]).lost_margin > 0.4);
        assert_eq!(choice(&[0, 1], &[7, 1]).lost_margin, f64::INFINITY);
        let best_two = choice(&[0, 1, 1, 0], &[0, 1, 0, 1]);
        assert_eq!((best_two.rows, best_two.decided, best_two.kept), (4, 1, 1));
    }

    #[test]
    fn integers_that_do_not_fit_are_not_judged_so() {
        let among = Tensor::of(vec![2, 3], &[0.0f32; 6]).unwrap();
        let places = Tensor::of(vec![3], &[0i64; 3]).unwrap();
        let choice = Choice { value: "l".into(), axis: 1 };
        let pair = (&places, &places);
        assert!(!Decisions::default().add_places("s", &choice, &among, pair, 0.4));
    }
}
