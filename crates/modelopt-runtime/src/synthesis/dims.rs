//! Sizes for the dimensions a model leaves open.

use std::collections::HashMap;

use indexmap::IndexMap;
use modelopt_graph::{DataType, Dim};

use super::cache;
use crate::InputSpec;

const SEQUENCE: usize = 32;
const PICTURE: usize = 224;
const OTHER: usize = 16;

/// Names that exporters give to any size they do not know, so that equal names do not mean equal
/// sizes.
const NO_NAMES: [&str; 4] = ["", "?", "-1", "None"];

/// The sizes chosen for a model: a symbol has the same size wherever it occurs.
pub(super) struct Sizes {
    by_symbol: HashMap<String, usize>,
    by_axis: HashMap<String, usize>,
}

/// What a dimension looks like, most telling first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Guess {
    Given(usize),
    Batch,
    Sequence,
    Channels,
    Picture,
    Leading,
    Other,
}

impl Guess {
    fn size(self) -> usize {
        match self {
            Guess::Given(size) => size,
            Guess::Batch | Guess::Leading => 1,
            Guess::Sequence => SEQUENCE,
            Guess::Channels => 3,
            Guess::Picture => PICTURE,
            Guess::Other => OTHER,
        }
    }
}

/// A size that nobody gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Open {
    /// How `--dim` names it.
    pub(super) name: String,
    pub(super) guess: Guess,
}

/// The sizes that a model leaves open and that are not given, in the order of the inputs. Sums of
/// others are none.
pub(super) fn open(specs: &[InputSpec], given: &IndexMap<String, usize>) -> Vec<Open> {
    let guesses = guesses(specs, given);
    let mut found: Vec<Open> = Vec::new();
    for spec in specs {
        let dims = spec.ty.shape().map_or(&[][..], Vec::as_slice);
        for (axis, dim) in dims.iter().enumerate() {
            let axis_name = axis_name(&spec.name, axis);
            if dim.fixed().is_some() || given.contains_key(&axis_name) {
                continue;
            }
            let (name, guess) = match symbol_of(dim) {
                Some(symbol) if sum(symbol, &guesses, given).is_some() => continue,
                Some(symbol) => {
                    let Some(&guess) = guesses.get(symbol) else { continue };
                    (symbol.to_owned(), guess)
                }
                None => (axis_name, guess(spec, dims, axis, "")),
            };
            let known = found.iter().any(|open| open.name == name);
            if !known && !matches!(guess, Guess::Given(_)) {
                found.push(Open { name, guess });
            }
        }
    }
    found
}

/// The name of a size, if it says which sizes are the same.
fn symbol_of(dim: &Dim) -> Option<&str> {
    match dim {
        Dim::Symbol(symbol) if !NO_NAMES.contains(&symbol.as_str()) => Some(symbol),
        _ => None,
    }
}

/// The most telling guess for each symbol.
fn guesses<'a>(specs: &'a [InputSpec], given: &IndexMap<String, usize>) -> HashMap<&'a str, Guess> {
    let mut guesses: HashMap<&str, Guess> = HashMap::new();
    for spec in specs {
        let dims = spec.ty.shape().map_or(&[][..], Vec::as_slice);
        for (axis, dim) in dims.iter().enumerate() {
            let Some(symbol) = symbol_of(dim) else { continue };
            if given.contains_key(&axis_name(&spec.name, axis)) {
                continue;
            }
            let guess = match given.get(symbol) {
                Some(&size) => Guess::Given(size),
                None => guess(spec, dims, axis, symbol),
            };
            let known = guesses.entry(symbol).or_insert(guess);
            *known = guess.min(*known);
        }
    }
    guesses
}

impl Sizes {
    pub(super) fn choose(specs: &[InputSpec], given: &IndexMap<String, usize>) -> Self {
        let guesses = guesses(specs, given);
        let mut by_axis = HashMap::new();
        for spec in specs {
            let dims = spec.ty.shape().map_or(&[][..], Vec::as_slice);
            for (axis, dim) in dims.iter().enumerate() {
                let name = axis_name(&spec.name, axis);
                if let Some(&size) = given.get(&name) {
                    by_axis.insert(name, size);
                } else if dim.fixed().is_none() && symbol_of(dim).is_none() {
                    by_axis.insert(name, guess(spec, dims, axis, "").size());
                }
            }
        }
        let mut by_symbol: HashMap<String, usize> =
            guesses.iter().map(|(symbol, guess)| ((*symbol).to_owned(), guess.size())).collect();
        for (&symbol, guess) in &guesses {
            if matches!(guess, Guess::Given(_)) {
                continue;
            }
            let sum = sum(symbol, &guesses, given);
            if let Some(size) = sum.or_else(|| cache::total(symbol, specs, &by_symbol)) {
                by_symbol.insert(symbol.to_owned(), size);
            }
        }
        Sizes { by_symbol, by_axis }
    }

    /// The size of a dimension, by the name that `--dim` gives it.
    pub(super) fn of(&self, name: &str) -> Option<usize> {
        self.by_axis.get(name).or_else(|| self.by_symbol.get(name)).copied()
    }

    /// The concrete shape of an input.
    pub(super) fn shape(&self, input: &str, dims: &[Dim]) -> Vec<usize> {
        let size = |(axis, dim): (usize, &Dim)| {
            let by_axis = || self.by_axis.get(&axis_name(input, axis)).copied();
            match (dim.fixed(), symbol_of(dim)) {
                (Some(size), _) => size,
                (None, Some(symbol)) => {
                    by_axis().or_else(|| self.by_symbol.get(symbol).copied()).unwrap_or(OTHER)
                }
                (None, None) => by_axis().unwrap_or(OTHER),
            }
        };
        dims.iter().enumerate().map(size).collect()
    }
}

/// How `--dim` names a dimension that has no name.
pub(super) fn axis_name(input: &str, axis: usize) -> String {
    format!("{input}.{axis}")
}

fn guess(spec: &InputSpec, dims: &[Dim], axis: usize, symbol: &str) -> Guess {
    let symbol = symbol.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| symbol.contains(word));
    let picture = picture_axes(dims).contains(&Some(axis));
    let state = is_state(&spec.name) && dims.len() == 3 && axis == 1;
    let first = axis == 0 && (symbol.is_empty() || dims.len() == 4);
    if says(&["batch"]) || ["n", "b", "bs", "bsz"].contains(&symbol.as_str()) || state || first {
        Guess::Batch
    } else if says(&["seq", "len", "time", "token", "frame", "step"]) && !picture {
        Guess::Sequence
    } else if picture {
        Guess::Picture
    } else if dims.len() == 4 && axis == 1 && spec.ty.elem() == Some(DataType::FLOAT) {
        Guess::Channels
    } else if axis == 0 && dims.len() > 1 {
        Guess::Leading
    } else {
        Guess::Other
    }
}

/// Height and width of rank-4 inputs: the last two axes, or the two before channels at the end.
fn picture_axes(dims: &[Dim]) -> [Option<usize>; 2] {
    let channels = |dim: &Dim| dim.fixed().is_some_and(|size| [1, 3, 4].contains(&size));
    match dims {
        [_, first, _, last] if channels(last) && !channels(first) => [Some(1), Some(2)],
        [_, _, _, _] => [Some(2), Some(3)],
        _ => [None, None],
    }
}

/// Whether an input looks like the state of a recurrent layer: `[layers, batch, units]`.
fn is_state(name: &str) -> bool {
    let name = name.to_lowercase();
    ["state", "hidden", "cell"].iter().any(|word| name.contains(word))
        || ["h", "c", "h0", "c0", "h_0", "c_0"].contains(&name.as_str())
}

/// The size of a symbol that is a sum of symbols and numbers, such as `past_length + length`.
fn sum(
    symbol: &str,
    guesses: &HashMap<&str, Guess>,
    given: &IndexMap<String, usize>,
) -> Option<usize> {
    if !symbol.contains('+') {
        return None;
    }
    symbol.split('+').map(str::trim).try_fold(0usize, |total, part| {
        let size = part
            .parse()
            .ok()
            .or_else(|| given.get(part).copied())
            .or_else(|| guesses.get(part).map(|guess| guess.size()))?;
        total.checked_add(size)
    })
}

#[cfg(test)]
mod tests {
    use modelopt_graph::Type;

    use super::*;

    fn shapes(inputs: &[(&str, &str)], given: &[(&str, usize)]) -> Vec<Vec<usize>> {
        let specs: Vec<_> = inputs
            .iter()
            .map(|(name, dims)| {
                let dim = |text: &str| match text.parse() {
                    Ok(size) => Dim::Fixed(size),
                    Err(_) if text == "?" => Dim::Unknown,
                    Err(_) => Dim::Symbol(text.to_owned()),
                };
                let shape = Some(dims.split_terminator(',').map(dim).collect());
                InputSpec {
                    name: (*name).to_owned(),
                    ty: Type::Tensor { elem: DataType::FLOAT, shape },
                }
            })
            .collect();
        let given = given.iter().map(|&(name, size)| (name.to_owned(), size)).collect();
        let sizes = Sizes::choose(&specs, &given);
        specs.iter().map(|spec| sizes.shape(&spec.name, spec.ty.shape().unwrap())).collect()
    }

    #[test]
    fn names_and_places_suggest_sizes() {
        assert_eq!(shapes(&[("x", "batch,sequence")], &[]), [[1, 32]]);
        assert_eq!(shapes(&[("x", "D.0,3,D.1,D.2")], &[]), [[1, 3, 224, 224]]);
        assert_eq!(shapes(&[("x", "?,?,?,3")], &[]), [[1, 224, 224, 3]]);
        assert_eq!(shapes(&[("x", "N,3,48,?")], &[]), [[1, 3, 48, 224]]);
        assert_eq!(shapes(&[("state", "2,?,128")], &[]), [[2, 1, 128]]);
        assert_eq!(shapes(&[("x", "?,80,?")], &[]), [[1, 80, 16]]);
        assert_eq!(shapes(&[("x", "")], &[]), [Vec::<usize>::new()]);
    }

    #[test]
    fn one_symbol_has_one_size() {
        let shapes = shapes(&[("x", "points"), ("y", "1,points"), ("z", "points,2")], &[]);
        assert_eq!(shapes, [vec![1], vec![1, 1], vec![1, 2]]);
    }

    #[test]
    fn names_that_mean_nothing_are_none() {
        assert_eq!(shapes(&[("x", "None,3,None,None")], &[]), [[1, 3, 224, 224]]);
    }

    #[test]
    fn a_mask_covers_past_and_present() {
        let inputs = [
            ("ids", "batch,sequence_length"),
            ("attention_mask", "batch,total_sequence_length"),
            ("past.key", "batch,4,past_sequence_length,8"),
        ];
        let found = shapes(&inputs, &[("past_sequence_length", 5)]);
        assert_eq!(found, [vec![1, 32], vec![1, 37], vec![1, 4, 5, 8]]);
    }

    #[test]
    fn given_sizes_win() {
        assert_eq!(shapes(&[("x", "batch,?")], &[("batch", 8), ("x.1", 512)]), [[8, 512]]);
        let past = [("mask", "batch,past_len + 1"), ("key", "batch,4,past_len,64")];
        assert_eq!(shapes(&past, &[("past_len", 5)]), [vec![1, 6], vec![1, 4, 5, 64]]);
    }
}
