//! `TypeProto`, parsed by onnx-protobuf after a scan for what it could stumble over.

use std::ops::Range;

use modelopt_graph::{DataType, DeclaredType, Dim, Origin, Shape, Type};
use onnx_protobuf::{Message, TensorShapeProto, TypeProto, tensor_shape_proto, type_proto};

use super::reader::{Reader, Result};
use crate::error::ErrorKind;
use crate::origin::TypeBytes;
use crate::wire::MAX_RANK;

/// Types nested deeper than this occur in no operator.
const MAX_DEPTH: usize = 16;

/// The messages that a `TypeProto` consists of.
#[derive(Clone, Copy)]
enum Part {
    Type,
    /// `Sequence`, `Optional` and `Map`, whose element type has this field number.
    Container(u32),
    /// `Tensor` and `SparseTensor`.
    Tensor,
    Shape,
    Dimension,
}

impl Part {
    /// What a length-delimited field holds, if a message.
    fn child(self, field: u32) -> Option<Part> {
        match (self, field) {
            (Part::Type, 1 | 8) => Some(Part::Tensor),
            (Part::Type, 4 | 9) => Some(Part::Container(1)),
            (Part::Type, 5) => Some(Part::Container(2)),
            (Part::Container(element), field) if element == field => Some(Part::Type),
            (Part::Tensor, 2) => Some(Part::Shape),
            (Part::Shape, 1) => Some(Part::Dimension),
            _ => None,
        }
    }
}

impl Reader {
    pub(super) fn declared_type(&self, range: Range<usize>) -> Result<DeclaredType> {
        self.scan(range.clone(), Part::Type, 0)?;
        let offset = range.start;
        let bytes = self.wire.share(range);
        let proto = TypeProto::parse_from_bytes(&bytes).map_err(|_| ErrorKind::Wire {
            what: "a broken type",
            offset,
            message: "TypeProto",
        })?;
        Ok(DeclaredType { ty: to_type(&proto), origin: Origin::new(TypeBytes(bytes)) })
    }

    fn scan(&self, range: Range<usize>, part: Part, depth: usize) -> Result<()> {
        if depth > 3 * MAX_DEPTH {
            let what = "types nested deeper than any operator nests them";
            return Err(ErrorKind::Wire { what, offset: range.start, message: "TypeProto" });
        }
        let mut rank = 0;
        for record in self.wire.records(range, "TypeProto") {
            let record = record?;
            if let (Some(child), Some(content)) = (part.child(record.field), record.len()) {
                rank += usize::from(matches!(child, Part::Dimension));
                if rank > MAX_RANK {
                    let what = "more dimensions than any runtime takes";
                    return Err(self.invalid(what, &record, "TypeProto"));
                }
                self.scan(content, child, depth + 1)?;
            }
        }
        Ok(())
    }
}

fn to_type(proto: &TypeProto) -> Type {
    let inner = |proto: &onnx_protobuf::TypeProto| Box::new(to_type(proto));
    match &proto.value {
        Some(type_proto::Value::TensorType(tensor)) => Type::Tensor {
            elem: DataType::from_number(tensor.elem_type),
            shape: tensor.shape.as_ref().map(to_shape),
        },
        Some(type_proto::Value::SparseTensorType(tensor)) => Type::SparseTensor {
            elem: DataType::from_number(tensor.elem_type),
            shape: tensor.shape.as_ref().map(to_shape),
        },
        Some(type_proto::Value::SequenceType(of)) => Type::Sequence(inner(&of.elem_type)),
        Some(type_proto::Value::OptionalType(of)) => Type::Optional(inner(&of.elem_type)),
        Some(type_proto::Value::MapType(map)) => {
            Type::Map { key: DataType::from_number(map.key_type), value: inner(&map.value_type) }
        }
        _ => Type::Other,
    }
}

fn to_shape(proto: &TensorShapeProto) -> Shape {
    use tensor_shape_proto::dimension::Value;
    proto
        .dim
        .iter()
        .map(|dim| match &dim.value {
            Some(Value::DimValue(size)) => usize::try_from(*size).map_or(Dim::Unknown, Dim::Fixed),
            Some(Value::DimParam(name)) if !name.is_empty() => Dim::Symbol(name.clone()),
            _ => Dim::Unknown,
        })
        .collect()
}

/// The message for a type that modelopt made.
pub(crate) fn from_type(ty: &Type) -> TypeProto {
    let mut proto = TypeProto::new();
    proto.value = match ty {
        Type::Tensor { elem, shape } => {
            let mut tensor = type_proto::Tensor::new();
            tensor.elem_type = elem.number();
            tensor.shape = shape.as_ref().map(from_shape).into();
            Some(type_proto::Value::TensorType(tensor))
        }
        Type::SparseTensor { elem, shape } => {
            let mut tensor = type_proto::SparseTensor::new();
            tensor.elem_type = elem.number();
            tensor.shape = shape.as_ref().map(from_shape).into();
            Some(type_proto::Value::SparseTensorType(tensor))
        }
        Type::Sequence(of) => {
            let mut sequence = type_proto::Sequence::new();
            sequence.elem_type = Some(from_type(of)).into();
            Some(type_proto::Value::SequenceType(sequence))
        }
        Type::Optional(of) => {
            let mut optional = type_proto::Optional::new();
            optional.elem_type = Some(from_type(of)).into();
            Some(type_proto::Value::OptionalType(optional))
        }
        Type::Map { key, value } => {
            let mut map = type_proto::Map::new();
            map.key_type = key.number();
            map.value_type = Some(from_type(value)).into();
            Some(type_proto::Value::MapType(map))
        }
        Type::Other => None,
    };
    proto
}

fn from_shape(shape: &Shape) -> TensorShapeProto {
    use tensor_shape_proto::{Dimension, dimension::Value};
    let mut proto = TensorShapeProto::new();
    proto.dim = shape
        .iter()
        .map(|dim| {
            let mut dimension = Dimension::new();
            dimension.value = match dim {
                Dim::Fixed(size) => Some(Value::DimValue(*size as i64)),
                Dim::Symbol(name) => Some(Value::DimParam(name.clone())),
                Dim::Unknown => None,
            };
            dimension
        })
        .collect();
    proto
}
