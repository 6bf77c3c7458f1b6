"""Does the client of KServe's own SDK, as it is, get from a server what onnxruntime computes itself?

`served.py` says how it is called.
"""

import asyncio

from httpx import HTTPStatusError
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

from served import arguments, hold, hold_arrays


async def health(client, url, models):
    hold("live", await client.is_server_live(url), True)
    hold("ready", await client.is_server_ready(url), True)
    for model in models:
        hold("model ready", await client.is_model_ready(url, model.name), True)


async def infer(client, url, model, is_binary):
    array = model.example(7)
    given = InferInput(model.input.name, list(array.shape), model.datatype)
    given.set_data_from_numpy(array, binary_data=is_binary)
    expected = model.outputs(array)
    wanted = [RequestedOutput(name, {"binary_data": is_binary}) for name in expected]
    # The client asks for the newest version, which is the last of each name.
    request = InferRequest(model.name, [given], request_id="kserve", request_outputs=wanted)
    answer = await client.infer(url, request, model_name=model.name)
    hold("id", answer.id, "kserve")
    found = {output.name: output.as_numpy() for output in answer.outputs}
    for name, array in expected.items():
        hold_arrays(f"{model.name}, {'binary' if is_binary else 'JSON'}: {name}", found[name], array)


async def refused(client, url, model):
    given = InferInput("absent", [1], "FP32", [1.0])
    request = InferRequest(model.name, [given])
    try:
        await client.infer(url, request, model_name=model.name)
    except HTTPStatusError as error:
        hold("status", error.response.status_code, 400)
        hold("the server's words are told", "absent" in str(error), True)
        return
    raise AssertionError("an input that is not there was not refused")


async def main():
    address, models = arguments()
    url = f"http://{address}"
    newest = {model.name: model for model in models}.values()
    client = InferenceRESTClient(RESTConfig(protocol="v2", timeout=60))
    await health(client, url, newest)
    for model in newest:
        for is_binary in [True, False]:
            await infer(client, url, model, is_binary)
        await refused(client, url, model)
    await client.close()
    print(f"KServe's client: {2 * len(newest)} answers are onnxruntime's own, bit for bit")


asyncio.run(main())
