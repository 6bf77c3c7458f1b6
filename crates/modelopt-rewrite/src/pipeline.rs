//! A list of passes with a reason for the place of each, to be looked at, changed, run and bisected.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use modelopt_graph::{Model, verify};

use crate::engine;
use crate::pass::{Changed, Pass, PassContext, PassError};

/// Passes in order.
///
/// ```
/// use modelopt_rewrite::{PassContext, Pipeline};
/// # let mut model = modelopt_graph::Model::new(modelopt_graph::ModelInfo::default());
/// let mut pipeline = Pipeline::preparation();
/// pipeline.skip("batchnorm")?;
/// for entry in pipeline.entries() {
///     println!("{}: {}", entry.name(), entry.reason());
/// }
/// pipeline.run(&mut model, &mut PassContext::default())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Pipeline {
    entries: Vec<Entry>,
}

/// A pass in a [`Pipeline`].
#[derive(Clone)]
pub struct Entry {
    pass: Arc<dyn Pass>,
    reason: Cow<'static, str>,
    on: bool,
}

impl Entry {
    /// Name of the pass.
    pub fn name(&self) -> &'static str {
        self.pass.name()
    }

    /// Why it stands where it does.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Whether it is run; a pass may be registered and off.
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// Names of the passes that must stand before it.
    pub fn requires(&self) -> &[&'static str] {
        self.pass.requires()
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entry { reason, on, .. } = self;
        f.debug_struct("Entry")
            .field("name", &self.name())
            .field("reason", reason)
            .field("on", on)
            .finish()
    }
}

/// A pipeline has no pass of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no pass '{name}'; there are {}", .known.join(", "))]
pub struct UnknownPass {
    /// The name.
    pub name: String,
    /// The names that there are, in order.
    pub known: Vec<&'static str>,
}

/// What [`Pipeline::first_failing`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Culprit {
    /// What was asked for still holds after the last pass.
    None,
    /// It does not hold of the model as it was given.
    Input,
    /// It holds before this pass and not after it.
    Pass(&'static str),
}

impl Pipeline {
    /// A pipeline without passes.
    pub fn new() -> Self {
        Pipeline::default()
    }

    /// The passes, in order, with those that are off.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Adds a pass at the end; the reason says why it belongs there.
    pub fn push(&mut self, pass: impl Pass + 'static, reason: impl Into<Cow<'static, str>>) {
        self.entries.push(entry(pass, reason));
    }

    /// Adds a pass at the end that is off until [`Pipeline::enable`] switches it on.
    pub fn push_off(&mut self, pass: impl Pass + 'static, reason: impl Into<Cow<'static, str>>) {
        self.entries.push(Entry { on: false, ..entry(pass, reason) });
    }

    /// Adds a pass right before another.
    pub fn insert_before(
        &mut self,
        name: &str,
        pass: impl Pass + 'static,
        reason: impl Into<Cow<'static, str>>,
    ) -> Result<(), UnknownPass> {
        let place = self.position(name)?;
        self.entries.insert(place, entry(pass, reason));
        Ok(())
    }

    /// Adds a pass right after another.
    pub fn insert_after(
        &mut self,
        name: &str,
        pass: impl Pass + 'static,
        reason: impl Into<Cow<'static, str>>,
    ) -> Result<(), UnknownPass> {
        let place = self.position(name)?;
        self.entries.insert(place + 1, entry(pass, reason));
        Ok(())
    }

    /// Switches a pass off.
    pub fn skip(&mut self, name: &str) -> Result<(), UnknownPass> {
        let place = self.position(name)?;
        self.entries[place].on = false;
        Ok(())
    }

    /// Switches a pass on, and those that it requires.
    pub fn enable(&mut self, name: &str) -> Result<(), UnknownPass> {
        let place = self.position(name)?;
        self.entries[place].on = true;
        for needed in self.entries[place].requires().to_vec() {
            self.enable(needed)?;
        }
        Ok(())
    }

    /// The first `count` passes, those that are off counted as well.
    #[must_use]
    pub fn first(&self, count: usize) -> Pipeline {
        Pipeline { entries: self.entries.iter().take(count).cloned().collect() }
    }

    /// Runs the passes that are on, and checks structure and interface after each that changed
    /// something. Returns how often each changed something, in order.
    pub fn run(
        &self,
        model: &mut Model,
        context: &mut PassContext,
    ) -> Result<Vec<(&'static str, Changed)>, PassError> {
        self.check_order()?;
        let on = self.entries.iter().filter(|entry| entry.on);
        on.map(|entry| Ok((entry.name(), step(&*entry.pass, model, context)?))).collect()
    }

    /// The first pass after which `holds` is no longer true of the model.
    ///
    /// Only passes that change something are looked at, by bisection: `holds` is asked as often as
    /// their number has binary digits, and once or twice more. What has stopped to hold should not
    /// come back later; else one of several culprits is found.
    pub fn first_failing(
        &self,
        model: &Model,
        context: &PassContext,
        mut holds: impl FnMut(&Model) -> bool,
    ) -> Result<Culprit, PassError> {
        self.check_order()?;
        let mut current = model.clone();
        let mut context = context.clone();
        let mut states = Vec::new();
        for entry in self.entries.iter().filter(|entry| entry.on) {
            if step(&*entry.pass, &mut current, &mut context)?.any() {
                states.push((entry.name(), current.clone()));
            }
        }
        if !states.last().is_none_or(|(_, last)| !holds(last)) {
            return Ok(Culprit::None);
        }
        if !holds(model) {
            return Ok(Culprit::Input);
        }
        let Some((_, earlier)) = states.split_last() else { return Ok(Culprit::None) };
        let good = earlier.partition_point(|(_, state)| holds(state));
        Ok(Culprit::Pass(states[good].0))
    }

    fn position(&self, name: &str) -> Result<usize, UnknownPass> {
        self.entries.iter().position(|entry| entry.name() == name).ok_or_else(|| UnknownPass {
            name: name.to_owned(),
            known: self.entries.iter().map(Entry::name).collect(),
        })
    }

    /// Whether every pass that is on has what it needs before it.
    fn check_order(&self) -> Result<(), PassError> {
        for (place, entry) in self.entries.iter().enumerate().filter(|(_, entry)| entry.on) {
            for &needs in entry.requires() {
                if !self.entries[..place].iter().any(|earlier| earlier.name() == needs) {
                    return Err(PassError::Order { pass: entry.name(), needs });
                }
            }
        }
        Ok(())
    }
}

fn entry(pass: impl Pass + 'static, reason: impl Into<Cow<'static, str>>) -> Entry {
    Entry { pass: Arc::new(pass), reason: reason.into(), on: true }
}

/// Runs one pass and checks what it left.
pub(crate) fn step(
    pass: &dyn Pass,
    model: &mut Model,
    context: &mut PassContext,
) -> Result<Changed, PassError> {
    let interface = verify::interface(model);
    let changed = pass.run(model, context)?;
    engine::check_structure(model, pass.name(), changed.0)?;
    engine::check_interface(model, pass.name(), changed.0, &interface)?;
    Ok(changed)
}
