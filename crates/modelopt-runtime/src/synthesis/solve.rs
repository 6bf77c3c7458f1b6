//! Sizes that meet all demands, found from sizes that do not.
//!
//! Node by node: at the first node whose demands are not met, sizes are changed one at a time, or
//! all of one kind together, to where a straight line through what the demand comes to for two
//! sizes says that it is met, then to numbers around, and to likely ones. What gets furthest
//! through the graph stays. In the end sizes of pictures are made such that pictures have.

use indexmap::IndexMap;

use super::check::{Check, Conflict, Tired};
use super::constraints::Demand;
use super::dims::{Guess, Open};
use super::likely;

/// How many conflicts are resolved one after the other.
const MOST_STEPS: usize = 24;

/// No size that is thought of is larger.
const LARGEST: i64 = 1 << 20;

/// Sizes of open dimensions by name.
pub(super) type Sizing = IndexMap<String, usize>;

/// The sizes in `start`, changed where they must be for no demand to be in the way; `None` where
/// none such is found. Only those that are `open` are changed.
pub(super) fn repaired(check: &mut Check, open: &[Open], start: &Sizing) -> Option<Sizing> {
    let mut sizing = start.clone();
    let mut conflict = check.conflict(&sizing).ok()?;
    for _ in 0..MOST_STEPS {
        let Some(now) = &conflict else { break };
        (sizing, conflict) = step(check, open, &sizing, now).ok().flatten()?;
    }
    conflict.is_none().then(|| polished(check, open, start, sizing))
}

/// The same, with sizes of pictures that were changed made what is usual, where that meets all
/// demands as well.
fn polished(check: &mut Check, open: &[Open], start: &Sizing, sizing: Sizing) -> Sizing {
    let pictures = open.iter().filter(|open| open.guess == Guess::Picture);
    let changed: Vec<&str> = pictures
        .map(|open| open.name.as_str())
        .filter(|name| start.get(*name) != sizing.get(*name))
        .collect();
    let Some(&size) = changed.first().and_then(|&name| sizing.get(name)) else { return sizing };
    if changed.iter().any(|&name| sizing.get(name) != Some(&size)) {
        return sizing;
    }
    let near = |usual: &usize| *usual * 3 >= size * 2 && *usual * 2 <= size * 3;
    let mut wanted: Vec<usize> =
        likely::sizes(Guess::Picture).iter().copied().filter(near).collect();
    wanted.sort_by_key(|usual| usual.abs_diff(size));
    for step in [32, 16, 8] {
        wanted.extend([size / step * step, size.div_ceil(step) * step]);
    }
    for usual in wanted.into_iter().filter(|&usual| usual > 0) {
        let rounder = with(&sizing, &changed, usual);
        if check.conflict(&rounder) == Ok(None) {
            return rounder;
        }
    }
    sizing
}

type Step = (Sizing, Option<Conflict>);

/// The change that gets furthest beyond a conflict.
fn step(
    check: &mut Check,
    open: &[Open],
    sizing: &Sizing,
    conflict: &Conflict,
) -> Result<Option<Step>, Tired> {
    let moves = moves(open);
    let mut best: Option<Step> = None;
    for likely_ones in [false, true] {
        for names in &moves {
            let wanted = if likely_ones {
                likely_sizes(open, names)
            } else {
                let mut sizes = solutions(check, names, sizing, conflict)?;
                sizes.extend(rounded(sizing, names));
                sizes
            };
            for size in wanted {
                let changed = with(sizing, names, size);
                if changed == *sizing {
                    continue;
                }
                let then = check.conflict(&changed)?;
                let Some(next) = &then else { return Ok(Some((changed, None))) };
                let furthest =
                    best.as_ref().and_then(|(_, best)| best.as_ref()).map_or(conflict.at, |b| b.at);
                if next.at > furthest {
                    best = Some((changed, then));
                }
            }
        }
    }
    Ok(best)
}

/// What may change together: each size alone, those of which least is known first, then all of
/// one kind, then all but batches.
fn moves(open: &[Open]) -> Vec<Vec<&str>> {
    let mut order: Vec<&Open> = open.iter().collect();
    order.sort_by_key(|open| std::cmp::Reverse(open.guess));
    let mut moves: Vec<Vec<&str>> = order.iter().map(|open| vec![open.name.as_str()]).collect();
    let kinds = [Guess::Other, Guess::Picture, Guess::Sequence].map(|guess| {
        let same = order.iter().filter(move |open| open.guess == guess);
        same.map(|open| open.name.as_str()).collect::<Vec<_>>()
    });
    let all = order.iter().filter(|open| !matches!(open.guess, Guess::Batch | Guess::Leading));
    let all = all.map(|open| open.name.as_str()).collect::<Vec<_>>();
    for group in kinds.into_iter().chain([all]) {
        if group.len() > 1 && !moves.contains(&group) {
            moves.push(group);
        }
    }
    moves
}

fn with(sizing: &Sizing, names: &[&str], size: usize) -> Sizing {
    let mut changed = sizing.clone();
    changed.extend(names.iter().map(|&name| (name.to_owned(), size)));
    changed
}

/// Where straight lines say that the demands of a node are met.
fn solutions(
    check: &mut Check,
    names: &[&str],
    sizing: &Sizing,
    conflict: &Conflict,
) -> Result<Vec<usize>, Tired> {
    let Some(&now) = names.first().and_then(|&name| sizing.get(name)) else { return Ok(vec![]) };
    let mut found = Vec::new();
    for other in [now * 2, now.div_ceil(2), now + 1] {
        if other == now {
            continue;
        }
        let there = check.demands(conflict.at, &with(sizing, names, other))?;
        if there.len() != conflict.demands.len() {
            continue;
        }
        for (here, there) in conflict.demands.iter().zip(there) {
            if !here.is_met() {
                let line = Line { from: now as i64, to: other as i64 };
                line.solve(*here, there, &mut found);
            }
        }
    }
    let mut sizes: Vec<usize> = found
        .into_iter()
        .filter(|size| (1..=LARGEST).contains(size))
        .filter_map(|size| usize::try_from(size).ok())
        .collect();
    // Whatever fits next to a size of 1, or to nothing, is met by chance.
    sizes.sort_by_key(|&size| (size == 1, size.abs_diff(now)));
    sizes.dedup();
    Ok(sizes)
}

/// Two sizes at which a demand is known.
struct Line {
    from: i64,
    to: i64,
}

impl Line {
    fn solve(&self, here: Demand, there: Demand, found: &mut Vec<i64>) {
        match (here, there) {
            (Demand::Same(a, b), Demand::Same(c, d))
            | (Demand::AtLeast(a, b), Demand::AtLeast(c, d)) => {
                found.extend(self.root(gap(a, b), gap(c, d)));
            }
            (Demand::Broadcast(a, b), Demand::Broadcast(c, d)) => {
                found.extend(self.root(gap(a, b), gap(c, d)));
                found.extend(self.root(gap(a, 1), gap(c, 1)));
                found.extend(self.root(gap(b, 1), gap(d, 1)));
            }
            (Demand::Multiple(a, of), Demand::Multiple(c, same)) if of == same => {
                found.extend(self.multiples(a, c, of));
                found.extend(self.root(gap(a, of), gap(c, of)));
            }
            _ => {}
        }
    }

    /// The whole numbers around where a line through two points is zero.
    fn root(&self, here: i64, there: i64) -> Vec<i64> {
        let (rise, run) = (there.saturating_sub(here), self.to - self.from);
        if rise == 0 {
            return Vec::new();
        }
        let root = i128::from(self.from) - i128::from(here) * i128::from(run) / i128::from(rise);
        let Ok(root) = i64::try_from(root) else { return Vec::new() };
        // Strides make steps of many sizes alike.
        let step = (run / rise).abs().clamp(0, 4096);
        let mut sizes = vec![root, root - 1, root + 1];
        sizes.extend([root + step, root - step, root + 2 * step].iter().filter(|_| step > 1));
        sizes
    }

    /// The multiples that bring a size that grows with it to a multiple of `of`.
    fn multiples(&self, here: usize, there: usize, of: usize) -> Vec<i64> {
        let (rise, run) = (gap(there, here), self.to - self.from);
        let Ok(of) = i64::try_from(of) else { return Vec::new() };
        if run == 0 || rise == 0 || rise % run != 0 || of == 0 {
            return Vec::new();
        }
        let unit = of / gcd(of, (rise / run).abs());
        let down = self.from / unit * unit;
        vec![down, down + unit, unit]
    }
}

fn gap(a: usize, b: usize) -> i64 {
    let clamp = |size: usize| i64::try_from(size).unwrap_or(i64::MAX / 4).min(i64::MAX / 4);
    clamp(a) - clamp(b)
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Numbers around a size, the nearest first: the next ones, for what is cut into equal parts, and
/// multiples of powers of two, for what halves again and again and is put together on the way back.
fn rounded(sizing: &Sizing, names: &[&str]) -> Vec<usize> {
    let Some(&now) = names.first().and_then(|&name| sizing.get(name)) else { return Vec::new() };
    let steps = (1..=8).map(|power| 1usize << power);
    let next = (1..=6).flat_map(|by| [now.saturating_sub(by), now + by]);
    let mut sizes: Vec<usize> = steps
        .flat_map(|step| [now / step * step, now.div_ceil(step) * step])
        .chain(next)
        .filter(|&size| size > 0 && size != now)
        .collect();
    sizes.sort_by_key(|size| size.abs_diff(now));
    sizes.dedup();
    sizes
}

fn likely_sizes(open: &[Open], names: &[&str]) -> Vec<usize> {
    let guess = open.iter().find(|open| names.first().is_some_and(|name| open.name == *name));
    guess.map_or_else(Vec::new, |open| likely::sizes(open.guess).to_vec())
}
