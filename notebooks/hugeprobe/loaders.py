"""How each runtime loads a model, and keeps the state of a stateful one.

The model is an ONNX file whose state, if it has any, is plain inputs and outputs. OpenVINO turns
them into variables inside the compiled model; ONNX Runtime gets its own outputs back as inputs.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hugeprobe.runtimes import Request, RuntimeName
    from hugeprobe.workloads import Inputs, Model, Outputs

_STATELESS: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(slots=True)
class _OpenVino:
    """A compiled model, and the request that holds its memory from the first call on."""

    compiled: Any
    request: Any = None

    def __call__(self, inputs: Inputs) -> Outputs:
        if self.request is None:
            self.request = self.compiled.create_infer_request()
        return list(self.request.infer(inputs, share_inputs=True).values())

    def reset(self) -> None:
        if self.request is not None:
            self.request.reset_state()

    def release(self) -> None:
        self.compiled.release_memory()


def load_openvino(request: Request, state: Mapping[str, str] = _STATELESS) -> Model:
    """Read and compile for the CPU; inputs that are outputs of the call before become variables."""
    return _OpenVino(compile_openvino(request, state))


def compile_openvino(
    request: Request,
    state: Mapping[str, str] = _STATELESS,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> Any:
    """Return the compiled model of OpenVINO; ``shapes`` makes those of inputs static.

    Precision is fixed to fp32, because processors with bf16 arithmetic would else get another model
    than the rest; the number of threads is fixed so that counts repeat.
    """
    openvino: Any = importlib.import_module("openvino")
    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": request.mmap})
    settings = {
        "PERFORMANCE_HINT": request.hint,
        "INFERENCE_NUM_THREADS": request.threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "KV_CACHE_PRECISION": "f32",
    }
    if request.blobs:
        # By its path: a model that was read first has its weights mapped before the cache is asked.
        cached = {"CACHE_DIR": request.blobs, "CACHE_MODE": request.cache_mode}
        return core.compile_model(request.model, "CPU", {**settings, **cached})
    model = core.read_model(request.model)
    if state:
        make_stateful(model, state)
    if shapes:
        model.reshape({name: list(shape) for name, shape in shapes.items()})
    return core.compile_model(model, "CPU", settings)


def make_stateful(model: Any, state: Mapping[str, str]) -> None:
    """Turn pairs of an input and an output of an OpenVINO model into variables.

    The result is what the plugin expects of a language model, so that it fuses attention with the
    variables: it recognises the cache by the reordering of its texts, which here changes nothing.
    """
    passes: Any = importlib.import_module("openvino.passes")
    offline: Any = importlib.import_module("openvino._offline_transformations")
    opset: Any = importlib.import_module("openvino.opset13")
    manager = passes.Manager()
    manager.register_pass(passes.MakeStateful(dict(state)))
    manager.run_passes(model)

    zero, one = opset.constant(np.int64(0)), opset.constant(np.int64(1))
    batch = opset.gather(opset.shape_of(model.inputs[0]), zero, zero)
    same_order = opset.range(zero, batch, one, output_type="i32")
    for variable in model.get_ops():
        if variable.get_type_name() != "ReadValue":
            continue
        # It begins with as many texts as the input has, and none of their tokens.
        sizes = [size.min_length for size in variable.get_output_partial_shape(0)][1:]
        shape = opset.concat([opset.unsqueeze(batch, zero), opset.constant(np.array(sizes))], 0)
        nothing = opset.constant(0, dtype=variable.get_output_element_type(0))
        variable.set_arguments([opset.broadcast(nothing, shape)])
        reordered = opset.gather(variable, same_order, zero).output(0)
        for use in variable.output(0).get_target_inputs():
            if use.get_node().get_type_name() == "Concat":
                use.replace_source_output(reordered)
    model.validate_nodes_and_infer_types()
    # As openvino.convert_model does; reading a file does not fuse attention.
    offline.apply_moc_transformations(model, cf=False)


@dataclass(slots=True)
class _OnnxRuntime:
    """A session without state."""

    session: Any

    def __call__(self, inputs: Inputs) -> Outputs:
        return list(self.session.run(None, inputs))

    def reset(self) -> None:
        """Do nothing, as there is nothing to forget."""

    def release(self) -> None:
        """Do nothing: it shrinks its arena at the end of a run or never."""


@dataclass(slots=True)
class _StatefulOnnxRuntime:
    """A session whose outputs are fed back, without a copy, as inputs of the next call."""

    session: Any
    state: Mapping[str, str]
    value: Callable[[np.ndarray[Any, Any]], Any]
    held: dict[str, Any] = field(default_factory=dict)

    def __call__(self, inputs: Inputs) -> Outputs:
        given = {name: self.value(array) for name, array in inputs.items()}
        names = [output.name for output in self.session.get_outputs()]
        found = self.session.run_with_ort_values(
            names, given | (self.held or self._nothing(inputs))
        )
        outputs = dict(zip(names, found, strict=True))
        self.held = {name: outputs.pop(output) for name, output in self.state.items()}
        return [output.numpy() for output in outputs.values()]

    def reset(self) -> None:
        self.held = {}

    def release(self) -> None:
        """Do nothing: it shrinks its arena at the end of a run or never."""

    def _nothing(self, inputs: Inputs) -> dict[str, Any]:
        """Make arrays whose dynamic dimensions are those of the inputs, or else zero."""
        declared = self.session.get_inputs()
        sizes = {
            name: size
            for node in declared
            if node.name in inputs
            for name, size in zip(node.shape, inputs[node.name].shape, strict=True)
        }
        return {
            node.name: self.value(
                np.zeros(
                    [each if isinstance(each, int) else sizes.get(each, 0) for each in node.shape],
                    np.float32,
                )
            )
            for node in declared
            if node.name in self.state
        }


def load_onnxruntime(request: Request, state: Mapping[str, str] = _STATELESS) -> Model:
    """Open a session, and feed its outputs back where there is a state."""
    onnxruntime: Any = importlib.import_module("onnxruntime")
    session = open_onnxruntime(request)
    if state:
        return _StatefulOnnxRuntime(session, state, onnxruntime.OrtValue.ortvalue_from_numpy)
    return _OnnxRuntime(session)


def open_onnxruntime(request: Request) -> Any:
    """Open a session on the CPU provider; inference is sequential with a fixed thread count."""
    onnxruntime: Any = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = request.threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = request.arena
    return onnxruntime.InferenceSession(request.model, options, providers=["CPUExecutionProvider"])


LOADERS: Final[dict[RuntimeName, Callable[..., Model]]] = {
    "openvino": load_openvino,
    "onnxruntime": load_onnxruntime,
}
