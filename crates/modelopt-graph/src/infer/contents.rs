//! What is known of the elements of small integer tensors: the shapes that models calculate
//! with, such as `Shape` → `Gather` → `Concat` → `Reshape`.
//!
//! Followed backwards from the reader, over a bounded number of nodes.

use super::context::Context;
use super::dims;
use super::env::Env;
use crate::{AttributeValue, DataType, Dim, NodeId, ValueId};

/// Most elements that are followed.
pub(super) const MOST: usize = 64;
/// Most nodes visited for one question.
const FUEL: u32 = 128;
/// Longest path of nodes followed.
const DEPTH: u32 = 32;

/// What is known of one element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Int {
    /// Its value.
    Known(i64),
    /// It is the size of this name.
    Symbol(String),
    /// Nothing.
    Unknown,
}

impl Int {
    /// The value, if known.
    pub(super) fn known(&self) -> Option<i64> {
        match self {
            Int::Known(value) => Some(*value),
            _ => None,
        }
    }

    /// The element as a size; negative values are none.
    pub(super) fn dim(&self) -> Dim {
        match self {
            Int::Known(value) => dims::dim(*value),
            Int::Symbol(name) => Dim::Symbol(name.clone()),
            Int::Unknown => Dim::Unknown,
        }
    }

    fn of(dim: &Dim) -> Self {
        match dim {
            Dim::Fixed(size) => i64::try_from(*size).map_or(Int::Unknown, Int::Known),
            Dim::Symbol(name) => Int::Symbol(name.clone()),
            Dim::Unknown => Int::Unknown,
        }
    }
}

/// The elements of an integer or boolean tensor of rank 0 or 1 with few elements; `None` if not
/// even their number is known.
pub(super) fn of(env: &Env<'_>, value: ValueId) -> Option<Vec<Int>> {
    Search { env, fuel: FUEL }.value(value, 0)
}

struct Search<'a> {
    env: &'a Env<'a>,
    fuel: u32,
}

impl Search<'_> {
    fn value(&mut self, value: ValueId, depth: u32) -> Option<Vec<Int>> {
        let ty = self.env.ty(value);
        if ty.as_ref().and_then(|ty| ty.shape()).is_none_or(|shape| few(shape))
            && let Some(tensor) = self.env.constant(value)
        {
            if tensor.shape().len() > 1 || tensor.len() > MOST {
                return None;
            }
            return Some(tensor.to_i64()?.into_iter().map(Int::Known).collect());
        }
        let ty = ty?;
        let is_integer = matches!(ty.elem()?, DataType::INT64 | DataType::INT32 | DataType::BOOL);
        let count = match ty.shape().filter(|_| is_integer)?.as_slice() {
            [] => Some(1),
            [Dim::Fixed(count)] if *count <= MOST => Some(*count),
            [Dim::Fixed(_)] | [_, _, ..] => return None,
            [_] => None,
        };
        let found = self.follow(value, depth).filter(|found| found.len() <= MOST);
        match (found, count) {
            (Some(found), Some(count)) if found.len() == count => Some(found),
            (Some(found), None) => Some(found),
            (_, Some(count)) => Some(vec![Int::Unknown; count]),
            (None, None) => None,
        }
    }

    fn follow(&mut self, value: ValueId, depth: u32) -> Option<Vec<Int>> {
        self.fuel = self.fuel.checked_sub(1)?;
        let id = self.env.model.producer_node(value).filter(|_| depth < DEPTH)?;
        let node = self.env.model.node(id);
        if !node.op.is_onnx()
            || node.output(0) != Some(value)
            || node.inputs().len() > MOST
            || self.env.has_open_reference(node)
        {
            return None;
        }
        self.operator(&Context::new(self.env, id), id, depth)
    }

    fn input(&mut self, id: NodeId, index: usize, depth: u32) -> Option<Vec<Int>> {
        let value = self.env.model.node(id).input(index)?;
        self.value(value, depth + 1)
    }

    fn operator(&mut self, context: &Context<'_>, id: NodeId, depth: u32) -> Option<Vec<Int>> {
        match context.op() {
            "Shape" => shape(context),
            "Size" => Some(vec![Int::of(&dims::product(context.shape(0)?))]),
            // Rank and number are checked against the type of the result.
            "Identity" | "Squeeze" | "Unsqueeze" | "Reshape" | "Flatten" => {
                self.input(id, 0, depth)
            }
            "Cast" => {
                let elements = self.input(id, 0, depth)?;
                let to = context.data_type("to")?;
                Some(elements.into_iter().map(|element| cast(element, to)).collect())
            }
            "Gather" => {
                let data = self.list(context, id, 0, depth)?;
                let indices = self.input(id, 1, depth)?;
                Some(indices.iter().map(|index| pick(&data, index)).collect())
            }
            "Concat" => self.concat(context, id, depth),
            "Slice" => self.slice(context, id, depth),
            "Add" | "Sub" | "Mul" | "Div" | "Min" | "Max" | "Mod" | "Equal" => {
                if context.input_count() != 2 {
                    return None;
                }
                let (a, b) = (self.input(id, 0, depth)?, self.input(id, 1, depth)?);
                let floor = context.int("fmod", 0) == 0;
                zip(&[&a, &b], |xs| calculate(context.op(), xs[0], xs[1], floor))
            }
            "Where" => self.choose(id, depth),
            "Neg" => {
                let elements = self.input(id, 0, depth)?;
                let negated = |element: &Int| checked(element.known().and_then(i64::checked_neg));
                Some(elements.iter().map(negated).collect())
            }
            "ReduceProd" => {
                let elements = self.list(context, id, 0, depth)?;
                let sizes: Vec<Dim> = elements.iter().map(Int::dim).collect();
                Some(vec![Int::of(&dims::product(&sizes))])
            }
            "ConstantOfShape" => self.fill(context, id, depth),
            "Expand" => self.expand(id, depth),
            "Range" => self.range(id, depth),
            _ => None,
        }
    }

    /// The elements of an input that has rank 1.
    fn list(
        &mut self,
        context: &Context<'_>,
        id: NodeId,
        index: usize,
        depth: u32,
    ) -> Option<Vec<Int>> {
        (context.shape(index)?.len() == 1).then(|| self.input(id, index, depth))?
    }

    fn concat(&mut self, context: &Context<'_>, id: NodeId, depth: u32) -> Option<Vec<Int>> {
        let mut all = Vec::new();
        for index in 0..context.input_count() {
            all.extend(self.list(context, id, index, depth)?);
            if all.len() > MOST {
                return None;
            }
        }
        Some(all)
    }

    fn choose(&mut self, id: NodeId, depth: u32) -> Option<Vec<Int>> {
        let condition = self.input(id, 0, depth)?;
        let (a, b) = (self.input(id, 1, depth)?, self.input(id, 2, depth)?);
        zip(&[&condition, &a, &b], |xs| match xs[0] {
            Int::Known(0) => xs[2].clone(),
            Int::Known(_) => xs[1].clone(),
            _ if xs[1] == xs[2] => xs[1].clone(),
            _ => Int::Unknown,
        })
    }

    fn fill(&mut self, context: &Context<'_>, id: NodeId, depth: u32) -> Option<Vec<Int>> {
        let count = self.input(id, 0, depth)?;
        let [Int::Known(count)] = *count.as_slice() else {
            return None;
        };
        let count = usize::try_from(count).ok().filter(|count| *count <= MOST)?;
        let element = match context.attribute("value") {
            Some(AttributeValue::Tensor(tensor)) if tensor.len() == 1 => {
                checked(tensor.to_i64().and_then(|all| all.first().copied()))
            }
            _ => Int::Unknown,
        };
        Some(vec![element; count])
    }

    fn expand(&mut self, id: NodeId, depth: u32) -> Option<Vec<Int>> {
        let elements = self.input(id, 0, depth)?;
        let count = match self.input(id, 1, depth)?.as_slice() {
            [Int::Known(count)] => usize::try_from(*count).ok()?,
            [] => elements.len(),
            _ => return None,
        };
        match elements.as_slice() {
            [only] if count <= MOST => Some(vec![only.clone(); count]),
            _ if count == 1 || count == elements.len() => Some(elements),
            _ => None,
        }
    }

    fn range(&mut self, id: NodeId, depth: u32) -> Option<Vec<Int>> {
        let [start, limit, delta] =
            [0, 1, 2].map(|index| self.input(id, index, depth)?.first()?.known());
        let (start, limit, delta) = (start?, limit?, delta?);
        let mut all = Vec::new();
        let mut next = start;
        while delta != 0 && if delta > 0 { next < limit } else { next > limit } {
            if all.len() == MOST {
                return None;
            }
            all.push(Int::Known(next));
            next = next.checked_add(delta)?;
        }
        Some(all)
    }

    fn slice(&mut self, context: &Context<'_>, id: NodeId, depth: u32) -> Option<Vec<Int>> {
        let data = self.list(context, id, 0, depth)?;
        let mut part = |attribute: &str, index: usize| -> Option<i64> {
            let all: Vec<i64> = if context.version < 10 {
                context.ints(attribute)?.to_vec()
            } else {
                self.input(id, index, depth)?.iter().map(Int::known).collect::<Option<_>>()?
            };
            if let [only] = all.as_slice() { Some(*only) } else { None }
        };
        let (start, end) = (part("starts", 1)?, part("ends", 2)?);
        let step = if context.version >= 10 && context.has(4) { part("", 4)? } else { 1 };
        let (start, count) = dims::slice_of(data.len() as i64, start, end, step)?;
        (0..count)
            .map(|i| {
                let at = i.checked_mul(step)?.checked_add(start)?;
                data.get(usize::try_from(at).ok()?).cloned()
            })
            .collect()
    }
}

/// Whether a tensor of this shape may be small enough to be looked at.
pub(super) fn few(shape: &[Dim]) -> bool {
    match shape {
        [] => true,
        [only] => only.fixed().is_none_or(|count| count <= MOST),
        _ => false,
    }
}

fn shape(context: &Context<'_>) -> Option<Vec<Int>> {
    let shape = context.shape(0)?;
    let (start, end) = shape_range(context, shape.len());
    Some(shape.get(start..end)?.iter().map(Int::of).collect())
}

/// The axes whose sizes `Shape` returns.
pub(super) fn shape_range(context: &Context<'_>, rank: usize) -> (usize, usize) {
    let at = |name: &str, default: usize| {
        let Some(AttributeValue::Int(at)) = context.attribute(name) else {
            return default;
        };
        let signed = i64::try_from(rank).unwrap_or(i64::MAX);
        let at = if *at < 0 { at.saturating_add(signed) } else { *at };
        usize::try_from(at.clamp(0, signed)).unwrap_or(default)
    };
    let start = at("start", 0);
    (start, at("end", rank).max(start))
}

fn checked(value: Option<i64>) -> Int {
    value.map_or(Int::Unknown, Int::Known)
}

fn cast(element: Int, to: DataType) -> Int {
    match (&element, to) {
        (Int::Known(value), DataType::INT32) if i32::try_from(*value).is_ok() => element,
        // A size is one that a runtime can hold in the narrower type, or the model does not run.
        (_, DataType::INT64) | (Int::Symbol(_), DataType::INT32) => element,
        (Int::Known(value), DataType::BOOL) => Int::Known(i64::from(*value != 0)),
        _ => Int::Unknown,
    }
}

fn pick(data: &[Int], index: &Int) -> Int {
    index
        .known()
        .and_then(|index| dims::axis(index, data.len()))
        .and_then(|index| data.get(index).cloned())
        .unwrap_or(Int::Unknown)
}

/// Applies a function to elements of lists of one length, or of length 1.
fn zip(lists: &[&[Int]], apply: impl Fn(&[&Int]) -> Int) -> Option<Vec<Int>> {
    let count = lists.iter().map(|list| list.len()).find(|len| *len != 1).unwrap_or(1);
    (0..count)
        .map(|index| {
            let elements: Option<Vec<&Int>> = lists
                .iter()
                .map(|list| if list.len() == 1 { list.first() } else { list.get(index) })
                .collect();
            Some(apply(&elements?))
        })
        .collect()
}

fn calculate(op: &str, a: &Int, b: &Int, floor: bool) -> Int {
    let (x, y) = match (a, b) {
        (Int::Known(x), Int::Known(y)) => (*x, *y),
        // Sizes are never negative.
        (Int::Symbol(_), Int::Known(y)) | (Int::Known(y), Int::Symbol(_))
            if op == "Equal" && *y < 0 =>
        {
            return Int::Known(0);
        }
        (Int::Symbol(x), Int::Symbol(y)) if op == "Equal" && x == y => return Int::Known(1),
        (Int::Symbol(x), Int::Symbol(y)) if op == "Sub" && x == y => return Int::Known(0),
        (Int::Symbol(_), Int::Known(1)) if op == "Mul" || op == "Div" => return a.clone(),
        (Int::Known(1), Int::Symbol(_)) if op == "Mul" => return b.clone(),
        (Int::Symbol(_), Int::Known(0)) if op == "Add" || op == "Sub" => return a.clone(),
        (Int::Known(0), Int::Symbol(_)) if op == "Add" => return b.clone(),
        _ => return Int::Unknown,
    };
    match op {
        "Add" => checked(x.checked_add(y)),
        "Sub" => checked(x.checked_sub(y)),
        "Mul" => checked(x.checked_mul(y)),
        // Runtimes round a negative quotient in more than one way.
        "Div" if x >= 0 && y > 0 => Int::Known(x / y),
        "Mod" if x >= 0 && y > 0 && floor => Int::Known(x % y),
        "Min" => Int::Known(x.min(y)),
        "Max" => Int::Known(x.max(y)),
        "Equal" => Int::Known(i64::from(x == y)),
        _ => Int::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Chain;

    #[test]
    fn shapes_are_followed_through_arithmetic() {
        let mut chain = Chain::new("float[n,6,4]");
        chain.add("s", "Shape", &["x"]);
        chain.constant("i0", "int64=0");
        chain.constant("minus", "int64{-1}");
        chain.constant("axes", "int64{0}");
        chain.add("n", "Gather axis=i0", &["s", "i0"]);
        chain.add("n1", "Unsqueeze", &["n", "axes"]);
        chain.add("target", "Concat axis=i0", &["n1", "minus"]);
        chain.add("y", "Reshape", &["x", "target"]);
        assert_eq!(chain.infer("y"), "float[n, 24]");
        assert_eq!(chain.infer("target"), "int64[2]");
    }

    #[test]
    fn slices_and_arithmetic_of_sizes_are_followed() {
        let mut chain = Chain::new("float[2,6,4]");
        chain.add("s", "Shape", &["x"]);
        for (name, value) in [("one", "int64{1}"), ("three", "int64{3}"), ("two", "int64{2}")] {
            chain.constant(name, value);
        }
        chain.add("tail", "Slice", &["s", "one", "three"]);
        chain.add("half", "Div", &["tail", "two"]);
        chain.add("head", "Mul", &["one", "two"]);
        chain.add("big", "Concat axis=i0", &["head", "half"]);
        chain.add("y", "ConstantOfShape", &["big"]);
        assert_eq!(chain.infer("y"), "float[2, 3, 2]");
    }

    #[test]
    fn expand_by_a_guarded_shape_is_followed() {
        let mut chain = Chain::new("float[n,1]");
        chain.constant("want", "int64{-1,5}");
        chain.constant("minus", "int64{-1}");
        chain.constant("ones", "int64{1,1}");
        chain.add("absent", "Equal", &["want", "minus"]);
        chain.add("shape", "Where", &["absent", "ones", "want"]);
        chain.add("y", "Expand", &["x", "shape"]);
        assert_eq!(chain.infer("y"), "float[n, 5]");
    }

    #[test]
    fn long_and_wide_chains_end() {
        let mut chain = Chain::new("float[2,3]");
        chain.add("v0", "Shape", &["x"]);
        for i in 0..200 {
            let (from, to) = (format!("v{i}"), format!("v{}", i + 1));
            chain.add(&to, "Add", &[&from, &from]);
        }
        chain.add("y", "ConstantOfShape", &["v200"]);
        assert_eq!(chain.infer("y"), "float[?, ?]");
    }
}
