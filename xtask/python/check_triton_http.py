"""Does tritonclient[http], as it is, get from a server what onnxruntime computes itself?

`served.py` says how it is called. Clients must be allowed to load and unload models.
"""

import itertools

import numpy
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from served import arguments, hold, hold_arrays

INPUTS = {"binary input": True, "JSON input": False}
OUTPUTS = {"default output": None, "binary output": True, "JSON output": False}
PACKINGS = [None, "gzip", "deflate"]


def health(client, models):
    hold("live", client.is_server_live(), True)
    hold("ready", client.is_server_ready(), True)
    for model in models:
        hold("model ready", client.is_model_ready(model.name), True)
        hold("version ready", client.is_model_ready(model.name, model.version), True)
    hold("no model ready", client.is_model_ready("absent"), False)


def metadata(client, models):
    server = client.get_server_metadata()
    hold("server", server["name"], "modelopt")
    for extension in ["binary_tensor_data", "model_repository", "statistics"]:
        hold(extension, extension in server["extensions"], True)
    for model in models:
        told = client.get_model_metadata(model.name, model.version)
        hold("name", told["name"], model.name)
        hold("input", told["inputs"][0]["name"], model.input.name)
        hold("datatype", told["inputs"][0]["datatype"], model.datatype)
        hold("shape", told["inputs"][0]["shape"], [-1, *model.shape[1:]])
        outputs = [output.name for output in model.session.get_outputs()]
        hold("outputs", [output["name"] for output in told["outputs"]], outputs)
        config = client.get_model_config(model.name, model.version)
        hold("configured name", config["name"], model.name)
        hold("configured input", config["input"][0]["name"], model.input.name)


def infer(client, models):
    """All ways to send inputs and to want outputs."""
    variants = list(itertools.product(INPUTS.items(), OUTPUTS.items(), PACKINGS))
    for model in models:
        for place, ((said, is_binary), (wanted, answer), packing) in enumerate(variants):
            what = f"{model.name} {model.version}, {said}, {wanted}, {packing}"
            array = model.example(place)
            given = triton.InferInput(model.input.name, list(array.shape), model.datatype)
            given.set_data_from_numpy(array, binary_data=is_binary)
            expected = model.outputs(array)
            outputs = None
            if answer is not None:
                outputs = [triton.InferRequestedOutput(name, binary_data=answer) for name in expected]
            result = client.infer(
                model.name,
                [given],
                model_version=model.version,
                outputs=outputs,
                request_id=f"request {place}",
                request_compression_algorithm=packing,
                response_compression_algorithm=packing,
            )
            said = result.get_response()
            hold(f"{what}: id", said["id"], f"request {place}")
            hold(f"{what}: model", said["model_name"], model.name)
            hold(f"{what}: version", said["model_version"], model.version)
            for name, array in expected.items():
                hold_arrays(f"{what}: {name}", result.as_numpy(name), array)
    return len(variants) * len(models)


def many_at_once(client, models):
    """Answers of requests that may share runs are those of the same alone, up to rounding."""
    for model in models:
        arrays = [model.example(100 + place)[:1] for place in range(32)]
        waiting = []
        for array in arrays:
            given = triton.InferInput(model.input.name, list(array.shape), model.datatype)
            given.set_data_from_numpy(array)
            waiting.append(client.async_infer(model.name, [given], model_version=model.version))
        for array, one in zip(arrays, waiting):
            result = one.get_result()
            for name, expected in model.outputs(array).items():
                numpy.testing.assert_allclose(result.as_numpy(name), expected, rtol=1e-4, atol=1e-5)


def statistics(client, models, count):
    total = 0
    for model in models:
        [told] = client.get_inference_statistics(model.name, model.version)["model_stats"]
        hold("name", (told["name"], told["version"]), (model.name, model.version))
        total += told["inference_stats"]["success"]["count"]
        hold("batches", told["execution_count"] <= told["inference_count"], True)
    hold("requests that were answered", total, count)
    every = client.get_inference_statistics()["model_stats"]
    hold("statistics of all models", len(every), len(models))


def refused(what, status, ask):
    """A request must end with a status, and with the server's words."""
    try:
        ask()
    except InferenceServerException as error:
        hold(f"{what}: status", error.status(), str(status))
        if not error.message() or "decoding" in error.message():
            raise AssertionError(f"{what}: the client could not read {error.message()!r}")
        return
    raise AssertionError(f"{what} was not refused")


def errors(client, models):
    model = models[0]
    array = model.example(0)
    given = triton.InferInput(model.input.name, list(array.shape), model.datatype)
    given.set_data_from_numpy(array)
    other = triton.InferInput("absent", list(array.shape), model.datatype)
    other.set_data_from_numpy(array)
    absent = triton.InferRequestedOutput("absent")
    refused("no model", 404, lambda: client.infer("absent", [given]))
    refused("no metadata", 404, lambda: client.get_model_metadata("absent"))
    refused("no version", 404, lambda: client.infer(model.name, [given], model_version="77"))
    refused("no input", 400, lambda: client.infer(model.name, [other]))
    refused("no output", 400, lambda: client.infer(model.name, [given], outputs=[absent]))
    refused("nothing to load", 404, lambda: client.load_model("absent"))
    refused("a configuration", 501, lambda: client.load_model(model.name, config="{}"))
    refused("shared memory", 404, lambda: client.get_system_shared_memory_status())


def states(client):
    return {(one["name"], one.get("version")): one["state"] for one in client.get_model_repository_index()}


def repository(client, models):
    names = {(model.name, model.version): "READY" for model in models}
    hold("index", states(client), names)
    client.unload_model("magika")
    hold("index without a model", states(client), {**names, ("magika", "1"): "UNAVAILABLE"})
    hold("unloaded", client.is_model_ready("magika"), False)
    client.load_model("magika")
    hold("index with it again", states(client), names)
    hold("loaded", client.is_model_ready("magika"), True)


def main():
    address, models = arguments()
    with triton.InferenceServerClient(address, concurrency=8, network_timeout=60) as client:
        health(client, models)
        metadata(client, models)
        count = infer(client, models)
        statistics(client, models, count)
        many_at_once(client, models)
        errors(client, models)
        repository(client, models)
    print(f"tritonclient over HTTP: {count} answers are onnxruntime's own, bit for bit")


main()
