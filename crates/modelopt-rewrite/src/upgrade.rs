//! Raising the operator set of a model: the same computation, written with newer operators.
//!
//! The model is brought up one version at a time. At each, the schema table says which operators
//! change; for those that change in form or meaning there is an adapter (`registry.rs`), and the rest
//! are read as they are. Weights are never touched; what was an attribute and is an input now
//! becomes a small constant.
//!
//! Operators of other domains stay as they are.

mod control;
mod inputs;
mod normalization;
mod registry;
mod rename;
mod resize;
mod site;
mod softmax;
#[cfg(test)]
mod testing;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use modelopt_graph::{GraphId, Model, NodeId, infer, schema, verify};

pub use registry::{Change, Step, steps};
pub use site::Obstacle;
use site::Site;

use crate::engine::{Broken, BrokenRewrite};
use crate::pass::{Changed, Pass, PassContext, PassError};

/// The oldest operator set that can be raised whatever is in the model: before it, `Add` and its like do not
/// broadcast as they do now. Older ones can where none of their operators changed until then.
pub const OLDEST: i64 = 7;

/// The newest operator set of `ai.onnx` that the schema table knows.
pub static NEWEST: LazyLock<i64> = LazyLock::new(|| schema::newest("").unwrap_or(OLDEST));

/// The IR version that came with an operator set, and that a model of it has at least.
const IR_VERSIONS: &[(i64, i64)] = &[
    (9, 4),
    (10, 5),
    (11, 6),
    (12, 7),
    (15, 8),
    (19, 9),
    (21, 10),
    (23, 11),
    (24, 12),
    (25, 13),
    (28, 14),
];

/// What an upgrade did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Upgraded {
    /// The operator set before; the one that was asked for where the model uses none.
    pub from: i64,
    /// The operator set now.
    pub to: i64,
    /// The IR version before and now.
    pub ir_version: (i64, i64),
    /// What was rewritten, by version and operator.
    pub adapted: Vec<Adapted>,
    /// Whether anything in the model is different now.
    pub changed: bool,
}

/// How many nodes of an operator were rewritten at one version.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Adapted {
    /// Operator.
    pub operator: &'static str,
    /// The version at which it changed.
    pub version: i64,
    /// Nodes.
    pub nodes: usize,
}

/// Why a model was not upgraded; it is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpgradeError {
    /// The model is older than what can be raised.
    #[error(
        "its operator set is {version}, and operators in it changed before {OLDEST}; models from \
             {OLDEST} on can be raised"
    )]
    TooOld {
        /// Its operator set.
        version: i64,
    },
    /// There is no such operator set, as far as this program knows.
    #[error("operator set {to} is not known here; the newest is {}", *NEWEST)]
    Unknown {
        /// What was asked for.
        to: i64,
    },
    /// The model is newer than what was asked for.
    #[error("its operator set is {from}, and cannot be lowered to {to}")]
    Lower {
        /// Its operator set.
        from: i64,
        /// What was asked for.
        to: i64,
    },
    /// A node has no equivalent.
    #[error("{label}{} cannot be brought to operator set {version}: {obstacle}", inside(.path))]
    Node {
        /// Operator and name.
        label: String,
        /// Where it is; empty for the main graph.
        path: String,
        /// Operator.
        operator: String,
        /// The version at which it changes.
        version: i64,
        /// Why.
        obstacle: Obstacle,
    },
    /// The nodes are in a circle, or an adapter is wrong.
    #[error(transparent)]
    Broken(#[from] BrokenRewrite),
}

fn inside(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!(" in {path}") }
}

/// [`raise`] as a pass, for pipelines whose later passes need an operator set.
#[derive(Clone, Copy, Debug)]
pub struct AtLeast(
    /// The operator set.
    pub i64,
);

impl Pass for AtLeast {
    fn name(&self) -> &'static str {
        "upgrade"
    }

    fn run(&self, model: &mut Model, _: &mut PassContext) -> Result<Changed, PassError> {
        match raise(model, self.0) {
            // The version itself is a change, also where no node had to be rewritten.
            Ok(Some(done)) => {
                Ok(Changed(1 + done.adapted.iter().map(|step| step.nodes).sum::<usize>()))
            }
            Ok(None) => Ok(Changed::NOTHING),
            Err(UpgradeError::Broken(broken)) => Err(broken.into()),
            Err(error) => Err(PassError::Failed { pass: self.name(), source: Box::new(error) }),
        }
    }
}

/// Raises the operator set of a model to at least `at_least`; `None` where it is that new already.
pub fn raise(model: &mut Model, at_least: i64) -> Result<Option<Upgraded>, UpgradeError> {
    let oldest = roots(model).into_iter().filter_map(|(graph, _)| model.opset(graph, "")).min();
    match oldest {
        Some(oldest) if oldest < at_least => {
            let newest = model.opset(model.main(), "").unwrap_or(at_least);
            upgrade(model, at_least.max(newest)).map(Some)
        }
        _ => Ok(None),
    }
}

/// Brings all graphs of a model to operator set `to` of `ai.onnx`. Names, types and shapes of inputs
/// and outputs stay. On an error the model is as it was.
pub fn upgrade(model: &mut Model, to: i64) -> Result<Upgraded, UpgradeError> {
    let ir = model.info.ir_version;
    let from = model.opset(model.main(), "").unwrap_or(to);
    if to > *NEWEST {
        return Err(UpgradeError::Unknown { to });
    }
    if from > to {
        return Err(UpgradeError::Lower { from, to });
    }
    let old: Vec<(GraphId, i64)> = roots(model)
        .into_iter()
        .filter_map(|(graph, _)| Some((graph, model.opset(graph, "")?)))
        .filter(|(_, version)| *version < to)
        .collect();
    if let Some(&(_, version)) = old.iter().find(|(graph, from)| is_too_old(model, *graph, *from)) {
        return Err(UpgradeError::TooOld { version });
    }
    let unchanged =
        Upgraded { from, to, ir_version: (ir, ir), adapted: Vec::new(), changed: false };
    if old.is_empty() {
        return Ok(unchanged);
    }
    let mut raised = model.clone();
    let adapted = raise_all(&mut raised, &old, to)?;
    *model = raised;
    Ok(Upgraded { ir_version: (ir, model.info.ir_version), adapted, changed: true, ..unchanged })
}

/// Whether an operator changed before the oldest set that there are adapters from.
fn is_too_old(model: &Model, root: GraphId, version: i64) -> bool {
    let since = |name: &str, version: i64| {
        schema::lookup("", name, version).map(|schema| schema.since_version)
    };
    let changed = |id: NodeId| {
        let op = &model.node(id).op;
        op.is_onnx() && since(&op.name, version) != since(&op.name, OLDEST)
    };
    version < OLDEST && model.walk_graph(root).into_iter().any(changed)
}

/// The main graph and the bodies of functions, each with its place among the functions.
fn roots(model: &Model) -> Vec<(GraphId, Option<usize>)> {
    let functions = model.functions.iter().enumerate();
    let bodies = functions.map(|(index, function)| (function.body, Some(index)));
    std::iter::once((model.main(), None)).chain(bodies).collect()
}

fn raise_all(
    model: &mut Model,
    old: &[(GraphId, i64)],
    to: i64,
) -> Result<Vec<Adapted>, UpgradeError> {
    let broken = |problem| BrokenRewrite { rewrite: "upgrade", what: Broken::Structure(problem) };
    let interface = verify::interface(model);
    raise_ir(model, to);
    verify::sort(model).map_err(broken)?;
    infer::infer(model);
    for &(root, version) in old {
        check_known(model, root, version)?;
    }
    let mut counts = BTreeMap::new();
    for &(root, from) in old {
        for version in from + 1..=to {
            step(model, root, version, to, &mut counts)?;
        }
    }
    set_opset(model, to);
    model.compact();
    verify::check(model).map_err(broken)?;
    if verify::interface(model) != interface {
        return Err(BrokenRewrite { rewrite: "upgrade", what: Broken::Interface }.into());
    }
    let adapted = counts.into_iter();
    Ok(adapted.map(|((version, operator), nodes)| Adapted { operator, version, nodes }).collect())
}

/// Raises the IR version to what the operator set came with. Before version 4 every initializer was
/// listed as an input; from then on that would let callers override it.
fn raise_ir(model: &mut Model, to: i64) {
    let least = IR_VERSIONS.iter().rev().find(|(opset, _)| *opset <= to).map_or(3, |(_, ir)| *ir);
    if model.info.ir_version >= least {
        return;
    }
    if model.defaults_are_constants() {
        model.freeze_defaulted_inputs();
    }
    model.info.ir_version = least;
}

fn set_opset(model: &mut Model, to: i64) {
    let functions = model.functions.iter_mut().map(|function| &mut function.opsets);
    for import in std::iter::once(&mut model.info.opsets).chain(functions).flatten() {
        if (import.domain.is_empty() || import.domain == "ai.onnx") && import.version < to {
            import.version = to;
        }
    }
}

/// Nothing can be said of operators that are not in the table.
fn check_known(model: &Model, root: GraphId, version: i64) -> Result<(), UpgradeError> {
    let mut nodes = model.walk_graph(root).into_iter();
    let unknown = nodes.find(|&id| {
        let op = &model.node(id).op;
        op.is_onnx()
            && model.called_function(id).is_none()
            && schema::lookup("", &op.name, version).is_none()
    });
    match unknown {
        Some(node) => Err(stopped(model, node, version, Obstacle::NoOperator { version })),
        None => Ok(()),
    }
}

fn stopped(model: &Model, node: NodeId, version: i64, obstacle: Obstacle) -> UpgradeError {
    UpgradeError::Node {
        label: model.label(node),
        path: model.graph_path(model.node(node).graph()),
        operator: model.node(node).op.name.clone(),
        version,
        obstacle,
    }
}

/// Brings the nodes of a graph, and those nested in it, from the version before to this one.
fn step(
    model: &mut Model,
    root: GraphId,
    version: i64,
    to: i64,
    counts: &mut BTreeMap<(i64, &'static str), usize>,
) -> Result<(), UpgradeError> {
    for node in model.walk_graph(root) {
        let op = &model.node(node).op;
        if !op.is_onnx() || model.node(node).is_removed() || model.called_function(node).is_some() {
            continue;
        }
        let newer = schema::lookup("", &op.name, version);
        let Some(newer) = newer.filter(|newer| newer.since_version == version) else { continue };
        if let Some(obstacle) = lost_type(model, node, newer) {
            return Err(stopped(model, node, version, obstacle));
        }
        let Some((operator, adapter)) = registry::adapter(&op.name, version) else {
            if newer.deprecated {
                return Err(stopped(model, node, version, Obstacle::Withdrawn));
            }
            continue;
        };
        let (label, path) = (model.label(node), model.graph_path(model.node(node).graph()));
        match adapter(&mut Site::new(model, node, to)) {
            Ok(false) => {}
            Ok(true) => *counts.entry((version, operator)).or_default() += 1,
            Err(obstacle) => {
                let operator = operator.to_owned();
                return Err(UpgradeError::Node { label, path, operator, version, obstacle });
            }
        }
    }
    Ok(())
}

/// An element type that an input may no longer have.
fn lost_type(model: &Model, node: NodeId, newer: &schema::OpSchema) -> Option<Obstacle> {
    let older = schema::lookup("", newer.name, newer.since_version - 1)?;
    model.node(node).inputs().iter().enumerate().find_map(|(index, input)| {
        let elem = model.value((*input)?).elem()?;
        let allows = |of: &schema::OpSchema| {
            of.formal_input(index).is_none_or(|formal| of.allows(formal, elem))
        };
        (allows(older) && !allows(newer)).then_some(Obstacle::LostType { elem })
    })
}

#[cfg(test)]
mod tests {
    use modelopt_graph::{
        Attribute, AttributeValue, DataType, Function, OpsetImport, Origin, Owner,
    };
    use modelopt_graph::{Type, ValueInfo};

    use super::testing::{last, one, raised};
    use super::*;
    use crate::testing::{Build, float};

    fn function(b: &mut Build, version: i64, op: &str, reference: bool) {
        let body = b.model.add_graph(Owner::Function(0));
        let x = b.model.add_value("formal");
        b.model.add_input(body, ValueInfo { value: x, ty: None, origin: Origin::NONE });
        let y = b.named_node_in(body, op, &[x], "result");
        let id = b.model.producer_node(y).unwrap();
        let axes = AttributeValue::Reference("where".into());
        let axes = if reference { axes } else { vec![0].into() };
        b.model.node_mut(id).attributes.push(Attribute::new("axes", axes));
        b.model.add_output(body, ValueInfo { value: y, ty: None, origin: Origin::NONE });
        b.model.functions.push(Function {
            domain: "local".into(),
            name: "F".into(),
            overload: String::new(),
            opsets: vec![OpsetImport { domain: String::new(), version, origin: Origin::NONE }],
            body,
            has_attribute_defaults: false,
            origin: Origin::NONE,
        });
    }

    fn calling(version: i64, reference: bool, given: &[(&str, AttributeValue)]) -> Build {
        let mut b = one(version, "F", &[&[2, 3]], given);
        let call = b.model.walk()[0];
        b.model.node_mut(call).op.domain = "local".into();
        function(&mut b, version, "Unsqueeze", reference);
        b
    }

    #[test]
    fn bodies_of_functions_get_constant_nodes() {
        let mut b = calling(12, false, &[]);
        upgrade(&mut b.model, 21).unwrap();
        let body = b.model.functions[0].body;
        let ops: Vec<_> =
            b.model.nodes_of(body).map(|id| b.model.node(id).op.name.clone()).collect();
        assert_eq!(ops, ["Constant", "Unsqueeze"]);
        assert!(b.model.initializers_of(body).is_empty());
        assert_eq!(b.model.functions[0].opsets[0].version, 21);
    }

    #[test]
    fn what_callers_give_is_taken_from_them() {
        let mut b = calling(12, true, &[("where", vec![1].into())]);
        upgrade(&mut b.model, 13).unwrap();
        let constant = b.model.nodes_of(b.model.functions[0].body).next().unwrap();
        let list = b.model.node(constant).attribute("value_ints");
        assert!(matches!(list, Some(AttributeValue::Reference(name)) if name == "where"));
        let error = upgrade(&mut calling(12, true, &[]).model, 13).unwrap_err().to_string();
        assert!(error.contains("in function F") && error.contains("'axes'"), "{error}");
    }

    #[test]
    fn nodes_in_branches_are_raised_and_their_constants_stay_there() {
        let mut b = Build::new(10);
        let x = b.input("x", float(&[4]));
        let condition = b.input("c", crate::testing::boolean());
        let (then, clip) = b.body(|b, graph| {
            let clip = b.named_node_in(graph, "Clip", &[x], "t");
            (clip, clip)
        });
        let clip = b.model.producer_node(clip).unwrap();
        b.model.node_mut(clip).attributes.push(Attribute::new("min", 0.0));
        let (other, ()) = b.body(|b, graph| (b.named_node_in(graph, "Relu", &[x], "e"), ()));
        let y = b.if_node(condition, then, other);
        b.output(y, float(&[4]));
        assert_eq!(raised(&mut b, 17), ["If", "Clip", "Relu"]);
        assert_eq!(b.model.initializers_of(then).len(), 1);
    }

    #[test]
    fn names_that_are_taken_are_not_taken_again() {
        let mut b = one(10, "Clip", &[&[2]], &[("min", 0.0.into())]);
        b.weight("clip_out_min", &[1], &[7.0]);
        raised(&mut b, 11);
        let min = last(&b.model).input(1).unwrap();
        assert_eq!(b.model.value(min).name(), "clip_out_min_1");
    }

    #[test]
    fn the_format_is_raised_along_and_listed_initializers_are_no_inputs_any_more() {
        let mut b = Build::new(7);
        b.model.info.ir_version = 3;
        let w = b.input("w", float(&[2]));
        b.default(w, &[2], &[1.0, 2.0]);
        let x = b.input("x", float(&[2]));
        let y = b.node("Add", &[x, w], &[]);
        b.output(y, float(&[2]));
        let done = upgrade(&mut b.model, 17).unwrap();
        assert_eq!((done.from, done.to, done.ir_version), (7, 17, (3, 8)));
        assert_eq!(b.model.graph(b.model.main()).inputs.len(), 1);
        assert!(b.model.constant(w).is_some());
        // Up to version 8 the format stays as it is.
        let mut early = one(7, "Relu", &[&[2]], &[]);
        early.model.info.ir_version = 3;
        assert_eq!(upgrade(&mut early.model, 8).unwrap().ir_version, (3, 3));
    }

    #[test]
    fn what_cannot_be_is_said_and_changes_nothing() {
        let error = |b: &mut Build, to: i64| upgrade(&mut b.model, to).unwrap_err();
        let mut relu = one(13, "Relu", &[&[2]], &[]);
        assert!(matches!(error(&mut relu, 12), UpgradeError::Lower { from: 13, to: 12 }));
        assert!(matches!(error(&mut relu, 999), UpgradeError::Unknown { to: 999 }));
        let mut old = one(5, "Relu", &[&[2]], &[]);
        assert!(matches!(error(&mut old, 12), UpgradeError::TooOld { version: 5 }));
        assert!(upgrade(&mut one(1, "Not", &[&[2]], &[]).model, 12).unwrap().changed);
        let mut strange = one(9, "NoSuchOperator", &[&[2]], &[]);
        let said = error(&mut strange, 12).to_string();
        assert!(said.contains("there is no such operator in operator set 9"), "{said}");
        assert_eq!(strange.model.opset(strange.model.main(), ""), Some(9));
    }

    #[test]
    fn what_is_withdrawn_is_refused() {
        let mut b = one(9, "ImageScaler", &[&[1, 3, 4, 4]], &[]);
        let error = upgrade(&mut b.model, 12).unwrap_err().to_string();
        assert!(error.contains("operator set 10: the operator was withdrawn"), "{error}");
    }

    #[test]
    fn a_type_that_is_no_longer_allowed_is_named() {
        let mut b = Build::new(9);
        let x = b.input("x", Type::tensor(DataType::INT32));
        let y = b.node("Erf", &[x], &[]);
        b.output(y, Type::tensor(DataType::INT32));
        let error = upgrade(&mut b.model, 13).unwrap_err().to_string();
        assert!(error.ends_with("to operator set 13: int32 is no longer allowed"), "{error}");
        upgrade(&mut b.model, 12).unwrap();
    }

    #[test]
    fn other_domains_stay_and_at_least_means_at_least() {
        let mut b = one(12, "Squeeze", &[&[1, 2]], &[]);
        let import = OpsetImport { domain: "ai.onnx.ml".into(), version: 2, origin: Origin::NONE };
        b.model.info.opsets.push(import);
        assert_eq!(raise(&mut b.model, 11).unwrap(), None);
        assert_eq!(raise(&mut b.model, 13).unwrap().unwrap().to, 13);
        assert_eq!(b.model.opset(b.model.main(), "ai.onnx.ml"), Some(2));
        let mut none = Build::new(1);
        none.model.info.opsets.clear();
        assert!(!upgrade(&mut none.model, 21).unwrap().changed);
    }

    #[test]
    fn a_pipeline_can_raise_a_model() {
        let mut pipeline = crate::Pipeline::new();
        pipeline.push(AtLeast(13), "first: what comes next needs it");
        let mut b = one(12, "Squeeze", &[&[1, 2]], &[("axes", vec![0].into())]);
        b.model.info.ir_version = 3;
        let run = |model: &mut Model| pipeline.run(model, &mut PassContext::default());
        assert_eq!(run(&mut b.model).unwrap(), [("upgrade", Changed(2))]);
        assert_eq!(run(&mut b.model).unwrap(), [("upgrade", Changed::NOTHING)]);
        let mut withdrawn = one(9, "ImageScaler", &[&[1, 3, 4, 4]], &[]);
        let error = run(&mut withdrawn.model).unwrap_err().to_string();
        assert!(error.starts_with("the pass 'upgrade' failed"), "{error}");
    }

    #[test]
    fn weights_are_the_same_bytes_at_the_same_place() {
        let mut b = Build::new(9);
        let x = b.input("x", float(&[2, 2]));
        let w = b.weight("w", &[2, 2], &[1.0, 2.0, 3.0, 4.0]);
        let y = b.node("MatMul", &[x, w], &[]);
        b.output(y, float(&[2, 2]));
        let place = |b: &Build| b.model.constant(w).unwrap().bytes().unwrap().as_ptr();
        let before = place(&b);
        upgrade(&mut b.model, *NEWEST).unwrap();
        assert_eq!(place(&b), before);
    }
}
