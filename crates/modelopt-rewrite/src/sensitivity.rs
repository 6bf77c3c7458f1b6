//! What rounding costs each layer, told from its weights and from statistics of what it reads.
//!
//! For a layer `y = x W` with the error `D` of the weights and the step `q` of the activation, the
//! noise in `y` relative to its power is
//!
//! ```text
//! sum_n (sum_k D_kn m_k)^2 + sum_kn D_kn^2 v_k + sum_kn W_kn^2 min(q^2 / 12, m_k^2 + v_k)
//! ---------------------------------------------------------------------------------------
//!                   sum_n (sum_k W_kn m_k)^2 + sum_kn W_kn^2 v_k
//! ```
//!
//! with mean `m` and variance `v` of each input channel, taken as independent of each other: errors
//! of rounding are uniform, `q^2 / 12`, unless the numbers vanish below the step. Filters are read
//! as matrices of all their taps.

use std::collections::HashMap;

use modelopt_graph::Model;
use rayon::prelude::*;

use crate::choices::Numerics;
use crate::forms::{Scheme, SharedWeight, Use};
use crate::layer_matrix::{Matrix, Moments, activation_noise};
use crate::layers::{self, Layer, WeightUse};
use crate::memo::Memo;
use crate::plan::Plan;
use crate::policy::{self, Capabilities};
use crate::precision;
use crate::refine;
use crate::statistics::{Seen, Statistics};
use crate::weight_errors::{WeightError, errors};

/// What rounding does to the output of one layer, by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerNoise {
    /// Place of the layer in the plan.
    pub layer: usize,
    /// Noise relative to the signal at the layer's output when its weights are stored as planned.
    pub weights: f64,
    /// What quantizing its activation adds; none where it is not quantized or not known.
    pub activation: Option<f64>,
    /// The same as `weights` for weights stored as by the steps below on the layer's ladder, where that
    /// is another way and possible.
    pub below: Vec<(Scheme, f64)>,
    /// What is left of `weights` where the layer computes in float from as few bits, as a share: such
    /// weights can have finer scales.
    pub in_float: Option<f64>,
    /// Whether statistics of what it reads were known; if not, all that it reads is taken to be
    /// alike and centred.
    pub informed: bool,
}

/// What being stored as planned, and as by the steps below, costs each int8 layer of a plan, from what
/// was seen of its activation, by id of the layer.
pub fn sensitivity(prepared: &Model, plan: &Plan, seen: &Seen) -> Vec<LayerNoise> {
    sensitivity_with(prepared, plan, seen, &Memo::none())
}

/// The same with weights that may be quantized already.
pub(crate) fn sensitivity_with(
    prepared: &Model,
    plan: &Plan,
    seen: &Seen,
    memo: &Memo,
) -> Vec<LayerNoise> {
    let mut model = prepared.clone();
    if refine::apply(&mut model, plan).is_err() {
        return Vec::new();
    }
    let divided = refine::Divisors::of(prepared, plan);
    let errors = errors(&model, plan, memo);
    let mut by_layer: HashMap<usize, Vec<&WeightError>> = HashMap::new();
    for error in &errors {
        for &layer in &error.layers {
            by_layer.entry(layer).or_default().push(error);
        }
    }
    let places = plan.places();
    layers::find(&model, 0)
        .into_par_iter()
        .filter_map(|layer| {
            let place = *places.get(layer.id.as_str())?;
            let errors = by_layer.get(&place)?;
            let line = &plan.layers[place];
            let divisors = divided.by(layer.node, line);
            let own = errors.iter().filter_map(|error| {
                let weight = layer.weights.iter().find(|weight| weight.value == error.value)?;
                let known = Known {
                    seen: seen.get(&layer.id),
                    divisors,
                    scheme: line.scheme,
                    numerics: plan.numerics_of(line),
                    memo,
                };
                Some(noise(&model, &layer, weight, &error.error, &known))
            });
            // A layer with two weights is as bad as the worse of them.
            let worst = own.max_by(|a, b| a.weights.total_cmp(&b.weights))?;
            Some(LayerNoise { layer: place, ..worst })
        })
        .collect()
}

/// What is known of the activation of a layer, and what becomes of it.
struct Known<'a> {
    seen: Option<&'a Statistics>,
    /// What it is divided by before it is quantized, by channel.
    divisors: Option<&'a [f32]>,
    scheme: Scheme,
    numerics: Numerics,
    memo: &'a Memo,
}

fn noise(
    model: &Model,
    layer: &Layer,
    weight: &WeightUse,
    error: &[f32],
    known: &Known<'_>,
) -> LayerNoise {
    let numbers = weight.tensor.to_f32().unwrap_or_default();
    let below = known.below(model, layer, weight);
    let &Known { seen, divisors, scheme, .. } = known;
    let square = |numbers: &[f32]| numbers.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
    let plain = square(error) / square(&numbers);
    let in_float = known.in_float(model, layer, weight);
    let uninformed =
        LayerNoise { layer: 0, weights: plain, activation: None, below, in_float, informed: false };
    let Some(matrix) = Matrix::of(model, layer.node, weight) else { return uninformed };
    let known = seen.filter(|seen| seen.channels() == matrix.inputs() && seen.is_finite());
    let moments =
        known.map_or(Moments::unknown(matrix.inputs()), |seen| Moments::of(seen, divisors));
    let signal = matrix.power(&numbers, &moments);
    if signal <= 0.0 {
        return uninformed;
    }
    let activation = known.filter(|_| scheme.is_dynamic()).map(|seen| {
        let rounding = moments.rounding(&seen.steps(divisors));
        activation_noise(&matrix, &numbers, &rounding) / signal
    });
    LayerNoise {
        weights: matrix.power(error, &moments) / signal,
        activation,
        informed: known.is_some(),
        ..uninformed
    }
}

impl Known<'_> {
    /// What the steps below on the ladder leave of noise in a weight that they store otherwise, relative
    /// to the weight.
    fn below(&self, model: &Model, layer: &Layer, weight: &WeightUse) -> Vec<(Scheme, f64)> {
        let planned = self.scheme.sides().weights;
        std::iter::successors(self.scheme.down(), |scheme| scheme.down())
            .filter(|scheme| !scheme.is_keep() && scheme.computes_in().is_none())
            .filter(|scheme| scheme.sides().weights != planned)
            .filter_map(|scheme| Some((scheme, self.left(scheme, model, layer, weight)?)))
            .collect()
    }

    /// What is left of the noise of a weight that is multiplied as integers where it is not, as a share.
    fn in_float(&self, model: &Model, layer: &Layer, weight: &WeightUse) -> Option<f64> {
        let multiplied = self.scheme;
        let stored =
            std::iter::successors(multiplied.down(), |scheme| scheme.down()).find(|scheme| {
                !scheme.quantizes_activations()
                    && scheme.sides().weights == multiplied.sides().weights
            });
        let stored = stored.filter(|_| multiplied.quantizes_activations())?;
        let left = |scheme| self.left(scheme, model, layer, weight);
        Some(left(stored)? / left(multiplied)?)
    }

    /// What a form leaves of noise in a weight, relative to the weight; none where it cannot store it.
    fn left(
        &self,
        scheme: Scheme,
        model: &Model,
        layer: &Layer,
        weight: &WeightUse,
    ) -> Option<f64> {
        let sqnr_db = if let Some(to) = scheme.stores_in() {
            let rounding = precision::of_tensor(&weight.tensor, to)?;
            rounding.objection(to, 0.0).is_none().then(|| rounding.sqnr_db())?
        } else {
            let Layer { node, id, .. } = layer;
            let shared = SharedWeight {
                tensor: weight.tensor.clone(),
                elem: weight.elem,
                home: model.home(weight.value)?,
                numerics: self.numerics,
                uses: vec![Use { node: *node, id, weight, form: scheme.form() }],
            };
            shared.stored(self.memo)?.sqnr_db
        };
        Some(10f64.powf(-sqnr_db / 10.0))
    }
}

/// Multiplications of each layer of a model whose values have fixed shapes, by name; for values of
/// unknown shape, as many as for one position.
///
/// What a layer that computes on integers by ranges saves beside all others is told as well where what the
/// target takes is known, as the multiplications of float32 that take as long.
pub fn work(shaped: &Model, plan: &Plan, target: &Capabilities) -> HashMap<String, f64> {
    let mut work = multiplied(shaped);
    if let Some(costs) = target.static_costs {
        work.extend(policy::gains(shaped, plan, costs));
    }
    work
}

fn multiplied(shaped: &Model) -> HashMap<String, f64> {
    let known = |layer: &layers::Layer| {
        let node = shaped.node(layer.node);
        let shape = shaped.value(node.output(0)?).ty()?.shape()?;
        let sizes = shape.iter().map(|dim| dim.fixed().map(|size| size as f64));
        let outputs: f64 = sizes.collect::<Option<Vec<f64>>>()?.iter().product();
        let weight = layer.weights.iter().max_by_key(|weight| weight.tensor.len())?;
        let matrix = Matrix::of(shaped, layer.node, weight)?;
        Some(outputs * (weight.tensor.len() / matrix.outputs().max(1)) as f64)
    };
    layers::find(shaped, 0)
        .into_iter()
        .map(|layer| {
            let once = || layer.weights.iter().map(|weight| weight.tensor.len()).sum::<usize>();
            let work = known(&layer).unwrap_or_else(|| once() as f64);
            (layer.id, work)
        })
        .collect()
}
