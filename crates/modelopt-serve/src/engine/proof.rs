//! Whether requests may share a run of a model: only where a row is answered in a batch as it is alone.
//!
//! A model may take any number of rows and still mix them: by a mean over the batch, by a scale that is
//! chosen for the whole tensor, by an index into it. So rows are run alone and together, and compared.

use modelopt_graph::{DataType, Tensor};
use modelopt_runtime::{Outputs, Session};

use super::rows::{Tensors, alike, rows_of, split, stack};
use crate::{Dimension, Signature, TensorSpec};

/// Rows that are looked at; more say little more.
const MOST_ROWS: usize = 8;

/// How batches are checked.
#[derive(Clone, Debug, PartialEq)]
pub struct ProofOptions {
    /// Numbers of rows to run together.
    pub sizes: Vec<usize>,
    /// Largest difference that counts as none, relative to the root mean square of the output. 0 for the
    /// same to the last bit.
    pub tolerance: f64,
}

impl ProofOptions {
    /// Powers of two up to a size, and the size itself.
    pub fn up_to(most: usize, tolerance: f64) -> Self {
        let powers = std::iter::successors(Some(2usize), |size| size.checked_mul(2));
        let mut sizes: Vec<usize> = powers.take_while(|&size| size < most).collect();
        if most > 1 {
            sizes.push(most);
        }
        ProofOptions { sizes, tolerance }
    }
}

/// That rows do not depend on each other, as far as was tried.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// Largest difference between a row in a batch and the same alone, relative to the root mean square of
    /// its output.
    pub largest_difference: f64,
    /// The numbers of rows that were run together.
    pub sizes: Vec<usize>,
    /// How many rows were compared.
    pub rows: usize,
}

/// Why requests may not share a run.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Objection {
    /// Nobody wants it.
    #[error("batching is switched off")]
    SwitchedOff,
    /// It always has so many rows, or none.
    #[error("the first dimension of '{0}' is not free")]
    NotFree(String),
    /// Its first dimension is the size of something else, too.
    #[error("the first dimension of '{tensor}' is '{dimension}', which is another dimension, too")]
    Shared {
        /// Input or output.
        tensor: String,
        /// Name of the dimension.
        dimension: String,
    },
    /// There is nothing to compare.
    #[error("there are no two different rows to compare")]
    TooFewRows,
    /// A row could not be run alone, or rows not together.
    #[error("{rows} rows do not run: {said}")]
    DoesNotRun {
        /// How many rows.
        rows: usize,
        /// What the runtime said.
        said: String,
    },
    /// An output has not one row for each row of the inputs.
    #[error("outputs do not have {0} rows for {0} rows of inputs")]
    NoRows(usize),
    /// Rows mix.
    #[error(
        "output '{output}' of a row differs by {difference:.1e} of its root mean square in a batch of {rows}"
    )]
    Mixes {
        /// Output.
        output: String,
        /// How many rows ran together.
        rows: usize,
        /// By how much, relative to the root mean square.
        difference: f64,
    },
    /// Answers depend on how many rows run together, though not on what the other rows are: the runtime
    /// computes in another order, and the model makes much of the last bits of these rows. Real samples
    /// may tell otherwise than invented ones.
    #[error(
        "output '{output}' of a row differs by {difference:.1e} of its root mean square in a batch of \
         {rows}, whatever the other rows are"
    )]
    Noisy {
        /// Output.
        output: String,
        /// How many rows ran together.
        rows: usize,
        /// By how much, relative to the root mean square.
        difference: f64,
    },
}

/// Compares rows of samples in batches with the same alone.
///
/// # Errors
/// Why requests may not share a run.
pub fn prove_batching(
    session: &mut dyn Session,
    signature: &Signature,
    samples: &[Tensors],
    options: &ProofOptions,
) -> Result<Evidence, Objection> {
    let mut run = |inputs: &Tensors| session.run(inputs).map_err(|error| error.without_path());
    prove(&mut run, signature, samples, options)
}

/// The same with whatever runs the model.
pub(crate) fn prove(
    run: &mut dyn FnMut(&Tensors) -> Result<Outputs, String>,
    signature: &Signature,
    samples: &[Tensors],
    options: &ProofOptions,
) -> Result<Evidence, Objection> {
    check_signature(signature)?;
    let rows = different_rows(samples);
    if rows.len() < 2 {
        return Err(Objection::TooFewRows);
    }
    let mut prover = Prover { run, rows: &rows, alone: Vec::new() };
    for row in &rows {
        let answer = prover.run(row, 1)?;
        prover.alone.push(answer);
    }
    let mut largest = 0f64;
    for &size in &options.sizes {
        largest = largest.max(prover.compare(size, options.tolerance)?);
    }
    Ok(Evidence { largest_difference: largest, sizes: options.sizes.clone(), rows: rows.len() })
}

/// Rows, and what they are answered alone.
struct Prover<'a> {
    run: &'a mut dyn FnMut(&Tensors) -> Result<Outputs, String>,
    rows: &'a [Tensors],
    alone: Vec<Outputs>,
}

impl Prover<'_> {
    fn run(&mut self, inputs: &Tensors, rows: usize) -> Result<Outputs, Objection> {
        (self.run)(inputs).map_err(|said| Objection::DoesNotRun { rows, said })
    }

    /// The outputs of these rows in one batch, for each.
    fn together(&mut self, places: &[usize]) -> Result<Vec<Outputs>, Objection> {
        let size = places.len();
        let parts: Vec<&Tensors> = places.iter().filter_map(|&at| self.rows.get(at)).collect();
        let batch = stack(&parts).ok_or(Objection::NoRows(size))?;
        let outputs = self.run(&batch, size)?;
        split(&outputs, &vec![1; size]).ok_or(Objection::NoRows(size))
    }

    /// The largest difference in batches of this size.
    fn compare(&mut self, size: usize, tolerance: f64) -> Result<f64, Objection> {
        let places: Vec<usize> = (0..size).map(|at| at % self.rows.len()).collect();
        let apart = self.together(&places)?;
        let mut largest = 0f64;
        for (place, part) in apart.iter().enumerate() {
            for (output, difference) in self.differences(place % self.rows.len(), part) {
                if difference > tolerance {
                    return Err(if self.depends_on_others(&places, place, part)? {
                        Objection::Mixes { output, rows: size, difference }
                    } else {
                        Objection::Noisy { output, rows: size, difference }
                    });
                }
                largest = largest.max(difference);
            }
        }
        Ok(largest)
    }

    /// How far each output of a row is from the same alone.
    fn differences(&self, row: usize, part: &Outputs) -> Vec<(String, f64)> {
        let expected = self.alone.get(row).into_iter().flatten();
        let found = expected.map(|(name, tensor)| {
            let all = self.alone.iter().filter_map(|outputs| outputs.get(name));
            let difference =
                part.get(name).map_or(f64::INFINITY, |other| difference(tensor, other, all));
            (name.clone(), difference)
        });
        found.collect()
    }

    /// Whether a row is answered otherwise among other rows in a batch of the same size.
    fn depends_on_others(
        &mut self,
        places: &[usize],
        place: usize,
        part: &Outputs,
    ) -> Result<bool, Objection> {
        let count = self.rows.len();
        let others = places
            .iter()
            .enumerate()
            .map(|(at, &row)| if at == place { row } else { (row + 1) % count });
        let among_others = self.together(&others.collect::<Vec<_>>())?;
        Ok(among_others.get(place) != Some(part))
    }
}

/// Batches of every size up to a largest one, made of rows of the samples.
pub(crate) fn row_batches(samples: &[Tensors], largest: usize) -> Vec<Tensors> {
    let rows = different_rows(samples);
    let batch = |size| stack(&rows.iter().cycle().take(size).collect::<Vec<_>>());
    (1..=largest).filter_map(batch).collect()
}

/// Whether what is declared allows any number of rows. What is not declared has to be seen.
fn check_signature(signature: &Signature) -> Result<(), Objection> {
    for spec in signature.inputs.iter().chain(&signature.outputs) {
        let Some(dimensions) = &spec.shape else { continue };
        match dimensions.first() {
            Some(Dimension::Named(name)) => check_shared(signature, spec, name)?,
            Some(Dimension::Any) => {}
            Some(Dimension::Fixed(_)) | None => return Err(Objection::NotFree(spec.name.clone())),
        }
    }
    Ok(())
}

/// An input that has the number of rows as another dimension would have to change with the batch.
fn check_shared(signature: &Signature, spec: &TensorSpec, name: &str) -> Result<(), Objection> {
    let elsewhere = |input: &TensorSpec| {
        let others = input.shape.iter().flat_map(|dimensions| dimensions.iter().skip(1));
        others.into_iter().any(|other| matches!(other, Dimension::Named(other) if other == name))
    };
    if signature.inputs.iter().any(elsewhere) {
        let (tensor, dimension) = (spec.name.clone(), name.to_owned());
        return Err(Objection::Shared { tensor, dimension });
    }
    Ok(())
}

/// Single rows that can share a batch, no two alike, from all samples in turn.
fn different_rows(samples: &[Tensors]) -> Vec<Tensors> {
    let apart: Vec<Vec<Tensors>> =
        samples.iter().filter_map(|sample| split(sample, &vec![1; rows_of(sample)?])).collect();
    let longest = apart.iter().map(Vec::len).max().unwrap_or(0);
    let in_turn = (0..longest).flat_map(|at| apart.iter().filter_map(move |rows| rows.get(at)));
    let mut rows: Vec<Tensors> = Vec::new();
    for row in in_turn {
        let fits = rows.first().is_none_or(|first| alike(first, row));
        if fits && !rows.contains(row) {
            rows.push(row.clone());
        }
        if rows.len() == MOST_ROWS {
            break;
        }
    }
    rows
}

/// How far two tensors are apart, relative to the root mean square of all of that output; infinitely
/// where they cannot be compared or are no floats and differ.
fn difference<'t>(
    expected: &Tensor,
    actual: &Tensor,
    all: impl Iterator<Item = &'t Tensor>,
) -> f64 {
    if expected == actual {
        return 0.0;
    }
    if (expected.dtype(), expected.shape()) != (actual.dtype(), actual.shape()) {
        return f64::INFINITY;
    }
    let (Some(expected), Some(actual)) = (floats(expected), floats(actual)) else {
        return f64::INFINITY;
    };
    let largest = expected.iter().zip(&actual).map(|(a, b)| apart(*a, *b)).fold(0.0, f64::max);
    if largest == 0.0 { 0.0 } else { largest / root_mean_square(all) }
}

fn apart(a: f64, b: f64) -> f64 {
    // Infinities have no distance from themselves.
    if a.total_cmp(&b).is_eq() || (a.is_nan() && b.is_nan()) {
        return 0.0;
    }
    let distance = (a - b).abs();
    if distance.is_nan() { f64::INFINITY } else { distance }
}

fn root_mean_square<'t>(tensors: impl Iterator<Item = &'t Tensor>) -> f64 {
    let (mut sum, mut count) = (0f64, 0usize);
    for value in tensors.filter_map(floats).flatten().filter(|value| value.is_finite()) {
        sum += value * value;
        count += 1;
    }
    (sum / count.max(1) as f64).sqrt()
}

fn floats(tensor: &Tensor) -> Option<Vec<f64>> {
    if tensor.dtype() == DataType::DOUBLE {
        return Some(tensor.elements::<f64>()?.into_owned());
    }
    Some(tensor.to_f32()?.iter().map(|&value| f64::from(value)).collect())
}

#[cfg(test)]
mod tests {
    use super::super::planted::{Planted, row, rows, signature};
    use super::*;

    fn proof(
        planted: &Planted,
        samples: &[Tensors],
        tolerance: f64,
    ) -> Result<Evidence, Objection> {
        let mut session = planted.maker().make().unwrap();
        let options = ProofOptions::up_to(8, tolerance);
        prove_batching(&mut session, &signature(), samples, &options)
    }

    fn samples() -> Vec<Tensors> {
        [1.0, -2.0, 5.0].iter().map(|value| row(&[*value, value * 3.0])).collect()
    }

    #[test]
    fn rows_that_do_not_mix_are_proven() {
        let planted = Planted::doubling();
        let evidence = proof(&planted, &samples(), 0.0).unwrap();
        let expected = Evidence { largest_difference: 0.0, sizes: vec![2, 4, 8], rows: 3 };
        assert_eq!(evidence, expected);
        assert_eq!(planted.runs(), [1, 1, 1, 2, 4, 8]);
        // Rows of one sample serve as well.
        assert_eq!(proof(&planted, &[rows(2, &[1.0, 2.0])], 0.0).unwrap().rows, 2);
    }

    #[test]
    fn a_mean_over_the_batch_is_found_out() {
        let objection = proof(&Planted::mixing(), &samples(), 1e-2).unwrap_err();
        let Objection::Mixes { output, rows, difference } = &objection else {
            panic!("{objection:?}")
        };
        assert_eq!((output.as_str(), *rows), ("y", 2));
        assert!(*difference > 0.1, "{difference}");
        // Two rows are enough to tell.
        let objection = proof(&Planted::mixing(), &samples()[..2], 1e-2).unwrap_err();
        assert!(matches!(objection, Objection::Mixes { .. }), "{objection:?}");
    }

    #[test]
    fn small_differences_are_told_and_held_to_the_tolerance() {
        // The last bits depend on how many rows there are.
        let planted = Planted::computing(|x| {
            let noise = 1.0 + 1e-5 * (x.len() as f32 - 2.0);
            x.iter().map(|x| x * noise).collect()
        });
        let evidence = proof(&planted, &samples(), 1e-2).unwrap();
        assert!((1e-5..1e-3).contains(&evidence.largest_difference), "{evidence:?}");
        // It is the size of the batch that tells, and not the other rows.
        assert!(matches!(proof(&planted, &samples(), 1e-6), Err(Objection::Noisy { .. })));
        assert!(matches!(proof(&planted, &samples(), 0.0), Err(Objection::Noisy { .. })));
    }

    #[test]
    fn numbers_that_appear_or_vanish_are_differences() {
        let planted =
            Planted::computing(|x| x.iter().map(|&x| if x > 2.0 { f32::NAN } else { x }).collect());
        assert!(proof(&planted, &samples(), 1e-3).is_ok());
        let planted = Planted::computing(|x| {
            x.iter().map(|&y| if x.len() > 2 { f32::NAN } else { y }).collect()
        });
        assert!(matches!(proof(&planted, &samples(), 1e9), Err(Objection::Noisy { .. })));
    }

    #[test]
    fn what_has_no_rows_or_does_not_run_is_no_batch() {
        let sum = Planted::computing(|x| vec![x.iter().sum()]);
        let objection = proof(&sum, &samples(), 1e-3).unwrap_err();
        assert_eq!(objection, Objection::NoRows(2));
        let refusing = Planted::doubling().refusing(5.0);
        let objection = proof(&refusing, &samples(), 1e-3).unwrap_err().to_string();
        assert_eq!(objection, "1 rows do not run: planted cannot run it: 5 is refused");
    }

    #[test]
    fn equal_rows_prove_nothing() {
        let same = vec![row(&[1.0]), row(&[1.0]), rows(2, &[1.0, 1.0])];
        assert_eq!(proof(&Planted::mixing(), &same, 1e-3), Err(Objection::TooFewRows));
        assert_eq!(proof(&Planted::doubling(), &[], 1e-3), Err(Objection::TooFewRows));
        // Rows of another width cannot share a batch.
        let mixed = vec![row(&[1.0]), row(&[1.0, 2.0])];
        assert_eq!(proof(&Planted::doubling(), &mixed, 1e-3), Err(Objection::TooFewRows));
    }

    #[test]
    fn what_is_declared_can_rule_it_out() {
        let declared = |change: fn(&mut Signature)| {
            let mut signature = signature();
            change(&mut signature);
            check_signature(&signature)
        };
        assert_eq!(declared(|_| ()), Ok(()));
        assert_eq!(declared(|signature| signature.outputs[0].shape = None), Ok(()));
        let fixed = declared(|signature| {
            signature.outputs[0].shape = Some(vec![Dimension::Fixed(1), Dimension::Any]);
        });
        assert_eq!(fixed, Err(Objection::NotFree("y".to_owned())));
        let scalar = declared(|signature| signature.inputs[0].shape = Some(Vec::new()));
        assert_eq!(scalar, Err(Objection::NotFree("x".to_owned())));
        let square = declared(|signature| {
            let n = || Dimension::Named("n".to_owned());
            signature.inputs[0].shape = Some(vec![n(), n()]);
        });
        assert!(matches!(square, Err(Objection::Shared { .. })));
    }

    #[test]
    fn batches_of_all_sizes_are_made_of_few_rows() {
        let batches = row_batches(&samples(), 5);
        let sizes: Vec<usize> = batches.iter().map(|batch| batch["x"].shape()[0]).collect();
        assert_eq!(sizes, [1, 2, 3, 4, 5]);
        assert_eq!(batches[4]["x"].to_f32().unwrap()[6..8], [1.0, 3.0]);
        assert!(row_batches(&[], 5).is_empty());
    }

    #[test]
    fn sizes_go_up_to_the_largest() {
        let sizes = |most| ProofOptions::up_to(most, 0.0).sizes;
        assert_eq!(
            [sizes(0), sizes(1), sizes(2), sizes(6)],
            [vec![], vec![], vec![2], vec![2, 4, 6]]
        );
    }
}
