//! Numbers that look random, computed from the places of elements.
//!
//! The element at place `i` gets `frac(Σ ((i + s_k)³ mod m_k) / m_k)` over three primes `m_k`, for
//! which cubing is a permutation (`m_k ≡ 2 mod 3`); the offsets `s_k` are the stream. All products
//! stay below 2²⁴, so that float32 computes the residues exactly, and every runtime the same; no
//! integer operators are needed, which runtimes compute in different widths.

use modelopt_graph::{AttributeValue, DataType, Dim, GraphId, NodeId, Owner, Tensor, ValueId};

use super::nodes::Nodes;

/// Below 2¹², and 2 modulo 3.
const PRIMES: [f32; 3] = [4091.0, 4079.0, 4073.0];

/// Steps of the streams from turn to turn of a loop.
const STEPS: [f32; 3] = [1597.0, 987.0, 2584.0];

/// Keeps logarithms finite.
const TINY: f32 = 1e-7;

/// How many elements there are, and in which shape.
#[derive(Clone, Debug)]
pub(super) enum Extent {
    /// Known from the model.
    Known(Vec<usize>),
    /// Known while the model runs: number of elements (a scalar) and shape (a list), int64.
    Runtime { count: ValueId, shape: ValueId },
}

impl Extent {
    /// That of a tensor. None where its elements cannot be counted: before opset 9, unless its shape
    /// is known.
    pub(super) fn of(nodes: &mut Nodes<'_>, value: ValueId) -> Option<Self> {
        // Before there is Range, a list that stands in the model is easier on runtimes.
        if nodes.version < 11
            && let Some(shape) = nodes.model.value(value).ty().and_then(|ty| ty.shape())
            && let Some(shape) = shape.iter().map(Dim::fixed).collect()
        {
            return Some(Extent::Known(shape));
        }
        if nodes.version < 9 {
            return None;
        }
        let count = nodes.op("Size", &[value], &[]);
        Some(Extent::Runtime { count, shape: nodes.op("Shape", &[value], &[]) })
    }
}

/// A well mixed number (the finalizer of `SplitMix64`).
pub(super) fn mixed(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The numbers of one node.
pub(super) struct Numbers {
    seed: u64,
    /// Places of the elements, modulo the primes: one row each.
    places: ValueId,
    primes: ValueId,
    shape: ValueId,
}

impl Numbers {
    pub(super) fn new(nodes: &mut Nodes<'_>, extent: &Extent, seed: u64) -> Self {
        let shape = match extent {
            Extent::Known(shape) => {
                let shape: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
                nodes.ints(&shape)
            }
            Extent::Runtime { shape, .. } => *shape,
        };
        let index = index(nodes, extent);
        let primes = nodes.column(PRIMES);
        let mut numbers = Numbers { seed, places: index, primes, shape };
        numbers.places = numbers.modulo(nodes, index);
        for turn in turns(nodes) {
            let turn = nodes.cast(turn, DataType::FLOAT);
            let turn = numbers.modulo(nodes, turn);
            let steps = nodes.column(STEPS);
            let moved = nodes.op("Mul", &[turn, steps], &[]);
            let moved = numbers.modulo(nodes, moved);
            let places = nodes.op("Add", &[numbers.places, moved], &[]);
            numbers.places = numbers.modulo(nodes, places);
        }
        numbers
    }

    fn modulo(&self, nodes: &mut Nodes<'_>, value: ValueId) -> ValueId {
        let turns = nodes.op("Div", &[value, self.primes], &[]);
        let turns = nodes.op("Floor", &[turns], &[]);
        let whole = nodes.op("Mul", &[turns, self.primes], &[]);
        nodes.op("Sub", &[value, whole], &[])
    }

    /// Uniform in [0, 1), float32, as a list. Each call gives others.
    fn list(&mut self, nodes: &mut Nodes<'_>) -> ValueId {
        self.seed = mixed(self.seed);
        let offset = |at: usize| ((self.seed >> (20 * at)) & 0xf_ffff) as f32 % PRIMES[at];
        let offsets = nodes.column([offset(0), offset(1), offset(2)]);
        let moved = nodes.op("Add", &[self.places, offsets], &[]);
        let x = self.modulo(nodes, moved);
        let square = nodes.op("Mul", &[x, x], &[]);
        let square = self.modulo(nodes, square);
        let cube = nodes.op("Mul", &[square, x], &[]);
        let cube = self.modulo(nodes, cube);
        let parts = nodes.op("Div", &[cube, self.primes], &[]);
        let sum = nodes.sum_of_rows(parts);
        let whole = nodes.op("Floor", &[sum], &[]);
        nodes.op("Sub", &[sum, whole], &[])
    }

    fn shaped(&self, nodes: &mut Nodes<'_>, list: ValueId) -> ValueId {
        nodes.op("Reshape", &[list, self.shape], &[])
    }

    /// Uniform in [0, 1), float32, in the shape.
    pub(super) fn uniform(&mut self, nodes: &mut Nodes<'_>) -> ValueId {
        let list = self.list(nodes);
        self.shaped(nodes, list)
    }

    /// Normal with mean 0 and deviation 1 (Box and Muller, 1958), float32, in the shape.
    pub(super) fn normal(&mut self, nodes: &mut Nodes<'_>) -> ValueId {
        let (first, second) = (self.list(nodes), self.list(nodes));
        let above_zero = affine(nodes, first, 1.0 - TINY, TINY);
        let log = nodes.op("Log", &[above_zero], &[]);
        let square = affine(nodes, log, -2.0, 0.0);
        let radius = nodes.op("Sqrt", &[square], &[]);
        let angle = affine(nodes, second, std::f32::consts::TAU, 0.0);
        let cosine = nodes.op("Cos", &[angle], &[]);
        let list = nodes.op("Mul", &[radius, cosine], &[]);
        self.shaped(nodes, list)
    }

    /// Standard Gumbel, float32, in the shape: what is largest after adding it to logarithms of
    /// probabilities is drawn with these probabilities.
    pub(super) fn gumbel(&mut self, nodes: &mut Nodes<'_>) -> ValueId {
        let list = self.list(nodes);
        let inside = affine(nodes, list, 1.0 - 2.0 * TINY, TINY);
        let log = nodes.op("Log", &[inside], &[]);
        let log = nodes.op("Neg", &[log], &[]);
        let log = nodes.op("Log", &[log], &[]);
        let list = nodes.op("Neg", &[log], &[]);
        self.shaped(nodes, list)
    }
}

/// `value * factor + summand`.
pub(super) fn affine(nodes: &mut Nodes<'_>, value: ValueId, factor: f32, summand: f32) -> ValueId {
    let mut result = value;
    if factor.to_bits() != 1f32.to_bits() {
        let factor = nodes.float(factor);
        result = nodes.op("Mul", &[result, factor], &[]);
    }
    if summand.to_bits() != 0f32.to_bits() {
        let summand = nodes.float(summand);
        result = nodes.op("Add", &[result, summand], &[]);
    }
    result
}

/// 0, 1, 2 and so on, float32, as a list.
fn index(nodes: &mut Nodes<'_>, extent: &Extent) -> ValueId {
    let index = match extent {
        Extent::Known(shape) if nodes.version < 11 => {
            let count = modelopt_graph::element_count(shape).unwrap_or(0);
            let numbers: Vec<f32> = (0..count).map(|at| at as f32).collect();
            let list = Tensor::of(vec![count], &numbers);
            return nodes.constant(list.unwrap_or_else(|_| Tensor::scalar(0f32)));
        }
        Extent::Known(shape) => {
            let count = modelopt_graph::element_count(shape).unwrap_or(0);
            let count = nodes.int(count as i64);
            range(nodes, count)
        }
        Extent::Runtime { count, .. } if nodes.version >= 11 => range(nodes, *count),
        Extent::Runtime { count, .. } => {
            let whole = nodes.ints(&[-1]);
            let count = nodes.op("Reshape", &[*count, whole], &[]);
            let one = Tensor::of(vec![1], &[1i64]).unwrap_or_else(|_| Tensor::scalar(1i64));
            let value: AttributeValue = one.into();
            let ones = nodes.op("ConstantOfShape", &[count], &[("value", value)]);
            let places = nodes.op("NonZero", &[ones], &[]);
            nodes.op("Reshape", &[places, whole], &[])
        }
    };
    nodes.cast(index, DataType::FLOAT)
}

fn range(nodes: &mut Nodes<'_>, count: ValueId) -> ValueId {
    let (zero, one) = (nodes.int(0), nodes.int(1));
    nodes.op("Range", &[zero, count, one], &[])
}

/// The counters of the loops around a node, innermost first, as far as they can be read there. A
/// `Scan` has none: its turns draw the same.
fn turns(nodes: &mut Nodes<'_>) -> Vec<ValueId> {
    let mut turns = Vec::new();
    let mut graph = nodes.graph;
    while let Owner::Node(owner) = nodes.model.owner(graph) {
        let counter = counter(nodes, owner, graph);
        turns.extend(counter.filter(|&c| graph == nodes.graph || nodes.model.has_unique_name(c)));
        graph = nodes.model.node(owner).graph();
    }
    turns
}

fn counter(nodes: &Nodes<'_>, owner: NodeId, body: GraphId) -> Option<ValueId> {
    let is_loop = nodes.model.node(owner).op.is("Loop");
    nodes.model.graph(body).inputs.first().map(|info| info.value).filter(|_| is_loop)
}
