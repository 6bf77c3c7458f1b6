//! The sums that figures of float outputs are made of.

use crate::figures::{higher, share, sqnr_db};
use crate::parity::Tolerance;
use crate::profile::{FEW, LEAST_OF_FEW, PROBABILITY_SCALE, Part};

/// Independent accumulators, so that the compiler can use vector registers.
const LANES: usize = 4;
/// What may stand where the original has nothing but zeros.
const NOTHING: f64 = 1e-6;

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

/// What the figures of one part on one sample are made of.
#[derive(Default)]
pub(crate) struct Sums {
    /// Errors below this do not count as resolved.
    pub(crate) floor: f64,
    /// Positions where both are finite.
    pub(crate) finite: u64,
    pub(crate) max_abs: f64,
    /// Σ |ref − cand|
    pub(crate) abs: f64,
    /// Σ (ref − cand)²
    pub(crate) noise: f64,
    /// The same of errors that are resolved.
    pub(crate) resolved: f64,
    /// Σ ref²
    pub(crate) signal: f64,
    /// Σ cand²
    pub(crate) power: f64,
    /// Σ ref·cand
    pub(crate) dot: f64,
    /// Finite positions that are not close.
    pub(crate) outside: f64,
    pub(crate) new_non_finite: u64,
    pub(crate) changed_non_finite: u64,
}

impl Sums {
    pub(crate) fn above(floor: f64) -> Self {
        Sums { floor, ..Sums::default() }
    }

    /// `Σ ref·cand / √(Σ ref² · Σ cand²)`.
    pub(crate) fn cosine(&self) -> f64 {
        if self.noise == 0.0 {
            return 1.0;
        }
        // Two roots, because the product of the squares would overflow first.
        let lengths = self.signal.sqrt() * self.power.sqrt();
        share(self.dot, lengths).clamp(-1.0, 1.0)
    }

    pub(crate) fn merge(&mut self, other: &Sums) {
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

    pub(crate) fn add_non_finite(&mut self, r: f64, c: f64) {
        if r.is_finite() {
            self.new_non_finite += 1;
        } else if !(r == c || r.is_nan() && c.is_nan()) {
            self.changed_non_finite += 1;
        }
    }

    /// The figures of a part; `rows` as the number of rows that sum up to 1 and the
    /// largest sum of squared errors of any, if they do.
    pub(crate) fn figures(&self, part: Option<&Part>, rows: Option<(f64, f64)>) -> PartFigures {
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

    pub(crate) fn add(&mut self, originals: &[f64], candidates: &[f64], close: Tolerance) {
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
