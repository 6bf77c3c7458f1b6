//! What is in a model.

use std::fmt::Write;
use std::path::Path;

use modelopt::Inspection;

use super::{bytes, cell, indented, plural, table};

/// What `modelopt inspect` prints.
pub(crate) fn inspection(model: &Inspection, path: &Path) -> String {
    let mut text = format!("{}  {}\n", path.display(), bytes(model.bytes));
    let opsets: Vec<String> =
        model.opsets.iter().map(|(domain, version)| format!("{domain} {version}")).collect();
    let _ = writeln!(text, "  ir {}  opset {}", model.ir_version, opsets.join(", "));
    if !model.producer.is_empty() {
        let _ = writeln!(text, "  made by {}", model.producer);
    }
    for (key, value) in &model.metadata {
        let line = value.split_whitespace().collect::<Vec<_>>().join(" ");
        let short: String = line.chars().take(60).collect();
        let _ = writeln!(text, "  {}", format!("{key}: {short}").trim_end());
    }
    for (title, ports) in [("inputs", &model.inputs), ("outputs", &model.outputs)] {
        let _ = writeln!(text, "\n  {title}");
        let mut rows = table(&[]);
        for port in ports {
            let default = if port.has_default { "has a default" } else { "" };
            rows.add_row([&cell(&port.name), &cell(&port.ty), default]);
        }
        text += &indented(rows, &[]);
    }
    let operators: Vec<String> =
        model.operators.iter().map(|entry| format!("{} {}", entry.count, entry.operator)).collect();
    let _ = writeln!(text, "\n  operators\n  {}", operators.join(", "));
    if model.nested_graphs > 0 {
        let _ = writeln!(text, "  in {} nested graphs and the main one", model.nested_graphs);
    }
    if model.functions > 0 {
        let _ = writeln!(text, "  {} model-local functions", model.functions);
    }
    text += "\n  weights\n";
    let mut rows = table(&[]);
    for entry in &model.weights {
        let tensors = format!("{} tensor{}", entry.tensors, plural(entry.tensors));
        rows.add_row([bytes(entry.bytes), entry.ty.clone(), tensors]);
    }
    text += &indented(rows, &[0, 2]);
    let _ = writeln!(
        text,
        "\n  {} of {} weight layers can be quantized; `modelopt plan` shows them",
        model.plan.changed(),
        model.plan.layers.len()
    );
    text
}
