"""Are two model files the same model?

Jobs: [[a.onnx, b.onnx], ...]. Results: [{"equal": bool, "reason": str or null}, ...].

Two models are the same if they are equal as protobuf messages: the same fields present
with the same values at every depth, unknown fields included, payloads byte for byte. How
a field was encoded (packed or not), the order of unknown fields of different numbers, and
where a payload lies (inline or in an external file) do not matter. Floats are compared by
their bits, so a NaN equals itself and -0.0 is not 0.0.
"""

import pathlib
import struct
from collections import defaultdict

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.unknown_fields import UnknownFieldSet
from jobs import answer, error_text
from onnx.external_data_helper import load_external_data_for_tensor

SHOWN = 60
FLOAT_FORMATS = {FieldDescriptor.TYPE_FLOAT: "f", FieldDescriptor.TYPE_DOUBLE: "d"}


def messages(message):
    """The message and all messages in it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for child in value if field.is_repeated else [value]:
                yield from messages(child)


def load(path):
    """The model with external payloads brought inline and their bookkeeping removed."""
    model = onnx.load(path, load_external_data=False)
    folder = str(pathlib.Path(path).resolve().parent)
    for message in messages(model):
        if not isinstance(message, onnx.TensorProto):
            continue
        if message.data_location == onnx.TensorProto.EXTERNAL:
            load_external_data_for_tensor(message, folder)
            message.ClearField("data_location")
            message.ClearField("external_data")
    return model


def unknown_fields(message):
    """Unknown fields by number; within one number the order counts."""
    found = defaultdict(list)
    for field in UnknownFieldSet(message):
        data = field.data
        if isinstance(data, UnknownFieldSet):
            data = [(f.field_number, f.wire_type, f.data) for f in data]
        found[field.field_number].append((field.wire_type, data))
    return found


def bits(field, value):
    """Something that is equal exactly when the value is the same, bit for bit."""
    values = list(value) if field.is_repeated else [value]
    letter = FLOAT_FORMATS.get(field.type)
    return values if letter is None else struct.pack(f"<{len(values)}{letter}", *values)


def difference(a, b, path):
    """Where and how two messages of one type differ, or None."""
    fields_a = {field.number: (field, value) for field, value in a.ListFields()}
    fields_b = {field.number: (field, value) for field, value in b.ListFields()}
    for number in sorted(fields_a.keys() | fields_b.keys()):
        if number not in fields_a or number not in fields_b:
            field = (fields_a.get(number) or fields_b.get(number))[0]
            side = "first" if number in fields_a else "second"
            return f"{path}.{field.name}: only in the {side} model"
        field, value_a = fields_a[number]
        value_b = fields_b[number][1]
        found = field_difference(field, value_a, value_b, f"{path}.{field.name}")
        if found:
            return found
    unknown_a, unknown_b = unknown_fields(a), unknown_fields(b)
    for number in sorted(unknown_a.keys() | unknown_b.keys()):
        if unknown_a.get(number) != unknown_b.get(number):
            return f"{path}: unknown field {number} differs"
    return None


def field_difference(field, a, b, path):
    if field.is_repeated and len(a) != len(b):
        return f"{path}: {len(a)} against {len(b)} entries"
    if field.message_type is None:
        return None if bits(field, a) == bits(field, b) else f"{path}: {shown(a)} against {shown(b)}"
    if not field.is_repeated:
        return difference(a, b, path)
    for index, (child_a, child_b) in enumerate(zip(a, b)):
        found = difference(child_a, child_b, f"{path}[{index}]")
        if found:
            return found
    return None


def shown(value):
    text = repr(value[:SHOWN] if isinstance(value, (bytes, str)) else value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def compare(pair):
    try:
        reason = difference(load(pair[0]), load(pair[1]), "model")
    except Exception as error:  # noqa: BLE001 an unreadable file is an answer too
        reason = error_text(error)
    return {"equal": reason is None, "reason": reason}


if __name__ == "__main__":
    answer(compare)
