//! Which scheme pays where.

use crate::plan::Scheme;

/// Where a model is going to run, as far as the default rules care.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Target {
    /// Nobody said: what pays in most places.
    #[default]
    Anywhere,
    /// ONNX Runtime.
    Onnxruntime,
    /// tract.
    Tract,
    /// rten.
    Rten,
}

use Scheme::{Int8Dynamic, Int8Weights};

/// The first scheme to try for an operator, by target: anywhere, onnxruntime, tract, rten.
///
/// Measured on one thread of an x86-64 processor with VNNI, as ratio of float32's time:
///
/// | | onnxruntime 1.32 | tract 0.23 | rten 0.27 |
/// |---|---|---|---|
/// | `MatMul`, `Gemm` as int8-dynamic | 0.43 | 1.2 to 1.4 | 0.67 to 0.87 |
/// | `Conv` as int8-dynamic | 3.3 to 6 | 1.8 to 14 | 0.5 to 1.0 |
/// | anything as int8-weights | 1.0 | 1.0 | 1.0 |
///
/// Operators that are not listed are stored as int8 and computed in float everywhere.
const TABLE: [(&str, [Scheme; 4]); 3] = [
    ("MatMul", [Int8Dynamic, Int8Dynamic, Int8Weights, Int8Dynamic]),
    ("Gemm", [Int8Dynamic, Int8Dynamic, Int8Weights, Int8Dynamic]),
    ("Conv", [Int8Weights, Int8Weights, Int8Weights, Int8Dynamic]),
];

impl Target {
    /// What the table says of an operator.
    pub(crate) fn scheme(self, operator: &str) -> Scheme {
        let column = match self {
            Target::Anywhere => 0,
            Target::Onnxruntime => 1,
            Target::Tract => 2,
            Target::Rten => 3,
        };
        let row = TABLE.iter().find(|(listed, _)| *listed == operator);
        row.map_or(Int8Weights, |(_, schemes)| schemes[column])
    }

    /// Its name, with "on" before it; empty where nobody said.
    pub(crate) fn place(self) -> &'static str {
        match self {
            Target::Anywhere => "",
            Target::Onnxruntime => " on onnxruntime",
            Target::Tract => " on tract",
            Target::Rten => " on rten",
        }
    }
}
