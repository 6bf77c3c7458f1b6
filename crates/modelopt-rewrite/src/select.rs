//! Which layers `include` and `exclude` mean.

use globset::{Glob, GlobMatcher};

use crate::layers::Layer;
use crate::plan::PlanError;
use modelopt_graph::Model;

/// A pattern that names layers: a layer's name, an operator, or a glob over either.
///
/// `conv1`, `MatMul`, `/encoder/*`, `*attention*`; `*` also matches `/`.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    glob: Option<GlobMatcher>,
}

impl Pattern {
    /// Reads a pattern.
    pub fn new(text: &str) -> Result<Self, PlanError> {
        // Names such as `/model/layers.0/[q]` are meant literally first.
        let glob = match Glob::new(text) {
            Ok(glob) => Some(glob.compile_matcher()),
            Err(_) if !text.is_empty() => None,
            Err(error) => {
                let why = format!("is malformed: {}", error.kind());
                return Err(PlanError::Pattern { pattern: text.to_owned(), why });
            }
        };
        Ok(Pattern { text: text.to_owned(), glob })
    }

    fn matches_text(&self, text: &str) -> bool {
        text == self.text || self.glob.as_ref().is_some_and(|glob| glob.is_match(text))
    }

    /// Whether the pattern means this layer.
    pub fn matches(&self, model: &Model, layer: &Layer) -> bool {
        let node = model.node(layer.node);
        self.matches_text(&layer.id)
            || self.matches_text(&node.name)
            || self.matches_text(&node.op.name)
    }
}

/// The layers that are to be changed, by place in `layers`. A pattern that fits no layer is an
/// error, because it is most likely a typing mistake.
pub(crate) fn selected(
    model: &Model,
    layers: &[Layer],
    include: &[Pattern],
    exclude: &[Pattern],
) -> Result<Vec<Result<(), String>>, PlanError> {
    for pattern in include.iter().chain(exclude) {
        if !layers.iter().any(|layer| pattern.matches(model, layer)) {
            return Err(PlanError::Pattern {
                pattern: pattern.text.clone(),
                why: "fits no weight layer of the model; `modelopt plan` lists them".to_owned(),
            });
        }
    }
    let find = |patterns: &[Pattern], layer: &Layer| {
        patterns.iter().find(|pattern| pattern.matches(model, layer)).map(|p| p.text.clone())
    };
    Ok(layers
        .iter()
        .map(|layer| match find(exclude, layer) {
            Some(pattern) => Err(format!("excluded by '{pattern}'")),
            None if !include.is_empty() && find(include, layer).is_none() => {
                Err("not included".to_owned())
            }
            None => Ok(()),
        })
        .collect())
}
