//! What computing on integers saves, and what its borders cost, told from sizes and from what was measured
//! on a target.
//!
//! It says which layers are worth a place in a region, and what leaving one out costs; what a plan really
//! takes is measured on the whole model.

use std::collections::HashSet;

use modelopt_graph::{Model, NodeId, ValueId};

use super::kernels::{Kernel, end, kernel};
use super::regions::Regions;

/// What a target takes, in nanoseconds, on one thread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IntegerCosts {
    /// One multiplication of a convolution or product, in float32 and on integers.
    pub multiply: [f64; 2],
    /// How many times as much one takes in float32 where there are fewer than 32 channels.
    pub narrow: f64,
    /// On integers: gathering one tap of the filter at one place.
    pub tap: f64,
    /// The same where there are fewer than four input channels, or several groups.
    pub thin_tap: f64,
    /// One number that an integer convolution makes.
    pub made: f64,
    /// A depthwise convolution: one number, and each tap of it, in float32 and on integers.
    pub depthwise: [(f64, f64); 2],
    /// One number to quantize, and to dequantize, with the change of layout that goes with it.
    pub border: [f64; 2],
    /// What a float convolution takes for each number that it reads or makes beside quantized ones.
    pub reorder: f64,
    /// Any node.
    pub node: f64,
    /// Other operators, for each number that they make, in float32 and on integers.
    pub operators: &'static [(&'static str, f64, f64)],
}

/// From how many channels on kernels run at full speed.
const WIDE: u64 = 32;

/// What is known of a model that is run.
pub(crate) struct Costing<'a> {
    pub(crate) model: &'a Model,
    pub(crate) costs: &'a IntegerCosts,
    /// How many numbers a value has.
    pub(crate) elements: &'a dyn Fn(ValueId) -> Option<u64>,
}

impl Costing<'_> {
    /// What regions save, in nanoseconds: less than nothing where the model is faster without them.
    pub(crate) fn saved(&self, layers: &HashSet<NodeId>, regions: &Regions) -> f64 {
        let nodes = regions.nodes.iter().map(|&node| {
            let [float, integer] = self.node(node);
            float - integer
        });
        let borders = regions.tensors.iter().map(|&tensor| self.border(layers, regions, tensor));
        nodes.sum::<f64>() - borders.sum::<f64>()
    }

    fn size(&self, value: ValueId) -> f64 {
        (self.elements)(value).unwrap_or(0) as f64
    }

    /// The size of what a node makes; where that is cut off, nobody may have looked before it was.
    fn made(&self, value: ValueId) -> f64 {
        self.size(value).max(self.size(end(self.model, value).0))
    }

    /// What a node takes in float32 and on integers.
    pub(crate) fn node(&self, id: NodeId) -> [f64; 2] {
        let node = self.model.node(id);
        let Some(made) = node.output(0) else { return [0.0; 2] };
        let name = node.op.name.as_str();
        if kernel(node) == Some(Kernel::Product) {
            return self.product(id, made);
        }
        let known = self.costs.operators.iter().find(|(known, ..)| *known == name);
        let (float, integer) = known.map_or((0.0, 0.0), |&(_, float, integer)| (float, integer));
        // Pools read more than they make.
        let read = node.input(0).map_or(0.0, |read| self.size(read));
        let size = if name == "GlobalAveragePool" { read } else { self.made(made) };
        [float * size + self.costs.node, integer * size + self.costs.node]
    }

    fn product(&self, id: NodeId, made: ValueId) -> [f64; 2] {
        let (node, costs) = (self.model.node(id), self.costs);
        let weight = node.input(1).and_then(|weight| self.model.constant(weight));
        let Some(weight) = weight else { return [0.0; 2] };
        let (shape, size) = (weight.shape(), self.made(made));
        let &[outputs, inputs, ref kernel @ ..] = shape else { return [0.0; 2] };
        let numbers = weight.len() as f64;
        if !node.op.is("Conv") {
            let outputs = if node.int("transB", 0) != 0 { outputs } else { inputs };
            let multiplied = size * numbers / outputs.max(1) as f64;
            return [0, 1].map(|side| costs.multiply[side] * multiplied + costs.node);
        }
        let taps = kernel.iter().product::<usize>() as f64;
        let groups = node.int("group", 1).max(1) as u64;
        let (outputs, inputs) = (outputs as u64, inputs as u64);
        let places = size / outputs.max(1) as f64;
        let multiplied = size * numbers / outputs.max(1) as f64;
        if inputs == 1 && groups > 1 {
            let [(base, tap), (own, own_tap)] = costs.depthwise;
            let float = size * (base + tap * taps);
            let integer = places * taps * own + size * taps * own_tap;
            return [float + costs.node, integer + costs.node];
        }
        let is_narrow = inputs.min(outputs / groups) < WIDE;
        let factor = if is_narrow { costs.narrow } else { 1.0 };
        let is_thin = groups > 1 || inputs < 4;
        let per_tap = if is_thin { costs.thin_tap } else { costs.tap };
        // What is next to one another already need not be gathered.
        let gathered = if taps > 1.0 || groups > 1 { places * taps * groups as f64 } else { 0.0 };
        let integer = gathered * per_tap + multiplied * costs.multiply[1] + size * costs.made;
        [costs.multiply[0] * factor * multiplied + costs.node, integer + costs.node]
    }

    /// What it takes to quantize a tensor for who computes on integers, and to dequantize it for others.
    pub(crate) fn border(
        &self,
        layers: &HashSet<NodeId>,
        regions: &Regions,
        tensor: ValueId,
    ) -> f64 {
        let (model, costs) = (self.model, self.costs);
        let size = self.size(tensor);
        let is_made = model.producer_node(tensor).is_some_and(|maker| {
            regions.nodes.contains(&maker)
                || kernel(model.node(maker)) == Some(Kernel::Clipping)
                    && model.node(maker).input(0).is_some_and(|before| {
                        let inside = model.producer_node(before);
                        inside.is_some_and(|inside| regions.nodes.contains(&inside))
                            && end(model, before).0 == tensor
                    })
        });
        let is_float = |node: NodeId| !layers.contains(&node) && model.node(node).op.is("Conv");
        let mut cost = 0.0;
        let readers = regions.readers(model, tensor).len();
        if !is_made && readers > 0 {
            cost += size * costs.border[0] + costs.node;
            let maker = self.before(tensor);
            cost += if maker.is_some_and(is_float) { size * costs.reorder } else { 0.0 };
        }
        let others: Vec<NodeId> = model
            .consumers(tensor)
            .filter(|&(node, input)| !regions.reads(model, node, input))
            .map(|(node, _)| node)
            .collect();
        if is_made && (!others.is_empty() || model.value(tensor).is_output()) {
            cost += size * costs.border[1] + costs.node;
            cost += if others.into_iter().any(is_float) { size * costs.reorder } else { 0.0 };
        }
        cost
    }

    /// What makes a tensor, before what cuts off or computes number by number.
    fn before(&self, tensor: ValueId) -> Option<NodeId> {
        let maker = self.model.producer_node(tensor)?;
        let node = self.model.node(maker);
        if matches!(node.op.name.as_str(), "Relu" | "Clip" | "HardSwish" | "Mul" | "Sigmoid") {
            return self.model.producer_node(node.input(0)?);
        }
        Some(maker)
    }
}

/// How often layers are gone through to find those that do not pay.
const PASSES: usize = 3;

/// The layers that are worth being integer: those whose regions save time.
pub(crate) fn worthwhile(
    costing: &Costing<'_>,
    layers: &HashSet<NodeId>,
    regions: &dyn Fn(&HashSet<NodeId>) -> Regions,
) -> HashSet<NodeId> {
    let mut kept = layers.clone();
    let mut saved = costing.saved(&kept, &regions(&kept));
    let order: Vec<NodeId> =
        costing.model.nodes_of(costing.model.main()).filter(|node| layers.contains(node)).collect();
    for _ in 0..PASSES {
        let before = kept.len();
        // Those first that save the least by themselves.
        let mut left: Vec<NodeId> =
            order.iter().copied().filter(|node| kept.contains(node)).collect();
        let own = |&node: &NodeId| {
            let [float, integer] = costing.node(node);
            float - integer
        };
        left.sort_by(|a, b| own(a).total_cmp(&own(b)));
        for node in left {
            kept.remove(&node);
            let without = costing.saved(&kept, &regions(&kept));
            if without >= saved {
                saved = without;
            } else {
                kept.insert(node);
            }
        }
        if kept.len() == before {
            break;
        }
    }
    for together in components(costing.model, &kept, &regions(&kept)) {
        let without: HashSet<NodeId> = kept.difference(&together).copied().collect();
        let rest = costing.saved(&without, &regions(&without));
        if rest >= saved {
            (kept, saved) = (without, rest);
        }
    }
    kept
}

/// What each layer saves beside all others, in nanoseconds.
pub(crate) fn gains(
    costing: &Costing<'_>,
    layers: &HashSet<NodeId>,
    regions: &dyn Fn(&HashSet<NodeId>) -> Regions,
) -> Vec<(NodeId, f64)> {
    let all = costing.saved(layers, &regions(layers));
    let mut nodes: Vec<NodeId> = layers.iter().copied().collect();
    nodes.sort_unstable();
    let gain = |node: NodeId| {
        let mut others = layers.clone();
        others.remove(&node);
        (node, all - costing.saved(&others, &regions(&others)))
    };
    nodes.into_iter().map(gain).collect()
}

/// The layers of each region that hangs together.
pub(crate) fn components(
    model: &Model,
    layers: &HashSet<NodeId>,
    regions: &Regions,
) -> Vec<HashSet<NodeId>> {
    let mut groups: Vec<HashSet<NodeId>> = Vec::new();
    for &tensor in &regions.tensors {
        let holders = regions.holders(model, layers, tensor);
        let mut merged: HashSet<NodeId> = holders.into_iter().collect();
        groups.retain(|group| {
            let touches = !group.is_disjoint(&merged);
            if touches {
                merged.extend(group);
            }
            !touches
        });
        groups.push(merged);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::integer::{Bounds, regions};
    use crate::testing::integers::{conv, named};
    use crate::testing::{Build, float, noise};

    /// Integers are worth four times as much to multiply, and borders cost a lot.
    const COSTS: IntegerCosts = IntegerCosts {
        multiply: [4.0, 1.0],
        narrow: 2.0,
        tap: 0.5,
        thin_tap: 1.0,
        made: 0.25,
        depthwise: [(0.0, 1.0), (1.0, 2.0)],
        border: [1.0, 1.0],
        reorder: 0.5,
        node: 0.0,
        operators: &[("Sigmoid", 2.0, 1.0)],
    };

    fn sizes(model: &Model) -> impl Fn(ValueId) -> Option<u64> + '_ {
        |value| {
            let shape = model.value(value).ty()?.shape()?;
            shape.iter().map(|dim| dim.fixed().map(|size| size as u64)).product()
        }
    }

    fn is_same(a: [f64; 2], b: [f64; 2]) -> bool {
        a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-9)
    }

    fn with<T>(b: &mut Build, look: impl FnOnce(&Model, &Costing<'_>) -> T) -> T {
        modelopt_graph::infer::infer(&mut b.model);
        let elements = sizes(&b.model);
        look(&b.model, &Costing { model: &b.model, costs: &COSTS, elements: &elements })
    }

    #[test]
    fn convolutions_cost_by_multiplications_taps_and_numbers() {
        let mut b = Build::new(13);
        let x = b.input("x", float(&[1, 4, 6, 6]));
        let w = b.weight("W", &[8, 4, 3, 3], &noise(288, 1));
        let y = b.node("Conv", &[x, w], &[]);
        let depthwise = b.weight("D", &[8, 1, 3, 3], &noise(72, 2));
        let z = b.node("Conv", &[y, depthwise], &[("group", 8.into())]);
        let [y, z] = [y, z].map(|value| b.model.producer_node(value).unwrap());
        let [dense, by_channel] = with(&mut b, |_, costing| [y, z].map(|node| costing.node(node)));
        // 16 places of 8 channels, each of 36 products; few channels run at half the speed in float.
        let products = 16.0 * 288.0;
        let expected = [products * 8.0, 16.0 * 9.0 * 0.5 + products + 128.0 * 0.25];
        assert!(is_same(dense, expected), "{dense:?}");
        // 4 places of 8 channels, each of 9 taps.
        let expected = [32.0 * 9.0, 4.0 * 9.0 + 32.0 * 9.0 * 2.0];
        assert!(is_same(by_channel, expected), "{by_channel:?}");
    }

    #[test]
    fn what_is_cut_off_has_the_size_of_what_is_left() {
        let mut b = Build::new(13);
        let x = b.input("x", float(&[1, 4, 6, 6]));
        let raw = conv(&mut b, x, 4, 1);
        let cut = b.node("Relu", &[raw], &[]);
        b.output(cut, float(&[1, 4, 6, 6]));
        let node = b.model.producer_node(raw).unwrap();
        modelopt_graph::infer::infer(&mut b.model);
        let known = sizes(&b.model);
        let observed = |value: ValueId| known(value).filter(|_| value != raw);
        let costing = Costing { model: &b.model, costs: &COSTS, elements: &observed };
        let whole = Costing { model: &b.model, costs: &COSTS, elements: &known };
        assert!(costing.node(node)[0] > 0.0);
        assert!(is_same(costing.node(node), whole.node(node)));
    }

    #[test]
    fn sizes_that_nobody_knows_cost_nothing() {
        let mut b = Build::new(13);
        let x = b.input("x", float(&[1, 4, 6, 6]));
        let y = conv(&mut b, x, 4, 1);
        let node = b.model.producer_node(y).unwrap();
        modelopt_graph::infer::infer(&mut b.model);
        let costing = Costing { model: &b.model, costs: &COSTS, elements: &|_| None };
        assert!(is_same(costing.node(node), [0.0, 0.0]));
    }

    /// A large layer, a depthwise one, which is slower on integers, and another large one.
    fn with_a_slow_one() -> (Build, [NodeId; 3]) {
        let mut b = Build::new(13);
        let x = b.input("x", float(&[1, 4, 6, 6]));
        let a = conv(&mut b, x, 4, 1);
        let w = b.weight("D", &[4, 1, 3, 3], &noise(36, 5));
        let pads = ("pads", vec![1i64, 1, 1, 1].into());
        let d = b.node("Conv", &[a, w], &[("group", 4.into()), pads]);
        let c = conv(&mut b, d, 4, 2);
        b.output(c, float(&[1, 4, 6, 6]));
        let nodes = [a, d, c].map(|value| b.model.producer_node(value).unwrap());
        (b, nodes)
    }

    #[test]
    fn what_saves_no_time_is_left_out_and_what_does_stays() {
        let (mut b, [a, d, c]) = with_a_slow_one();
        let kept = with(&mut b, |model, costing| {
            let bounds = Bounds { has_range: &|_| true, is_fused: &|_| true };
            let regions = |layers: &HashSet<NodeId>| regions(model, layers, &bounds);
            worthwhile(costing, &[a, d, c].into(), &regions)
        });
        assert_eq!(kept, [a, c].into());
        // Borders that cost more than all that is saved leave nothing.
        modelopt_graph::infer::infer(&mut b.model);
        let elements = sizes(&b.model);
        let costs = IntegerCosts { border: [1e6, 1e6], ..COSTS };
        let costing = Costing { model: &b.model, costs: &costs, elements: &elements };
        let bounds = Bounds { has_range: &|_| true, is_fused: &|_| true };
        let all = |layers: &HashSet<NodeId>| super::super::regions(&b.model, layers, &bounds);
        assert!(worthwhile(&costing, &[a, d, c].into(), &all).is_empty());
    }

    #[test]
    fn a_hole_costs_its_borders() {
        let (mut b, [a, d, c]) = with_a_slow_one();
        let gain = with(&mut b, |model, costing| {
            let bounds = Bounds { has_range: &|_| true, is_fused: &|_| true };
            let regions = |layers: &HashSet<NodeId>| regions(model, layers, &bounds);
            let gains = gains(costing, &[a, d, c].into(), &regions);
            gains.into_iter().find(|(node, _)| *node == d).unwrap().1
        });
        let [float, integer] = with(&mut b, |_, costing| costing.node(d));
        // Leaving it out takes a tensor out of integers and another into them, beside a float convolution.
        let borders = 144.0 * (COSTS.border[0] + COSTS.border[1] + 2.0 * COSTS.reorder);
        assert!((gain - (float - integer + borders)).abs() < 1e-6, "{gain}");
    }

    #[test]
    fn regions_that_do_not_touch_are_apart() {
        let mut b = Build::new(13);
        let x = b.input("x", float(&[1, 4, 6, 6]));
        let a = conv(&mut b, x, 4, 1);
        // Nobody computes this on integers.
        let e = b.node("Neg", &[a], &[]);
        let c = conv(&mut b, e, 4, 2);
        b.output(c, float(&[1, 4, 6, 6]));
        modelopt_graph::infer::infer(&mut b.model);
        let layers: HashSet<NodeId> =
            [a, c].map(|value| b.model.producer_node(value).unwrap()).into();
        let bounds = Bounds { has_range: &|_| true, is_fused: &|_| true };
        let found = regions(&b.model, &layers, &bounds);
        assert_eq!(components(&b.model, &layers, &found).len(), 2);
        assert!(found.tensors.contains(&named(&b.model, "neg_out")));
    }
}
