//! The ladder for latency: what makes the model slower goes down, measured on the whole model.
//!
//! ```text
//! int8-dynamic -> int8-weights                               -> keep
//!       a table: int8-weights -> int8-weights, float at load -> keep
//!                fp16-weights                                -> keep
//! ```
//!
//! Layers are moved by form first, all convolutions, all matrix products, all tables and so on, each
//! form alone and then those that help together; a runtime is slow at forms more than at layers.
//! Products that were dynamic come first, then tables that are gathered from as int8: stored as int8
//! and turned into float while the model loads, they cost no time anywhere, and not a byte.
//! What passes is taken back by halves, so that only what is slow gives something up. If nothing else
//! passes, everything is kept.

use std::collections::VecDeque;
use std::fmt;

use modelopt_rewrite::{ExplainedPlan, Explanation, PlannedLayer, Scheme};

use crate::error::Error;
use crate::search::tuning::Latency as Tuning;
use crate::trial_error::TrialError;

/// How slow a plan makes the whole model.
pub(crate) trait Clock {
    /// Measures a plan; why it cannot be measured otherwise.
    fn time(&mut self, plan: &ExplainedPlan, what: &str) -> Result<Timed, TrialError>;

    /// Whether there is no time left for another one.
    fn is_over(&self) -> bool;
}

/// What a measurement told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Timed {
    /// The candidate's time divided by the original's.
    pub(crate) slowdown: f64,
    /// Whether that meets the limit.
    pub(crate) passes: bool,
}

/// Layers of one form, moved one step down.
#[derive(Clone, Debug, PartialEq)]
struct Move {
    /// What the form is called.
    form: String,
    /// Places in the plan.
    layers: Vec<usize>,
    from: Rung,
    to: Rung,
}

/// What a layer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rung {
    As(Scheme),
    /// A table stored as int8 that is float once the model is loaded.
    FloatAtLoad,
}

impl Rung {
    fn of(line: &PlannedLayer) -> Self {
        if line.at_load { Rung::FloatAtLoad } else { Rung::As(line.scheme) }
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rung::As(scheme) => write!(f, "{scheme}"),
            Rung::FloatAtLoad => f.write_str("int8-weights, float at load"),
        }
    }
}

impl Move {
    /// Whether the file grows by it.
    fn costs_bytes(&self) -> bool {
        matches!(self.to, Rung::As(scheme) if scheme.is_keep())
    }

    /// How slow the model may be without it, for it to be taken back: bytes are worth what the limit
    /// allows, memory is worth nothing that can be told, and what costs neither has to pay.
    fn worth(&self, slowdown: f64, noticeable: f64) -> f64 {
        match self.to {
            Rung::As(scheme) if scheme.is_keep() => f64::INFINITY,
            Rung::FloatAtLoad => slowdown + noticeable,
            Rung::As(_) => slowdown - noticeable,
        }
    }

    fn apply(&self, plan: &ExplainedPlan) -> ExplainedPlan {
        let mut plan = plan.clone();
        for &place in &self.layers {
            let (line, why) = plan.line_mut(place);
            match self.to {
                Rung::As(scheme) => (line.scheme, line.at_load) = (scheme, false),
                Rung::FloatAtLoad => line.at_load = true,
            }
            why.reason = format!("the whole model is slower with {} as {}", self.form, self.from);
        }
        plan
    }

    /// The plan with these layers as they are in another one.
    fn undo(&self, plan: &ExplainedPlan, before: &ExplainedPlan) -> ExplainedPlan {
        let mut plan = plan.clone();
        for &place in &self.layers {
            let (layer, why) = plan.line_mut(place);
            layer.clone_from(&before.layers[place]);
            why.clone_from(before.why(place));
        }
        plan
    }

    fn halves(&self) -> Vec<Move> {
        if self.layers.len() < 2 {
            return Vec::new();
        }
        let (first, second) = self.layers.split_at(self.layers.len() / 2);
        [first, second].map(|half| Move { layers: half.to_vec(), ..self.clone() }).to_vec()
    }

    /// Such as `all 7 Gather: int8-weights -> keep`.
    fn down(&self) -> String {
        let count = self.layers.len();
        format!("{} {}: {} -> {}", all(count), self.form, self.from, self.to)
    }

    fn up(&self) -> String {
        let count = self.layers.len();
        format!("{count} {}: {} -> {}", self.form, self.to, self.from)
    }
}

fn all(count: usize) -> String {
    if count == 1 { "the one".to_owned() } else { format!("all {count}") }
}

/// The plan that is not slow and gives up the least of one that is; the plan with everything kept if
/// there is no other and `keep` allows it.
pub(crate) fn quicken(
    plan: &ExplainedPlan,
    slowdown: f64,
    keep: bool,
    clock: &mut dyn Clock,
    tuning: &Tuning,
) -> Result<Option<ExplainedPlan>, Error> {
    let mut descent = Descent { clock, left: tuning.most_trials, tuning, keep };
    let mut base = (plan.clone(), slowdown);
    for stage in Stage::ALL {
        let moves = moves(&base.0, stage);
        match descent.down(&base, &moves)? {
            Down::Passes(quick, slowdown, moved) => {
                return descent.up((quick, slowdown), &base.0, moved).map(Some);
            }
            Down::Slow(lowest) => base = lowest,
            Down::Over => break,
        }
    }
    Ok((keep && plan.changed() > 0).then(|| {
        let moves = Stage::ALL.into_iter().flat_map(|stage| moves(plan, stage));
        moves.fold(plan.clone(), |plan, step| {
            Move { to: Rung::As(Scheme::default()), ..step }.apply(&plan)
        })
    }))
}

/// What is moved one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Dynamic products.
    Dynamic,
    /// Tables.
    Tables,
    /// All that is stored in another type.
    Stored,
}

impl Stage {
    const ALL: [Stage; 3] = [Stage::Dynamic, Stage::Tables, Stage::Stored];

    /// Where it moves a layer, if it does.
    fn next(self, line: &PlannedLayer, why: &Explanation) -> Option<Rung> {
        let computes = line.scheme.quantizes_activations() || line.scheme.computes_in().is_some();
        let stored = !line.scheme.is_keep() && !computes;
        let is_table = why.op == "Gather" && stored && line.scheme.is_int8();
        match self {
            Stage::Dynamic if line.scheme.quantizes_activations() => {
                // What takes ranges is mostly slower still where it finds them in every run.
                let below = std::iter::successors(line.scheme.down(), |scheme| scheme.down());
                let mut below = below.skip_while(|scheme| {
                    line.scheme.needs_ranges() && scheme.quantizes_activations()
                });
                below.next().map(Rung::As)
            }
            Stage::Tables if is_table && !line.at_load => Some(Rung::FloatAtLoad),
            Stage::Stored if stored => Some(Rung::As(Scheme::default())),
            _ => None,
        }
    }
}

/// The forms of a plan that a stage moves down, those first that are most often slow.
fn moves(plan: &ExplainedPlan, stage: Stage) -> Vec<Move> {
    let mut moves: Vec<(u8, Move)> = Vec::new();
    for (place, (line, why)) in plan.lines().enumerate() {
        let Some(to) = stage.next(line, why) else { continue };
        let from = Rung::of(line);
        let (rank, form) = form(&why.op);
        let same = |known: &&mut (u8, Move)| known.1.form == form && known.1.from == from;
        match moves.iter_mut().find(same) {
            Some((_, known)) => known.layers.push(place),
            None => {
                moves.push((rank, Move { form, layers: vec![place], from, to }));
            }
        }
    }
    moves.sort_by_key(|(rank, _)| *rank);
    moves.into_iter().map(|(_, step)| step).collect()
}

/// What runtimes treat alike, and its place in the order of suspicion.
fn form(op: &str) -> (u8, String) {
    match op {
        "Conv" | "ConvTranspose" => (0, "Conv".to_owned()),
        "MatMul" | "Gemm" => (1, "MatMul and Gemm".to_owned()),
        "Gather" => (2, "Gather".to_owned()),
        other => (3, other.to_owned()),
    }
}

/// Where going down led.
enum Down {
    /// To a plan that passes, with its slowdown and what was moved.
    Passes(ExplainedPlan, f64, Vec<Move>),
    /// Nowhere: the lowest plan is slow, too.
    Slow((ExplainedPlan, f64)),
    /// There is nothing left to measure with.
    Over,
}

struct Descent<'a> {
    clock: &'a mut dyn Clock,
    tuning: &'a Tuning,
    /// How many plans may still be measured.
    left: usize,
    /// Whether everything may be kept.
    keep: bool,
}

impl Descent<'_> {
    /// Each form alone, those together that help, then all.
    fn down(&mut self, base: &(ExplainedPlan, f64), moves: &[Move]) -> Result<Down, Error> {
        let helpful = match self.alone(base, moves)? {
            Ok(helpful) => helpful,
            Err(end) => return Ok(end),
        };
        let mut sets: Vec<&[Move]> = Vec::new();
        if helpful.len() > 1 && helpful.len() < moves.len() {
            sets.push(&helpful);
        }
        // Where all is kept there is nothing to measure.
        let keeps_all = moves.iter().map(|step| step.layers.len()).sum::<usize>()
            == base.0.changed()
            && moves.iter().all(Move::costs_bytes);
        if !moves.is_empty() && !keeps_all {
            sets.push(moves);
        }
        let together =
            |set: &[Move]| set.iter().fold(base.0.clone(), |plan, step| step.apply(&plan));
        let mut lowest = base.clone();
        for set in sets {
            let Some(plan) = self.allowed(|| together(set)) else { return Ok(Down::Over) };
            let what = set.iter().map(Move::down).collect::<Vec<_>>().join(", ");
            match self.time(&plan, &what)? {
                Some(timed) if timed.passes => {
                    return Ok(Down::Passes(plan, timed.slowdown, set.to_vec()));
                }
                Some(timed) => lowest = (plan, timed.slowdown),
                None => {}
            }
        }
        // The original takes its own time.
        if keeps_all && self.keep {
            return Ok(Down::Passes(together(moves), 1.0, moves.to_vec()));
        }
        Ok(Down::Slow(lowest))
    }

    /// The forms that help alone, or where going down ends with the first that is enough.
    fn alone(
        &mut self,
        base: &(ExplainedPlan, f64),
        moves: &[Move],
    ) -> Result<Result<Vec<Move>, Down>, Error> {
        let mut helpful: Vec<Move> = Vec::new();
        if moves.len() < 2 {
            return Ok(Ok(helpful));
        }
        for step in moves {
            let Some(plan) = self.allowed(|| step.apply(&base.0)) else {
                return Ok(Err(Down::Over));
            };
            match self.time(&plan, &step.down())? {
                Some(timed) if timed.passes => {
                    return Ok(Err(Down::Passes(plan, timed.slowdown, vec![step.clone()])));
                }
                Some(timed) if timed.slowdown < base.1 - self.tuning.noticeable => {
                    helpful.push(step.clone());
                }
                _ => {}
            }
        }
        Ok(Ok(helpful))
    }

    /// Takes back what need not be down, as a whole or by halves.
    fn up(
        &mut self,
        (mut plan, mut slowdown): (ExplainedPlan, f64),
        before: &ExplainedPlan,
        moved: Vec<Move>,
    ) -> Result<ExplainedPlan, Error> {
        let mut queue: VecDeque<Move> = match moved.as_slice() {
            // As a whole it is what was slow.
            [only] => only.halves().into(),
            _ => moved.into(),
        };
        while let Some(step) = queue.pop_front() {
            let Some(without) = self.allowed(|| step.undo(&plan, before)) else { break };
            let most = step.worth(slowdown, self.tuning.noticeable);
            match self.time(&without, &step.up())? {
                Some(timed) if timed.passes && timed.slowdown < most => {
                    (plan, slowdown) = (without, timed.slowdown);
                }
                _ => queue.extend(step.halves()),
            }
        }
        Ok(plan)
    }

    fn allowed(&self, plan: impl FnOnce() -> ExplainedPlan) -> Option<ExplainedPlan> {
        (self.left > 0 && !self.clock.is_over()).then(plan)
    }

    /// Measures a plan; none where it cannot be measured. An error is one of the environment.
    fn time(&mut self, plan: &ExplainedPlan, what: &str) -> Result<Option<Timed>, Error> {
        self.left = self.left.saturating_sub(1);
        match self.clock.time(plan, what) {
            Ok(timed) => Ok(Some(timed)),
            Err(error) => error.of_plan().map(|_| None),
        }
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod edges;
