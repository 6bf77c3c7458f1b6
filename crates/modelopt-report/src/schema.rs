//! The JSON schema of the document.

use std::borrow::Cow;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator, json_schema};

use crate::{Document, FileName, SCHEMA, Schema};

impl Document {
    /// JSON Schema (draft 2020-12) of what [`Document::to_json`] writes, indented, with a newline
    /// at the end. Fields that it does not name are allowed: a later modelopt may have added them.
    pub fn json_schema() -> String {
        let settings = SchemaSettings::draft2020_12().for_serialize();
        let mut schema = settings.into_generator().into_root_schema_for::<Document>();
        schema.insert("title".to_owned(), SCHEMA.into());
        // A value made of strings, numbers, lists and maps is always JSON.
        let json = serde_json::to_string_pretty(&schema).unwrap_or_default() + "\n";
        // Links of the types' documentation lead nowhere from here.
        json.replace("[`", "`").replace("`]", "`")
    }
}

impl JsonSchema for Schema {
    fn schema_name() -> Cow<'static, str> {
        "Schema".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> schemars::Schema {
        json_schema!({ "description": "Name and version of this schema.", "const": SCHEMA })
    }
}

impl JsonSchema for FileName {
    fn schema_name() -> Cow<'static, str> {
        "FileName".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> schemars::Schema {
        json_schema!({
            "description": "Name of a file without its folders.",
            "type": "string",
            "pattern": r"^[^/\\]*$",
        })
    }
}
