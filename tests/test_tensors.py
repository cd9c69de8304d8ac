"""Tensors on huge pages: where they lie, what they cost, how long they live, who uses them."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as np_st

from hugeprobe import linux, tensors
from hugeprobe.areas import touch
from hugeprobe.counters import system_wide
from hugeprobe.errors import BadRequestError, NoMemoryError, NotObservable
from hugeprobe.host import effective_sizes, host_facts
from hugeprobe.linux import Advice
from hugeprobe.placement import Span
from hugeprobe.sizes import KIB, PageSizes, page_sizes
from hugeprobe.tensors import HugePool, bind_onnxruntime, bind_openvino
from hugeprobe.workloads import bert

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

SIZES = page_sizes()
PMD = SIZES.pmd
AT_FAULT = effective_sizes(host_facts(), advised=True)
NAME = "last_hidden_state"
WIDTH = bert.TINY.config.hidden_size


@pytest.fixture
def pool() -> Iterator[HugePool]:
    with HugePool() as opened:
        yield opened


def span(array: NDArray[Any]) -> Span:
    start = array.ctypes.data
    return Span(start, start + array.nbytes)


def faults_of_touching(array: NDArray[Any]) -> tuple[int, bool]:
    """Write every byte; return the faults, and whether the system ran out of huge pages then."""
    before = system_wide()
    faults = touch(span(array))
    since = system_wide() - before
    return faults, bool(since.fault_fallback or any(size.fault_fallback for size in since.sizes))


def expected_faults(length: int) -> int | None:
    """Return the faults of touching ``length`` fresh bytes; None where sizes in between decide."""
    if PMD // KIB in AT_FAULT:
        return -(-length // PMD)
    return None if AT_FAULT else -(-length // SIZES.base)


# Where and at what cost ---------------------------------------------------------------------------


@given(
    shape=np_st.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=40),
    dtype=np_st.scalar_dtypes(),
    reserve=st.integers(0, 4 * PMD),
)
def test_every_array_is_whole_and_starts_on_a_boundary(
    shape: tuple[int, ...], dtype: np.dtype[Any], reserve: int
) -> None:
    with HugePool(reserve=reserve) as pool:
        array = pool.array("any", shape, dtype)
        assert (array.shape, array.dtype) == (shape, dtype)
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert array.ctypes.data % PMD == 0
        touch(span(array))  # a byte that is not the pool's would end the process
        whole = pool.used_kib + pool.overhead_kib
        assert whole == -(-array.nbytes // PMD) * PMD // KIB
        assert pool.used_kib == -(-array.nbytes // KIB)


@pytest.mark.parametrize("length", [1, 3 * PMD // 4, PMD, PMD + 1, 3 * PMD // 2, 5 * PMD])
def test_first_touch_costs_a_fault_for_each_huge_page(pool: HugePool, length: int) -> None:
    faults, ran_out = faults_of_touching(pool.array("a", (length,), np.uint8))
    expected = expected_faults(length)
    if expected is None:
        assert faults <= -(-length // SIZES.base)
    elif faults != expected:
        assert ran_out
        assert faults > expected


def test_coverage_is_whole_or_none(pool: HugePool) -> None:
    _, ran_out = faults_of_touching(pool.array("a", (3 * PMD // 2,), np.uint8))
    held = pool.resident()
    if isinstance(held, NotObservable):
        assert not AT_FAULT
    elif PMD // KIB in AT_FAULT and not ran_out:
        assert (held.anon_kib, held.coverage) == (2 * PMD // KIB, 1)
    elif not AT_FAULT:
        assert (held.anon_kib, held.coverage) == (3 * PMD // 2 // KIB, 0)


def test_smaller_and_equal_shapes_are_free(pool: HugePool) -> None:
    first = pool.array("a", (4, 768, 1024))
    touch(span(first))
    for shape in ((4, 768, 1024), (1, 768, 1024), (2, 100), (4, 768, 1024)):
        again = pool.array("a", shape)
        assert again.ctypes.data == first.ctypes.data
        assert touch(span(again)) == 0
    other = pool.array("a", (PMD,), np.int8)
    assert (touch(span(other)), other.ctypes.data) == (0, first.ctypes.data)


def test_growth_within_the_reserve_keeps_address_and_contents(pool: HugePool) -> None:
    small = pool.array("a", (PMD,), np.uint8)
    touch(span(small))
    large = pool.array("a", (4 * PMD,), np.uint8)
    assert large.ctypes.data == small.ctypes.data
    assert (large[:PMD] == 1).all()
    faults, ran_out = faults_of_touching(large)
    if (expected := expected_faults(3 * PMD)) is not None:
        assert faults == expected or ran_out


def test_growth_past_the_reserve_moves_and_leaves_old_arrays_alone() -> None:
    with HugePool(reserve=0) as pool:
        small = pool.array("a", (PMD,), np.uint8)
        small.fill(7)
        large = pool.array("a", (2 * PMD,), np.uint8)
        large.fill(8)
        assert not np.shares_memory(small, large)
        assert (small == 7).all()
        assert pool.used_kib == 2 * PMD // KIB


def test_names_do_not_overlap(pool: HugePool) -> None:
    arrays = [pool.array(name, (PMD + 1,), np.uint8) for name in "abc"]
    for value, array in enumerate(arrays):
        array.fill(value)
    assert all((array == value).all() for value, array in enumerate(arrays))
    assert pool.overhead_kib == 3 * (PMD // KIB - 1)


@pytest.mark.parametrize("old_kernel", [False, True])
def test_prefaulted_memory_does_not_fault(
    old_kernel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def advise(start: int, length: int, advice: Advice) -> None:
        if old_kernel and advice is Advice.POPULATE_WRITE:
            raise OSError(22, "Invalid argument")
        linux.advise(start, length, advice)

    monkeypatch.setattr(tensors, "advise", advise)
    with HugePool(prefault=True) as pool:
        array = pool.array("a", (PMD + 5,), np.uint8)
        assert touch(span(array)) == 0
        grown = pool.array("a", (5 * PMD // 2,), np.uint8)
        assert (grown[: PMD + 5] == 1).all()
        assert touch(span(grown)) == 0
        assert touch(span(pool.array("b", (100,)))) == 0


def test_another_page_size_is_kept_to() -> None:
    large = PageSizes(SIZES.base, 8 * PMD)
    with HugePool(sizes=large, reserve=0) as pool:
        assert pool.array("a", (1,)).ctypes.data % large.pmd == 0
        assert pool.overhead_kib == large.pmd // KIB - 1


def test_it_works_where_the_kernel_takes_no_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(tensors, "advise", refuse)
    with HugePool(prefault=True) as pool:
        assert pool.advised
        array = pool.array("a", (PMD + 1,), np.uint8)
        assert touch(span(array)) == 0
        assert not pool.advised
        assert "takes no advice" in str(pool.resident())


# How long -----------------------------------------------------------------------------------------


def is_mapped(where: Span) -> bool:
    """Whether there is a mapping of just these addresses."""
    return f"{where.start:x}-{where.end:x} rw-p" in Path("/proc/self/maps").read_text()


def test_memory_goes_with_the_pool_and_its_last_array() -> None:
    with HugePool(reserve=3 * PMD) as pool:
        start = pool.array("a", (1,)).ctypes.data
        if not pool.advised:
            pytest.skip("without advice the memory is not a mapping of its own")
        where = Span(start, start + 3 * PMD)
        assert is_mapped(where)  # the pool alone holds it
    assert not is_mapped(where)

    with HugePool(reserve=3 * PMD) as pool:
        array = pool.array("a", (PMD,), np.uint8)
        start = array.ctypes.data
        where = Span(start, start + 3 * PMD)
        view = array[5:].view(np.int8)
        del array
    view.fill(3)  # of a closed pool, and still its memory
    assert is_mapped(where)
    assert view.sum(dtype=int) == 3 * (PMD - 5)
    del view
    assert not is_mapped(where)


def test_outgrown_memory_goes_at_once() -> None:
    with HugePool(reserve=0) as pool:
        array = pool.array("a", (PMD,), np.uint8)
        where = span(array)
        if not pool.advised:
            pytest.skip("without advice the memory is not a mapping of its own")
        pool.array("a", (2 * PMD,), np.uint8)
        assert is_mapped(where)
        del array
        assert not is_mapped(where)


def test_a_closed_pool_gives_nothing(pool: HugePool) -> None:
    pool.close()
    pool.close()
    with pytest.raises(BadRequestError, match="the pool is closed"):
        pool.array("a", (1,))


@pytest.mark.parametrize(("shape", "dtype"), [((-1,), "f4"), ((2,), object), ((2,), [("a", "O")])])
def test_what_cannot_be_an_array_is_a_sentence(
    pool: HugePool, shape: tuple[int, ...], dtype: Any
) -> None:
    with pytest.raises(BadRequestError, match="no such array"):
        pool.array("a", shape, dtype)


def test_memory_that_the_process_may_not_use_is_a_sentence(
    pool: HugePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = pool.array("a", (PMD,), np.uint8)
    monkeypatch.setattr(tensors, "usable_memory_kib", lambda: PMD // KIB)
    assert pool.array("a", (2 * PMD,), np.uint8).nbytes == 2 * PMD  # only the growth counts
    for name, times in (("a", 4), ("a", 40), ("b", 2)):
        with pytest.raises(NoMemoryError, match=f"'{name}' was to grow by .* may use"):
            pool.array(name, (times * PMD,), np.uint8)
    assert pool.array("a", (1,)).ctypes.data == held.ctypes.data
    assert pool.used_kib == 2 * PMD // KIB  # what was refused left nothing behind


@pytest.mark.parametrize("reserve", [1 << 50, 1 << 70])
def test_address_space_that_is_refused_is_a_sentence(reserve: int) -> None:
    with (
        HugePool(reserve=reserve) as pool,
        pytest.raises(NoMemoryError, match="the kernel refused it"),
    ):
        pool.array("a", (1,))


def in_a_process(script: str) -> str:
    packages = str(Path(tensors.__file__).parents[1])
    start = f"import sys; sys.path.insert(0, {packages!r})\n"
    done = subprocess.run(
        [sys.executable, "-c", start + script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_limit_on_address_space_is_a_sentence() -> None:
    said = in_a_process("""
import resource
from hugeprobe.errors import NoMemoryError
from hugeprobe.tensors import HugePool
pool = HugePool(reserve=64 << 30)
_, most = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (32 << 30 if most < 0 else most, most))
try:
    pool.array("a", (1,))
except NoMemoryError as error:
    print(error)
""")
    assert said.startswith("64 GiB of address space was needed for a tensor")
    assert "ulimit -v" in said


def test_a_forked_process_has_the_memory_for_itself() -> None:
    said = in_a_process("""
import os
from hugeprobe.tensors import HugePool
array = HugePool().array("a", (4,), "u1")
array[:] = 1
if not os.fork():
    array[:] = 2
    os._exit(int(array.sum()))
print(os.waitstatus_to_exitcode(os.wait()[1]), array.sum())
""")
    assert said.split() == ["8", "4"]


# Who computes in them -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    pytest.importorskip("onnx", reason="needs onnx, which builds the encoder")
    path = bert.TINY.model_path(tmp_path_factory.mktemp("models"))
    assert not isinstance(path, NotObservable)
    return str(path)


def pooled(pool: HugePool, shape: tuple[int, ...]) -> dict[str, NDArray[Any]]:
    """Put the inputs of the encoder into the pool."""
    arrays = {}
    for name, values in bert.TINY.inputs(shape, seed=1).items():
        arrays[name] = pool.array(name, shape, values.dtype)
        arrays[name][:] = values
    return arrays


def openvino_request(model: str) -> Any:
    openvino = pytest.importorskip("openvino", reason="needs openvino")
    precision = {"INFERENCE_PRECISION_HINT": "f32"}
    return openvino.Core().compile_model(model, "CPU", precision).create_infer_request()


def test_openvino_computes_in_the_pool(pool: HugePool, model: str) -> None:
    request, plain = openvino_request(model), openvino_request(model)
    addresses = set()
    for shape in bert.TINY.shapes:
        inputs = pooled(pool, shape)
        hidden = pool.array(NAME, (*shape, WIDTH))
        hidden.fill(np.nan)
        bind_openvino(request, {**inputs, NAME: hidden})
        request.infer()
        for name, array in {**inputs, NAME: hidden}.items():
            assert request.get_tensor(name).data.ctypes.data == array.ctypes.data
        expected = plain.infer(bert.TINY.inputs(shape, seed=1))[NAME]
        np.testing.assert_array_equal(hidden, expected)
        addresses.add(hidden.ctypes.data)
    assert len(addresses) == 1


def test_onnxruntime_computes_in_the_pool(pool: HugePool, model: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    addresses = set()
    for shape in bert.TINY.shapes:
        inputs = pooled(pool, shape)
        hidden = pool.array(NAME, (*shape, WIDTH))
        hidden.fill(np.nan)
        bind_onnxruntime(binding, inputs, {NAME: hidden})
        session.run_with_iobinding(binding)
        (result,) = binding.get_outputs()
        assert result.data_ptr() == hidden.ctypes.data
        (expected,) = session.run(None, bert.TINY.inputs(shape, seed=1))
        np.testing.assert_array_equal(hidden, expected)
        addresses.add(hidden.ctypes.data)
    assert len(addresses) == 1


def test_openvino_fills_the_front_of_a_larger_output(pool: HugePool, model: str) -> None:
    request = openvino_request(model)
    hidden = pool.array(NAME, (8, 256, WIDTH))
    bind_openvino(request, {**pooled(pool, (2, 16)), NAME: hidden})
    (result,) = request.infer().values()
    assert result.shape == (2, 16, WIDTH)
    np.testing.assert_array_equal(hidden.ravel()[: result.size], result.ravel())


def test_a_bound_request_keeps_its_memory_until_it_goes(model: str) -> None:
    request = openvino_request(model)
    with HugePool(reserve=2 * PMD) as pool:
        inputs = pooled(pool, (2, 16))
        hidden = pool.array(NAME, (2, 16, WIDTH))
        bind_openvino(request, {**inputs, NAME: hidden})
        advised, start = pool.advised, hidden.ctypes.data
        del inputs, hidden
    where = Span(start, start + 2 * PMD)
    if not advised:
        pytest.skip("without advice the memory is not a mapping of its own")
    gc.collect()
    assert is_mapped(where)
    request.infer()
    bind_openvino(request, {NAME: np.empty((2, 16, WIDTH), np.float32)})
    assert not is_mapped(where)


def openvino_address(array: NDArray[Any]) -> int:
    return int(tensors.openvino_tensor(array).data.ctypes.data)


def onnxruntime_address(array: NDArray[Any]) -> int:
    return int(tensors.onnxruntime_value(array).data_ptr())


RUNTIMES = pytest.mark.parametrize(
    ("package", "address"),
    [("openvino", openvino_address), ("onnxruntime", onnxruntime_address)],
)


@RUNTIMES
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "u1", "i4", "i8", "?"])
def test_a_tensor_has_the_address_of_its_array(
    pool: HugePool, package: str, address: Callable[[NDArray[Any]], int], dtype: str
) -> None:
    pytest.importorskip(package)
    array = pool.array("a", (3, 5), dtype)
    assert address(array) == array.ctypes.data


@RUNTIMES
def test_a_tensor_may_be_empty(
    pool: HugePool, package: str, address: Callable[[NDArray[Any]], int]
) -> None:
    pytest.importorskip(package)
    address(pool.array("a", (0, 5)))


@RUNTIMES
def test_what_a_runtime_would_copy_is_a_sentence(
    pool: HugePool, package: str, address: Callable[[NDArray[Any]], int]
) -> None:
    pytest.importorskip(package)
    with pytest.raises(BadRequestError, match=r"\(4, 2\) and type float32, not contiguous, and"):
        address(pool.array("a", (4, 4))[:, ::2])
    with pytest.raises(BadRequestError, match="complex64 and would not"):
        address(pool.array("a", (4, 4), np.complex64))


@RUNTIMES
def test_a_missing_runtime_is_a_sentence(
    pool: HugePool,
    package: str,
    address: Callable[[NDArray[Any]], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BadRequestError, match=f"pip install {package}"):
        address(pool.array("a", (1,)))
