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
    /// their number has binary digits, and a few times more. What has stopped to hold should not
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
        if states.last().is_some_and(|(_, last)| holds(last)) {
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

#[cfg(test)]
mod tests {
    use modelopt_graph::{NodeId, Patch, ValueInfo};

    use super::*;
    use crate::engine::{Broken, BrokenRewrite, Declined, Rewrite};
    use crate::pass::EveryNode;
    use crate::testing::{Build, float};

    /// Puts one operator in the place of another.
    struct Rename(&'static str, &'static str, &'static str);

    impl Pass for Rename {
        fn name(&self) -> &'static str {
            self.0
        }

        fn run(&self, model: &mut Model, _: &mut PassContext) -> Result<Changed, PassError> {
            let nodes = model.walk().into_iter().filter(|&id| model.node(id).op.is(self.1));
            let nodes: Vec<NodeId> = nodes.collect();
            for &id in &nodes {
                self.2.clone_into(&mut model.node_mut(id).op.name);
            }
            Ok(Changed(nodes.len()))
        }
    }

    /// Does to the model what the function does, and says that it changed it.
    struct Vandal(fn(&mut Model) -> Result<(), PassError>);

    impl Pass for Vandal {
        fn name(&self) -> &'static str {
            "vandal"
        }

        fn requires(&self) -> &[&'static str] {
            &["sort"]
        }

        fn run(&self, model: &mut Model, _: &mut PassContext) -> Result<Changed, PassError> {
            self.0(model).map(|()| Changed(1))
        }
    }

    fn model() -> Build {
        let mut b = Build::new(17);
        let x = b.input("x", float(&[2]));
        let y = b.node("Relu", &[x], &[]);
        b.output(y, float(&[2]));
        b
    }

    fn names(pipeline: &Pipeline) -> Vec<&'static str> {
        pipeline.entries().iter().map(Entry::name).collect()
    }

    fn error_of(vandal: fn(&mut Model) -> Result<(), PassError>) -> PassError {
        let mut pipeline = Pipeline::preparation();
        pipeline.insert_after("fold", Vandal(vandal), "to break it").unwrap();
        pipeline.run(&mut model().model, &mut PassContext::default()).unwrap_err()
    }

    #[test]
    fn every_pass_has_a_reason_and_what_it_needs_before_it() {
        let pipeline = Pipeline::preparation();
        let mut seen: Vec<&str> = Vec::new();
        for entry in pipeline.entries() {
            assert!(entry.reason().len() > 10, "{}", entry.name());
            assert!(entry.requires().iter().all(|name| seen.contains(name)), "{}", entry.name());
            assert!(!seen.contains(&entry.name()));
            seen.push(entry.name());
        }
    }

    #[test]
    fn passes_go_where_they_are_put() {
        let mut pipeline = Pipeline::new();
        pipeline.push(Rename("b", "Relu", "Abs"), "in the middle");
        pipeline.insert_before("b", Rename("a", "Relu", "Neg"), "before b").unwrap();
        pipeline.insert_after("b", Rename("c", "Abs", "Exp"), String::from("after b")).unwrap();
        assert_eq!(names(&pipeline), ["a", "b", "c"]);
        assert_eq!(names(&pipeline.first(2)), ["a", "b"]);
        let unknown = pipeline.insert_after("d", Rename("e", "", ""), "").unwrap_err();
        assert_eq!(unknown.to_string(), "there is no pass 'd'; there are a, b, c");
        pipeline.skip("a").unwrap();
        let mut b = model();
        let applied = pipeline.run(&mut b.model, &mut PassContext::default()).unwrap();
        assert_eq!(applied, [("b", Changed(1)), ("c", Changed(1))]);
        assert_eq!(b.ops(), ["Exp"]);
    }

    #[test]
    fn switching_a_pass_on_switches_on_what_it_needs() {
        let mut pipeline = Pipeline::preparation();
        let is_on = |pipeline: &Pipeline, name| {
            pipeline.entries().iter().any(|entry| entry.name() == name && entry.is_on())
        };
        pipeline.skip("types").unwrap();
        assert!(!is_on(&pipeline, "gelu") && !is_on(&pipeline, "types"));
        pipeline.enable("gelu").unwrap();
        assert!(is_on(&pipeline, "gelu") && is_on(&pipeline, "types"));
    }

    #[test]
    fn who_broke_the_model_is_named() {
        let structure = error_of(|model| {
            let node = model.walk()[0];
            model.remove(node);
            Ok(())
        });
        assert!(matches!(
            structure,
            PassError::Broken(BrokenRewrite { rewrite: "vandal", what: Broken::Structure(_) })
        ));
        let interface = error_of(|model| {
            let value = model.graph(model.main()).inputs[0].value;
            let info = ValueInfo { value, ty: None, origin: modelopt_graph::Origin::NONE };
            model.add_output(model.main(), info);
            Ok(())
        });
        assert!(matches!(
            interface,
            PassError::Broken(BrokenRewrite { rewrite: "vandal", what: Broken::Interface })
        ));
    }

    #[test]
    fn a_pass_that_fails_ends_the_run_and_an_order_that_cannot_work_is_refused() {
        let failed = error_of(|_| {
            Err(PassError::Failed { pass: "vandal", source: "no reason".to_owned().into() })
        });
        assert_eq!(failed.to_string(), "the pass 'vandal' failed: no reason");
        let mut pipeline = Pipeline::preparation();
        pipeline.insert_before("sort", Vandal(|_| Ok(())), "too early").unwrap();
        let error = pipeline.run(&mut model().model, &mut PassContext::default()).unwrap_err();
        assert!(matches!(error, PassError::Order { pass: "vandal", needs: "sort" }));
        // What is left out on purpose still stands there.
        let mut pipeline = Pipeline::preparation();
        pipeline.skip("fold").unwrap();
        assert!(pipeline.run(&mut model().model, &mut PassContext::default()).is_ok());
    }

    #[test]
    fn the_first_pass_after_which_something_fails_is_found() {
        let mut pipeline = Pipeline::new();
        let steps = ["Relu", "A", "B", "C", "D", "E", "F", "G", "H"];
        let passes = ["p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7"];
        for (name, pair) in passes.into_iter().zip(steps.windows(2)) {
            pipeline.push(Rename(name, pair[0], pair[1]), "one after the other");
            pipeline.push(Rename("idle", "None", "None"), "changes nothing");
        }
        let model = model().model;
        let op = |model: &Model| {
            let name = &model.node(model.walk()[0]).op.name;
            steps.iter().position(|step| step == name).unwrap()
        };
        let find = |limit: usize| {
            let mut asked = 0;
            let culprit = pipeline.first_failing(&model, &PassContext::default(), |model| {
                asked += 1;
                op(model) < limit
            });
            assert!(asked <= 6, "{asked}");
            culprit.unwrap()
        };
        for (index, name) in passes.into_iter().enumerate() {
            assert_eq!(find(index + 1), Culprit::Pass(name));
        }
        assert_eq!((find(0), find(9)), (Culprit::Input, Culprit::None));
    }

    /// Puts a `Neg` behind a `Neg`, again and again.
    struct Endless;

    impl Rewrite for Endless {
        fn name(&self) -> &'static str {
            "endless"
        }

        fn propose(&self, model: &Model, id: NodeId) -> Result<Patch, Declined> {
            let node = model.node(id);
            let (Some(input), Some(output)) = (node.input(0), node.output(0)) else {
                return Err(Declined::NoMatch);
            };
            let mut patch = Patch::new();
            patch.remove(id);
            let place = modelopt_graph::Place::Before(id);
            patch.node_into(place, "Neg", "neg", &[input.into()], &[], output);
            Ok(patch)
        }
    }

    #[test]
    fn a_rewrite_that_always_applies_comes_to_an_end() {
        let mut pipeline = Pipeline::new();
        pipeline.push(EveryNode(Endless), "alone");
        let applied = pipeline.run(&mut model().model, &mut PassContext::default()).unwrap();
        assert_eq!(applied, [("endless", Changed(64))]);
    }
}
