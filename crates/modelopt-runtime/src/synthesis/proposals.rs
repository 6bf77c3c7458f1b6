//! Sizes and values to try one after the other, until a model runs.

use std::collections::{HashSet, VecDeque};

use indexmap::IndexMap;
use modelopt_graph::{Model, Type, ValueId};

use super::check::{Check, Tired};
use super::dims::{self, Guess, Open, Sizes};
use super::solve::{Sizing, repaired};
use super::{InputValue, SynthesisOptions, controls, hints, likely, value_named};
use crate::{InputSpec, graph_inputs};

/// How many sizes of each kind, and values of each control, are thought of.
const ROUNDS: usize = 24;

/// After how many of them batches have their turn.
const LATE: usize = 8;

/// What is said of an invented input besides what the user said: sizes by `--dim`, values by
/// `--input`. Empty for the first guess.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Proposal {
    /// Sizes of open dimensions, by the names of [`SynthesisOptions::dims`].
    pub dims: IndexMap<String, usize>,
    /// Values of small inputs.
    pub values: IndexMap<String, InputValue>,
}

impl Proposal {
    /// Whether nothing is said beyond what the user said.
    pub fn is_first_guess(&self) -> bool {
        self.dims.is_empty() && self.values.is_empty()
    }

    /// The options with what is proposed. What the user said stays.
    pub fn options(&self, given: &SynthesisOptions) -> SynthesisOptions {
        let mut options = given.clone();
        for (name, size) in &self.dims {
            options.dims.entry(name.clone()).or_insert(*size);
        }
        for (name, value) in &self.values {
            options.values.entry(name.clone()).or_insert_with(|| value.clone());
        }
        options
    }
}

/// Sizes and values for the invented inputs of a model, the likeliest first.
///
/// The first is the first guess of [`crate::synthesize`], changed where it does not meet what the
/// operators of the graph demand of their inputs: windows that fit, factors that divide, sizes that
/// agree with each other and with constants. Then come what a runtime said of the sizes before, the
/// first guess itself, and sizes that inputs of public models have, changed in the same way. What
/// the user gave is never changed.
///
/// The same model, options and messages give the same proposals.
pub struct Proposals<'a> {
    model: &'a Model,
    /// None where the graph does not tell.
    check: Option<Check>,
    /// What the user did not give.
    open: Vec<Open>,
    /// The sizes of the first guess.
    first: Sizing,
    given: Sizing,
    /// Values to try for inputs that the user gave none for.
    controls: Vec<(String, Vec<Vec<i64>>)>,
    /// How many proposals were asked for.
    asked: usize,
    /// How many were made of messages.
    readings: usize,
    /// What is still to be looked at.
    queue: VecDeque<Guessed>,
    /// What the graph speaks against.
    doubtful: VecDeque<Guessed>,
    seen: HashSet<String>,
    last: Guessed,
}

/// All sizes, and the values that differ from the first guess.
#[derive(Clone, Debug, PartialEq)]
struct Guessed {
    sizing: Sizing,
    values: IndexMap<String, Vec<i64>>,
}

impl<'a> Proposals<'a> {
    /// Proposals for a model, beyond what the user said.
    pub fn new(model: &'a Model, options: &SynthesisOptions) -> Self {
        let specs = graph_inputs(model);
        let open = dims::open(&specs, &options.dims);
        let chosen = Sizes::choose(&specs, &options.dims);
        let first: Sizing = open
            .iter()
            .filter_map(|open| Some((open.name.clone(), chosen.of(&open.name)?)))
            .collect();
        let controls = specs
            .iter()
            .filter(|spec| !options.values.contains_key(&spec.name))
            .filter_map(|spec| Some((spec.name.clone(), control(model, spec, &chosen)?)))
            .filter(|(_, values)| !values.is_empty())
            .collect();
        Proposals {
            model,
            check: None,
            open,
            last: Guessed { sizing: first.clone(), values: IndexMap::new() },
            first,
            given: options.dims.clone(),
            controls,
            asked: 0,
            readings: 0,
            queue: VecDeque::new(),
            doubtful: VecDeque::new(),
            seen: HashSet::new(),
        }
    }

    /// The next proposal, after what runtimes said of the last one.
    pub fn next(&mut self, said: &[String]) -> Option<Proposal> {
        self.asked += 1;
        match self.asked {
            1 => {
                self.check = Check::new(self.model);
                self.queue.push_back(self.first_guess());
            }
            2 => {
                self.fill(said);
                // The graph may be more particular than the runtime.
                let first = self.first_guess();
                if self.seen.insert(key(&first)) {
                    return Some(self.proposal(first));
                }
            }
            _ => {
                for guess in self.read(said).into_iter().rev() {
                    self.queue.push_front(guess);
                }
            }
        }
        while let Some(guess) = self.queue.pop_front() {
            let Some(guess) = self.sound(guess) else { continue };
            if self.seen.insert(key(&guess)) {
                return Some(self.proposal(guess));
            }
        }
        while let Some(guess) = self.doubtful.pop_front() {
            if self.seen.insert(key(&guess)) {
                return Some(self.proposal(guess));
            }
        }
        None
    }

    fn first_guess(&self) -> Guessed {
        Guessed { sizing: self.first.clone(), values: IndexMap::new() }
    }

    fn proposal(&mut self, guess: Guessed) -> Proposal {
        self.last = guess;
        let dims =
            self.last.sizing.iter().filter(|(name, size)| self.first.get(*name) != Some(size));
        let values = self.last.values.iter();
        Proposal {
            dims: dims.map(|(name, size)| (name.clone(), *size)).collect(),
            values: values
                .map(|(name, value)| (name.clone(), InputValue::Integers(value.clone())))
                .collect(),
        }
    }

    /// A guess changed to what the graph demands; nothing where that cannot be done.
    fn sound(&mut self, guess: Guessed) -> Option<Guessed> {
        let Some(check) = &mut self.check else { return Some(guess) };
        let values = self.controls.iter().filter_map(|(name, values)| {
            let value = guess.values.get(name).or_else(|| values.first())?;
            let spec = check.specs().iter().find(|spec| spec.name == *name)?;
            let shape = vec![value.len(); spec.ty.shape()?.len()];
            let value = InputValue::Integers(value.clone());
            Some((name.clone(), value.tensor(name, spec.ty.elem()?, &shape).ok()?))
        });
        let values = values.collect();
        check.fix(&values);
        let start: Sizing = self.given.clone().into_iter().chain(guess.sizing.clone()).collect();
        match check.conflict(&start) {
            Err(Tired) | Ok(None) => Some(guess),
            Ok(Some(_)) => {
                let Some(mut sizing) = repaired(check, &self.open, &start) else {
                    self.doubtful.push_back(guess);
                    return None;
                };
                sizing.retain(|name, _| self.first.contains_key(name));
                Some(Guessed { sizing, ..guess })
            }
        }
    }

    /// All that is to be tried, in order.
    fn fill(&mut self, said: &[String]) {
        let first = self.first_guess();
        let read = self.read(said);
        self.queue.extend(read);
        let hints = hints::numbers(self.model);
        let mut kinds: Vec<Guess> = self.open.iter().map(|open| open.guess).collect();
        kinds.sort_unstable();
        kinds.reverse();
        kinds.dedup();
        for round in 0..ROUNDS {
            for &kind in &kinds {
                // Batches are changed when little else is left.
                let late = if kind <= Guess::Batch { LATE } else { 0 };
                let turn = round.checked_sub(late);
                if let Some(size) = turn.and_then(|turn| sizes(kind, &hints).get(turn).copied()) {
                    let mut guess = first.clone();
                    for open in self.open.iter().filter(|open| open.guess == kind) {
                        guess.sizing.insert(open.name.clone(), size);
                    }
                    self.queue.push_back(guess);
                }
            }
            for (name, values) in &self.controls {
                if let Some(value) = values.get(round + 1) {
                    let mut guess = first.clone();
                    guess.values.insert(name.clone(), value.clone());
                    self.queue.push_back(guess);
                }
            }
        }
    }

    /// What messages say of sizes: where one is named that was tried, the other numbers are tried
    /// in its place.
    fn read(&mut self, said: &[String]) -> Vec<Guessed> {
        /// For each message, and in all: messages mention much that is no size.
        const MOST: usize = 2;
        const MOST_IN_ALL: usize = 6;
        if self.readings >= MOST_IN_ALL {
            return Vec::new();
        }
        let mut guesses = Vec::new();
        for message in said {
            let numbers = numbers_in(message);
            for open in self.open.iter().rev() {
                let Some(now) = self.last.sizing.get(&open.name) else { continue };
                if !numbers.contains(now) {
                    continue;
                }
                for &number in numbers.iter().filter(|number| *number != now && **number > 0) {
                    let mut guess = self.last.clone();
                    guess.sizing.insert(open.name.clone(), number);
                    if guesses.len() < MOST && !guesses.contains(&guess) {
                        guesses.push(guess);
                    }
                }
            }
        }
        self.readings += guesses.len();
        guesses
    }
}

/// The sizes to try for dimensions of a kind: what the graph mentions, and what is likely.
fn sizes(kind: Guess, hints: &[usize]) -> Vec<usize> {
    let likely = likely::sizes(kind);
    if !matches!(kind, Guess::Sequence | Guess::Other) {
        return likely.to_vec();
    }
    let mut sizes = Vec::new();
    for index in 0..likely.len().max(hints.len()) {
        for size in [hints.get(index), likely.get(index)].into_iter().flatten() {
            if !sizes.contains(size) {
                sizes.push(*size);
            }
        }
    }
    sizes
}

/// The values of an input that is a control.
fn control(model: &Model, spec: &InputSpec, sizes: &Sizes) -> Option<Vec<Vec<i64>>> {
    let Type::Tensor { elem, shape: Some(dims) } = &spec.ty else { return None };
    let value: ValueId = value_named(model, &spec.name)?;
    Some(controls::values(model, value, *elem, &sizes.shape(&spec.name, dims)))
}

/// Whole numbers that stand alone in a text, in order, each once.
fn numbers_in(text: &str) -> Vec<usize> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.'));
    let mut found = Vec::new();
    for number in words.filter_map(|word| word.trim_end_matches('.').parse::<usize>().ok()) {
        if number < 1 << 16 && !found.contains(&number) {
            found.push(number);
        }
    }
    found
}

fn key(guess: &Guessed) -> String {
    format!("{:?} {:?}", guess.sizing, guess.values)
}

#[cfg(test)]
mod tests {
    use xtask::testdata::fixture;

    use super::*;

    fn model(name: &str) -> Model {
        modelopt_onnx::load(&fixture(format!("sizes/{name}.onnx"))).unwrap()
    }

    /// The sizes and values of the first proposal, beyond the first guess.
    fn first(name: &str, dims: &[(&str, usize)]) -> String {
        let model = model(name);
        let dims = dims.iter().map(|&(name, size)| (name.to_owned(), size)).collect();
        let options = SynthesisOptions { dims, ..SynthesisOptions::default() };
        let proposal = Proposals::new(&model, &options).next(&[]).unwrap();
        let dims: Vec<String> =
            proposal.dims.iter().map(|(name, size)| format!("{name}={size}")).collect();
        dims.join(" ")
    }

    #[test]
    fn the_graph_tells_sizes() {
        for (name, sizes) in [
            ("wide_convolution", "h=256 w=256"),
            ("reshape_factor", "time=24"),
            ("reshape_all", "frames=12"),
            ("squeeze_dim", "k=1"),
            ("position_table", "sequence=20"),
            ("position_slice", "sequence=12"),
            ("kv_cache", ""),
            ("kv_cache_unnamed", "m0.1=32"),
            ("strided_audio", "samples=512"),
            ("agreeing_inputs", "p=32"),
            ("concat_constant", "k=10"),
            ("skip_connections", "height=256 width=256"),
            ("pixel_unshuffle", "height=240 width=240"),
            ("patches", "height=96 width=96"),
            ("rate_in_branches", "samples=48"),
        ] {
            assert_eq!(first(name, &[]), sizes, "{name}");
        }
    }

    #[test]
    fn what_is_given_stays() {
        assert_eq!(first("agreeing_inputs", &[("p", 24)]), "sequence=24");
        let sum = "sequence_length=12 past_sequence_length=12";
        assert_eq!(first("kv_cache", &[("total_sequence_length", 24)]), sum);
        // Nothing else would help, so it is tried as it is.
        assert_eq!(first("position_table", &[("sequence", 5)]), "");
    }

    #[test]
    fn values_are_tried_where_sizes_are_known() {
        let model = model("take");
        let mut proposals = Proposals::new(&model, &SynthesisOptions::default());
        assert!(proposals.next(&[]).unwrap().is_first_guess());
        let second = proposals.next(&[]).unwrap();
        assert_eq!(second.values["take"], InputValue::Integers(vec![2]));
    }

    #[test]
    fn messages_are_read() {
        let model = model("strided_audio");
        let options = SynthesisOptions::default();
        let mut proposals = Proposals::new(&model, &options);
        let tried = proposals.next(&[]).unwrap().dims["samples"];
        let said = format!("Got: {tried} Expected: 555");
        assert!(proposals.next(&[]).unwrap().is_first_guess());
        let mut proposals = Proposals::new(&model, &options);
        proposals.next(&[]);
        proposals.next(std::slice::from_ref(&said));
        assert_eq!(proposals.next(&[]).unwrap().dims["samples"], 555);
    }

    #[test]
    fn proposals_end_and_none_comes_twice() {
        for name in ["strided_audio", "kv_cache_unnamed", "take"] {
            let model = model(name);
            let mut proposals = Proposals::new(&model, &SynthesisOptions::default());
            let mut all = Vec::new();
            while let Some(proposal) = proposals.next(&["nothing".to_owned()]) {
                assert!(!all.contains(&proposal), "{name}: {proposal:?}");
                all.push(proposal);
                assert!(all.len() < 200, "{name}");
            }
            assert!(all.iter().any(Proposal::is_first_guess), "{name}");
        }
    }
}
