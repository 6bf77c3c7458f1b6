//! Names of element types.
//!
//! The Open Inference Protocol has those of Triton without `BF16`. Types that neither has a name for
//! (complex numbers, those of 8 bits and less that are floats, those of 4 bits and less) do not go over
//! the wire at all.

use modelopt_graph::DataType;

const TABLE: &[(DataType, &str, &str)] = &[
    (DataType::BOOL, "BOOL", "TYPE_BOOL"),
    (DataType::UINT8, "UINT8", "TYPE_UINT8"),
    (DataType::UINT16, "UINT16", "TYPE_UINT16"),
    (DataType::UINT32, "UINT32", "TYPE_UINT32"),
    (DataType::UINT64, "UINT64", "TYPE_UINT64"),
    (DataType::INT8, "INT8", "TYPE_INT8"),
    (DataType::INT16, "INT16", "TYPE_INT16"),
    (DataType::INT32, "INT32", "TYPE_INT32"),
    (DataType::INT64, "INT64", "TYPE_INT64"),
    (DataType::FLOAT16, "FP16", "TYPE_FP16"),
    (DataType::FLOAT, "FP32", "TYPE_FP32"),
    (DataType::DOUBLE, "FP64", "TYPE_FP64"),
    (DataType::BFLOAT16, "BF16", "TYPE_BF16"),
    (DataType::STRING, "BYTES", "TYPE_STRING"),
];

/// The type with this name in requests and answers, such as `FP32`.
pub fn datatype(name: &str) -> Option<DataType> {
    TABLE.iter().find(|row| row.1 == name).map(|row| row.0)
}

/// The name of a type in requests and answers; none for types that do not go over the wire.
pub fn datatype_name(of: DataType) -> Option<&'static str> {
    TABLE.iter().find(|row| row.0 == of).map(|row| row.1)
}

/// The name of a type in the configuration of a model, such as `TYPE_FP32`.
pub fn config_name(of: DataType) -> Option<&'static str> {
    TABLE.iter().find(|row| row.0 == of).map(|row| row.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_has_two_names_and_is_found_by_the_first() {
        for &(dtype, name, config) in TABLE {
            assert_eq!(datatype(name), Some(dtype));
            assert_eq!(datatype_name(dtype), Some(name));
            assert_eq!(config_name(dtype), Some(config));
            assert!(config == "TYPE_STRING" || config == format!("TYPE_{name}"));
        }
        assert_eq!(datatype("FP32"), Some(DataType::FLOAT));
        assert_eq!(datatype("BYTES"), Some(DataType::STRING));
    }

    #[test]
    fn other_types_have_no_name_and_other_names_no_type() {
        for dtype in [DataType::COMPLEX64, DataType::INT4, DataType::from_number(17)] {
            assert_eq!((datatype_name(dtype), config_name(dtype)), (None, None));
        }
        for name in ["fp32", "FLOAT", "TYPE_FP32", "STRING", ""] {
            assert_eq!(datatype(name), None);
        }
    }
}
