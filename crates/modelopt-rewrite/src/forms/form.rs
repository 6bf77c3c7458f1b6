//! What a form is: the trait that each implements, and what it says of itself.

use std::fmt;

use modelopt_graph::{DataType, Model, Node, NodeId, ValueId};

use super::emission::{Emission, Emitted, SharedWeight, Use};
use crate::choices::Precision;
use crate::layers::{Layer, Role};
use crate::policy::Capabilities;
use crate::quantize::Recipe;
use crate::site::Site;

/// How one layer can be represented.
pub(crate) trait Form: fmt::Debug + Sync {
    /// What it is, in a few words.
    fn about(&self) -> &'static str;

    /// How weights are stored, how activations are taken, what is computed in.
    fn sides(&self) -> Sides;

    /// The ladders that it stands on; its step down is the next form on the first of them.
    fn ladders(&self) -> &'static [Ladder];

    /// The weights of a layer that it would store, by place in the layer's weights, or why it is not
    /// possible there. To be asked only of forms that are chosen weight by weight.
    fn eligible(&self, site: &Site<'_>) -> Result<Vec<usize>, String>;

    /// Why it should not be chosen for a layer, if it should not: it would be slow or wrong there.
    fn objection(&self, _layer: &Considered<'_>, _target: &Capabilities) -> Option<Objection> {
        None
    }

    /// The version of `ai.onnx` that it is expressed in, where that is more than it takes to be possible:
    /// the model is raised to it.
    fn opset(&self) -> Option<i64> {
        None
    }

    /// Why it is chosen for a node, in a few words.
    fn reason(&self, _node: &Node) -> &'static str {
        self.about()
    }

    /// Whether a weight is read in this form by nobody who reads it otherwise.
    fn has_own_layout(&self) -> bool {
        false
    }

    /// How a weight is stored; none where it cannot be.
    fn recipe(&self, _weight: &SharedWeight<'_>) -> Option<Recipe> {
        None
    }

    /// Whether a weight in this role is read transposed.
    fn transposes(&self, _role: Role) -> bool {
        false
    }

    /// Makes what several layers share, before any of them is rewritten.
    fn begin(&self, _model: &mut Model, _layer: NodeId, _emission: &mut Emission<'_>) {}

    /// Rewrites a layer that takes the stored weight as it is.
    fn rewrite(
        &self,
        _model: &mut Model,
        _layer: &Use<'_>,
        _stored: &Emitted,
        _emission: &Emission<'_>,
    ) {
    }

    /// Computes the weight from what is stored, for all who still read it as `elem`.
    fn restore(&self, _model: &mut Model, _weight: ValueId, _stored: &Emitted, _elem: DataType) {}

    /// Adds the error of the activation that a layer quantizes, times a switch; says whether there is
    /// one. See [`crate::switchboard`].
    fn disturb(&self, _model: &mut Model, _layer: NodeId, _switch: (ValueId, usize)) -> bool {
        false
    }

    /// Whether a layer can have all of its weights turned into float while the model loads rather
    /// than in every run.
    fn has_at_load(&self, _op: &str) -> bool {
        false
    }
}

/// A layer for which a form is considered.
pub(crate) struct Considered<'a> {
    pub(crate) model: &'a Model,
    pub(crate) layer: &'a Layer,
    /// The weights that the form would store; none where it is not possible.
    pub(crate) eligible: &'a [usize],
    /// Whether somebody asked for the form.
    pub(crate) asked: bool,
}

/// Why a form should not be chosen where it is possible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Objection {
    /// Its operator is not faster in this form there.
    DoesNotPay,
    /// It would be slow.
    Slow(String),
    /// It would give other results than it should.
    Wrong(String),
}

/// What a form does to each side of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sides {
    /// How weights are stored.
    pub weights: Storage,
    /// How activations are taken.
    pub activations: Activations,
    /// What is computed in, where that is not what the model computes in.
    pub computes: Option<Precision>,
}

/// How weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Name; forms of the same storage can share a weight.
    pub name: &'static str,
    /// Bits of each number.
    pub bits: u32,
    /// The 16-bit float type, if it is one.
    pub precision: Option<Precision>,
}

impl Storage {
    /// As they are.
    pub const UNCHANGED: Storage = Storage { name: "float32", bits: 32, precision: None };

    /// Integers of 8 bits.
    pub const INT8: Storage = Storage { name: "int8", bits: 8, precision: None };

    /// Whether numbers become integers of 8 bits.
    pub fn is_int8(self) -> bool {
        self.bits == Storage::INT8.bits
    }

    /// A 16-bit float type.
    pub const fn of(precision: Precision) -> Self {
        Storage { name: precision.name(), bits: 16, precision: Some(precision) }
    }
}

/// How activations are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activations {
    /// As they are.
    Unchanged,
    /// Quantized at run time, by their own range.
    Dynamic,
    /// Quantized by ranges that were found beforehand.
    Static,
}

/// A sequence of forms, each more exact than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ladder {
    /// From integers to float32.
    Int8,
    /// From computing in a 16-bit type to float32.
    Sixteen(Precision),
}
