//! Elements that belong together by their index along one axis: rows of boxes and rows of scores,
//! a column of time stamps.
//!
//! ```text
//! output0 [1, 24, 8400]:   rows 0 to 3 reach 640, rows 4 to 23 stay within 0 and 1
//! parts:                   output0[:, 0:4]  and  output0[:, 4:24]
//! ```

use std::ops::Range;

use super::bands::{Band, band_of};
use super::part::{SLACK, TELLING, is_noise_beside};
use crate::elements::Floats;

/// Parts differ by this factor. From there on a part that is destroyed shows as 20 dB of the whole.
const RATIO: f64 = 10.0;
/// Longer axes are not looked at: no output has that many kinds of things.
const LONGEST: usize = 4096;
/// On axes longer than this a part has more than single places, which may be channels that are dead.
const LONG: usize = 128;
/// The least share of a long axis.
const LEAST_SHARE: f64 = 0.02;

/// What the elements at one place of an axis are like, or all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slice {
    count: u64,
    squares: f64,
    pub(crate) peak: f64,
    low: f64,
    high: f64,
}

impl Default for Slice {
    fn default() -> Self {
        Slice { count: 0, squares: 0.0, peak: 0.0, low: f64::INFINITY, high: f64::NEG_INFINITY }
    }
}

impl Slice {
    fn add(&mut self, x: f64) {
        self.count += 1;
        self.squares += x * x;
        self.peak = self.peak.max(x.abs());
        self.low = self.low.min(x);
        self.high = self.high.max(x);
    }

    fn join(mut self, other: &Slice) -> Slice {
        self.count += other.count;
        self.squares += other.squares;
        self.peak = self.peak.max(other.peak);
        self.low = self.low.min(other.low);
        self.high = self.high.max(other.high);
        self
    }

    /// Root of the mean square; 0 of nothing.
    pub(crate) fn rms(&self) -> f64 {
        if self.count == 0 { 0.0 } else { (self.squares / self.count as f64).sqrt() }
    }

    /// Whether all is between 0 and 1.
    pub(crate) fn within_one(&self) -> bool {
        self.count > 0 && self.low >= -SLACK && self.high <= 1.0 + SLACK
    }
}

/// Places along an axis that belong together.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) ranges: Vec<Range<usize>>,
    pub(crate) all: Slice,
}

/// An axis along which parts are told apart.
#[derive(Clone, Debug)]
pub(crate) struct Cut {
    pub(crate) axis: usize,
    pub(crate) groups: Vec<Group>,
}

/// What is known of an output along each of its axes.
#[derive(Debug, Default)]
pub(crate) struct Axes {
    /// Of the samples so far; 0 where they differ.
    shape: Option<Vec<usize>>,
    /// For each axis that is looked at, its places.
    places: Vec<(usize, Vec<Slice>)>,
    all: Slice,
}

impl Axes {
    /// Takes in the output of one sample, but for what stands apart by its value.
    pub(crate) fn add(&mut self, shape: &[usize], floats: &Floats<'_>, bands: &[Band]) {
        self.fit(shape);
        let counts = |x: f64| x.is_finite() && band_of(bands, x).is_none();
        let mut at = 0;
        let strides: Vec<(usize, usize)> = self
            .places
            .iter()
            .map(|(axis, places)| (shape[axis + 1..].iter().product(), places.len()))
            .collect();
        floats.each_block(|block| {
            for &x in block {
                if counts(x) {
                    self.all.add(x);
                    for ((_, places), (inner, size)) in self.places.iter_mut().zip(&strides) {
                        if let Some(place) = places.get_mut(at / inner % size) {
                            place.add(x);
                        }
                    }
                }
                at += 1;
            }
        });
    }

    /// Forgets the axes that are not of the same size on all samples.
    fn fit(&mut self, shape: &[usize]) {
        match &mut self.shape {
            None => {
                // The first axis of several is that of the batch.
                let first = usize::from(shape.len() > 1);
                let fits = |axis: &usize| (2..=LONGEST).contains(&shape[*axis]);
                let axes = (first..shape.len()).filter(fits);
                self.places =
                    axes.map(|axis| (axis, vec![Slice::default(); shape[axis]])).collect();
                self.shape = Some(shape.to_vec());
            }
            Some(known) if known.len() != shape.len() => {
                self.places.clear();
                known.clear();
            }
            Some(known) => {
                self.places.retain(|(axis, places)| shape[*axis] == places.len());
                let differ = known.iter_mut().zip(shape).filter(|(known, size)| *known != *size);
                differ.for_each(|(known, _)| *known = 0);
            }
        }
    }

    /// Sizes that are the same on all samples, and 0 for others; nothing if ranks differ.
    pub(crate) fn shape(&self) -> &[usize] {
        self.shape.as_deref().unwrap_or_default()
    }

    /// All elements that do not stand apart.
    pub(crate) fn all(&self) -> Slice {
        self.all
    }

    /// The axis along which parts differ most, if there is one. `made`: whether elements between 0
    /// and 1 are known to be probabilities.
    pub(crate) fn cut(&self, made: bool) -> Option<Cut> {
        let cuts = self.places.iter().filter_map(|(axis, places)| cut(*axis, places, made));
        let best = cuts.reduce(|a, b| if b.0 > a.0 { b } else { a });
        best.map(|(_, cut)| cut)
    }
}

/// The parts along one axis, and by which factor the nearest two differ.
fn cut(axis: usize, places: &[Slice], made: bool) -> Option<(f64, Cut)> {
    let labels = labels(places, made)?;
    let mut groups: Vec<(usize, Group)> = Vec::new();
    for (at, (label, slice)) in labels.iter().zip(places).enumerate() {
        if let Some((_, group)) = groups.iter_mut().find(|(known, _)| known == label) {
            group.all = group.all.join(slice);
            match group.ranges.last_mut() {
                Some(last) if last.end == at => last.end = at + 1,
                _ => group.ranges.push(at..at + 1),
            }
        } else {
            let ranges = std::iter::once(at..at + 1).collect();
            groups.push((*label, Group { ranges, all: *slice }));
        }
    }
    let groups: Vec<Group> = groups.into_iter().map(|(_, group)| group).collect();
    let mut sizes: Vec<f64> = groups.iter().map(|group| group.all.rms()).collect();
    sizes.sort_by(f64::total_cmp);
    let ratios = sizes.windows(2).map(|pair| pair[1] / pair[0]);
    let apart = ratios.fold(f64::INFINITY, f64::min);
    (groups.len() > 1 && apart >= RATIO).then_some((apart, Cut { axis, groups }))
}

/// Which kind of thing each place is; `None` where all are of one.
fn labels(places: &[Slice], made: bool) -> Option<Vec<usize>> {
    let largest = places.iter().map(Slice::rms).fold(0.0, f64::max);
    // Where the largest are probabilities, nothing stands out.
    let beyond = |slice: &&Slice| slice.peak > 0.0 && !slice.within_one();
    let mut sizes: Vec<f64> = places.iter().filter(beyond).map(Slice::rms).collect();
    sizes.sort_by(f64::total_cmp);
    let least = sizes.first().copied()?;
    let scores =
        places.iter().filter(|slice| slice.within_one()).fold(Slice::default(), Slice::join);
    // Scores are one kind, however rare some are.
    let telling = made || scores.peak >= TELLING;
    let scored = telling && scores.count > 0 && least >= RATIO * scores.rms();
    if !scored {
        sizes = places.iter().filter(|slice| slice.peak > 0.0).map(Slice::rms).collect();
        sizes.sort_by(f64::total_cmp);
    }
    // Kinds end where the next size is so much larger.
    let mut ends: Vec<f64> = Vec::new();
    for pair in sizes.windows(2) {
        if pair[1] >= pair[0] * RATIO && !is_noise_beside(pair[0], largest) {
            ends.push(f64::midpoint(pair[0], pair[1]));
        }
    }
    let kind = |slice: &Slice| {
        if scored && (slice.within_one() || slice.peak == 0.0) {
            return 0;
        }
        1 + ends.iter().filter(|end| slice.rms() > **end).count()
    };
    let mut labels: Vec<usize> = places.iter().map(kind).collect();
    // What is 0 throughout goes with its neighbour.
    for at in 0..places.len() {
        if places[at].peak == 0.0 && !scored {
            labels[at] = if at > 0 { labels[at - 1] } else { first_sized(places, &labels) };
        }
    }
    let least = if places.len() > LONG { (places.len() as f64 * LEAST_SHARE) as usize } else { 1 };
    let count = |label: usize| labels.iter().filter(|&&other| other == label).count();
    let mut kinds: Vec<usize> = labels.clone();
    kinds.sort_unstable();
    kinds.dedup();
    let real = kinds.len() > 1 && kinds.iter().all(|&label| count(label) >= least);
    real.then_some(labels)
}

fn first_sized(places: &[Slice], labels: &[usize]) -> usize {
    let first = places.iter().position(|slice| slice.peak > 0.0);
    first.map_or(0, |at| labels[at])
}

/// Like `output0[:, 4:24]`, as numpy writes it but for several ranges: `y[:, 0:4+6]`.
pub(crate) fn label(name: &str, axis: usize, ranges: &[Range<usize>]) -> String {
    let range = |range: &Range<usize>| match range.len() {
        1 => range.start.to_string(),
        _ => format!("{}:{}", range.start, range.end),
    };
    let ranges: Vec<String> = ranges.iter().map(range).collect();
    format!("{name}[{}{}]", ":, ".repeat(axis), ranges.join("+"))
}

#[cfg(test)]
mod tests {
    use modelopt_graph::Tensor;

    use super::*;

    fn cut_of(shape: &[usize], value: impl Fn(&[usize]) -> f32, made: bool) -> Option<Vec<String>> {
        let mut axes = Axes::default();
        let total: usize = shape.iter().product();
        let values: Vec<f32> = (0..total)
            .map(|flat| {
                let mut rest = flat;
                let mut at = vec![0; shape.len()];
                for axis in (0..shape.len()).rev() {
                    at[axis] = rest % shape[axis];
                    rest /= shape[axis];
                }
                value(&at)
            })
            .collect();
        let tensor = Tensor::of(shape.to_vec(), &values).unwrap();
        axes.add(shape, &Floats::of(&tensor).unwrap(), &[]);
        let cut = axes.cut(made)?;
        Some(cut.groups.iter().map(|group| label("y", cut.axis, &group.ranges)).collect())
    }

    fn wave(at: &[usize]) -> f32 {
        ((at[0] * 7 + at[at.len() - 1] * 3 + at.len()) as f32).sin()
    }

    fn share(at: &[usize]) -> f32 {
        wave(at).abs()
    }

    #[test]
    fn columns_of_a_detection_are_told_apart() {
        // x, y, w, h, score, class.
        let value = |at: &[usize]| match at[1] {
            0..=3 => 300.0 + 100.0 * wave(at),
            4 => share(at),
            _ => 30.0 * share(at),
        };
        assert_eq!(cut_of(&[50, 6], value, false).unwrap(), ["y[:, 0:4]", "y[:, 4]", "y[:, 5]"]);
    }

    #[test]
    fn a_column_of_time_stamps_is_a_part() {
        let value = |at: &[usize]| if at[1] == 2 { 1.6e9 + at[0] as f32 } else { wave(at) };
        assert_eq!(cut_of(&[9, 3], value, false).unwrap(), ["y[:, 0:2]", "y[:, 2]"]);
    }

    #[test]
    fn rare_classes_are_scores_like_others() {
        let value = |at: &[usize]| match at[1] {
            0..=3 => 640.0 * share(at),
            5 => share(at),
            _ => 1e-4 * share(at),
        };
        assert_eq!(cut_of(&[1, 12, 40], value, false).unwrap(), ["y[:, 0:4]", "y[:, 4:12]"]);
    }

    #[test]
    fn scores_near_zero_are_scores_where_that_is_known() {
        let value = |at: &[usize]| if at[1] < 4 { 640.0 * share(at) } else { 1e-4 * share(at) };
        assert_eq!(cut_of(&[1, 8, 40], value, true).unwrap(), ["y[:, 0:4]", "y[:, 4:8]"]);
        assert_eq!(
            cut_of(&[1, 8, 40], |at| if at[1] < 4 { 0.9 } else { 1e-4 * share(at) }, true),
            None
        );
    }

    #[test]
    fn alike_places_are_one_part() {
        assert_eq!(cut_of(&[2, 16, 8], wave, false), None);
        assert_eq!(cut_of(&[1, 5], |at| (at[1] + 1) as f32, false), None);
        // Tokens are not told apart by the batch they are in.
        assert_eq!(
            cut_of(&[2, 8], |at| wave(at) * if at[0] == 0 { 100.0 } else { 1.0 }, false),
            None
        );
    }

    #[test]
    fn dead_channels_of_many_are_no_part() {
        let value = |at: &[usize]| if at[1] == 17 { 1e-4 } else { wave(at) + 1.5 };
        assert_eq!(cut_of(&[4, 384], value, false), None);
        let value = |at: &[usize]| if at[1] == 1 { 0.0 } else { wave(at) + 1.5 };
        assert_eq!(cut_of(&[4, 8], value, false), None);
    }

    #[test]
    fn axes_whose_size_changes_are_not_cut() {
        let mut axes = Axes::default();
        for size in [4usize, 5] {
            let values: Vec<f32> =
                (0..size * 2).map(|i| if i < size { 1.0 } else { 900.0 }).collect();
            let tensor = Tensor::of(vec![1, 2, size], &values).unwrap();
            axes.add(&[1, 2, size], &Floats::of(&tensor).unwrap(), &[]);
        }
        assert_eq!(axes.shape(), [1, 2, 0]);
        assert_eq!(axes.cut(false).unwrap().axis, 1);
    }
}
