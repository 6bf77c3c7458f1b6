//! Float outputs of one sample held against each other, part by part.

use std::ops::Range;

use crate::elements::{BLOCK, Floats};
use crate::figures::{share, sqnr_db};
use crate::parity::{FloatParity, Tolerance};
use crate::profile::{Band, OutputProfile, band_of};
use crate::sums::{PartFigures, Sums};

/// What one sample told of one output.
pub(crate) struct SampleFigures {
    /// The figures of all of it, but for `top1` and `top5`.
    pub(crate) whole: FloatParity,
    /// Those of its parts, by index and then by value.
    pub(crate) parts: Vec<PartFigures>,
    /// For each band: elements, and those that did not stay what they stand for.
    pub(crate) sentinels: Vec<(u64, u64)>,
}

impl FloatParity {
    /// The figures of one sample.
    pub(crate) fn of(
        sample: &str,
        shape: &[usize],
        (original, candidate): (&Floats<'_>, &Floats<'_>),
        close: Tolerance,
        profile: &OutputProfile,
    ) -> SampleFigures {
        let mut walk = Walk::new(profile);
        let (period, runs) = profile.runs(shape);
        for block in 0..original.len().checked_div(period).unwrap_or(0) {
            for (part, range) in &runs {
                let start = block * period + range.start;
                walk.add(*part, (original, candidate), start..start + range.len(), close);
            }
        }
        let Walk { by_index, by_value, sentinels, .. } = walk;
        let mut sums = Sums::default();
        for part in by_index.iter().chain(&by_value) {
            sums.merge(part);
        }
        let rows = softmax_rows(shape, (original, candidate), profile);
        let mut parts: Vec<PartFigures> = by_index
            .iter()
            .zip(&profile.parts)
            .map(|(sums, part)| sums.figures(Some(part), rows))
            .collect();
        let own = |band: &Band| band.sentinel.is_none();
        let by_value = by_value.iter().zip(&profile.bands).filter(|(_, band)| own(band));
        parts.extend(by_value.map(|(sums, _)| sums.figures(None, None)));
        let comparable = sums.finite > 0 || sums.new_non_finite == 0;
        let known = |figure| if comparable { figure } else { f64::NAN };
        let whole = FloatParity {
            max_abs_error: known(sums.max_abs),
            mean_abs_error: known(share(sums.abs, sums.finite as f64)),
            rmse: known(share(sums.noise, sums.finite as f64).sqrt()),
            sqnr_db: known(sqnr_db(sums.signal, sums.noise)),
            worst_sample: sample.to_owned(),
            cosine: known(sums.cosine()),
            outside_tolerance: share(
                sums.outside + (sums.new_non_finite + sums.changed_non_finite) as f64,
                original.len() as f64,
            ),
            new_non_finite: sums.new_non_finite,
            changed_non_finite: sums.changed_non_finite,
            top1: None,
            top5: None,
        };
        SampleFigures { whole, parts, sentinels }
    }
}

/// For outputs whose rows sum up to 1: the number of rows, and the largest sum of squared errors of
/// any.
fn softmax_rows(
    shape: &[usize],
    (original, candidate): (&Floats<'_>, &Floats<'_>),
    profile: &OutputProfile,
) -> Option<(f64, f64)> {
    let rows = profile.rows.iter().find(|rows| rows.sums_to_one)?;
    let (mut count, mut most) = (0.0, 0f64);
    rows.fibers(shape, |at| {
        count += 1.0;
        let square = |&at: &usize| (original.get(at) - candidate.get(at)).powi(2);
        let noise: f64 = at.iter().map(square).filter(|square| square.is_finite()).sum();
        most = most.max(noise);
    });
    Some((count, most))
}

/// A walk over the elements of a pair of outputs, part by part.
struct Walk<'a> {
    profile: &'a OutputProfile,
    /// Magnitudes from here on belong to bands.
    apart: f64,
    by_index: Vec<Sums>,
    by_value: Vec<Sums>,
    sentinels: Vec<(u64, u64)>,
}

impl<'a> Walk<'a> {
    fn new(profile: &'a OutputProfile) -> Self {
        let bands = profile.bands.len();
        Walk {
            profile,
            apart: profile.bands.first().map_or(f64::INFINITY, |band| band.low),
            by_index: profile.parts.iter().map(|part| Sums::above(part.floor)).collect(),
            by_value: profile.bands.iter().map(|_| Sums::default()).collect(),
            sentinels: vec![(0, 0); bands],
        }
    }

    /// Adds elements that belong to one part by their index.
    fn add(
        &mut self,
        part: usize,
        (original, candidate): (&Floats<'_>, &Floats<'_>),
        range: Range<usize>,
        close: Tolerance,
    ) {
        let (mut originals, mut candidates) = ([0.0; BLOCK], [0.0; BLOCK]);
        let mut start = range.start;
        while start < range.end {
            let count = BLOCK.min(range.end - start);
            let originals = original.read(start, &mut originals[..count]);
            let candidates = candidate.read(start, &mut candidates[..count]);
            start += count;
            let ordinary = self.set_aside(part, originals, candidates, close);
            if let Some(sums) = self.by_index.get_mut(part) {
                sums.add(&originals[..ordinary], &candidates[..ordinary], close);
            }
        }
    }

    /// Moves the pairs of finite elements that do not stand apart to the front, takes in the
    /// others, and returns how many are in front.
    fn set_aside(
        &mut self,
        part: usize,
        originals: &mut [f64],
        candidates: &mut [f64],
        close: Tolerance,
    ) -> usize {
        let pairs = originals.len().min(candidates.len());
        let apart = self.apart;
        let all_ordinary = originals
            .iter()
            .zip(&*candidates)
            .fold(true, |all, (r, c)| all & (r.abs() < apart) & r.is_finite() & c.is_finite());
        if all_ordinary {
            return pairs;
        }
        let mut kept = 0;
        for i in 0..pairs {
            let (r, c) = (originals[i], candidates[i]);
            let band = if r.is_finite() { band_of(&self.profile.bands, r) } else { None };
            if let Some(band) = band {
                self.add_apart(band, r, c, close);
            } else if r.is_finite() && c.is_finite() {
                (originals[kept], candidates[kept]) = (r, c);
                kept += 1;
            } else if let Some(sums) = self.by_index.get_mut(part) {
                sums.add_non_finite(r, c);
            }
        }
        kept
    }

    /// Takes in an element that stands apart by its value.
    fn add_apart(&mut self, at: usize, r: f64, c: f64, close: Tolerance) {
        let (Some(band), Some(sums), Some((elements, changed))) =
            (self.profile.bands.get(at), self.by_value.get_mut(at), self.sentinels.get_mut(at))
        else {
            return;
        };
        *elements += 1;
        if band.sentinel.is_some() {
            *changed += u64::from((r - c).abs() > band.tolerance * r.abs() || c.is_nan());
        } else if c.is_finite() {
            sums.add(&[r], &[c], close);
        } else {
            sums.add_non_finite(r, c);
        }
    }
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;
    use half::{bf16, f16};
    use modelopt_graph::{Element, Tensor};
    use proptest::prelude::*;

    use super::*;

    const INF: f64 = f64::INFINITY;
    const NAN: f64 = f64::NAN;

    fn tensor<T: Element>(elements: &[T]) -> Tensor {
        Tensor::of(vec![elements.len()], elements).unwrap()
    }

    fn compare<A: Element, B: Element>(original: &[A], candidate: &[B]) -> FloatParity {
        let (original, candidate) = (tensor(original), tensor(candidate));
        let shape = [original.len()];
        let pair = (&Floats::of(&original).unwrap(), &Floats::of(&candidate).unwrap());
        let unknown = OutputProfile::unknown("y");
        FloatParity::of("sample", &shape, pair, Tolerance::default(), &unknown).whole
    }

    #[test]
    fn figures_of_a_hand_computed_pair() {
        let parity = compare(&[3.0f32, -4.0, 0.0, 1.0], &[3.5f32, -4.0, 0.0, 0.0]);
        assert_eq!(parity.max_abs_error, 1.0);
        assert_eq!(parity.mean_abs_error, 1.5 / 4.0);
        assert_relative_eq!(parity.rmse, (1.25f64 / 4.0).sqrt());
        assert_relative_eq!(parity.sqnr_db, 10.0 * (26.0f64 / 1.25).log10());
        assert_relative_eq!(parity.cosine, 26.5 / (26.0f64.sqrt() * 28.25f64.sqrt()));
        assert_eq!(parity.outside_tolerance, 0.5);
        assert_eq!((parity.new_non_finite, parity.changed_non_finite), (0, 0));
    }

    #[test]
    fn equal_outputs_are_perfect() {
        for elements in [vec![0.1f32, -7.3, 1e-40, f32::MAX], vec![0.0; 3], vec![]] {
            let parity = compare(&elements, &elements);
            assert_eq!((parity.sqnr_db, parity.cosine), (INF, 1.0));
            assert_eq!((parity.rmse, parity.outside_tolerance), (0.0, 0.0));
        }
    }

    #[test]
    fn an_all_zero_side_has_no_direction() {
        let noise_only = compare(&[0.0f32, 0.0], &[0.0f32, 1e-6]);
        assert_eq!((noise_only.sqnr_db, noise_only.cosine), (-INF, 0.0));
        let silenced = compare(&[1.0f32, 0.0], &[0.0f32, 0.0]);
        assert_eq!((silenced.sqnr_db, silenced.cosine), (0.0, 0.0));
    }

    #[test]
    fn new_non_finite_elements_are_counted_and_left_out_of_the_sums() {
        let parity = compare(&[1.0f64, 2.0, 3.0, 4.0], &[1.0, NAN, INF, 5.0]);
        assert_eq!((parity.new_non_finite, parity.changed_non_finite), (2, 0));
        assert_eq!(parity.mean_abs_error, 0.5);
        assert_relative_eq!(parity.sqnr_db, 10.0 * 17.0f64.log10());
        assert_eq!(parity.outside_tolerance, 0.75);
    }

    #[test]
    fn non_finite_elements_of_the_original_must_stay_the_same() {
        let original = [NAN, INF, -INF, NAN, INF, -INF, 1.0];
        let same = compare(&original, &original);
        assert_eq!((same.new_non_finite, same.changed_non_finite), (0, 0));
        assert_eq!((same.sqnr_db, same.outside_tolerance), (INF, 0.0));
        let changed = compare(&original, &[NAN, INF, -INF, INF, -INF, 0.0, 1.0]);
        assert_eq!((changed.new_non_finite, changed.changed_non_finite), (0, 3));
        assert_relative_eq!(changed.outside_tolerance, 3.0 / 7.0);
    }

    #[test]
    fn a_candidate_without_a_finite_element_has_no_figures() {
        let parity = compare(&[1.0f32, 2.0], &[f32::NAN; 2]);
        for figure in [parity.sqnr_db, parity.cosine, parity.rmse, parity.max_abs_error] {
            assert!(figure.is_nan());
        }
        assert_eq!((parity.new_non_finite, parity.outside_tolerance), (2, 1.0));
        assert_eq!(compare(&[NAN; 2], &[NAN; 2]).sqnr_db, INF);
    }

    #[test]
    fn half_precision_and_double_compare_with_single() {
        let single = [1.0f32, -2.5, 0.125];
        let half = single.map(f16::from_f32);
        let brain = single.map(bf16::from_f32);
        assert_eq!(compare(&single, &half).sqnr_db, INF);
        assert_eq!(compare(&brain, &single).sqnr_db, INF);
        assert_eq!(compare(&single.map(f64::from), &half).sqnr_db, INF);
        assert!(Floats::of(&tensor(&[1i32])).is_none());
    }

    #[test]
    fn sums_that_overflow_are_never_good_figures() {
        let parity = compare(&[1e200f64, 1.0], &[-1e200f64, 1.0]);
        assert!(parity.sqnr_db.is_nan());
        assert_eq!(parity.rmse, INF);
        let parity = compare(&[1e-200f64], &[2e-200f64]);
        assert_eq!(parity.max_abs_error, 1e-200);
    }

    #[test]
    fn the_worst_of_two_samples_counts_and_nan_is_worst() {
        let named = |name: &str, sqnr_db: f64, rmse: f64| FloatParity {
            worst_sample: name.to_owned(),
            sqnr_db,
            rmse,
            new_non_finite: 1,
            ..compare::<f32, f32>(&[], &[])
        };
        let mut parity = named("a", 30.0, 0.5);
        parity.worsen(named("b", 20.0, 0.25));
        assert_eq!((parity.sqnr_db, parity.rmse, parity.new_non_finite), (20.0, 0.5, 2));
        assert_eq!(parity.worst_sample, "b");
        parity.worsen(named("tie", 20.0, 0.0));
        assert_eq!(parity.worst_sample, "b");
        parity.worsen(named("nan", NAN, NAN));
        parity.worsen(named("late", -INF, INF));
        assert!(parity.sqnr_db.is_nan() && parity.rmse.is_nan());
        assert_eq!(parity.worst_sample, "nan");
    }

    #[test]
    fn blocks_and_their_remainders_add_up() {
        for count in [1, 3, 4, 5, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 2] {
            let parity = compare(&vec![2.0f32; count], &vec![1.0f32; count]);
            assert_relative_eq!(parity.rmse, 1.0);
            assert_relative_eq!(parity.mean_abs_error, 1.0);
            assert_relative_eq!(parity.sqnr_db, 20.0 * 2.0f64.log10());
            assert_eq!(parity.outside_tolerance, 1.0);
        }
    }

    #[test]
    fn non_finite_elements_are_found_in_every_block() {
        let original = vec![1.0f32; 2 * BLOCK + 10];
        let mut candidate = original.clone();
        for at in [0, BLOCK - 1, BLOCK, 2 * BLOCK + 9] {
            candidate[at] = f32::NAN;
        }
        assert_eq!(compare(&original, &candidate).new_non_finite, 4);
    }

    #[test]
    fn closeness_is_relative_to_the_original_and_includes_its_limit() {
        let outside = |original: f64, candidate: f64, close| {
            let (original, candidate) = (tensor(&[original]), tensor(&[candidate]));
            let (original, candidate) =
                (Floats::of(&original).unwrap(), Floats::of(&candidate).unwrap());
            let unknown = OutputProfile::unknown("y");
            let pair = (&original, &candidate);
            FloatParity::of("s", &[original.len()], pair, close, &unknown).whole.outside_tolerance
        };
        let half = Tolerance { rtol: 0.5, atol: 0.0 };
        assert_eq!(outside(4.0, 6.0, half), 0.0);
        assert_eq!(outside(6.0, 2.5, half), 1.0);
        assert_eq!(outside(-4.0, -2.0, half), 0.0);
        assert_eq!(outside(0.0, 0.5, Tolerance { rtol: 0.0, atol: 0.5 }), 0.0);
        assert_eq!(outside(1.0, 1.0, Tolerance { rtol: NAN, atol: 0.0 }), 1.0);
    }

    #[test]
    fn tolerances_may_be_given_in_part() {
        let close: Tolerance = toml::from_str("atol = 1").unwrap();
        assert_eq!(close, Tolerance { atol: 1.0, ..Tolerance::default() });
        assert!(toml::from_str::<Tolerance>("tolerance = 1").is_err());
    }

    #[test]
    fn reading_beyond_the_end_reads_nothing() {
        let tensor = tensor(&[1.0f32, 2.0]);
        let floats = Floats::of(&tensor).unwrap();
        assert_eq!(floats.read(1, &mut [0.0; 4]), [2.0]);
        assert!(floats.read(3, &mut [0.0; 4]).is_empty());
    }

    fn finite() -> impl Strategy<Value = f32> {
        prop_oneof![-1e3f32..1e3, Just(0.0)]
    }

    fn pairs() -> impl Strategy<Value = Vec<(f32, f32)>> {
        prop::collection::vec((finite(), finite()), 1..3000)
    }

    proptest! {
        #[test]
        fn noise_of_a_known_level_has_its_sqnr(
            signal in prop::collection::vec((0.1f64..10.0, any::<bool>()), 1..2500),
            level in 1e-6f64..1.0,
        ) {
            let original: Vec<f64> = signal.iter().map(|&(x, _)| x).collect();
            let candidate: Vec<f64> = signal
                .iter()
                .map(|&(x, up)| if up { x + level * x } else { x - level * x })
                .collect();
            let parity = compare(&original, &candidate);
            assert_relative_eq!(parity.sqnr_db, -20.0 * level.log10(), epsilon = 1e-6);
        }

        #[test]
        fn figures_do_not_depend_on_the_order_of_elements(mut pairs in pairs(), at in any::<usize>()) {
            let figures = |pairs: &[(f32, f32)]| {
                let (original, candidate): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
                compare(&original, &candidate)
            };
            let before = figures(&pairs);
            let middle = at % pairs.len();
            pairs.rotate_left(middle);
            pairs.reverse();
            let after = figures(&pairs);
            prop_assert_eq!(before.max_abs_error, after.max_abs_error);
            prop_assert_eq!(before.outside_tolerance, after.outside_tolerance);
            assert_relative_eq!(before.mean_abs_error, after.mean_abs_error, max_relative = 1e-9);
            assert_relative_eq!(before.rmse, after.rmse, max_relative = 1e-9);
            assert_relative_eq!(before.cosine, after.cosine, epsilon = 1e-9);
            if before.sqnr_db.is_finite() {
                assert_relative_eq!(before.sqnr_db, after.sqnr_db, epsilon = 1e-9);
            }
        }

        #[test]
        fn scaling_both_sides_changes_errors_and_no_ratios(pairs in pairs()) {
            let figures = |scale: f32| {
                let (original, candidate): (Vec<_>, Vec<_>) =
                    pairs.iter().map(|&(r, c)| (r * scale, c * scale)).unzip();
                compare(&original, &candidate)
            };
            let (before, after) = (figures(1.0), figures(-8.0));
            prop_assert_eq!(before.sqnr_db, after.sqnr_db);
            prop_assert_eq!(before.cosine, after.cosine);
            prop_assert_eq!(before.max_abs_error * 8.0, after.max_abs_error);
            prop_assert_eq!(before.mean_abs_error * 8.0, after.mean_abs_error);
            prop_assert_eq!(before.rmse * 8.0, after.rmse);
        }

        #[test]
        fn the_width_of_the_type_does_not_matter(pairs in pairs()) {
            let (original, candidate): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            let wide = |narrow: &[f32]| narrow.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
            let figures = compare(&original, &candidate);
            prop_assert_eq!(&figures, &compare(&wide(&original), &candidate));
            prop_assert_eq!(&figures, &compare(&wide(&original), &wide(&candidate)));
        }

        #[test]
        fn positions_that_are_not_finite_are_as_if_they_were_not_there(
            pairs in pairs(),
            bad in prop::collection::vec((0usize..3000, 0usize..4), 0..20),
        ) {
            let (original, candidate): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
            let without = compare(&original, &candidate);
            let kinds = [(1.0, f32::NAN), (1.0, f32::INFINITY), (f32::NAN, f32::NAN),
                (f32::INFINITY, 1.0)];
            let mut with = pairs;
            for &(at, kind) in &bad {
                with.insert(at.min(with.len()), kinds[kind]);
            }
            let (original, candidate): (Vec<_>, Vec<_>) = with.into_iter().unzip();
            let with = compare(&original, &candidate);
            let count = |wanted: &[usize]| {
                bad.iter().filter(|(_, kind)| wanted.contains(kind)).count() as u64
            };
            prop_assert_eq!(with.new_non_finite, count(&[0, 1]));
            prop_assert_eq!(with.changed_non_finite, count(&[3]));
            prop_assert_eq!(with.max_abs_error, without.max_abs_error);
            assert_relative_eq!(with.rmse, without.rmse, max_relative = 1e-9);
            assert_relative_eq!(with.cosine, without.cosine, epsilon = 1e-9);
        }

        #[test]
        fn figures_keep_to_their_ranges(pairs in prop::collection::vec(any::<(f32, f32)>(), 0..200)) {
            let (original, candidate): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
            let parity = compare(&original, &candidate);
            prop_assert!((-1.0..=1.0).contains(&parity.cosine));
            prop_assert!((0.0..=1.0).contains(&parity.outside_tolerance));
            prop_assert!(!parity.sqnr_db.is_nan());
            prop_assert!(parity.mean_abs_error <= parity.rmse * (1.0 + 1e-9));
            prop_assert!(parity.rmse <= parity.max_abs_error * (1.0 + 1e-9));
        }

        #[test]
        fn worsening_does_not_depend_on_the_order_of_samples(
            samples in prop::collection::vec(pairs(), 1..4),
        ) {
            let figures: Vec<_> = samples.iter().map(|pairs| {
                let (original, candidate): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
                compare(&original, &candidate)
            }).collect();
            let worst = |mut order: Vec<FloatParity>| {
                let mut first = order.remove(0);
                for next in order {
                    first.worsen(next);
                }
                first
            };
            let forwards = worst(figures.clone());
            prop_assert_eq!(forwards, worst(figures.into_iter().rev().collect()));
        }
    }
}
