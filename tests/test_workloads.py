from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from hugeprobe import inference
from hugeprobe.errors import BadRequestError, NotObservable, ProbeError
from hugeprobe.loaders import LOADERS
from hugeprobe.runtimes import Request, RuntimeName, export_ir
from hugeprobe.workloads import (
    WORKLOADS,
    bert,
    decoder,
    detector,
    embedding,
    find,
    graphs,
    huggingface,
    local,
    shards,
    yolov5,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hugeprobe.workloads import Inputs, Model, Shape, Workload

Array = NDArray[np.float64]

needs_onnx = "BERT graphs cannot be built: the package onnx is not installed."
needs_openvino = "OpenVINO is not installed."
needs_onnxruntime = "ONNX Runtime is not installed."

YOLO = yolov5.Yolo("yolo", yolov5.YoloConfig(1 / 9, 1 / 16, classes=2), ((2, 3, 64, 96),), 0)
TABLES = embedding.Embedding("tables", embedding.TablesConfig(2, 64, 4, hidden=8), ((3, 5),), 0)
GPT = decoder.Decoder("gpt", decoder.DecoderConfig(2, 32, 4, 50, 16), ((1, 3), (2, 9), (1, 3)), 0)
LAYERS = shards.Shards("layers", shards.LayersConfig(layers=3, width=512), ((1, 512), (2, 512)), 0)
SMALL: tuple[Workload, ...] = (bert.TINY, YOLO, TABLES, GPT, LAYERS)
"""One of each kind of graph that is built here, too small to take time."""

small = pytest.mark.parametrize("workload", SMALL, ids=lambda workload: workload.name)


def load(
    workload: Workload, runtime: RuntimeName, cache: Path, shapes: tuple[Shape, ...] = ()
) -> Model:
    pytest.importorskip("onnx", reason=needs_onnx)
    pytest.importorskip(runtime, reason=f"The package {runtime} is not installed.")
    path = workload.model_path(cache)
    assert not isinstance(path, NotObservable)
    request = Request(
        workload.spec(path), str(path), shapes, 0, 0, runtime, 1, mmap=True, arena=True
    )
    return LOADERS[runtime](request, workload.state)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@small
def test_runtimes_agree(workload: Workload, cache: Path) -> None:
    one, other = load(workload, "openvino", cache), load(workload, "onnxruntime", cache)
    for shape in workload.shapes:
        inputs = workload.inputs(shape, seed=3)
        pairs = zip(workload.infer(one, inputs), workload.infer(other, inputs), strict=True)
        for found, expected in pairs:
            assert found.dtype == expected.dtype
            assert np.ptp(expected) > 0
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@small
def test_graph_is_valid_onnx(workload: Workload, cache: Path) -> None:
    onnx: Any = pytest.importorskip("onnx", reason=needs_onnx)
    onnx.checker.check_model(workload.model_path(cache), full_check=True)


def test_detectors_have_as_many_weights_as_the_published_ones() -> None:
    """Those of YOLOv5n and YOLOv5s with 80 classes, batch normalisation folded in."""
    pytest.importorskip("onnx", reason=needs_onnx)
    for width, published in ((1 / 4, 1_867_405), (1 / 2, 7_225_885)):
        graph = yolov5.build(yolov5.YoloConfig(1 / 3, width), 0).graph
        sizes = (math.prod(array.dims) for array in graph.initializer if "conv" in array.name)
        assert sum(sizes) == published


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_cached_tokens_are_as_good_as_tokens_read_at_once(
    runtime: RuntimeName, cache: Path
) -> None:
    """Token by token, the cache stands for the text so far; a reset forgets it."""
    model, inputs = load(GPT, runtime, cache), GPT.inputs((2, 9), seed=1)
    (stepwise,) = GPT.infer(model, inputs)
    model.reset()
    (at_once,) = model(inputs)
    assert stepwise.shape == (2, 1, 50)
    np.testing.assert_allclose(stepwise[:, 0], at_once[:, -1], rtol=1e-4, atol=1e-6)

    (further,) = model({"input_ids": inputs["input_ids"][:, :1]})
    model.reset()
    (anew,) = model({"input_ids": inputs["input_ids"][:, :1]})
    assert not np.allclose(further, anew)
    np.testing.assert_allclose(anew[:, 0], at_once[:, 0], rtol=1e-4, atol=1e-6)


def test_attention_over_the_cache_is_fused(cache: Path) -> None:
    """Else OpenVINO would copy the whole cache for every token, which it does for no real model."""
    model: Any = load(GPT, "openvino", cache)
    layers = [
        node.get_rt_info()["layerType"].value
        for node in model.compiled.get_runtime_model().get_ops()
    ]
    assert layers.count("ScaledDotProductAttention") == GPT.config.layers


@pytest.fixture(scope="module")
def files(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same model as ONNX and as IR."""
    pytest.importorskip("onnx", reason=needs_onnx)
    pytest.importorskip("openvino", reason=needs_openvino)
    model = bert.TINY.model_path(cache)
    assert isinstance(model, Path)
    ir = tmp_path_factory.mktemp("secret-folder") / "exported.xml"
    export_ir(model, ir)
    return {"onnx": model, "ir": ir}


@pytest.mark.parametrize("form", ["onnx", "ir"])
def test_local_files_are_workloads(files: dict[str, Path], form: str, tmp_path: Path) -> None:
    work = find(f"{files[form]}@2x16,3x8,2x16")
    assert work.shapes == ((2, 16), (3, 8), (2, 16))
    assert work.name == files[form].stem
    assert work.model_path(tmp_path) == files[form]
    published = (
        f"{work.name} {work.description} {work.source} {work.licence} {work.spec(files[form])}"
    )
    assert str(files[form].parent) not in published

    again = find(work.spec(files[form]))  # as the measured process does
    assert again.name == work.name
    inputs = again.inputs((3, 8), seed=5)
    assert inputs.keys() == {"input_ids", "attention_mask"}
    for name, values in work.inputs((3, 8), seed=5).items():
        np.testing.assert_array_equal(inputs[name], values)
        assert values.shape == (3, 8)
        assert values.dtype == np.int64
    assert (inputs["attention_mask"] == 1).all()
    (output,) = work.infer(load(work, "openvino", tmp_path), inputs)
    np.testing.assert_allclose(output, forward(bert.TINY.config, 0, inputs), atol=1e-5)


def test_local_file_is_run_by_its_runtimes(files: dict[str, Path], tmp_path: Path) -> None:
    work = find(f"{files['ir']}@2x16")
    report = inference.run(work, cache=tmp_path, repeats=0)
    if isinstance(report, NotObservable):
        pytest.skip(str(report))
    assert [phase.step.stage for phase in report.phases] == ["start", "load", "first"]
    assert report.workload == "exported"
    refused = inference.run(work, inference.ONNXRUNTIME, cache=tmp_path)
    assert isinstance(refused, NotObservable)
    assert "OpenVINO IR" in str(refused) or "not installed" in str(refused)


def test_local_files_with_fixed_sizes_need_no_shape(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason=needs_onnx)
    graph = graphs.Graph()
    graph.add("Add", "left", "right", output="sum")
    kinds = {"left": (np.float32, (2, 3)), "right": (np.float32, (3,))}
    path = tmp_path / "fixed.onnx"
    path.write_bytes(graph.model("fixed", kinds, {"sum": (np.float32, (2, 3))}).SerializeToString())
    work = find(str(path))
    assert work.shapes == ((2, 3),)
    assert work.inputs((2, 3), 0)["right"].shape == (3,)
    with pytest.raises(BadRequestError, match=r"left of 2 x 3, but was given 2x4"):
        find(f"{path}@2x4")
    with pytest.raises(BadRequestError, match=r"left of 2 x 3, but was given 6"):
        find(f"{path}@6")


def test_sizes_are_taken_by_name_then_by_place(tmp_path: Path) -> None:
    declared = (
        local.Declared("input_ids", "int64", ("batch", "length")),
        local.Declared("lengths", "int32", ("batch",)),
        local.Declared("turned_mask", "bool", ("length", "batch")),
        local.Declared("token_type_ids", "int64", (None, None)),
        local.Declared("scores", "float16", (None, 7)),
    )
    inputs = local.LocalModel("model", declared).inputs((2, 5), seed=0)
    assert {name: values.shape for name, values in inputs.items()} == {
        "input_ids": (2, 5),
        "lengths": (2,),
        "turned_mask": (5, 2),
        "token_type_ids": (2, 5),
        "scores": (2, 7),
    }
    assert [inputs[each.name].dtype for each in declared] == [each.kind for each in declared]
    assert inputs["turned_mask"].all()
    assert not inputs["token_type_ids"].any()

    past = local.Declared("past", "float32", (None, 4, "past", 8))
    with pytest.raises(BadRequestError, match=r"past of \? x 4 x past x 8, whose size does not"):
        local.LocalModel("model", (*declared, past)).inputs((2, 5), seed=0)


def test_files_that_are_no_models_are_sentences(files: dict[str, Path], tmp_path: Path) -> None:
    for name, text in (("a.onnx", b"no model"), ("a.xml", b"no model"), ("b.xml", b"<net/>")):
        (tmp_path / name).write_bytes(text)
        with pytest.raises(BadRequestError, match=rf"{name}.* (but it is none|has no inputs)"):
            find(str(tmp_path / name))
    with pytest.raises(BadRequestError, match=r"absent.onnx was asked for, but there is no such"):
        find(str(tmp_path / "absent.onnx"))
    with pytest.raises(BadRequestError, match=r"batch x length. Say which to use.*onnx@8x8"):
        find(str(files["onnx"]))


@pytest.fixture
def transformers_model(tmp_path: Path) -> Path:
    folder = tmp_path / "some-model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def converter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for optimum-intel, which runs as the command that this module holds."""
    packages = tmp_path / "packages"
    (packages / "optimum" / "commands").mkdir(parents=True)
    about = packages / "optimum_intel-9.dist-info" / "METADATA"
    about.parent.mkdir()
    about.write_text("Metadata-Version: 2.1\nName: optimum-intel\nVersion: 9\n")
    monkeypatch.syspath_prepend(packages)
    monkeypatch.setenv("PYTHONPATH", str(packages))
    return packages / "optimum" / "commands" / "optimum_cli.py"


def test_transformers_models_are_converted_once(
    files: dict[str, Path], transformers_model: Path, converter: Path, tmp_path: Path
) -> None:
    converter.write_text(
        "import os, shutil, sys\n"
        "*_, option, model, _, _, _, _, _, _, folder = sys.argv\n"
        f"assert option == '--model' and model == {str(transformers_model)!r}\n"
        "assert os.environ['HF_HUB_OFFLINE'] == '1'\n"
        "for end in ('xml', 'bin'):\n"
        f"    shutil.copy({str(files['ir'].with_suffix(''))!r} + f'.{{end}}',"
        " f'{folder}/openvino_model.{end}')\n"
    )
    work = find(f"{transformers_model}@2x16,3x8")
    assert work.name == "some-model"
    assert work.shapes == ((2, 16), (3, 8))
    report = inference.run(work, cache=tmp_path / "cache", repeats=0)
    if isinstance(report, NotObservable):
        pytest.skip(str(report))
    assert [phase.step.shape for phase in report.phases[2:]] == [(2, 16), (3, 8)]

    converter.unlink()
    path = work.model_path(tmp_path / "cache")
    assert isinstance(path, Path)
    assert path.is_file()
    assert str(tmp_path) not in f"{work.name} {work.description} {work.source} {work.spec(path)}"


def test_models_that_cannot_be_converted_are_sentences(
    transformers_model: Path, converter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    converter.write_text("raise SystemExit('ValueError: some-model has no weights')")
    work = find(f"{transformers_model}@2x16")
    with pytest.raises(ProbeError, match=r"some-model was to be converted .* has no weights"):
        work.model_path(tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())

    monkeypatch.setattr(huggingface, "_PACKAGE", "no-such-package-of-that-name")
    missing = find("hf:someone/some-model@2x16").model_path(tmp_path)
    assert isinstance(missing, NotObservable)
    assert "which converts some-model, is not installed" in str(missing)
    for shapes in ("", "@2x16x3"):
        with pytest.raises(BadRequestError, match=r"say which to use, such as some-model@8x64"):
            find(f"{transformers_model}{shapes}")


def test_sums_are_of_the_rows_asked_for(cache: Path) -> None:
    """Random rows make the model answer what the same sums make with plain NumPy."""
    onnx: Any = pytest.importorskip("onnx", reason=needs_onnx)
    model, inputs = load(TABLES, "onnxruntime", cache), TABLES.inputs((3, 5), seed=1)
    graph = onnx.load(TABLES.model_path(cache)).graph
    arrays = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    sums = [arrays[f"table.{n}"][inputs[f"rows.{n}"]].sum(1) for n in range(2)]
    logits = np.maximum(np.concatenate(sums, 1) @ arrays["hidden"], 0) @ arrays["answer"]
    np.testing.assert_allclose(model(inputs)[0], 1 / (1 + np.exp(-logits)), rtol=1e-5)


def test_large_models_are_of_the_size_that_is_said() -> None:
    for large in (embedding.GIB, shards.GIB):
        assert large.config.kib == 1 << 20
        assert "1024 MiB" in large.description


def test_large_matrices_are_in_files_of_their_own(cache: Path) -> None:
    pytest.importorskip("onnx", reason=needs_onnx)
    path = LAYERS.model_path(cache)
    assert not isinstance(path, NotObservable)
    sizes = {file.name: file.stat().st_size for file in path.parent.iterdir() if file != path}
    assert sizes == {f"layer.{layer}.weight": 1 << 20 for layer in range(3)}
    assert path.stat().st_size < 1 << 20


def forward(config: bert.BertConfig, seed: int, inputs: Inputs) -> Array:
    """BERT in double precision, written from the paper rather than from the graph."""
    w: Mapping[str, Array] = {k: v.astype(float) for k, v in bert.weights(config, seed).items()}
    tokens, mask = inputs["input_ids"], inputs["attention_mask"]
    length, heads = tokens.shape[1], config.num_attention_heads

    def norm(x: Array, name: str) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + config.layer_norm_eps)
        return np.asarray(scaled * w[f"{name}.scale"] + w[f"{name}.bias"])

    def dense(x: Array, name: str) -> Array:
        return np.asarray(x @ w[f"{name}.weight"] + w[f"{name}.bias"])

    def attend(x: Array, layer: str) -> Array:
        query, key, value = (
            np.stack(np.split(dense(x, f"{layer}.{name}"), heads, axis=-1), axis=1)
            for name in ("query", "key", "value")
        )
        scores = np.einsum("bhik,bhjk->bhij", query, key) / math.sqrt(query.shape[-1])
        scores = np.where(mask[:, None, None, :] == 1, scores, -np.inf)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        context = np.einsum("bhij,bhjk->bhik", shares, value)
        return dense(np.concatenate(list(np.moveaxis(context, 1, 0)), -1), f"{layer}.attended")

    embedded = w["embeddings.word"][tokens] + w["embeddings.position"][:length]
    x = norm(embedded + w["embeddings.token_type"], "embeddings.norm")
    for number in range(config.num_hidden_layers):
        layer = f"layer.{number}"
        x = norm(x + attend(x, layer), f"{layer}.attended.norm")
        inner = dense(x, f"{layer}.inner")
        gelu = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
        x = norm(x + dense(gelu, f"{layer}.outer"), f"{layer}.outer.norm")
    return x


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    pytest.importorskip("onnx", reason=needs_onnx)
    path = bert.TINY.model_path(tmp_path_factory.mktemp("models"))
    assert not isinstance(path, NotObservable)
    return str(path)


@pytest.mark.parametrize("shape", [(1, 1), (2, 16), (3, 33)])
def test_onnxruntime_agrees_with_plain_numpy(tiny_model: str, shape: tuple[int, int]) -> None:
    runtime: Any = pytest.importorskip("onnxruntime", reason=needs_onnxruntime)
    session = runtime.InferenceSession(tiny_model, providers=["CPUExecutionProvider"])
    inputs = bert.TINY.inputs(shape, seed=3)
    (output,) = session.run(None, inputs)
    np.testing.assert_allclose(output, forward(bert.TINY.config, 0, inputs), atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (2, 16), (3, 33)])
def test_openvino_agrees_with_plain_numpy(tiny_model: str, shape: tuple[int, int]) -> None:
    openvino: Any = pytest.importorskip("openvino", reason=needs_openvino)
    precision = {"INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(tiny_model, "CPU", precision)
    inputs = bert.TINY.inputs(shape, seed=3)
    output = model(inputs)[0]
    np.testing.assert_allclose(output, forward(bert.TINY.config, 0, inputs), atol=1e-5)


def test_padding_does_not_change_what_is_read() -> None:
    ids = np.array([[5, 6, 7, 0, 0]])
    mask = np.array([[1, 1, 1, 0, 0]])
    padded = forward(bert.TINY.config, 0, {"input_ids": ids, "attention_mask": mask})
    bare = forward(bert.TINY.config, 0, {"input_ids": ids[:, :3], "attention_mask": mask[:, :3]})
    np.testing.assert_allclose(padded[:, :3], bare)


def test_weights_have_the_size_of_the_published_models() -> None:
    """Counts of the encoders of bert-base-uncased and all-MiniLM-L6-v2, without pooler.

    They hold two token types where the graph, which knows one, needs a single row.
    """
    base, mini = (
        sum(map(math.prod, bert.sizes(work.config).values())) for work in (bert.BASE, bert.MINI)
    )
    assert base == 109_482_240 - (768 * 768 + 768) - 768
    assert mini == 22_713_216 - (384 * 384 + 384) - 384


def test_model_is_built_once_and_leaves_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason=needs_onnx)
    first = bert.TINY.model_path(tmp_path)
    assert not isinstance(first, NotObservable)
    written = first.stat().st_mtime_ns
    assert bert.TINY.model_path(tmp_path) == first
    assert first.stat().st_mtime_ns == written
    assert list(tmp_path.rglob("*")) == [first.parent, first]


def test_other_weights_are_another_file(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason=needs_onnx)
    other = bert.Bert("bert-tiny", bert.TINY.config, bert.TINY.shapes, 0, weight_seed=1)
    assert other.model_path(tmp_path) != bert.TINY.model_path(tmp_path)


def test_missing_onnx_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    answer = bert.TINY.model_path(tmp_path)
    assert isinstance(answer, NotObservable)
    assert "pip install onnx" in str(answer)
    assert not list(tmp_path.iterdir())


def test_missing_detector_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector, "_PACKAGE", "no-such-package-of-that-name")
    answer = detector.DETECTOR.model_path(tmp_path)
    assert isinstance(answer, NotObservable)
    assert "pip install" in str(answer)


def test_detector_is_found_without_importing_its_package(tmp_path: Path) -> None:
    path = detector.DETECTOR.model_path(tmp_path)
    if isinstance(path, NotObservable):
        pytest.skip(str(path))
    assert path.suffix == ".onnx"
    assert "rapidocr_onnxruntime" not in __import__("sys").modules


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_workload_says_what_it_is(name: str) -> None:
    workload = find(name)
    assert workload.name == name
    assert workload.description.endswith(".")
    assert workload.licence
    assert workload.source
    assert len(set(workload.shapes)) < len(workload.shapes), "no shape is returned to"


@given(seed=st.integers(0, 2**32), name=st.sampled_from(sorted(WORKLOADS)))
def test_inputs_are_drawn_once_per_seed(seed: int, name: str) -> None:
    workload = WORKLOADS[name]
    shape = workload.shapes[0]
    one, two = workload.inputs(shape, seed), workload.inputs(shape, seed)
    assert one.keys() == two.keys()
    for key, values in one.items():
        assert values.shape == shape
        np.testing.assert_array_equal(values, two[key])


@given(batch=st.integers(1, 4), length=st.integers(1, 512), seed=st.integers(0, 99))
def test_every_text_is_read_from_its_start(batch: int, length: int, seed: int) -> None:
    inputs = bert.TINY.inputs((batch, length), seed)
    mask = inputs["attention_mask"]
    assert (mask[:, 0] == 1).all()
    assert (np.diff(mask, axis=1) <= 0).all()
    assert (inputs["input_ids"] < bert.TINY.config.vocab_size).all()


def test_bad_requests_are_sentences() -> None:
    with pytest.raises(BadRequestError, match=r"up to 512 tokens.*given 513"):
        bert.TINY.inputs((1, 513), 0)
    with pytest.raises(BadRequestError, match="attention heads"):
        bert.BertConfig(hidden_size=100, num_attention_heads=7)
    with pytest.raises(BadRequestError, match=r"up to 1024 tokens.*given 1025"):
        decoder.GPT.inputs((1, 1025), 0)
    with pytest.raises(BadRequestError, match="attention heads"):
        decoder.DecoderConfig(1, 32, 5, 50, 16)
    with pytest.raises(BadRequestError, match=r"vectors of 4096.*given 5"):
        shards.GIB.inputs((1, 5), 0)
    with pytest.raises(BadRequestError, match="choose one of ppocr-detector"):
        find("bert-huge")
    with pytest.raises(BadRequestError, match=r"multiples of 32.*given 320 x 330"):
        yolov5.SMALL.inputs((1, 3, 320, 330), 0)
