//! The operator schema table: what every operator of every version accepts and returns.
//!
//! The table is `data/operators.txt`, generated from the `onnx` and `onnxruntime` packages and
//! parsed once, on first use; everything in it borrows from the text.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use crate::{DataType, Type};

static TEXT: &str = include_str!("../data/operators.txt");

static TABLE: LazyLock<Table> = LazyLock::new(|| match parse(TEXT) {
    Ok(table) => table,
    // The text is part of this crate and a test parses it.
    Err(problem) => panic!("data/operators.txt: {problem}"),
});

/// One version of one operator.
#[derive(Clone, Debug)]
pub struct OpSchema {
    /// Domain; empty for `ai.onnx`.
    pub domain: &'static str,
    /// Operator type, such as `Conv`.
    pub name: &'static str,
    /// The operator set version that brought this version of the operator.
    pub since_version: i64,
    /// Whether the operator is deprecated from this version on.
    pub deprecated: bool,
    /// Whether the operator is experimental.
    pub experimental: bool,
    /// Whether equal inputs may give other outputs.
    pub random: bool,
    /// Fewest inputs.
    pub min_inputs: usize,
    /// Most inputs; `usize::MAX` for no limit.
    pub max_inputs: usize,
    /// Fewest outputs.
    pub min_outputs: usize,
    /// Most outputs; `usize::MAX` for no limit.
    pub max_outputs: usize,
    /// Formal inputs; only the last may be variadic.
    pub inputs: Vec<Formal>,
    /// Formal outputs; only the last may be variadic.
    pub outputs: Vec<Formal>,
    /// Type variables that inputs and outputs share.
    pub type_variables: Vec<TypeVariable>,
    /// Attributes, sorted by name.
    pub attributes: Vec<FormalAttribute>,
}

/// A formal input or output.
#[derive(Clone, Debug)]
pub struct Formal {
    /// Name.
    pub name: &'static str,
    /// Whether and how often it occurs.
    pub option: FormalOption,
    /// Whether all occurrences of a variadic one have one type.
    pub homogeneous: bool,
    /// Type.
    pub ty: TypeRef,
}

/// Whether and how often a formal input or output occurs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormalOption {
    /// Exactly once.
    Single,
    /// Once or not at all.
    Optional,
    /// Any number of times, as the last of the list.
    Variadic,
}

/// The type of a formal input or output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TypeRef {
    /// The variable at this place of [`OpSchema::type_variables`].
    Variable(usize),
    /// One fixed type.
    Concrete(TypeStr),
}

/// A type variable with the types it may stand for.
#[derive(Clone, Debug)]
pub struct TypeVariable {
    /// Name, such as `T`.
    pub name: &'static str,
    /// Types it may stand for, sorted by their text.
    pub allowed: Arc<[TypeStr]>,
}

/// A formal attribute.
#[derive(Clone, Debug)]
pub struct FormalAttribute {
    /// Name.
    pub name: &'static str,
    /// Kind of value.
    pub kind: AttributeKind,
    /// Whether it must be given.
    pub required: bool,
}

/// The kind of value an attribute holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Each variant is the ONNX attribute type of the same name.
pub enum AttributeKind {
    Float,
    Int,
    String,
    Tensor,
    Graph,
    SparseTensor,
    TypeProto,
    Floats,
    Ints,
    Strings,
    Tensors,
    Graphs,
    SparseTensors,
    TypeProtos,
}

/// A type without shape, in the spelling of the table: an element type such as `float` for a
/// dense tensor, or `seq(T)`, `optional(T)`, `map(KEY,T)`, `sparse(ELEMENT)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeStr(&'static str);

impl TypeStr {
    /// The element type, if this is a dense tensor.
    pub fn elem(self) -> Option<DataType> {
        DataType::from_name(self.0)
    }

    /// The type, with no shape known.
    pub fn to_type(self) -> Type {
        parse_type(self.0).unwrap_or(Type::Other)
    }

    /// The table's spelling.
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

/// ONNX's own spelling, such as `seq(tensor(float))`.
impl fmt::Display for TypeStr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_onnx(f, self.0)
    }
}

fn write_onnx(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    match split_type(text) {
        None => write!(f, "tensor({text})"),
        Some(("sparse", elem)) => write!(f, "sparse_tensor({elem})"),
        Some((outer, inner)) => {
            write!(f, "{outer}(")?;
            match inner.split_once(',') {
                Some((key, value)) if outer == "map" => {
                    write!(f, "{key},")?;
                    write_onnx(f, value)?;
                }
                _ => write_onnx(f, inner)?,
            }
            f.write_str(")")
        }
    }
}

/// `seq(float)` as `("seq", "float")`; `None` for a plain name.
fn split_type(text: &str) -> Option<(&str, &str)> {
    text.strip_suffix(')')?.split_once('(')
}

/// Reads a type in the table's spelling or in ONNX's own, such as `seq(tensor(float))`.
///
/// Returns `None` for text that is no type.
pub fn parse_type(text: &str) -> Option<Type> {
    parse_type_within(text.trim(), 0)
}

fn parse_type_within(text: &str, depth: usize) -> Option<Type> {
    const DEEPEST: usize = 16;
    if depth > DEEPEST {
        return None;
    }
    let inner_type = |inner: &str| parse_type_within(inner.trim(), depth + 1).map(Box::new);
    let Some((outer, inner)) = split_type(text) else {
        return DataType::from_name(text).map(Type::tensor);
    };
    match outer {
        "tensor" => DataType::from_name(inner.trim()).map(Type::tensor),
        "sparse" | "sparse_tensor" => {
            DataType::from_name(inner.trim()).map(|elem| Type::SparseTensor { elem, shape: None })
        }
        "seq" => inner_type(inner).map(Type::Sequence),
        "optional" => inner_type(inner).map(Type::Optional),
        "map" => {
            let (key, value) = inner.split_once(',')?;
            Some(Type::Map { key: DataType::from_name(key.trim())?, value: inner_type(value)? })
        }
        _ => None,
    }
}

impl OpSchema {
    /// The formal input that an actual input at `index` stands for; those past a last variadic
    /// one stand for it too.
    pub fn formal_input(&self, index: usize) -> Option<&Formal> {
        formal(&self.inputs, index)
    }

    /// The formal output that an actual output at `index` stands for.
    pub fn formal_output(&self, index: usize) -> Option<&Formal> {
        formal(&self.outputs, index)
    }

    /// Whether a formal input or output may be a dense tensor of `elem`.
    pub fn allows(&self, formal: &Formal, elem: DataType) -> bool {
        match formal.ty {
            TypeRef::Concrete(ty) => ty.elem() == Some(elem),
            TypeRef::Variable(index) => self
                .type_variables
                .get(index)
                .is_some_and(|variable| variable.allowed.iter().any(|ty| ty.elem() == Some(elem))),
        }
    }

    /// Formal attribute by name.
    pub fn attribute(&self, name: &str) -> Option<&FormalAttribute> {
        self.attributes.iter().find(|attribute| attribute.name == name)
    }
}

fn formal(list: &[Formal], index: usize) -> Option<&Formal> {
    match list.get(index) {
        Some(formal) => Some(formal),
        None => list.last().filter(|last| last.option == FormalOption::Variadic),
    }
}

/// The schema of an operator at an operator set version: the one with the greatest
/// `since_version` that is not above `version`. `ai.onnx` and the empty domain are one.
pub fn lookup(domain: &str, op: &str, version: i64) -> Option<&'static OpSchema> {
    versions(domain, op).iter().rev().find(|schema| schema.since_version <= version)
}

/// All versions of an operator, oldest first; empty for an operator that is not in the table.
pub fn versions(domain: &str, op: &str) -> &'static [OpSchema] {
    let key = (canonical(domain), op);
    let schemas = all();
    let start = schemas.partition_point(|schema| (schema.domain, schema.name) < key);
    let found = &schemas[start..];
    &found[..found.partition_point(|schema| (schema.domain, schema.name) == key)]
}

/// All schemas, sorted by domain, name and version.
pub fn all() -> &'static [OpSchema] {
    &TABLE.schemas
}

/// The newest operator set version of a domain that the table knows; `None` for a domain that
/// is not in it.
pub fn newest(domain: &str) -> Option<i64> {
    TABLE.newest.iter().find(|(known, _)| *known == canonical(domain)).map(|(_, version)| *version)
}

fn canonical(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}

struct Table {
    schemas: Vec<OpSchema>,
    newest: Vec<(&'static str, i64)>,
}

fn parse(text: &'static str) -> Result<Table, String> {
    let mut aliases: HashMap<&str, Arc<[TypeStr]>> = HashMap::new();
    let mut table = Table { schemas: Vec::new(), newest: Vec::new() };
    for (index, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let fields: Vec<&'static str> = line.split('|').collect();
        let at = |problem: String| format!("line {}: {problem}", index + 1);
        match fields.as_slice() {
            ["domain", domain, version] => {
                table.newest.push((canonical(domain), number(version).map_err(at)?));
            }
            ["types", alias, types] => {
                let types: Result<Vec<_>, _> = types.split(' ').map(type_str).collect();
                aliases.insert(alias, types.map_err(at)?.into());
            }
            ["op", fields @ ..] => table.schemas.push(op(fields, &aliases).map_err(at)?),
            _ => return Err(at("neither domain, types nor op".into())),
        }
    }
    table.schemas.sort_by_key(|schema| (schema.domain, schema.name, schema.since_version));
    Ok(table)
}

fn op(
    fields: &[&'static str],
    aliases: &HashMap<&str, Arc<[TypeStr]>>,
) -> Result<OpSchema, String> {
    let [
        domain,
        name,
        since,
        flags,
        min_in,
        max_in,
        min_out,
        max_out,
        inputs,
        outputs,
        variables,
        attributes,
    ] = *fields
    else {
        return Err(format!("op with {} fields", fields.len()));
    };
    if let Some(flag) = flags.chars().find(|flag| !"den".contains(*flag)) {
        return Err(format!("unknown flag {flag}"));
    }
    let variables: Vec<TypeVariable> =
        items(variables).map(|item| variable(item, aliases)).collect::<Result<_, _>>()?;
    let formals = |list: &'static str| -> Result<Vec<Formal>, String> {
        let formals: Vec<Formal> =
            items(list).map(|item| parse_formal(item, &variables)).collect::<Result<_, _>>()?;
        let before = &formals[..formals.len().saturating_sub(1)];
        if before.iter().any(|formal| formal.option == FormalOption::Variadic) {
            return Err(format!("{name}: a variadic one is not the last"));
        }
        Ok(formals)
    };
    Ok(OpSchema {
        domain: canonical(domain),
        name,
        since_version: number(since)?,
        deprecated: flags.contains('d'),
        experimental: flags.contains('e'),
        random: flags.contains('n'),
        min_inputs: limit(min_in)?,
        max_inputs: limit(max_in)?,
        min_outputs: limit(min_out)?,
        max_outputs: limit(max_out)?,
        inputs: formals(inputs)?,
        outputs: formals(outputs)?,
        attributes: items(attributes).map(attribute).collect::<Result<_, _>>()?,
        type_variables: variables,
    })
}

fn items(field: &'static str) -> impl Iterator<Item = &'static str> {
    field.split(' ').filter(|item| !item.is_empty())
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("'{text}' is not a number"))
}

fn limit(text: &str) -> Result<usize, String> {
    if text == "*" { Ok(usize::MAX) } else { number(text) }
}

fn type_str(text: &'static str) -> Result<TypeStr, String> {
    match parse_type(text) {
        Some(_) => Ok(TypeStr(text)),
        None => Err(format!("'{text}' is not a type")),
    }
}

fn variable(
    item: &'static str,
    aliases: &HashMap<&str, Arc<[TypeStr]>>,
) -> Result<TypeVariable, String> {
    let (name, set) = item.split_once(':').ok_or_else(|| format!("variable '{item}'"))?;
    let allowed = match set.strip_prefix('=') {
        Some(single) => Arc::from([type_str(single)?]),
        None => aliases.get(set).cloned().ok_or_else(|| format!("unknown types '{set}'"))?,
    };
    Ok(TypeVariable { name, allowed })
}

fn parse_formal(item: &'static str, variables: &[TypeVariable]) -> Result<Formal, String> {
    let mut parts = item.splitn(3, ':');
    let (Some(name), Some(option), Some(ty)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(format!("input or output '{item}'"));
    };
    let option_of = match option {
        "1" => FormalOption::Single,
        "?" => FormalOption::Optional,
        "*" | "~" => FormalOption::Variadic,
        _ => return Err(format!("option '{option}'")),
    };
    let ty = match ty.strip_prefix('=') {
        Some(concrete) => TypeRef::Concrete(type_str(concrete)?),
        None => variables
            .iter()
            .position(|variable| variable.name == ty)
            .map(TypeRef::Variable)
            .ok_or_else(|| format!("unknown type variable '{ty}'"))?,
    };
    Ok(Formal { name, option: option_of, homogeneous: option != "~", ty })
}

fn attribute(item: &'static str) -> Result<FormalAttribute, String> {
    let (name, kind) = item.split_once(':').ok_or_else(|| format!("attribute '{item}'"))?;
    let (kind, required) = match kind.strip_suffix('!') {
        Some(kind) => (kind, true),
        None => (kind, false),
    };
    let kind = match kind {
        "float" => AttributeKind::Float,
        "int" => AttributeKind::Int,
        "string" => AttributeKind::String,
        "tensor" => AttributeKind::Tensor,
        "graph" => AttributeKind::Graph,
        "sparse_tensor" => AttributeKind::SparseTensor,
        "type_proto" => AttributeKind::TypeProto,
        "floats" => AttributeKind::Floats,
        "ints" => AttributeKind::Ints,
        "strings" => AttributeKind::Strings,
        "tensors" => AttributeKind::Tensors,
        "graphs" => AttributeKind::Graphs,
        "sparse_tensors" => AttributeKind::SparseTensors,
        "type_protos" => AttributeKind::TypeProtos,
        _ => return Err(format!("attribute kind '{kind}'")),
    };
    Ok(FormalAttribute { name, kind, required })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_table_is_read() {
        let table = parse(TEXT).unwrap();
        assert!(table.schemas.len() > 800);
        assert_eq!(table.schemas.len(), TEXT.lines().filter(|l| l.starts_with("op|")).count());
        assert!(newest("ai.onnx").unwrap() >= 24);
        for schema in &table.schemas {
            assert!(schema.min_inputs <= schema.max_inputs, "{}", schema.name);
            for variable in &schema.type_variables {
                assert!(!variable.allowed.is_empty());
            }
        }
    }

    #[test]
    fn every_key_is_found_and_unique() {
        for schema in all() {
            let found = lookup(schema.domain, schema.name, schema.since_version).unwrap();
            assert!(std::ptr::eq(found, schema), "{} {}", schema.name, schema.since_version);
        }
    }

    #[test]
    fn lookup_takes_the_newest_version_not_above() {
        let since = |version| lookup("", "Cast", version).map(|schema| schema.since_version);
        assert_eq!((since(0), since(6), since(8)), (None, Some(6), Some(6)));
        assert_eq!(lookup("ai.onnx", "Relu", 1000).unwrap().since_version, 14);
        assert!(lookup("", "NoSuchOperator", 17).is_none());
        assert!(lookup("no.such.domain", "Relu", 17).is_none());
        assert!(!lookup("com.microsoft", "MatMulNBits", 1).unwrap().inputs.is_empty());
    }

    #[test]
    fn formals_of_a_variadic_list_go_on() {
        let concat = lookup("", "Concat", 13).unwrap();
        assert_eq!(concat.formal_input(7).unwrap().name, "inputs");
        let conv = lookup("", "Conv", 11).unwrap();
        assert_eq!(conv.formal_input(2).unwrap().option, FormalOption::Optional);
        assert!(conv.formal_input(3).is_none());
        assert!(conv.allows(&conv.inputs[0], DataType::FLOAT16));
        assert!(!conv.allows(&conv.inputs[0], DataType::INT8));
        assert!(conv.attribute("group").is_some_and(|attribute| !attribute.required));
    }

    #[test]
    fn types_are_read_in_both_spellings() {
        for (compact, onnx) in [
            ("float", "tensor(float)"),
            ("seq(int64)", "seq(tensor(int64))"),
            ("optional(seq(bool))", "optional(seq(tensor(bool)))"),
            ("map(int64,float)", "map(int64,tensor(float))"),
            ("sparse(double)", "sparse_tensor(double)"),
        ] {
            assert_eq!(parse_type(compact), parse_type(onnx));
            assert!(parse_type(compact).is_some());
            assert_eq!(TypeStr(compact).to_string(), onnx);
        }
        assert_eq!(parse_type("tensor(nonsense)"), None);
        assert_eq!(parse_type(&"seq(".repeat(100_000)), None);
        assert_eq!(parse_type(&format!("{}float{}", "seq(".repeat(99), ")".repeat(99))), None);
    }

    #[test]
    fn malformed_tables_are_refused() {
        for text in [
            "op|ai.onnx|X",
            "what|is|this",
            "types|S0|flaot",
            "op|ai.onnx|X|1|z|0|0|0|0||||",
            "op|ai.onnx|X|1||0|0|0|0|a:1:T|||",
            "op|ai.onnx|X|1||0|0|0|0|a:*:=float b:1:=float|||",
            "op|ai.onnx|X|one||0|0|0|0||||",
            "op|ai.onnx|X|1||0|0|0|0||||a:complicated",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
