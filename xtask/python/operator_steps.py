"""Versions at which operators of ai.onnx change, by the schemas of the onnx package.

Jobs: [oldest version]. Result: [{"operator", "version", "changes": [text, ...]}, ...] of all versions
above it; `changes` is empty where a version only allows more types.
"""

import onnx
from jobs import answer


def attributes(schema):
    return {name: described(attribute) for name, attribute in schema.attributes.items()}


def described(attribute):
    has_default = bool(attribute.default_value.name)
    default = onnx.helper.get_attribute_value(attribute.default_value) if has_default else None
    return f"{attribute.type.name}{' required' * attribute.required} default {default}"


def formals(schema):
    sides = (("input", schema.inputs), ("output", schema.outputs))
    return {
        (side, index): formal for side, list_ in sides for index, formal in enumerate(list_)
    }


def types(schema, formal):
    variables = {v.type_param_str: set(v.allowed_type_strs) for v in schema.type_constraints}
    return variables.get(formal.type_str, {formal.type_str})


def changes(before, after):
    found = []
    old, new = attributes(before), attributes(after)
    found += [f"attribute {name}" for name in sorted(old.keys() | new) if old.get(name) != new.get(name)]
    old, new = formals(before), formals(after)
    for place in sorted(old.keys() | new):
        a, b = old.get(place), new.get(place)
        if a is None or b is None or (a.option, a.is_homogeneous) != (b.option, b.is_homogeneous):
            found.append(f"{place[0]} {place[1]}")
        elif types(before, a) - types(after, b):
            found.append(f"types of {place[0]} {place[1]}")
    if before.deprecated != after.deprecated:
        found.append("deprecated")
    return found


def steps(oldest):
    schemas = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            schemas.setdefault(schema.name, []).append(schema)
    for name in sorted(schemas):
        ordered = sorted(schemas[name], key=lambda schema: schema.since_version)
        for before, after in zip(ordered, ordered[1:]):
            if after.since_version > oldest:
                step = {"operator": name, "version": after.since_version}
                yield {**step, "changes": changes(before, after)}


if __name__ == "__main__":
    answer(lambda oldest: list(steps(oldest)))
