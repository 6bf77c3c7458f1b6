//! A request that a model answers, for people to begin with.

use modelopt_graph::Tensor;

use crate::TensorSpec;
use crate::engine::ServedModel;
use crate::protocol::{datatype_name, write_flat, write_text};

/// Inputs with more elements than this are not written out.
const LONGEST: usize = 64;

/// A request in the Open Inference Protocol that a model answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Its JSON.
    pub json: String,
    /// How many bytes of zero follow it: large inputs are binary, and all zero. Where there are some,
    /// `Inference-Header-Content-Length` has to say how long the JSON is.
    pub zeros: usize,
}

impl Example {
    /// An example for a model: small inputs as it was tried on, large ones of zeros in the same shape. None
    /// where it could not be tried, so that nobody knows what it takes.
    pub fn of(model: &ServedModel) -> Option<Self> {
        let (mut json, mut zeros) = (b"{\"inputs\":[".to_vec(), 0);
        for (place, spec) in model.identity().signature.inputs.iter().enumerate() {
            if place > 0 {
                json.push(b',');
            }
            zeros += write(&mut json, spec, model.tried_on().get(&spec.name)?)?;
        }
        json.extend_from_slice(b"]}");
        Some(Example { json: String::from_utf8(json).ok()?, zeros })
    }
}

/// Writes an input, and says how many zeros are to follow.
fn write(json: &mut Vec<u8>, spec: &TensorSpec, tried: &Tensor) -> Option<usize> {
    let shape = tried.shape();
    json.extend_from_slice(b"{\"name\":");
    write_text(json, &spec.name).ok()?;
    let datatype = datatype_name(spec.dtype)?;
    json.extend_from_slice(format!(",\"shape\":{shape:?},\"datatype\":\"{datatype}\",").as_bytes());
    let elements = tried.len();
    if let Some(bytes) = spec.dtype.byte_len(elements).filter(|_| elements > LONGEST) {
        let size = format!("\"parameters\":{{\"binary_data_size\":{bytes}}}}}");
        json.extend_from_slice(size.as_bytes());
        return Some(bytes);
    }
    json.extend_from_slice(b"\"data\":");
    let short = shortened(tried);
    write_flat(json, &spec.name, short.as_ref().unwrap_or(tried)).ok()?;
    json.push(b'}');
    Some(0)
}

/// Float32 with two digits: whoever types it reads it.
fn shortened(tensor: &Tensor) -> Option<Tensor> {
    let values = tensor.elements::<f32>()?;
    let short: Vec<f32> = values.iter().map(|value| (value * 100.0).round() / 100.0).collect();
    Tensor::of(tensor.shape().to_vec(), &short).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::planted::{Planted, signature};
    use crate::engine::{Identity, ModelSettings, Placement, Samples};
    use crate::protocol::{Limits, parse_infer};
    use modelopt_graph::DataType;

    /// The example of a model that was tried on one row of these.
    fn example(values: &[f32]) -> (Example, Identity) {
        let identity = Identity {
            name: "m".to_owned(),
            version: "1".to_owned(),
            digest: String::new(),
            signature: signature(),
        };
        let placement =
            Placement { runtime: Planted::doubling().runtime(), path: "planted.onnx".into() };
        let row = Tensor::of(vec![1, values.len()], values).unwrap();
        let samples = [[("x".to_owned(), row)].into()];
        let settings = ModelSettings::default();
        let model =
            ServedModel::start(identity.clone(), placement, &settings, Samples::Given(&samples));
        (Example::of(&model.unwrap()).unwrap(), identity)
    }

    #[test]
    fn small_inputs_are_written_out_as_the_model_was_tried_on() {
        let (example, identity) = example(&[1.0, 0.126, -2.5]);
        assert_eq!(
            example.json,
            r#"{"inputs":[{"name":"x","shape":[1, 3],"datatype":"FP32","data":[1.0,0.13,-2.5]}]}"#
        );
        assert_eq!(example.zeros, 0);
        let body = example.json.into_bytes().into();
        let asked = parse_infer(None, &body, &identity.signature, &Limits::default()).unwrap();
        assert_eq!(asked.inference.inputs["x"].shape(), [1, 3]);
    }

    #[test]
    fn large_inputs_are_zeros_behind_the_json() {
        let (example, identity) = example(&[7.0; 100]);
        assert_eq!(example.zeros, 400);
        let length = example.json.len();
        let mut body = example.json.into_bytes();
        body.resize(length + example.zeros, 0);
        let signature = &identity.signature;
        let asked = parse_infer(Some(length), &body.into(), signature, &Limits::default()).unwrap();
        let x = &asked.inference.inputs["x"];
        assert_eq!((x.shape(), x.to_f32().unwrap()[99]), ([1, 100].as_slice(), 0.0));
    }

    #[test]
    fn words_are_written_out_whatever_their_number() {
        let spec = TensorSpec { name: "n".to_owned(), dtype: DataType::STRING, shape: None };
        let words = modelopt_graph::Payload::Strings(vec!["a".into(); 65]);
        let tensor = Tensor::new(DataType::STRING, vec![65], words).unwrap();
        let mut json = Vec::new();
        assert_eq!(write(&mut json, &spec, &tensor), Some(0));
        assert!(String::from_utf8(json).unwrap().ends_with(r#""a","a"]}"#));
    }
}
