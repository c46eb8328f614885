"""Asks a server for scores with NVIDIA's tritonclient over HTTP and gRPC, and fails unless both answer what is expected.

usage: open_inference.py HTTP_ADDRESS GRPC_ADDRESS MODEL, with the rows expected as JSON on standard input:
[{"columns": {name: value}, "score": number}, ...]
"""

import json
import sys

import numpy as np
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

MODEL = sys.argv[3]
ROWS = json.load(sys.stdin)
SCORES = np.array([r["score"] for r in ROWS])


def column(name):
    values = [r["columns"][name] for r in ROWS]
    kind = np.object_ if isinstance(values[0], str) else np.int64
    return np.array(values, dtype=kind)


def tensors(client, shape, **binary):
    out = []
    for name in ROWS[0]["columns"]:
        data = column(name).reshape(shape)
        tensor = client.InferInput(name, list(data.shape), np_to_triton_dtype(data.dtype))
        tensor.set_data_from_numpy(data, **binary)
        out.append(tensor)
    return out


def check(result, what):
    score = result.as_numpy("score")
    assert score.dtype == np.float64 and np.allclose(score, SCORES, rtol=0, atol=1e-12), (what, score, SCORES)
    assert list(result.as_numpy("rung").ravel()) in (["primary"] * len(ROWS), [b"primary"] * len(ROWS)), what
    assert list(result.as_numpy("version")) == [1] * len(ROWS), what
    ids = result.as_numpy("prediction_id")
    assert len(set(ids.ravel().tolist())) == len(ROWS), what


def refused(ask, *words):
    try:
        ask()
    except InferenceServerException as e:
        assert all(w in str(e) for w in words), str(e)
        return
    raise AssertionError(f"not refused: {words}")


def common(client, library, what):
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(MODEL), what
    assert client.is_model_ready(MODEL, "1") and not_ready(client), what
    check(client.infer(MODEL, tensors(library, (-1,)), request_id="r1"), what)
    check(client.infer(MODEL, tensors(library, (-1, 1)), model_version="1"), what)
    only = client.infer(MODEL, tensors(library, (-1,)), outputs=[library.InferRequestedOutput("score")])
    assert np.allclose(only.as_numpy("score"), SCORES, rtol=0, atol=1e-12) and only.as_numpy("rung") is None, what
    refused(lambda: client.infer("nobody", tensors(library, (-1,))), "not_found")
    refused(lambda: client.infer(MODEL, tensors(library, (-1,)), model_version="7"), "not_found")
    refused(lambda: client.infer(MODEL, tensors(library, (-1,))[1:]), "missing_field")
    refused(lambda: client.infer(MODEL, tensors(library, (-1,)), outputs=[library.InferRequestedOutput("logits")]), "unknown_output")


def repository(client, what):
    """Models are loaded by promotion: who asks for it here is told so, and nothing is loaded or unloaded."""
    for ask in (client.load_model, client.unload_model):
        refused(lambda: ask(MODEL), "not_supported", "millrace models promote")
        refused(lambda: ask("nobody"), "not_found")
    assert client.is_model_ready(MODEL), what


def not_ready(client):
    try:
        return not client.is_model_ready(MODEL, "7")
    except InferenceServerException as e:
        return "not_found" in str(e)


def inputs_tensor(client, library, parameters, dtype, what):
    """Gives the model's own inputs, in the order that the metadata says: nothing is fetched."""
    names = parameters["inputs_order"].split(",")
    data = np.full((len(ROWS), len(names)), np.nan, dtype=dtype)
    data[:, names.index("distance")] = column("distance")
    tensor = library.InferInput(parameters["inputs_tensor"], list(data.shape), np_to_triton_dtype(data.dtype))
    tensor.set_data_from_numpy(data)
    check(client.infer(MODEL, [tensor]), what)


http = over_http.InferenceServerClient(sys.argv[1])
common(http, over_http, "http")
check(http.infer(MODEL, tensors(over_http, (-1,), binary_data=False)), "JSON in, binary out")
plain = http.infer(
    MODEL,
    tensors(over_http, (-1,), binary_data=False),
    outputs=[over_http.InferRequestedOutput(n, binary_data=False) for n in ("score", "rung", "version", "prediction_id")],
    request_id="r2",
    timeout=90_000,
)
check(plain, "JSON in and out")
assert plain.get_response()["id"] == "r2" and plain.get_response()["model_version"] == "1", plain.get_response()
metadata = http.get_model_metadata(MODEL)
assert metadata["name"] == MODEL and {i["name"] for i in metadata["inputs"]} == set(ROWS[0]["columns"]), metadata
assert {m["name"]: m["state"] for m in http.get_model_repository_index()} == {MODEL: "READY"}
repository(http, "http")
inputs_tensor(http, over_http, metadata["parameters"], np.float32, "http, inputs")
assert http.get_server_metadata()["name"] == "millrace"

grpc = over_grpc.InferenceServerClient(sys.argv[2])
common(grpc, over_grpc, "grpc")
metadata = grpc.get_model_metadata(MODEL)
assert metadata.name == MODEL and {i.name for i in metadata.inputs} == set(ROWS[0]["columns"]), metadata
index = grpc.get_model_repository_index()
assert [(m.name, m.state) for m in index.models] == [(MODEL, "READY")], index
repository(grpc, "grpc")
inputs_tensor(grpc, over_grpc, http.get_model_metadata(MODEL)["parameters"], np.float64, "grpc, inputs")
assert grpc.get_server_metadata().name == "millrace"
response = grpc.infer(MODEL, tensors(over_grpc, (-1,)), request_id="r3").get_response()
assert response.id == "r3" and response.model_version == "1", response
print("tritonclient: every check passed over HTTP and gRPC")
