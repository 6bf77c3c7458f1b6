//! Numbers that a graph mentions where sizes are: targets of Reshape and Expand, ends of slices,
//! parts of splits.

use std::collections::BTreeMap;

use modelopt_graph::Model;

/// As many as are worth a try.
const MOST: usize = 8;

/// Sizes that constants of the model mention, in branches too; the most frequent first.
pub(super) fn numbers(model: &Model) -> Vec<usize> {
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    for id in model.walk() {
        let node = model.node(id);
        let places: &[usize] = match node.op.name.as_str() {
            "Reshape" | "Expand" | "Split" | "ConstantOfShape" | "Equal" => &[0, 1],
            "Slice" => &[2],
            _ => continue,
        };
        let inputs = places.iter().filter_map(|&place| node.input(place));
        for tensor in inputs.filter_map(|value| model.constant(model.resolve(value))) {
            if tensor.len() > 8 || tensor.dtype().is_float() {
                continue;
            }
            let mut product = 1usize;
            let mut add = |size: usize| {
                if (2..1 << 16).contains(&size) {
                    *counts.entry(size).or_default() += 1;
                }
            };
            for size in tensor.to_i64().unwrap_or_default() {
                let Ok(size) = usize::try_from(size) else { continue };
                add(size);
                product = product.saturating_mul(size.max(1));
            }
            if tensor.len() > 1 {
                add(product);
            }
        }
    }
    let mut sizes: Vec<(usize, usize)> = counts.into_iter().collect();
    sizes.sort_by_key(|&(size, count)| (std::cmp::Reverse(count), size));
    sizes.into_iter().map(|(size, _)| size).take(MOST).collect()
}
