//! How far two float tensors are apart.

use std::borrow::Cow;
use std::ops::Range;

use modelopt_graph::{DataType, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::number::Float;
use crate::profile::{Band, FEW, LEAST_OF_FEW, OutputProfile, PROBABILITY_SCALE, Part, band_of};

/// Independent accumulators, so that the compiler can use vector registers.
const LANES: usize = 4;
/// What may stand where the original has nothing but zeros.
const NOTHING: f64 = 1e-6;
/// Elements widened to float64 at a time; two blocks fit the first-level cache.
const BLOCK: usize = 1024;

/// When two elements count as close: `|candidate − original| ≤ atol + rtol · |original|`, the
/// definition of `numpy.isclose`.
///
/// The default relative tolerance is that of the ONNX backend tests; the absolute one is looser
/// than theirs (1e-7), because sums of cancelling float32 terms are not exact to 1e-7.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tolerance {
    /// Relative part, ≥ 0; 1e-3 by default.
    #[serde(with = "crate::number")]
    pub rtol: f64,
    /// Absolute part, ≥ 0, in the unit of the output; 1e-5 by default.
    #[serde(with = "crate::number")]
    pub atol: f64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Tolerance { rtol: 1e-3, atol: 1e-5 }
    }
}

/// How far a float output of the candidate is from the original's; over several samples, the
/// worst of each figure unless it says otherwise.
///
/// `ref` and `cand` stand for the elements of original and candidate. Positions where either is
/// not finite are left out of all sums and counted instead. Figures that cannot be known are NaN,
/// which no limit accepts: when the candidate leaves not one finite element of the original
/// finite, and when sums, which are float64, overflow. Only float64 outputs beyond 1e±150 can
/// overflow or underflow them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FloatParity {
    /// `max |ref − cand|`, in the unit of the output; 0 if there are no elements.
    #[serde(with = "crate::number")]
    #[schemars(with = "Float")]
    pub max_abs_error: f64,
    /// `mean |ref − cand|`, in the unit of the output; 0 if there are no elements.
    #[serde(with = "crate::number")]
    #[schemars(with = "Float")]
    pub mean_abs_error: f64,
    /// `√(mean (ref − cand)²)`, in the unit of the output; 0 if there are no elements.
    #[serde(with = "crate::number")]
    #[schemars(with = "Float")]
    pub rmse: f64,
    /// Signal to quantization noise ratio, `10 · log10(Σ ref² / Σ (ref − cand)²)` in dB, of the
    /// worst part on its worst sample.
    ///
    /// Errors below what the type resolves beside the part's largest element on any sample (four
    /// units in its last place) do not count, unless no sample has others. Errors of probabilities
    /// are held against 0.1 where that is more. Elements that stand for something else than a
    /// quantity are left out; they must stay what they are.
    /// +∞ when equal (all zero and no elements included), −∞ when the original is all zero and
    /// the candidate is not.
    #[serde(with = "crate::number")]
    #[schemars(with = "Float")]
    pub sqnr_db: f64,
    /// The sample that `sqnr_db` comes from; the first of them if several tie.
    pub worst_sample: String,
    /// `Σ ref·cand / √(Σ ref² · Σ cand²)`, from −1 to 1: 1 when equal (two zero vectors
    /// included), 0 when just one of them is all zero.
    #[serde(with = "crate::number")]
    #[schemars(with = "Float")]
    pub cosine: f64,
    /// Share of elements, from 0 to 1, that are not close by [`Tolerance`]; `new_non_finite` and
    /// `changed_non_finite` ones are among them.
    #[serde(with = "crate::number")]
    #[schemars(with = "Float")]
    pub outside_tolerance: f64,
    /// Positions, over all samples, where the original is finite and the candidate is not.
    pub new_non_finite: u64,
    /// Positions, over all samples, where the original is NaN or infinite and the candidate is
    /// not the same: NaN for NaN, an infinity for the same infinity.
    pub changed_non_finite: u64,
    /// Share of rows, from 0 to 1 and over all samples together, where the candidate's highest
    /// score is (one of) the original's highest.
    ///
    /// Only for outputs that look like scores: rank ≥ 2 and 2 to 200 000 classes in the last
    /// dimension. Rows with a NaN in the original are left out; a NaN in the candidate's row
    /// alone is a disagreement.
    #[serde(with = "crate::number::optional", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Float>")]
    pub top1: Option<f64>,
    /// Share of rows, like `top1`, where the original's highest score is among the candidate's
    /// five highest; equal scores rank by class number. Needs 6 classes or more.
    #[serde(with = "crate::number::optional", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Float>")]
    pub top5: Option<f64>,
}

/// What one sample told of one output.
pub(crate) struct SampleFigures {
    /// The figures of all of it, but for `top1` and `top5`.
    pub(crate) whole: FloatParity,
    /// Those of its parts, by index and then by value.
    pub(crate) parts: Vec<PartFigures>,
    /// For each band: elements, and those that did not stay what they stand for.
    pub(crate) sentinels: Vec<(u64, u64)>,
}

/// What one sample told of one part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PartFigures {
    /// Elements that were compared, or became uncomparable.
    pub(crate) elements: u64,
    /// The ratio to all errors, in dB.
    pub(crate) plain_db: f64,
    /// The ratio to those that the type resolves; `None` if there are none.
    pub(crate) resolved_db: Option<f64>,
    pub(crate) max_abs_error: f64,
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
            cosine: known(cosine(&sums)),
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

    /// Takes the worse of each figure.
    pub(crate) fn worsen(&mut self, other: Self) {
        let sqnr_db = lower(self.sqnr_db, other.sqnr_db);
        if sqnr_db.to_bits() != self.sqnr_db.to_bits() {
            self.worst_sample = other.worst_sample;
        }
        self.sqnr_db = sqnr_db;
        self.max_abs_error = higher(self.max_abs_error, other.max_abs_error);
        self.mean_abs_error = higher(self.mean_abs_error, other.mean_abs_error);
        self.rmse = higher(self.rmse, other.rmse);
        self.cosine = lower(self.cosine, other.cosine);
        self.outside_tolerance = higher(self.outside_tolerance, other.outside_tolerance);
        self.new_non_finite += other.new_non_finite;
        self.changed_non_finite += other.changed_non_finite;
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

/// The lower of two figures, NaN being lowest.
fn lower(a: f64, b: f64) -> f64 {
    if a.is_nan() || a <= b { a } else { b }
}

/// The higher of two figures, NaN being highest.
fn higher(a: f64, b: f64) -> f64 {
    if a.is_nan() || a >= b { a } else { b }
}

/// `part / whole`, or 0 of nothing.
pub(crate) fn share(part: f64, whole: f64) -> f64 {
    if whole == 0.0 { 0.0 } else { part / whole }
}

fn sqnr_db(signal: f64, noise: f64) -> f64 {
    if noise == 0.0 { f64::INFINITY } else { 10.0 * (signal / noise).log10() }
}

fn cosine(sums: &Sums) -> f64 {
    if sums.noise == 0.0 {
        return 1.0;
    }
    // Two roots, because the product of the squares would overflow first.
    let lengths = sums.signal.sqrt() * sums.power.sqrt();
    share(sums.dot, lengths).clamp(-1.0, 1.0)
}

/// The elements of a tensor of any of the four IEEE-like float types.
pub(crate) enum Floats<'a> {
    Single(Cow<'a, [f32]>),
    Double(Cow<'a, [f64]>),
}

impl<'a> Floats<'a> {
    /// `None` for other types.
    pub(crate) fn of(tensor: &'a Tensor) -> Option<Self> {
        if tensor.dtype() == DataType::DOUBLE {
            tensor.elements().map(Floats::Double)
        } else {
            tensor.to_f32().map(Floats::Single)
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Floats::Single(elements) => elements.len(),
            Floats::Double(elements) => elements.len(),
        }
    }

    /// An element; NaN beyond the last.
    pub(crate) fn get(&self, at: usize) -> f64 {
        match self {
            Floats::Single(elements) => elements.get(at).map_or(f64::NAN, |&x| f64::from(x)),
            Floats::Double(elements) => elements.get(at).copied().unwrap_or(f64::NAN),
        }
    }

    /// Shows all elements, some at a time.
    pub(crate) fn each_block(&self, mut see: impl FnMut(&[f64])) {
        let mut block = [0.0; BLOCK];
        for start in (0..self.len()).step_by(BLOCK) {
            see(self.read(start, &mut block));
        }
    }

    /// Fills `out` with the elements from `start` on and returns the part that was filled.
    pub(crate) fn read<'b>(&self, start: usize, out: &'b mut [f64]) -> &'b mut [f64] {
        let start = start.min(self.len());
        let count = out.len().min(self.len() - start);
        let out = &mut out[..count];
        match self {
            Floats::Single(elements) => {
                for (out, &x) in out.iter_mut().zip(&elements[start..]) {
                    *out = f64::from(x);
                }
            }
            Floats::Double(elements) => out.copy_from_slice(&elements[start..start + count]),
        }
        out
    }
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

/// What the figures of one part on one sample are made of.
#[derive(Default)]
struct Sums {
    /// Errors below this do not count as resolved.
    floor: f64,
    /// Positions where both are finite.
    finite: u64,
    max_abs: f64,
    /// Σ |ref − cand|
    abs: f64,
    /// Σ (ref − cand)²
    noise: f64,
    /// The same of errors that are resolved.
    resolved: f64,
    /// Σ ref²
    signal: f64,
    /// Σ cand²
    power: f64,
    /// Σ ref·cand
    dot: f64,
    /// Finite positions that are not close.
    outside: f64,
    new_non_finite: u64,
    changed_non_finite: u64,
}

impl Sums {
    fn above(floor: f64) -> Self {
        Sums { floor, ..Sums::default() }
    }

    fn merge(&mut self, other: &Sums) {
        self.finite += other.finite;
        self.max_abs = higher(self.max_abs, other.max_abs);
        self.abs += other.abs;
        self.noise += other.noise;
        self.resolved += other.resolved;
        self.signal += other.signal;
        self.power += other.power;
        self.dot += other.dot;
        self.outside += other.outside;
        self.new_non_finite += other.new_non_finite;
        self.changed_non_finite += other.changed_non_finite;
    }

    fn add_non_finite(&mut self, r: f64, c: f64) {
        if r.is_finite() {
            self.new_non_finite += 1;
        } else if !(r == c || r.is_nan() && c.is_nan()) {
            self.changed_non_finite += 1;
        }
    }

    /// The figures of a part; `rows` as [`softmax_rows`] gives them.
    fn figures(&self, part: Option<&Part>, rows: Option<(f64, f64)>) -> PartFigures {
        let ratio = |noise: f64| self.ratio(noise, part, rows);
        let gone = self.finite == 0 && self.new_non_finite > 0;
        let overflow = self.signal.is_infinite() && self.noise.is_infinite();
        let (plain_db, resolved_db) = if gone || overflow || self.noise.is_nan() {
            (f64::NAN, Some(f64::NAN))
        } else {
            (ratio(self.noise), (self.resolved > 0.0).then(|| ratio(self.resolved)))
        };
        PartFigures {
            elements: self.finite + self.new_non_finite,
            plain_db,
            resolved_db,
            max_abs_error: self.max_abs,
        }
    }

    /// Signal to noise, in dB: of a part with few elements, the signal is at least a hundredth of
    /// what is usual; of probabilities, errors are held against [`PROBABILITY_SCALE`] as well.
    fn ratio(&self, noise: f64, part: Option<&Part>, rows: Option<(f64, f64)>) -> f64 {
        let Some(part) = part else { return sqnr_db(self.signal, noise) };
        let count = self.finite as f64;
        if part.peak == 0.0 && self.max_abs <= NOTHING {
            return f64::INFINITY;
        }
        let usual = if self.finite < FEW { count * (part.rms * LEAST_OF_FEW).powi(2) } else { 0.0 };
        let plain = sqnr_db(self.signal.max(usual), noise);
        if !part.probability || noise == 0.0 {
            return plain;
        }
        // One wrong score among thousands of zeros is not averaged away.
        let (mean, most) = match rows {
            Some((rows, most)) => (noise / rows.max(1.0), most),
            None => (noise / count.max(1.0), self.max_abs.powi(2)),
        };
        plain.max(10.0 * (PROBABILITY_SCALE.powi(2) / (mean * most).sqrt()).log10())
    }

    fn add(&mut self, originals: &[f64], candidates: &[f64], close: Tolerance) {
        let mut lanes = Lanes { floor: self.floor, ..Lanes::default() };
        let (blocks, rest) = originals.as_chunks::<LANES>();
        let (candidate_blocks, candidate_rest) = candidates.as_chunks::<LANES>();
        for (originals, candidates) in blocks.iter().zip(candidate_blocks) {
            for lane in 0..LANES {
                lanes.add(lane, originals[lane], candidates[lane], close);
            }
        }
        for (lane, (&r, &c)) in rest.iter().zip(candidate_rest).enumerate() {
            lanes.add(lane, r, c, close);
        }
        self.finite += originals.len() as u64;
        self.max_abs = lanes.max_abs.into_iter().fold(self.max_abs, f64::max);
        self.abs += lanes.abs.iter().sum::<f64>();
        self.noise += lanes.noise.iter().sum::<f64>();
        self.resolved += lanes.resolved.iter().sum::<f64>();
        self.signal += lanes.signal.iter().sum::<f64>();
        self.power += lanes.power.iter().sum::<f64>();
        self.dot += lanes.dot.iter().sum::<f64>();
        self.outside += lanes.outside.iter().sum::<f64>();
    }
}

#[derive(Default)]
struct Lanes {
    floor: f64,
    max_abs: [f64; LANES],
    resolved: [f64; LANES],
    abs: [f64; LANES],
    noise: [f64; LANES],
    signal: [f64; LANES],
    power: [f64; LANES],
    dot: [f64; LANES],
    outside: [f64; LANES],
}

impl Lanes {
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "the loop around it is only vectorised inline")]
    fn add(&mut self, lane: usize, r: f64, c: f64, close: Tolerance) {
        let error = (r - c).abs();
        let size = r.abs();
        self.max_abs[lane] = if error > self.max_abs[lane] { error } else { self.max_abs[lane] };
        self.abs[lane] += error;
        self.noise[lane] += error * error;
        self.resolved[lane] += if error >= self.floor { error * error } else { 0.0 };
        self.signal[lane] += r * r;
        self.power[lane] += c * c;
        self.dot[lane] += r * c;
        self.outside[lane] += if error <= close.atol + close.rtol * size { 0.0 } else { 1.0 };
    }
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;
    use half::{bf16, f16};
    use modelopt_graph::Element;
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
