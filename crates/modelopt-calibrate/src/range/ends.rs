//! The search for the two ends of a range, in bins away from 0.

/// How many steps there are from the whole range to its 64th part, going down by one share each time.
const COARSE_STEPS: i32 = 48;
const COARSE_SHARE: f64 = 0.917;

/// The steps of the last search, from this share of an end down to a single bin.
const FIRST_STEP: f64 = 1.0 / 8.0;

/// So often both ends are moved by one step until another is tried.
const MOST_ROUNDS: usize = 6;

/// Bins below and above 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) below: usize,
    pub(super) above: usize,
}

impl Ends {
    fn shrunk(self, share: f64) -> Self {
        let part = |bins: usize| (bins as f64 * share).ceil() as usize;
        Ends { below: part(self.below), above: part(self.above) }
    }

    fn bins(self) -> usize {
        self.below + self.above
    }
}

/// The ends with the least cost that have no fewer than `least` bins between them, as far as both ends
/// moving together and then each by itself find it. The whole range where all cost the same.
pub(super) fn search(whole: Ends, least: usize, cost: impl Fn(Ends) -> f64) -> Ends {
    let mut best = (cost(whole), whole);
    let mut share = 1.0;
    for _ in 0..COARSE_STEPS {
        share *= COARSE_SHARE;
        let ends = whole.shrunk(share);
        if ends.bins() < least.max(1) {
            break;
        }
        best = better(best, ends, &cost);
    }
    let longest = whole.below.max(whole.above) as f64;
    let mut step = (longest * FIRST_STEP) as usize;
    while step > 0 {
        for _ in 0..MOST_ROUNDS {
            let before = best.1;
            for ends in moved(before, step) {
                let within = ends.below <= whole.below && ends.above <= whole.above;
                if within && ends.bins() >= least.max(1) {
                    best = better(best, ends, &cost);
                }
            }
            if best.1 == before {
                break;
            }
        }
        step /= 2;
    }
    best.1
}

fn better(best: (f64, Ends), ends: Ends, cost: impl Fn(Ends) -> f64) -> (f64, Ends) {
    let own = cost(ends);
    if own < best.0 { (own, ends) } else { best }
}

/// One end farther in or out by so many bins.
fn moved(ends: Ends, step: usize) -> [Ends; 4] {
    let Ends { below, above } = ends;
    [
        Ends { below: below.saturating_sub(step), above },
        Ends { below: below + step, above },
        Ends { below, above: above.saturating_sub(step) },
        Ends { below, above: above + step },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(whole: (usize, usize), least: usize, target: (usize, usize)) -> (usize, usize) {
        let away = |a: usize, b: usize| (a as f64 - b as f64).powi(2);
        let cost = |ends: Ends| away(ends.below, target.0) + away(ends.above, target.1);
        let ends = search(Ends { below: whole.0, above: whole.1 }, least, cost);
        (ends.below, ends.above)
    }

    #[test]
    fn each_end_is_found_by_itself() {
        for target in [(100, 3000), (4096, 17), (1, 1), (0, 4000), (4096, 4096), (77, 78)] {
            assert_eq!(found((4096, 4096), 1, target), target);
        }
        assert_eq!(found((0, 4096), 1, (0, 123)), (0, 123));
    }

    #[test]
    fn no_fewer_bins_than_wanted() {
        let (below, above) = found((4096, 4096), 256, (10, 10));
        assert!(below + above >= 256 && below + above < 300, "{below} {above}");
        // There are not even so many.
        assert_eq!(found((3, 4), 256, (1, 1)), (3, 4));
    }

    #[test]
    fn what_costs_nothing_stays_whole() {
        let whole = Ends { below: 9, above: 80 };
        assert_eq!(search(whole, 1, |_| 0.0), whole);
    }
}
