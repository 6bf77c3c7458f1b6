//! Sizes for the dimensions a model leaves open.

use std::collections::HashMap;

use indexmap::IndexMap;
use modelopt_graph::{DataType, Dim};

use crate::InputSpec;

const SEQUENCE: usize = 32;
const PICTURE: usize = 224;
const OTHER: usize = 16;

/// The sizes chosen for a model: a symbol has the same size wherever it occurs.
pub(super) struct Sizes {
    by_symbol: HashMap<String, usize>,
    by_axis: HashMap<String, usize>,
}

/// What a dimension looks like, most telling first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Guess {
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

impl Sizes {
    pub(super) fn choose(specs: &[InputSpec], given: &IndexMap<String, usize>) -> Self {
        let mut guesses: HashMap<&str, Guess> = HashMap::new();
        let mut by_axis = HashMap::new();
        for spec in specs {
            let dims = spec.ty.shape().map_or(&[][..], Vec::as_slice);
            for (axis, dim) in dims.iter().enumerate() {
                let name = axis_name(&spec.name, axis);
                if let Some(&size) = given.get(&name) {
                    by_axis.insert(name, size);
                } else if let Dim::Symbol(symbol) = dim {
                    let guess = match given.get(symbol) {
                        Some(&size) => Guess::Given(size),
                        None => guess(spec, dims, axis, symbol),
                    };
                    let known = guesses.entry(symbol).or_insert(guess);
                    *known = guess.min(*known);
                } else if *dim == Dim::Unknown {
                    by_axis.insert(name, guess(spec, dims, axis, "").size());
                }
            }
        }
        let mut by_symbol: HashMap<String, usize> =
            guesses.iter().map(|(symbol, guess)| ((*symbol).to_owned(), guess.size())).collect();
        for (&symbol, guess) in &guesses {
            if let (Some(sum), false) =
                (sum(symbol, &guesses, given), matches!(guess, Guess::Given(_)))
            {
                by_symbol.insert(symbol.to_owned(), sum);
            }
        }
        Sizes { by_symbol, by_axis }
    }

    /// The concrete shape of an input.
    pub(super) fn shape(&self, input: &str, dims: &[Dim]) -> Vec<usize> {
        let size = |(axis, dim): (usize, &Dim)| match dim {
            Dim::Fixed(size) => *size,
            Dim::Symbol(symbol) => self
                .by_axis
                .get(&axis_name(input, axis))
                .or_else(|| self.by_symbol.get(symbol))
                .copied()
                .unwrap_or(OTHER),
            Dim::Unknown => self.by_axis.get(&axis_name(input, axis)).copied().unwrap_or(OTHER),
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
    fn given_sizes_win() {
        assert_eq!(shapes(&[("x", "batch,?")], &[("batch", 8), ("x.1", 512)]), [[8, 512]]);
        let past = [("mask", "batch,past_len + 1"), ("key", "batch,4,past_len,64")];
        assert_eq!(shapes(&past, &[("past_len", 5)]), [vec![1, 6], vec![1, 4, 5, 64]]);
    }
}
