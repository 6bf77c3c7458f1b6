//! Which figures are compared, and with what outcome.

use modelopt_validate::{Bound, OutputParity};

use super::{Change, ChangeUnit, Outcome, REGRESSION_SCHEMA, Regression, RegressionLimits, notes};
use crate::{Document, Run, wording};

/// The subject of figures that are not about one output.
const MODEL: &str = "model";
/// SQNR from which on an output counts as the same: the rounding of float32 lies there.
const EXACT_DB: f64 = 120.0;

pub(super) fn compare(new: &Document, old: &Document, limits: &RegressionLimits) -> Regression {
    let (new_run, old_run) = targets(new, old);
    let mut changes = Changes(Vec::new());
    for figure in of_documents(limits) {
        changes.add(MODEL, &figure, Some(new), Some(old));
    }
    for figure in of_runs(limits) {
        changes.add(MODEL, &figure, new_run, old_run);
    }
    changes.explain_latency(new_run, old_run);
    changes.outputs(new_run, old_run, limits);
    Regression {
        schema: REGRESSION_SCHEMA.to_owned(),
        pass: changes.0.iter().all(|change| change.outcome != Outcome::Fail),
        changes: changes.0,
        notes: notes::notes(new, old, new_run, old_run),
    }
}

/// The new target, and the baseline's run in the same runtime or else in its own target.
fn targets<'a>(new: &'a Document, old: &'a Document) -> (Option<&'a Run>, Option<&'a Run>) {
    let target = new.runs.first();
    let same = |run: &&Run| target.is_some_and(|new| new.runtime.name == run.runtime.name);
    (target, old.runs.iter().find(same).or(old.runs.first()))
}

/// A figure that something has, and how much worse it may become.
struct Figure<T> {
    name: &'static str,
    unit: ChangeUnit,
    bound: Bound,
    limit: Limit,
    new: fn(&T) -> Option<f64>,
    old: fn(&T) -> Option<f64>,
}

impl<T> Figure<T> {
    /// The less, the better.
    fn low(name: &'static str, unit: ChangeUnit, limit: Limit, of: fn(&T) -> Option<f64>) -> Self {
        Figure { name, unit, bound: Bound::AtMost, limit, new: of, old: of }
    }

    /// The more, the better.
    fn high(name: &'static str, unit: ChangeUnit, limit: Limit, of: fn(&T) -> Option<f64>) -> Self {
        Figure { bound: Bound::AtLeast, ..Figure::low(name, unit, limit, of) }
    }
}

/// How much worse a figure may become.
enum Limit {
    /// Not at all.
    Same,
    /// To the old figure times this.
    Growth(Option<f64>),
    /// To the old figure less this.
    Loss(Option<f64>),
    /// To the old figure less this in dB, where what is exact is not exact by any number of dB.
    LossDb(Option<f64>),
}

impl Limit {
    /// The worst that a new figure may be.
    fn of(&self, old: f64) -> Option<f64> {
        // An infinite limit is none; 0 times it would be a NaN, which refuses all.
        let finite = |limit: Option<f64>| limit.filter(|limit| !limit.is_infinite());
        match *self {
            Limit::Same => Some(old),
            Limit::Growth(ratio) => Some(old * finite(ratio)?),
            Limit::Loss(loss) => Some(old - finite(loss)?),
            Limit::LossDb(loss) => Some(old.min(EXACT_DB) - finite(loss)?),
        }
    }
}

fn of_documents(limits: &RegressionLimits) -> [Figure<Document>; 2] {
    let size = Limit::Growth(limits.max_size_growth);
    [
        Figure::high("verdict", ChangeUnit::Flag, Limit::Same, |document| {
            Some(flag(document.verdict.as_ref()?.pass))
        }),
        Figure::low("size", ChangeUnit::Bytes, size, |document| {
            Some(document.size?.candidate_bytes as f64)
        }),
    ]
}

fn of_runs(limits: &RegressionLimits) -> [Figure<Run>; 4] {
    let slowdown = Limit::Growth(limits.max_slowdown);
    let load = Limit::Growth(limits.max_load_growth);
    let memory = Limit::Growth(limits.max_memory_growth);
    [
        Figure::high("runs", ChangeUnit::Flag, Limit::Same, |run| {
            Some(flag(run.failure.is_none()))
        }),
        // Noise moves both intervals; only where they lie apart it cannot be the reason.
        Figure {
            old: |run| Some(run.latency.as_ref()?.ratio_high),
            ..Figure::low("slowdown", ChangeUnit::Times, slowdown, |run| {
                Some(run.latency.as_ref()?.ratio_low)
            })
        },
        Figure::low("load_time", ChangeUnit::Milliseconds, load, |run| {
            Some(run.candidate?.load_ms)
        }),
        Figure::low("peak_memory", ChangeUnit::Bytes, memory, |run| {
            Some(run.candidate?.peak_bytes as f64)
        }),
    ]
}

fn presence() -> Figure<OutputParity> {
    Figure::high("present", ChangeUnit::Flag, Limit::Same, |output| Some(flag(output.present)))
}

fn of_outputs(limits: &RegressionLimits) -> [Figure<OutputParity>; 4] {
    let sqnr = Limit::LossDb(limits.max_sqnr_loss_db);
    let error = Limit::Growth(limits.max_error_growth);
    let top1 = Limit::Loss(limits.max_top1_loss);
    [
        Figure::high("sqnr", ChangeUnit::Decibels, sqnr, |output| {
            Some(output.float.as_ref()?.sqnr_db)
        }),
        Figure::low("max_abs_error", ChangeUnit::Output, error, |output| {
            Some(output.float.as_ref()?.max_abs_error)
        }),
        Figure::high("top1", ChangeUnit::Share, top1, |output| output.float.as_ref()?.top1),
        Figure::low("mismatches", ChangeUnit::Count, Limit::Same, |output| {
            Some(output.mismatches? as f64)
        }),
    ]
}

fn flag(yes: bool) -> f64 {
    if yes { 1.0 } else { 0.0 }
}

struct Changes(Vec<Change>);

impl Changes {
    /// Adds a figure if either report has it; gives its outcome.
    fn add<T>(
        &mut self,
        subject: &str,
        figure: &Figure<T>,
        new: Option<&T>,
        old: Option<&T>,
    ) -> Option<Outcome> {
        let (new, old) = (new.and_then(figure.new), old.and_then(figure.old));
        new.or(old)?;
        let limit = old.filter(|old| !old.is_nan()).and_then(|old| figure.limit.of(old));
        let meets = |limit| match figure.bound {
            Bound::AtLeast => new.is_some_and(|new| new >= limit),
            Bound::AtMost => new.is_some_and(|new| new <= limit),
        };
        let outcome = match limit {
            None => Outcome::NotJudged,
            Some(limit) if meets(limit) => Outcome::Pass,
            Some(_) => Outcome::Fail,
        };
        let note = match (new, old) {
            (_, None) => Some("not in the baseline"),
            (None, _) => Some("not in the new report"),
            (Some(0.0), Some(0.0)) if figure.name == "verdict" => {
                Some("the baseline was refused too")
            }
            _ => None,
        };
        self.0.push(Change {
            name: figure.name.to_owned(),
            subject: subject.to_owned(),
            old,
            new,
            limit,
            bound: figure.bound,
            unit: figure.unit,
            outcome,
            note: note.map(str::to_owned),
        });
        Some(outcome)
    }

    fn explain_latency(&mut self, new: Option<&Run>, old: Option<&Run>) {
        let latency = |run: Option<&Run>| Some(wording::ratio(run?.latency.as_ref()?));
        let change = self.0.iter_mut().find(|change| change.name == "slowdown");
        if let (Some(change), Some(new), Some(old)) = (change, latency(new), latency(old)) {
            change.note = Some(format!("upper end of {old}, lower end of {new}"));
        }
    }

    fn outputs(&mut self, new: Option<&Run>, old: Option<&Run>, limits: &RegressionLimits) {
        let (new, old) = (outputs(new), outputs(old));
        for was in old {
            self.output(limits, new.iter().find(|is| is.name == was.name), Some(was));
        }
        for is in new.iter().filter(|is| old.iter().all(|was| was.name != is.name)) {
            self.output(limits, Some(is), None);
        }
    }

    fn output(
        &mut self,
        limits: &RegressionLimits,
        new: Option<&OutputParity>,
        old: Option<&OutputParity>,
    ) {
        let subject = new.or(old).map(|output| output.name.as_str()).unwrap_or_default();
        // An output that is gone is one regression, not one for each of its figures.
        if self.add(subject, &presence(), new, old) != Some(Outcome::Fail) {
            for figure in of_outputs(limits) {
                self.add(subject, &figure, new, old);
            }
        }
    }
}

fn outputs(run: Option<&Run>) -> &[OutputParity] {
    run.and_then(|run| run.parity.as_ref()).map_or(&[], |parity| &parity.outputs)
}
