//! Finds where noise is made by halving: neighbours are switched on together, and only those that make
//! too much of it are taken apart. That takes a few runs for each noisy place, rather than one for
//! every value of the model.

use std::ops::Range;

use super::tuning::Mixing;
use crate::trial_error::TrialError;

/// What ranges of switches do, each together.
pub(crate) type Run<'a> = &'a mut dyn FnMut(&[Range<usize>]) -> Result<Vec<f64>, TrialError>;

/// The noise of each switch, from ranges that have nothing to do with each other. What was not taken
/// apart is shared among neighbours.
pub(crate) fn noises(
    starts: &[Range<usize>],
    tuning: &Mixing,
    run: Run<'_>,
) -> Result<Vec<f64>, TrialError> {
    let mut noises = vec![0.0; starts.iter().map(|range| range.end).max().unwrap_or(0)];
    let mut left = tuning.most_probes;
    let mut next: Vec<Range<usize>> = starts.to_vec();
    next.retain(|range| !range.is_empty());
    while !next.is_empty() {
        let found = run(&next)?;
        left = left.saturating_sub(next.len());
        let mut loud: Vec<(f64, Range<usize>)> = Vec::new();
        for (range, noise) in next.drain(..).zip(found) {
            let share = noise / range.len() as f64;
            noises[range.clone()].fill(share);
            if range.len() > 1 && noise > tuning.negligible {
                loud.push((noise, range));
            }
        }
        // Where not all can be looked at, the noisiest are.
        loud.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        loud.truncate(left / 2);
        next.extend(loud.into_iter().flat_map(|(_, range)| halves(range)));
        next.sort_by_key(|range| range.start);
    }
    Ok(noises)
}

fn halves(range: Range<usize>) -> [Range<usize>; 2] {
    let middle = usize::midpoint(range.start, range.end);
    [range.start..middle, middle..range.end]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many switches that have to do with each other.
    fn whole(count: usize) -> Vec<Range<usize>> {
        std::iter::once(0..count).collect()
    }

    /// Noise that adds up, and how often it was measured.
    fn found(planted: &[f64], tuning: &Mixing) -> (Vec<f64>, usize) {
        let mut runs = 0;
        let found = noises(&whole(planted.len()), tuning, &mut |ranges| {
            runs += ranges.len();
            Ok(ranges.iter().map(|range| planted[range.clone()].iter().sum()).collect())
        });
        (found.unwrap(), runs)
    }

    #[test]
    fn a_single_noisy_place_is_found_in_a_few_runs() {
        let mut planted = vec![0.0; 1000];
        planted[617] = 50.0;
        let (found, runs) = found(&planted, &Mixing::default());
        assert_eq!(found, planted);
        assert!(runs <= 2 * 10 + 1, "{runs}");
    }

    #[test]
    fn what_is_spread_evenly_is_shared() {
        let tuning = Mixing { most_probes: 15, ..Mixing::default() };
        let (found, runs) = found(&[0.5; 64], &tuning);
        assert_eq!(found, [0.5; 64]);
        assert!(runs <= 15, "{runs}");
    }

    #[test]
    fn quiet_places_are_not_looked_at_closer() {
        let (found, runs) = found(&[1e-5; 100], &Mixing::default());
        assert_eq!(runs, 1);
        assert!((found.iter().sum::<f64>() - 1e-3).abs() < 1e-9);
    }

    #[test]
    fn the_noisiest_are_looked_at_where_runs_are_few() {
        let mut planted = vec![0.1; 64];
        planted[3] = 9.0;
        planted[40] = 5.0;
        let tuning = Mixing { most_probes: 25, ..Mixing::default() };
        let (found, runs) = found(&planted, &tuning);
        assert!(runs <= 25, "{runs}");
        assert!(found[3] > 2.0 && found[40] > 1.0 && found[30] < 0.2, "{found:?}");
    }

    #[test]
    fn what_stands_apart_shares_no_noise() {
        // As if one run were all.
        let tuning = Mixing { most_probes: 0, ..Mixing::default() };
        let planted = [4.0, 4.0, 0.0, 0.0];
        let found = noises(&[0..2, 2..4], &tuning, &mut |ranges| {
            Ok(ranges.iter().map(|range| planted[range.clone()].iter().sum()).collect())
        });
        assert_eq!(found.unwrap(), planted);
    }

    #[test]
    fn nothing_has_no_noise_and_errors_end_it() {
        assert_eq!(found(&[], &Mixing::default()), (Vec::new(), 0));
        let refused = noises(&whole(3), &Mixing::default(), &mut |_| Err("no".to_owned().into()));
        assert!(matches!(refused, Err(TrialError::Refused(_))));
    }
}
