//! Whether a model is sound: links agree, names resolve, every node comes after what it reads.

use std::collections::{HashMap, HashSet};

use crate::{GraphId, Model, NodeId, Producer, Use, ValueId};

/// What is wrong with a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A node or graph output reads a value that nothing produces.
    #[error("{reader} reads '{value}', which nothing produces")]
    Dangling {
        /// Who reads.
        reader: String,
        /// What.
        value: String,
    },
    /// A node comes before a node whose result it reads.
    #[error("{reader} reads '{value}' before it is made")]
    Order {
        /// Who reads.
        reader: String,
        /// What.
        value: String,
    },
    /// A node reads a value of a graph that does not enclose it.
    #[error("{reader} reads '{value}', which lives in a graph that does not enclose it")]
    Scope {
        /// Who reads.
        reader: String,
        /// What.
        value: String,
    },
    /// Nodes that read each other's results.
    #[error("the graph has a cycle: {}", .0.join(" -> "))]
    Cycle(Vec<String>),
    /// One name stands for two values of one graph.
    #[error("the name '{name}' is defined twice{}", place(.graph))]
    DuplicateName {
        /// Name.
        name: String,
        /// Path of the graph, empty for the main one.
        graph: String,
    },
    /// A nested graph defines a name that hides the outer value a node of it reads.
    #[error("{reader} reads '{name}' of an outer graph, which a value of the same name hides")]
    Shadowed {
        /// Who reads.
        reader: String,
        /// Name.
        name: String,
    },
    /// Producer and use links disagree: a defect of the code that edited the model.
    #[error("links of '{0}' disagree")]
    Links(String),
}

fn place(graph: &str) -> String {
    if graph.is_empty() { String::new() } else { format!(" in {graph}") }
}

/// Checks links, scopes, order and names of the whole model. Linear in nodes and uses.
pub fn check(model: &Model) -> Result<(), Problem> {
    check_names(model)?;
    check_links(model)?;
    check_reads(model)
}

/// Names, types and number of inputs and outputs of the main graph, as text to compare.
pub fn interface(model: &Model) -> Vec<String> {
    let graph = model.graph(model.main());
    let side = |side: &'static str, infos: &[crate::ValueInfo]| {
        infos
            .iter()
            .filter(|info| {
                side == "output"
                    || !model.defaults_are_constants()
                    || model.value(info.value).constant().is_none()
            })
            .map(|info| {
                let ty =
                    info.ty.as_ref().map_or_else(String::new, |declared| declared.ty.to_string());
                format!("{side} '{}': {ty}", model.value(info.value).name())
            })
            .collect::<Vec<_>>()
    };
    let mut all = side("input", &graph.inputs);
    all.extend(side("output", &graph.outputs));
    all
}

/// Puts the nodes of every graph into an order in which each comes after what it reads, moving
/// as few as it can. Returns whether anything moved; a cycle is an error.
pub fn sort(model: &mut Model) -> Result<bool, Problem> {
    let mut changed = false;
    for graph in model.all_graphs() {
        let order = sorted(model, graph)?;
        let current: Vec<NodeId> = model.nodes_of(graph).collect();
        if order != current {
            changed = true;
            for pair in order.windows(2).rev() {
                model.move_node(pair[0], pair[1]);
            }
        }
    }
    Ok(changed)
}

/// Whether the nodes can be put in order at all.
pub fn check_acyclic(model: &Model) -> Result<(), Problem> {
    for graph in model.all_graphs() {
        sorted(model, graph)?;
    }
    Ok(())
}

/// The nodes of one graph in topological order, as near to their present order as possible.
fn sorted(model: &Model, graph: GraphId) -> Result<Vec<NodeId>, Problem> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let mut marks: HashMap<NodeId, Mark> =
        model.nodes_of(graph).map(|node| (node, Mark::New)).collect();
    let mut order = Vec::with_capacity(marks.len());
    for start in model.nodes_of(graph) {
        let mut stack: Vec<(NodeId, Vec<NodeId>)> = Vec::new();
        let mut enter = Some(start);
        loop {
            if let Some(node) = enter.take() {
                match marks.get(&node).copied().unwrap_or(Mark::Done) {
                    Mark::Done => {}
                    Mark::Open => {
                        let from = stack.iter().position(|(open, _)| *open == node).unwrap_or(0);
                        let mut names: Vec<String> = stack
                            .iter()
                            .skip(from)
                            .take(8)
                            .map(|(open, _)| model.label(*open))
                            .collect();
                        names.push(model.label(node));
                        // Each entry reads the next one's result; show data flow instead.
                        names.reverse();
                        return Err(Problem::Cycle(names));
                    }
                    Mark::New => {
                        marks.insert(node, Mark::Open);
                        let mut needs = dependencies(model, graph, node);
                        needs.reverse();
                        stack.push((node, needs));
                    }
                }
            }
            let Some((node, needs)) = stack.last_mut() else {
                break;
            };
            if let Some(need) = needs.pop() {
                enter = Some(need);
            } else {
                marks.insert(*node, Mark::Done);
                order.push(*node);
                stack.pop();
            }
        }
    }
    Ok(order)
}

/// The nodes of `graph` whose results `node` or anything nested in it reads.
fn dependencies(model: &Model, graph: GraphId, node: NodeId) -> Vec<NodeId> {
    let mut needs = Vec::new();
    let mut read = |value: ValueId| {
        if let Some(producer) = model.producer_node(value)
            && model.node(producer).graph() == graph
        {
            needs.push(producer);
        }
    };
    model.node(node).inputs().iter().flatten().copied().for_each(&mut read);
    for body in model.node(node).bodies() {
        for info in &model.graph(body).outputs {
            read(info.value);
        }
        for inner in model.walk_graph(body) {
            model.node(inner).inputs().iter().flatten().copied().for_each(&mut read);
            for nested in model.node(inner).bodies() {
                for info in &model.graph(nested).outputs {
                    read(info.value);
                }
            }
        }
    }
    needs
}

fn check_names(model: &Model) -> Result<(), Problem> {
    for graph in model.all_graphs() {
        let mut seen = HashSet::new();
        for value in defined_in(model, graph) {
            let name = model.value(value).name();
            if !seen.insert(name) {
                return Err(Problem::DuplicateName {
                    name: name.to_owned(),
                    graph: model.graph_path(graph),
                });
            }
        }
    }
    Ok(())
}

/// The values that a graph itself defines.
fn defined_in(model: &Model, graph: GraphId) -> impl Iterator<Item = ValueId> + '_ {
    let inputs = model.graph(graph).inputs.iter().map(|info| info.value);
    let initializers = model
        .initializers_of(graph)
        .iter()
        .copied()
        .filter(move |&value| model.value(value).producer() == Producer::Initializer(graph));
    let results =
        model.nodes_of(graph).flat_map(|node| model.node(node).outputs().iter().flatten().copied());
    inputs.chain(initializers).chain(results)
}

fn check_links(model: &Model) -> Result<(), Problem> {
    let broken = |value: ValueId| Problem::Links(model.value(value).name().to_owned());
    for graph in model.all_graphs() {
        for node in model.nodes_of(graph) {
            for (index, input) in model.node(node).inputs().iter().enumerate() {
                if let Some(value) = *input
                    && !model.value(value).uses().contains(&Use::Node(node, index as u32))
                {
                    return Err(broken(value));
                }
            }
            for (index, output) in model.node(node).outputs().iter().enumerate() {
                if let Some(value) = *output
                    && model.value(value).producer() != Producer::Node(node, index as u32)
                {
                    return Err(broken(value));
                }
            }
        }
        for (index, info) in model.graph(graph).outputs.iter().enumerate() {
            if !model.value(info.value).uses().contains(&Use::Output(graph, index as u32)) {
                return Err(broken(info.value));
            }
        }
    }
    Ok(())
}

fn check_reads(model: &Model) -> Result<(), Problem> {
    let graphs = model.all_graphs();
    let mut position = vec![0usize; model.node_capacity()];
    for &graph in &graphs {
        for (index, node) in model.nodes_of(graph).enumerate() {
            position[node.index()] = index;
        }
    }
    let scopes: HashMap<GraphId, HashMap<&str, ValueId>> = graphs
        .iter()
        .map(|&graph| {
            let names = defined_in(model, graph).map(|value| (model.value(value).name(), value));
            (graph, names.collect())
        })
        .collect();
    for &graph in &graphs {
        for node in model.nodes_of(graph) {
            for value in model.node(node).inputs().iter().flatten() {
                check_read(model, &scopes, &position, graph, Some(node), *value)?;
            }
        }
        for info in &model.graph(graph).outputs {
            check_read(model, &scopes, &position, graph, None, info.value)?;
        }
    }
    Ok(())
}

fn check_read(
    model: &Model,
    scopes: &HashMap<GraphId, HashMap<&str, ValueId>>,
    position: &[usize],
    graph: GraphId,
    reader: Option<NodeId>,
    value: ValueId,
) -> Result<(), Problem> {
    let name = model.value(value).name();
    let reader_label = || match reader {
        Some(node) => model.label(node),
        None => format!("an output of graph '{}'", model.graph(graph).name),
    };
    let Some(home) = model.home(value) else {
        return Err(Problem::Dangling { reader: reader_label(), value: name.to_owned() });
    };
    // From the reader's graph outwards: the first graph that defines the name must be the
    // value's home. `inner` is the node through which the search left the last graph.
    let mut inner = reader;
    let mut current = graph;
    loop {
        match scopes.get(&current).and_then(|names| names.get(name)) {
            Some(&found) if found == value => break,
            Some(_) if current != home => {
                return Err(Problem::Shadowed { reader: reader_label(), name: name.to_owned() });
            }
            _ => {}
        }
        match model.owner(current) {
            crate::Owner::Node(owner) => {
                inner = Some(owner);
                current = model.node(owner).graph();
            }
            _ => return Err(Problem::Scope { reader: reader_label(), value: name.to_owned() }),
        }
    }
    if let (Some(producer), Some(inner)) = (model.producer_node(value), inner)
        && position[producer.index()] >= position[inner.index()]
    {
        return Err(Problem::Order { reader: reader_label(), value: name.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{float, info, linear, node};
    use crate::{NewNode, Place};

    #[test]
    fn unsorted_nodes_are_found_and_sorted() {
        let (mut model, _) = linear();
        let main = model.main();
        let y = model.graph(main).outputs[0].value;
        let [a, b] = ["a", "b"].map(|name| model.add_value(name));
        let first = model.walk()[0];
        model.insert(node("Relu", &[a], &[b]), Place::Before(first));
        model.insert(node("Neg", &[y], &[a]), Place::Back(main));
        assert!(matches!(check(&model), Err(Problem::Order { .. })));
        assert!(sort(&mut model).unwrap());
        check(&model).unwrap();
        assert!(!sort(&mut model).unwrap());
    }

    #[test]
    fn a_cycle_names_its_nodes() {
        let mut model = Model::new(info());
        let main = model.main();
        let [a, b] = ["a", "b"].map(|name| model.add_value(name));
        for (name, from, to) in [("there", a, b), ("back", b, a)] {
            let new = NewNode { name: name.into(), ..node("Neg", &[from], &[to]) };
            model.insert(new, Place::Back(main));
        }
        model.add_output(main, float(b));
        let problem = check_acyclic(&model).unwrap_err().to_string();
        assert!(problem.contains("Neg 'there'") && problem.contains("Neg 'back'"), "{problem}");
        assert!(sort(&mut model).is_err());
    }

    #[test]
    fn a_duplicate_name_is_found() {
        let (mut model, _) = linear();
        let main = model.main();
        let again = model.add_value("y");
        let x = model.graph(main).inputs[0].value;
        model.insert(node("Neg", &[x], &[again]), Place::Back(main));
        assert!(matches!(check(&model), Err(Problem::DuplicateName { .. })));
    }

    #[test]
    fn a_reader_of_nothing_is_found() {
        let (mut model, w) = linear();
        model.clear_constant(w);
        model.compact();
        assert_eq!(
            check(&model).unwrap_err().to_string(),
            "MatMul (unnamed, makes 'y') reads 'W', which nothing produces"
        );
    }
}
