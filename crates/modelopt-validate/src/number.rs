//! Floats in formats that have no infinities.
//!
//! JSON cannot write infinities and NaN. Here they are the strings `"inf"`, `"-inf"` and
//! `"nan"`; finite numbers stay numbers. All functions are for `#[serde(with = "…")]`.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, Unexpected, Visitor};
use serde::ser::Serializer;

/// Stands for such a field in a JSON schema: `#[schemars(with = "Float")]`.
#[derive(Clone, Copy, Debug)]
pub struct Float;

impl JsonSchema for Float {
    fn schema_name() -> Cow<'static, str> {
        "Float".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A number, or the word for one that JSON cannot write.",
            "anyOf": [{ "type": "number" }, { "enum": ["inf", "-inf", "nan"] }],
        })
    }
}

/// What a float field may hold.
enum Written {
    Number(f64),
    Off,
    Absent,
}

struct WrittenVisitor;

impl Visitor<'_> for WrittenVisitor {
    type Value = Written;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, \"inf\", \"-inf\", \"nan\" or, for a limit, \"off\"")
    }

    fn visit_f64<E: Error>(self, x: f64) -> Result<Written, E> {
        Ok(Written::Number(x))
    }

    fn visit_i64<E: Error>(self, x: i64) -> Result<Written, E> {
        Ok(Written::Number(x as f64))
    }

    fn visit_u64<E: Error>(self, x: u64) -> Result<Written, E> {
        Ok(Written::Number(x as f64))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Written, E> {
        match text {
            "inf" => Ok(Written::Number(f64::INFINITY)),
            "-inf" => Ok(Written::Number(f64::NEG_INFINITY)),
            "nan" => Ok(Written::Number(f64::NAN)),
            "off" => Ok(Written::Off),
            _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
        }
    }

    fn visit_unit<E: Error>(self) -> Result<Written, E> {
        Ok(Written::Absent)
    }

    fn visit_none<E: Error>(self) -> Result<Written, E> {
        Ok(Written::Absent)
    }
}

/// Writes a number, or the word for it.
pub fn serialize<S: Serializer>(x: &f64, to: S) -> Result<S::Ok, S::Error> {
    if x.is_finite() {
        to.serialize_f64(*x)
    } else if x.is_nan() {
        to.serialize_str("nan")
    } else {
        to.serialize_str(if *x > 0.0 { "inf" } else { "-inf" })
    }
}

/// Reads a number, or the word for it.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    match from.deserialize_any(WrittenVisitor)? {
        Written::Number(x) => Ok(x),
        Written::Off => Err(D::Error::invalid_value(Unexpected::Str("off"), &"a number")),
        Written::Absent => Err(D::Error::invalid_value(Unexpected::Unit, &"a number")),
    }
}

/// `Option<f64>` where `None` means "not given"; pair it with `skip_serializing_if`.
pub mod optional {
    use super::{Deserializer, Error, Serializer, Unexpected, Written, WrittenVisitor};

    /// Writes what there is.
    pub fn serialize<S: Serializer>(x: &Option<f64>, to: S) -> Result<S::Ok, S::Error> {
        match x {
            Some(x) => super::serialize(x, to),
            None => to.serialize_none(),
        }
    }

    /// Reads what there is.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
        match from.deserialize_any(WrittenVisitor)? {
            Written::Number(x) => Ok(Some(x)),
            Written::Absent => Ok(None),
            Written::Off => Err(D::Error::invalid_value(
                Unexpected::Str("off"),
                &"a number (inf or -inf lifts the limit)",
            )),
        }
    }
}

/// `Option<f64>` where `None` means "no limit", written `"off"`: TOML has no null, and leaving
/// the key out gives the default.
pub mod limit {
    use super::{Deserializer, Serializer, Written, WrittenVisitor};

    /// Writes what there is.
    pub fn serialize<S: Serializer>(x: &Option<f64>, to: S) -> Result<S::Ok, S::Error> {
        match x {
            Some(x) => super::serialize(x, to),
            None => to.serialize_str("off"),
        }
    }

    /// Reads what there is.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
        match from.deserialize_any(WrittenVisitor)? {
            Written::Number(x) => Ok(Some(x)),
            Written::Off | Written::Absent => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    struct Fields {
        #[serde(with = "super")]
        plain: f64,
        #[serde(with = "super::optional", default, skip_serializing_if = "Option::is_none")]
        optional: Option<f64>,
        #[serde(with = "super::limit")]
        limit: Option<f64>,
    }

    fn json(plain: f64, optional: Option<f64>, limit: Option<f64>) -> String {
        serde_json::to_string(&Fields { plain, optional, limit }).unwrap()
    }

    #[test]
    fn non_finite_numbers_are_words_and_finite_ones_numbers() {
        assert_eq!(json(1.5, None, None), r#"{"plain":1.5,"limit":"off"}"#);
        assert_eq!(
            json(f64::NAN, Some(f64::INFINITY), Some(f64::NEG_INFINITY)),
            r#"{"plain":"nan","optional":"inf","limit":"-inf"}"#
        );
    }

    #[test]
    fn what_is_written_is_read_back() {
        for x in [0.25, -3.0, f64::INFINITY, f64::NEG_INFINITY] {
            let read: Fields = serde_json::from_str(&json(x, Some(x), Some(x))).unwrap();
            assert_eq!((read.plain, read.optional, read.limit), (x, Some(x), Some(x)));
        }
        let read: Fields = serde_json::from_str(&json(f64::NAN, None, None)).unwrap();
        assert!(read.plain.is_nan() && read.optional.is_none() && read.limit.is_none());
    }

    #[test]
    fn integers_and_null_are_taken_and_other_words_refused() {
        let read: Fields =
            serde_json::from_str(r#"{"plain":-2,"optional":null,"limit":20}"#).unwrap();
        assert_eq!((read.plain, read.optional, read.limit), (-2.0, None, Some(20.0)));
        for wrong in [
            r#"{"plain":"off","limit":1}"#,
            r#"{"plain":null,"limit":1}"#,
            r#"{"plain":1,"limit":"none"}"#,
            r#"{"plain":1,"limit":1,"optional":"off"}"#,
            r#"{"plain":true,"limit":1}"#,
        ] {
            assert!(serde_json::from_str::<Fields>(wrong).is_err(), "{wrong}");
        }
    }
}
