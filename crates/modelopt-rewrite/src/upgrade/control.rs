//! `Scan` over batches:
//!
//! ```text
//! outs = Scan-8( , states, sequences) {body}
//!   =>
//! outs = Scan-9(states, sequences) {body = over one of the batch: Scan-9(states, sequences) {body}}
//! ```
//!
//! Version 8 has a batch as the first axis of everything. From version 9 on there is none; a second `Scan`
//! around it goes over the batch, as that axis is one to scan like another.

use modelopt_graph::{
    Attribute, AttributeValue, Dim, NewNode, Operator, Origin, Owner, Place, Type, ValueId,
    ValueInfo,
};

use super::site::{Obstacle, Site};

pub(super) fn scan(site: &mut Site<'_>) -> Result<bool, Obstacle> {
    if site.input(0).is_some() {
        return Err(Obstacle::NoEquivalent("sequences of one batch have different lengths"));
    }
    let attributes = of_one(site)?;
    let Some(inputs) = site.node().inputs().get(1..).map(<[_]>::to_vec) else {
        return Err(Obstacle::NoEquivalent("inputs are missing"));
    };
    let outputs = site.node().outputs().to_vec();
    let body = site.model.add_graph(Owner::Model);
    site.model.graph_mut(body).name = site.fresh_name("of_one");
    let mut inner_inputs = Vec::new();
    for input in inputs.iter().flatten() {
        let value = inside(site, *input);
        let ty = site.model.value(value).ty().cloned().map(Into::into);
        site.model.add_input(body, ValueInfo { value, ty, origin: Origin::NONE });
        inner_inputs.push(Some(value));
    }
    let mut inner_outputs = Vec::new();
    for output in &outputs {
        let value = match output {
            Some(output) => inside(site, *output),
            None => unused(site),
        };
        inner_outputs.push(Some(value));
    }
    let inner = NewNode {
        name: site.fresh_name("inner"),
        op: Operator::onnx("Scan"),
        inputs: inner_inputs,
        outputs: inner_outputs.clone(),
        attributes,
        origin: Origin::NONE,
    };
    site.model.insert(inner, Place::Back(body));
    for value in inner_outputs.into_iter().flatten() {
        let ty = site.model.value(value).ty().cloned().map(Into::into);
        site.model.add_output(body, ValueInfo { value, ty, origin: Origin::NONE });
    }
    let scanned = inputs.iter().flatten().count() as i64;
    let over_batch = vec![Attribute::new("body", body), Attribute::new("num_scan_inputs", scanned)];
    site.replace("Scan", inputs, outputs, over_batch);
    Ok(true)
}

/// The attributes of the scan over the sequences of one of the batch.
fn of_one(site: &Site<'_>) -> Result<Vec<Attribute>, Obstacle> {
    let scanned = site.int("num_scan_inputs")?;
    let scanned = scanned.ok_or(Obstacle::Malformed { name: "num_scan_inputs" })?;
    let Some(AttributeValue::Graph(body)) = site.node().attribute("body") else {
        return Err(Obstacle::Malformed { name: "body" });
    };
    let mut attributes =
        vec![Attribute::new("body", *body), Attribute::new("num_scan_inputs", scanned)];
    match site.node().attribute("directions") {
        None => {}
        Some(AttributeValue::Ints(directions)) => {
            attributes.push(Attribute::new("scan_input_directions", directions.clone()));
        }
        Some(_) => return Err(Obstacle::Malformed { name: "directions" }),
    }
    Ok(attributes)
}

/// A value for one of the batch.
fn inside(site: &mut Site<'_>, whole: ValueId) -> ValueId {
    let name = format!("{}_of_one", site.model.value(whole).name());
    let name = site.model.fresh_name(&name);
    let ty = site.model.value(whole).ty().map(without_first_axis);
    let value = site.model.add_value(name);
    site.model.set_type(value, ty);
    value
}

fn unused(site: &mut Site<'_>) -> ValueId {
    let name = site.fresh_name("unused");
    site.model.add_value(name)
}

fn without_first_axis(ty: &Type) -> Type {
    match ty {
        Type::Tensor { elem, shape } => {
            let rest = |shape: &Vec<Dim>| shape.get(1..).map(<[Dim]>::to_vec);
            Type::Tensor { elem: *elem, shape: shape.as_ref().and_then(rest) }
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use modelopt_graph::{
        Attribute, NewNode, Operator, Origin, Owner, Place, ValueId, ValueInfo, verify,
    };

    use crate::testing::{Build, float};
    use crate::upgrade::upgrade;

    /// `y, z = Scan(lengths, s0: [3, 2], xs: [3, 5, 2])`, each step of which adds and clips.
    fn scan(lengths: bool) -> Build {
        let mut b = Build::new(8);
        let [s0, xs] = [("s0", &[3, 2][..]), ("xs", &[3, 5, 2])].map(|(n, s)| b.input(n, float(s)));
        let lengths = lengths.then(|| b.input("lengths", float(&[3])));
        let body = b.model.add_graph(Owner::Model);
        let [s, x] = ["s", "x"].map(|name| b.model.add_value(name));
        for value in [s, x] {
            let info = ValueInfo { value, ty: Some(float(&[2]).into()), origin: Origin::NONE };
            b.model.add_input(body, info);
        }
        let sum = b.named_node_in(body, "Add", &[s, x], "sum");
        let clipped = b.named_node_in(body, "Clip", &[sum], "clipped");
        let clip = b.model.producer_node(clipped).unwrap();
        b.model.node_mut(clip).attributes.push(Attribute::new("max", 1.0));
        for value in [sum, clipped] {
            b.model.add_output(body, ValueInfo { value, ty: None, origin: Origin::NONE });
        }
        let outputs: Vec<ValueId> = ["y", "z"].map(|name| b.model.add_value(name)).into();
        let node = NewNode {
            name: "scan".to_owned(),
            op: Operator::onnx("Scan"),
            inputs: vec![lengths, Some(s0), Some(xs)],
            outputs: outputs.iter().copied().map(Some).collect(),
            attributes: vec![Attribute::new("body", body), Attribute::new("num_scan_inputs", 1)],
            origin: Origin::NONE,
        };
        b.model.insert(node, Place::Back(b.model.main()));
        b.output(outputs[0], float(&[3, 2]));
        b.output(outputs[1], float(&[3, 5, 2]));
        b
    }

    #[test]
    fn a_batch_is_scanned_around_the_sequences() {
        let mut b = scan(false);
        upgrade(&mut b.model, 11).unwrap();
        verify::check(&b.model).unwrap();
        assert_eq!(b.ops(), ["Scan", "Scan", "Add", "Clip"]);
        let [outer, inner] = [0, 1].map(|place| b.model.node(b.model.walk()[place]));
        assert_eq!((outer.int("num_scan_inputs", 0), inner.int("num_scan_inputs", 0)), (2, 1));
        assert_eq!((outer.name.as_str(), outer.inputs().len()), ("scan", 2));
        // What is inside is of the new version as well.
        assert_eq!(b.model.node(b.model.walk()[3]).inputs().len(), 3);
    }

    #[test]
    fn sequences_of_different_lengths_have_no_equivalent() {
        let mut b = scan(true);
        let error = upgrade(&mut b.model, 9).unwrap_err().to_string();
        assert_eq!(
            error,
            "Scan 'scan' cannot be brought to operator set 9: sequences of one batch have \
             different lengths"
        );
        assert_eq!(b.model.opset(b.model.main(), ""), Some(8));
    }
}
