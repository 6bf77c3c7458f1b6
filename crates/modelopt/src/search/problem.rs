//! What can be moved, what that costs, and what it does to the noise: all that an order of moves is
//! made from.
//!
//! A plan is a list of *items*, each on one of its levels: level 0 is the fastest and smallest, and
//! the noisiest. *Sources* make noise, and how much of it is left depends on the levels of the items
//! that it comes from. A *move* takes one or several items down:
//!
//! ```text
//! items      weights of a layer: int8 -> float16 -> float32     what it computes in: int8 -> float32
//! sources    the rounding of a weight                           the rounding of an activation
//! moves      its items down by a level, or several that are of use only together
//! ```
//!
//! Noise powers add up, more or less, sample by sample.

/// The most noise that a source is taken to make: what is infinite could not be subtracted.
const LOUDEST: f64 = 1e15;

/// What is left of a sum of floats after it was subtracted from.
const RESIDUE: f64 = 1e-9;

/// Something that can be on one of several levels.
#[derive(Clone, Debug, Default)]
pub(crate) struct Item {
    /// What each level costs, as a share of all bytes and all time that a plan can save; the first
    /// costs nothing.
    pub(crate) costs: Vec<f64>,
    /// What it adds, while it is on level 0, to what must not all go down.
    pub(crate) share: f64,
}

/// Something that makes noise.
#[derive(Clone, Debug, Default)]
pub(crate) struct Source {
    /// Its noise with everything on level 0, as excess over the limits, for each sample that was
    /// looked at.
    pub(crate) noise: Vec<f64>,
    /// The items that it comes from, with the share of the noise that is left on each of their
    /// levels. The item that leaves the most decides.
    pub(crate) left: Vec<(usize, Vec<f64>)>,
    /// Items that leave a share of what is left, on each of their levels.
    pub(crate) scaled: Vec<(usize, Vec<f64>)>,
}

/// Items that go down together, each to the level that it names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) to: Vec<(usize, usize)>,
}

/// On which level each item is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Selection(pub(crate) Vec<usize>);

/// One move in an order of moves.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Step {
    /// Place of the move.
    pub(crate) of: usize,
    pub(crate) cost: f64,
    /// The predicted excess before it.
    pub(crate) before: f64,
    /// The predicted excess after it and all before it.
    pub(crate) excess: f64,
}

impl Step {
    /// The noise that it is predicted to take.
    pub(crate) fn gain(&self) -> f64 {
        self.before - self.excess
    }
}

/// What some moves cost together.
pub(crate) fn cost(steps: &[Step]) -> f64 {
    steps.iter().map(|step| step.cost).sum()
}

/// All that can be done.
#[derive(Clone, Debug, Default)]
pub(crate) struct Problem {
    pub(crate) items: Vec<Item>,
    pub(crate) sources: Vec<Source>,
    pub(crate) moves: Vec<Move>,
    /// What every move costs besides what its items do.
    pub(crate) every_move: f64,
    /// What of the items' shares has to stay on level 0, in sum.
    pub(crate) least: f64,
}

impl Problem {
    /// Everything on its first level.
    pub(crate) fn start(&self) -> Selection {
        Selection(vec![0; self.items.len()])
    }

    /// What comes of some moves.
    pub(crate) fn selection(&self, steps: &[Step]) -> Selection {
        let mut selection = self.start();
        for step in steps {
            self.raise(&mut selection, step.of);
        }
        selection
    }

    fn raise(&self, selection: &mut Selection, of: usize) {
        for &(item, level) in self.moves.get(of).map_or(&[][..], |step| &step.to) {
            if let Some(known) = selection.0.get_mut(item) {
                *known = level.max(*known);
            }
        }
    }

    /// Whether a move is pointless or undoes another one once that is taken back: it is the same, or
    /// takes something further that the other took down.
    pub(crate) fn needs(&self, a: &Step, b: &Step) -> bool {
        let further = |&(item, level): &(usize, usize)| {
            self.moves[b.of].to.iter().any(|&(other, below)| other == item && level > below)
        };
        a.of == b.of || self.moves[a.of].to.iter().any(further)
    }

    /// Whether enough is left on level 0.
    pub(crate) fn is_worthwhile(&self, selection: &Selection) -> bool {
        let stays = self.items.iter().zip(&selection.0).filter(|(_, level)| **level == 0);
        stays.map(|(item, _)| item.share).sum::<f64>() >= self.least
    }

    /// Takes in what each source does on one more sample. What was assumed before anything was
    /// measured is dropped with the first.
    pub(crate) fn measured(&mut self, noises: &[f64], is_first: bool) {
        for (source, &noise) in self.sources.iter_mut().zip(noises) {
            if is_first {
                source.noise.clear();
            }
            source.noise.push(if noise.is_nan() { LOUDEST } else { noise.clamp(0.0, LOUDEST) });
        }
    }

    /// Puts noises that are only known relative to each other to scale: together they are this much.
    pub(crate) fn scale(&mut self, excess: f64) {
        let total = State::new(self).excess();
        if excess.is_finite() && total > 0.0 {
            let factor = excess / total;
            let noises = self.sources.iter_mut().flat_map(|source| &mut source.noise);
            noises.for_each(|noise| *noise *= factor);
        }
    }

    /// All moves to the bottom, the one that takes the most noise for its cost first.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let mut state = State::new(self);
        let mut steps = Vec::new();
        let mut before = state.excess();
        while let Some((of, cost)) = state.next() {
            state.make(of);
            let excess = state.excess();
            steps.push(Step { of, cost, before, excess });
            before = excess;
        }
        steps
    }
}

/// How far down everything is, while moves are ordered.
struct State<'a> {
    problem: &'a Problem,
    selection: Selection,
    /// Noise of all together, for each sample.
    total: Vec<f64>,
    /// The sources that each move has to do with.
    concerned: Vec<Vec<usize>>,
}

impl<'a> State<'a> {
    fn new(problem: &'a Problem) -> Self {
        let samples = problem.sources.iter().map(|source| source.noise.len()).max().unwrap_or(0);
        let mut total = vec![0f64; samples];
        let mut of_item: Vec<Vec<usize>> = vec![Vec::new(); problem.items.len()];
        for (place, source) in problem.sources.iter().enumerate() {
            total.iter_mut().zip(&source.noise).for_each(|(sum, noise)| *sum += noise);
            let items = source.left.iter().chain(&source.scaled);
            items.for_each(|(item, _)| of_item[*item].push(place));
        }
        let concerned = problem.moves.iter().map(|step| {
            let mut own: Vec<usize> =
                step.to.iter().flat_map(|(item, _)| of_item[*item].iter().copied()).collect();
            own.sort_unstable();
            own.dedup();
            own
        });
        let concerned = concerned.collect();
        State { problem, selection: problem.start(), total, concerned }
    }

    fn excess(&self) -> f64 {
        self.total.iter().copied().fold(0.0, f64::max)
    }

    /// The move that takes the most noise for its cost.
    fn next(&self) -> Option<(usize, f64)> {
        let most = self.excess().max(f64::MIN_POSITIVE);
        // Noise counts where there is most of it.
        let emphasis: Vec<f64> = self.total.iter().map(|total| (total / most).powi(2)).collect();
        let mut best: Option<(usize, f64, f64)> = None;
        for of in 0..self.problem.moves.len() {
            let Some(cost) = self.cost(of) else { continue };
            let taken = self.taken(of);
            let gain: f64 = taken.iter().zip(&emphasis).map(|(noise, share)| noise * share).sum();
            let worth = gain / cost;
            if best.is_none_or(|(.., known)| worth > known) {
                best = Some((of, cost, worth));
            }
        }
        best.map(|(of, cost, _)| (of, cost))
    }

    /// What a move costs from here; nothing where it takes nothing down.
    fn cost(&self, of: usize) -> Option<f64> {
        let mut cost = self.problem.every_move;
        let mut moves = false;
        for &(item, to) in &self.problem.moves[of].to {
            let now = self.selection.0[item];
            if to > now {
                let costs = &self.problem.items[item].costs;
                cost += costs[to] - costs[now];
                moves = true;
            }
        }
        moves.then(|| cost.max(f64::MIN_POSITIVE))
    }

    /// The noise that a move takes away, for each sample.
    fn taken(&self, of: usize) -> Vec<f64> {
        let mut taken = vec![0f64; self.total.len()];
        let to = &self.problem.moves[of].to;
        let level = |item: usize| {
            let now = self.selection.0[item];
            to.iter().find(|(known, _)| *known == item).map_or(now, |&(_, to)| to.max(now))
        };
        for &place in &self.concerned[of] {
            let source = &self.problem.sources[place];
            let share = source.share(|item| self.selection.0[item]) - source.share(level);
            taken.iter_mut().zip(&source.noise).for_each(|(sum, noise)| *sum += noise * share);
        }
        taken
    }

    fn make(&mut self, of: usize) {
        let taken = self.taken(of);
        for (sum, taken) in self.total.iter_mut().zip(taken) {
            *sum = (*sum - taken).max(*sum * RESIDUE);
        }
        self.problem.raise(&mut self.selection, of);
    }
}

impl Source {
    /// What is left of its noise.
    fn share(&self, level: impl Fn(usize) -> usize) -> f64 {
        let share = |(item, shares): &(usize, Vec<f64>)| {
            shares.get(level(*item)).or(shares.last()).copied().unwrap_or_default()
        };
        let left = self.left.iter().map(share).fold(0.0, f64::max);
        left * self.scaled.iter().map(share).product::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Weights with three levels, beside an activation that ends with them.
    fn weights_and_activation() -> Problem {
        Problem {
            items: vec![
                Item { costs: vec![0.0, 0.25, 0.75], share: 1.0 },
                Item { costs: vec![0.0, 0.1], share: 0.0 },
            ],
            sources: vec![
                Source {
                    scaled: Vec::new(),
                    noise: vec![4.0],
                    left: vec![(0, vec![1.0, 0.1, 0.0])],
                },
                Source { scaled: Vec::new(), noise: vec![2.0], left: vec![(1, vec![1.0, 0.0])] },
            ],
            moves: vec![
                Move { to: vec![(1, 1)] },
                Move { to: vec![(0, 1), (1, 1)] },
                Move { to: vec![(0, 2), (1, 1)] },
            ],
            every_move: 0.0,
            least: 0.0,
        }
    }

    #[test]
    fn levels_are_gone_through_one_by_one_where_that_pays() {
        let problem = weights_and_activation();
        let steps = problem.steps();
        let order: Vec<usize> = steps.iter().map(|step| step.of).collect();
        assert_eq!(order, [0, 1, 2]);
        let costs: Vec<f64> = steps.iter().map(|step| step.cost).collect();
        assert!((costs[1] - 0.25).abs() < 1e-12 && (costs[2] - 0.5).abs() < 1e-12, "{costs:?}");
        assert!((steps[0].before - 6.0).abs() < 1e-9 && (steps[1].excess - 0.4).abs() < 1e-9);
    }

    #[test]
    fn a_move_takes_with_it_what_goes_no_further_alone() {
        let problem = weights_and_activation();
        let steps = problem.steps();
        assert_eq!(problem.selection(&steps[..2]), Selection(vec![1, 1]));
        assert_eq!(problem.selection(&steps[1..2]), Selection(vec![1, 1]));
        assert!(problem.needs(&steps[2], &steps[1]) && !problem.needs(&steps[1], &steps[2]));
        assert!(problem.needs(&steps[1], &steps[1]) && !problem.needs(&steps[0], &steps[1]));
    }

    #[test]
    fn a_source_is_silent_when_all_it_comes_from_are_down() {
        // A value between two nodes: rounded as long as one of them is of 16 bits.
        let item = || Item { costs: vec![0.0, 0.1], share: 0.0 };
        let between = Source {
            scaled: Vec::new(),
            noise: vec![5.0],
            left: vec![(0, vec![1.0, 0.0]), (1, vec![1.0, 0.0])],
        };
        let problem = Problem {
            items: vec![item(), item()],
            sources: vec![between],
            moves: vec![Move { to: vec![(0, 1)] }, Move { to: vec![(0, 1), (1, 1)] }],
            every_move: 1e-4,
            least: 0.0,
        };
        let steps = problem.steps();
        assert_eq!(steps.iter().map(|step| step.of).collect::<Vec<_>>(), [1]);
        assert!(steps[0].excess < 1e-6);
    }
}

#[cfg(test)]
mod edges;
