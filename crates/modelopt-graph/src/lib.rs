//! An ONNX model as a value: graphs, nodes and values that know who makes and who uses them,
//! tensors as cheap shared byte ranges, the operator schema table, inference and verification.
//!
//! **This crate does no I/O and knows no protobuf.** Loaders make a [`Model`] and attach an
//! opaque [`Origin`] to each part; savers read it back.
//!
//! - [`Model`] holds everything in one arena; nested graphs are ordinary [`Graph`]s whose nodes
//!   may use values of the graphs around them.
//! - `edit.rs` has the few primitive changes; [`Patch`] is a change as data, which rewrites
//!   propose and [`Model::apply`] carries out.
//! - [`schema`] answers what operators accept; [`infer`] derives types and shapes; [`verify`]
//!   checks that a model is sound.

mod attribute;
mod dtype;
mod edit;
pub mod infer;
mod model;
mod origin;
mod patch;
mod rounded;
pub mod schema;
mod tensor;
#[cfg(test)]
mod testing;
mod types;
pub mod verify;

pub use attribute::{Attribute, AttributeValue, SparseTensor};
pub use dtype::DataType;
pub use edit::{NewNode, Place};
pub use model::{
    Constant, Function, Graph, GraphId, Metadata, Model, ModelInfo, Node, NodeId, Operator,
    OpsetImport, Owner, Producer, Use, Value, ValueId, ValueInfo,
};
pub use origin::Origin;
pub use patch::{NodeDraft, Operand, Patch};
pub use rounded::Rounded;
pub use tensor::{Element, Payload, Tensor, TensorError, element_count};
pub use types::{DeclaredType, Dim, Shape, Type};
