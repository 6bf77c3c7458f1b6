//! What the outputs of the original are like on all samples: which of their elements belong
//! together, how large those are, and what a candidate's errors are held against.
//!
//! An output is one *part* unless its elements differ by orders of magnitude. They may do so by
//! *index* (rows of boxes above rows of scores) or by *value* (elements that stand for "never",
//! such as −10⁹ in a mask). Judged together, the large ones would hide what becomes of the small
//! ones. `docs/judging.md` has the formulas and their reasons.

mod bands;
mod index;
mod part;
mod rows;

use std::ops::Range;

use indexmap::IndexMap;
use modelopt_graph::{DataType, Tensor};

use crate::elements::Floats;
use crate::origin::Origins;
use crate::parity::Parity;
use bands::Spectrum;
pub(crate) use bands::{Band, band_of};
use index::Axes;
use part::TELLING;
pub(crate) use part::{FEW, LEAST_OF_FEW, PROBABILITY_SCALE, Part};
pub(crate) use rows::{Rows, fibers};

/// A margin of more than this many times the error that a limit allows is a decision.
const MARGINS: f64 = 4.0;

/// A margin below this is never a decision: where a Softmax is undecided its errors are largest,
/// however small they are in all.
const LEAST_MARGIN: f64 = 0.2;

/// From here on an output is the same when the original runs again: other threads and kernels leave
/// so much of float32.
const STEADY_DB: f64 = 60.0;

/// What the outputs of the original are like on all samples.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    outputs: IndexMap<String, OutputProfile>,
    origins: Origins,
    samples: usize,
    decided_beyond: f64,
    /// How close outputs are to themselves when the original runs again, in dB, where that is not
    /// close to equal.
    itself_db: IndexMap<String, f64>,
}

/// What one output is like.
#[derive(Clone, Debug, Default)]
pub(crate) struct OutputProfile {
    /// Parts by index, in the order of their first index; one if they are not told apart.
    pub(crate) parts: Vec<Part>,
    /// The axis that parts are told apart along.
    axis: Option<usize>,
    /// Whether it is NaN throughout, on all samples.
    pub(crate) is_nan: bool,
    /// Elements that stand apart by their value, the smallest first.
    pub(crate) bands: Vec<Band>,
    /// Where something is chosen among elements.
    pub(crate) rows: Vec<Rows>,
}

impl Profile {
    /// Looks at what the original makes of `samples` samples; `show` is asked for each of them
    /// three times.
    ///
    /// # Errors
    /// The first that `show` gives.
    pub fn of<E>(
        origins: Origins,
        samples: usize,
        mut show: impl FnMut(usize, &mut dyn FnMut(&IndexMap<String, Tensor>)) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut spectra: IndexMap<String, Spectrum> = IndexMap::new();
        each_float(samples, &mut show, &mut |name, tensor, floats| {
            spectra.entry(name.to_owned()).or_default().add(tensor.shape(), floats);
        })?;
        let mut found: IndexMap<String, Found> = spectra
            .into_iter()
            .map(|(name, spectrum)| {
                let (bands, is_nan) = (spectrum.bands(), spectrum.is_nan());
                let dtype = DataType::UNDEFINED;
                (name, Found { bands, is_nan, dtype, axes: Axes::default() })
            })
            .collect();
        each_float(samples, &mut show, &mut |name, tensor, floats| {
            if let Some(found) = found.get_mut(name) {
                found.dtype = tensor.dtype();
                found.axes.add(tensor.shape(), floats, &found.bands);
            }
        })?;
        let mut profiles: IndexMap<String, OutputProfile> = found
            .into_iter()
            .map(|(name, found)| {
                let made = origins.are_probabilities(&name);
                let profile = found.profile(&name, made);
                (name, profile)
            })
            .collect();
        each_float(samples, &mut show, &mut |name, tensor, floats| {
            if let Some(profile) = profiles.get_mut(name) {
                for rows in &mut profile.rows {
                    rows.look(tensor.shape(), floats, &profile.bands);
                }
            }
        })?;
        for profile in profiles.values_mut() {
            let rms = profile.parts.iter().map(|part| part.rms).fold(0.0, f64::max);
            profile.rows.iter_mut().for_each(|rows| rows.settle(rms));
        }
        let (decided_beyond, itself_db) = (margin(None), IndexMap::new());
        Ok(Profile { outputs: profiles, origins, samples, decided_beyond, itself_db })
    }

    /// The profile for a limit on the SQNR, in dB, which says how much of a margin an error that is
    /// allowed can take.
    #[must_use]
    pub fn within(mut self, min_sqnr_db: Option<f64>) -> Self {
        self.decided_beyond = margin(min_sqnr_db);
        self
    }

    /// Takes in how close the original's outputs are to themselves in another run: what differs by
    /// itself cannot be judged more closely than that.
    #[must_use]
    pub fn beside_itself(mut self, again: &Parity) -> Self {
        let floats =
            again.outputs.iter().filter_map(|output| Some((output, output.float.as_ref()?)));
        let unsteady = floats.filter(|(_, float)| float.sqnr_db < STEADY_DB);
        self.itself_db =
            unsteady.map(|(output, float)| (output.name.clone(), float.sqnr_db)).collect();
        self
    }

    /// Outputs that differ from themselves when the original runs again, with how close they are,
    /// in dB.
    pub fn unsteady(&self) -> impl Iterator<Item = (&str, f64)> {
        self.itself_db.iter().map(|(name, db)| (name.as_str(), *db))
    }

    /// Names of values that are judged beside the outputs: see [`Origins::witnesses`].
    pub fn witnesses(&self) -> &[String] {
        self.origins.witnesses()
    }

    /// Margins above this, relative to the size of what is chosen among, are decisions.
    pub(crate) fn decided_beyond(&self) -> f64 {
        self.decided_beyond
    }

    /// How many samples there are in all.
    pub(crate) fn samples(&self) -> usize {
        self.samples
    }

    /// Where outputs come from.
    pub(crate) fn origins(&self) -> &Origins {
        &self.origins
    }

    /// What one output is like; none if it is not of floats.
    pub(crate) fn output(&self, name: &str) -> Option<&OutputProfile> {
        self.outputs.get(name)
    }
}

/// How much of a margin errors can take that a limit of parity allows: four times their share of
/// what there is, `4 · 10^(−dB/20)`, and at least 0.2. 0.4 at 20 dB, which also stands for "no limit".
pub fn margin(min_sqnr_db: Option<f64>) -> f64 {
    let limit = min_sqnr_db.filter(|limit| limit.is_finite()).unwrap_or(20.0);
    (MARGINS * 10f64.powf(-limit / 20.0)).max(LEAST_MARGIN)
}

/// Shows all float outputs of all samples.
fn each_float<E>(
    samples: usize,
    show: &mut impl FnMut(usize, &mut dyn FnMut(&IndexMap<String, Tensor>)) -> Result<(), E>,
    see: &mut dyn FnMut(&str, &Tensor, &Floats<'_>),
) -> Result<(), E> {
    for sample in 0..samples {
        show(sample, &mut |outputs| {
            for (name, tensor) in outputs {
                if let Some(floats) = Floats::of(tensor) {
                    see(name, tensor, &floats);
                }
            }
        })?;
    }
    Ok(())
}

/// What two looks at an output told.
struct Found {
    bands: Vec<Band>,
    is_nan: bool,
    dtype: DataType,
    axes: Axes,
}

impl Found {
    fn profile(self, name: &str, made: bool) -> OutputProfile {
        let Found { bands, is_nan, dtype, axes } = self;
        let cut = axes.cut(made);
        let axis = cut.as_ref().map(|cut| cut.axis);
        let part = |name: String, ranges: Vec<Range<usize>>, all: index::Slice| {
            let inside = all.within_one();
            Part {
                name,
                ranges,
                probability: inside && (made || all.peak >= TELLING),
                peak: all.peak,
                rms: all.rms(),
                floor: floor(all.peak, dtype),
            }
        };
        let parts: Vec<Part> = match &cut {
            Some(cut) => cut
                .groups
                .iter()
                .map(|group| {
                    let label = index::label(name, cut.axis, &group.ranges);
                    part(label, group.ranges.clone(), group.all)
                })
                .collect(),
            None => vec![part(name.to_owned(), Vec::new(), axes.all())],
        };
        let rows = Rows::of(axes.shape(), axis, &parts);
        OutputProfile { parts, axis, is_nan, bands, rows }
    }
}

/// Four units in the last place of a type at the binary magnitude of `peak`: two binary digits above
/// the last. 0 for types whose rounding is part of what is judged.
fn floor(peak: f64, dtype: DataType) -> f64 {
    let digits = match dtype {
        DataType::FLOAT => 21,
        DataType::DOUBLE => 50,
        _ => return 0.0,
    };
    if peak > 0.0 && peak.is_finite() {
        peak.log2().floor().exp2() / 2f64.powi(digits)
    } else {
        0.0
    }
}

impl OutputProfile {
    /// An output of which nothing is known: one part, and nothing apart.
    pub(crate) fn unknown(name: &str) -> Self {
        let part = Part {
            name: name.to_owned(),
            ranges: Vec::new(),
            probability: false,
            peak: f64::INFINITY,
            rms: 0.0,
            floor: 0.0,
        };
        OutputProfile { parts: vec![part], ..OutputProfile::default() }
    }

    /// How elements of a shape belong to parts: the length after which this repeats, and within
    /// that the parts with their elements.
    pub(crate) fn runs(&self, shape: &[usize]) -> (usize, Vec<(usize, Range<usize>)>) {
        let total: usize = shape.iter().product();
        let Some(&size) = self.axis.and_then(|axis| shape.get(axis)) else {
            return (total, vec![(0, 0..total)]);
        };
        let axis = self.axis.unwrap_or_default();
        let inner: usize = shape[axis + 1..].iter().product();
        let mut runs: Vec<(usize, Range<usize>)> = Vec::new();
        for (place, part) in self.parts.iter().enumerate() {
            for range in &part.ranges {
                runs.push((place, range.start * inner..range.end.min(size) * inner));
            }
        }
        runs.sort_by_key(|(_, range)| range.start);
        (size * inner, runs)
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use std::convert::Infallible;

    use super::*;

    /// The profile of outputs that are at hand.
    pub(crate) fn profile_of(outputs: &[IndexMap<String, Tensor>]) -> Profile {
        Profile::of(Origins::default(), outputs.len(), |sample, see| {
            see(&outputs[sample]);
            Ok::<_, Infallible>(())
        })
        .unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::testing::profile_of;
    use super::*;

    fn outputs(shape: &[usize], values: &[f32]) -> IndexMap<String, Tensor> {
        [("y".to_owned(), Tensor::of(shape.to_vec(), values).unwrap())].into()
    }

    /// Boxes in pixels above scores: 4 rows and 3.
    fn head() -> Vec<f32> {
        let row = |row: usize, column: usize| match row {
            0..=3 => 100.0 + (row * 50 + column * 7) as f32,
            _ => [0.9, 0.02, 0.3, 0.001, 0.6][(row * 3 + column) % 5],
        };
        (0..7).flat_map(|r| (0..5).map(move |c| row(r, c))).collect()
    }

    #[test]
    fn boxes_and_scores_are_two_parts_with_names() {
        let profile = profile_of(&[outputs(&[1, 7, 5], &head())]);
        let output = profile.output("y").unwrap();
        let names: Vec<&str> = output.parts.iter().map(|part| part.name.as_str()).collect();
        assert_eq!(names, ["y[:, 0:4]", "y[:, 4:7]"]);
        assert!(!output.parts[0].probability && output.parts[1].probability);
        assert_eq!(output.runs(&[2, 7, 5]), (35, vec![(0, 0..20), (1, 20..35)]));
    }

    #[test]
    fn an_ordinary_output_is_one_part() {
        let values: Vec<f32> = (0..64).map(|i| (i as f32 * 0.7).sin() * 3.0).collect();
        let profile = profile_of(&[outputs(&[4, 16], &values)]);
        let output = profile.output("y").unwrap();
        assert_eq!((output.parts.len(), output.bands.len()), (1, 0));
        assert_eq!(output.parts[0].name, "y");
        assert!(!output.parts[0].probability);
        assert_eq!(output.runs(&[4, 16]), (64, vec![(0, 0..64)]));
    }

    #[test]
    fn small_numbers_between_zero_and_one_are_no_probabilities() {
        let values: Vec<f32> = (0..32).map(|i| (i % 7) as f32 * 0.01).collect();
        let profile = profile_of(&[outputs(&[2, 16], &values)]);
        assert!(!profile.output("y").unwrap().parts[0].probability);
    }

    #[test]
    fn a_stricter_limit_decides_more() {
        assert!((margin(Some(20.0)) - 0.4).abs() < 1e-12);
        assert!((margin(Some(10.0)) - 1.2649).abs() < 1e-3);
        assert!((margin(Some(40.0)) - 0.2).abs() < 1e-12);
        assert!((margin(None) - 0.4).abs() < 1e-12);
    }

    #[test]
    fn what_a_type_resolves_depends_on_the_peak() {
        assert_eq!(floor(1.5, DataType::FLOAT), 2f64.powi(-21));
        assert_eq!(floor(640.0, DataType::FLOAT), 2f64.powi(9 - 21));
        assert_eq!((floor(1.0, DataType::FLOAT16), floor(0.0, DataType::FLOAT)), (0.0, 0.0));
    }
}
