//! Inputs to try a model on before it answers anybody.

use modelopt_graph::Model;
use modelopt_runtime::{Proposals, SynthesisOptions, synthesize};

use super::held::{Failure, Held};
use super::rows::Tensors;

/// How many ways to invent inputs are tried.
const MOST_TRIES: usize = 6;

/// Where inputs to try a model on come from.
#[derive(Clone, Copy, Debug)]
pub enum Samples<'a> {
    /// They are real: the model has to run on them.
    Given(&'a [Tensors]),
    /// They are invented from what the model declares: it may well not run on them.
    Invented(&'a Model),
}

/// Inputs that a session ran on.
///
/// # Errors
/// What was said, where it ran on none.
pub(crate) fn find(held: &mut Held, samples: Samples<'_>) -> Result<Vec<Tensors>, String> {
    match samples {
        Samples::Given(samples) => {
            let first = samples.first().ok_or("there are none")?;
            attempt(held, first)?;
            Ok(samples.to_vec())
        }
        Samples::Invented(model) => invented(held, model),
    }
}

fn invented(held: &mut Held, model: &Model) -> Result<Vec<Tensors>, String> {
    let mut proposals = Proposals::new(model, &SynthesisOptions::default());
    let mut said = Vec::new();
    for _ in 0..MOST_TRIES {
        let Some(proposal) = proposals.next(&said) else { break };
        let options = proposal.options(&SynthesisOptions::default());
        let samples = synthesize(model, &options).map_err(|error| error.to_string())?;
        let samples: Vec<Tensors> = samples.into_iter().map(|sample| sample.inputs).collect();
        let Some(first) = samples.first() else { break };
        match attempt(held, first) {
            Ok(()) => return Ok(samples),
            Err(error) => said = vec![error],
        }
    }
    Err(said.pop().unwrap_or_else(|| "no inputs could be invented".to_owned()))
}

fn attempt(held: &mut Held, inputs: &Tensors) -> Result<(), String> {
    held.run(inputs).map(drop).map_err(Failure::said)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use xtask::testdata::fixture;

    use super::super::held::Maker;
    use super::super::planted::{Planted, row};
    use super::*;

    #[test]
    fn given_samples_have_to_run() {
        let planted = Planted::doubling().refusing(7.0);
        let mut held = Held::new(Arc::new(planted.maker()));
        let good = [row(&[1.0]), row(&[2.0])];
        assert_eq!(find(&mut held, Samples::Given(&good)).unwrap(), good);
        let bad = find(&mut held, Samples::Given(&[row(&[7.0])])).unwrap_err();
        assert_eq!(bad, "planted cannot run it: 7 is refused");
        assert!(find(&mut held, Samples::Given(&[])).is_err());
    }

    #[test]
    fn inputs_are_invented_on_which_a_real_model_runs() {
        let path = fixture("digits/mlp.onnx");
        let model = modelopt_onnx::load(&path).unwrap();
        let runtime = modelopt_runtime::runtime("tract".parse().unwrap(), None).unwrap();
        let options = modelopt_runtime::SessionOptions::default();
        let maker = Maker { runtime: runtime.into(), path, options };
        let samples = find(&mut Held::new(Arc::new(maker)), Samples::Invented(&model)).unwrap();
        assert_eq!(samples.len(), 4);
        assert_eq!(samples[0]["image"].shape(), [1, 1, 8, 8]);
        assert_ne!(samples[0], samples[1]);
    }
}
