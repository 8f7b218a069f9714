"""The emulated library: right products, the refusals of the real one, its model of time."""

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from whisper_npu.errors import DeviceFault, OptionError
from whisper_npu.rknpu import emulator, tiling
from whisper_npu.rknpu.librknnrt import Layout, Library, Matmul, MatmulType, Memory
from whisper_npu.rknpu.soc import SOCS, Soc

Array = NDArray[Any]
CHIPS = sorted(emulator.CHIPS)
F16, I8, F16_OUT = MatmulType.F16_F16_F32, MatmulType.I8_I8_I32, MatmulType.F16_F16_F16


@pytest.fixture(params=CHIPS)
def soc(request: pytest.FixtureRequest) -> Soc:
    return SOCS[request.param]


@pytest.fixture
def library(soc: Soc) -> Iterator[Library]:
    library = Library(emulator.library(soc.name))
    library.emulator_reset()
    yield library
    for setting in ("null", "incoherent", "late_evict", "view_nosync", "refuse", "memory_limit"):
        library.emulator_set(setting, 0)
    library.emulator_set("context_limit", 128)
    library.emulator_reset()


def operands(seed: int, m: int, k: int, n: int, kind: MatmulType) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    if kind == I8:
        return rng.integers(-128, 128, (m, k), np.int8), rng.integers(-128, 128, (n, k), np.int8)
    a, b = rng.standard_normal((m, k)), rng.standard_normal((n, k))
    return a.astype(np.float16), b.astype(np.float16)


def load(matmul: Matmul, *arrays: Array) -> list[Memory]:
    memories = []
    for array in arrays:
        raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        memory = matmul.memory(raw.size)
        memory.array[:] = raw
        memory.sync_to_device()
        memories.append(memory)
    return memories


def product(library: Library, soc: Soc, kind: MatmulType, a: Array, b: Array) -> Array:
    """A (M, K) x B (N, K)^T through the native orders."""
    (m, k), n = a.shape, len(b)
    order = soc.orders["int8" if kind == I8 else "fp16"]
    with library.matmul((m, k, n), kind) as matmul:
        dtype = {F16: np.float32, I8: np.int32, F16_OUT: np.float16}[kind]
        strip = 8 if kind == F16_OUT else 4
        assert matmul.dims("a") == (k // order.a, m, order.a)
        assert matmul.dims("b") == (n // order.b[0], k // order.b[1], *order.b)
        assert matmul.dims("c") == (n // strip, m, strip)
        tiles = tiling.tile_weight(b, order.b, (n, k), soc.k_segment)
        c = np.zeros((n // strip, m, strip), dtype)
        memories = load(matmul, tiling.tile(a, order.a), tiles, c)
        matmul.bind(*memories)
        matmul.run()
        memories[2].sync_from_device()
        return tiling.untile(memories[2].array.view(dtype).reshape(c.shape), n).copy()


def check(kind: MatmulType, actual: Array, a: Array, b: Array) -> None:
    if kind == I8:
        assert np.array_equal(actual, a.astype(np.int32) @ b.T.astype(np.int32))
        return
    expected = a.astype(np.float32) @ b.T.astype(np.float32)
    rtol, atol = (1e-3, 0.1) if kind == F16_OUT else (1e-4, 1e-3)
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("kind", [F16, I8, F16_OUT])
@settings(max_examples=12, deadline=None)
@given(chip=st.sampled_from(CHIPS), m=st.integers(1, 70), k=st.integers(1, 40), n=st.integers(1, 4))
def test_products_in_native_order(kind: MatmulType, chip: str, m: int, k: int, n: int) -> None:
    library, soc = Library(emulator.library(chip)), SOCS[chip]
    a, b = operands(m, m, 32 * k, 32 * n, kind)
    check(kind, product(library, soc, kind, a, b), a, b)


@pytest.mark.parametrize("kind", [F16, I8])
def test_long_rows_are_tiled_in_segments(library: Library, soc: Soc, kind: MatmulType) -> None:
    a, b = operands(3, 3, 8192 + 64, 32, kind)
    check(kind, product(library, soc, kind, a, b), a, b)


def test_int8_sums_are_exact_at_the_extremes(library: Library, soc: Soc) -> None:
    a, b = np.full((2, 4096), -128, np.int8), np.full((32, 4096), -128, np.int8)
    assert (product(library, soc, I8, a, b) == 4096 * 128 * 128).all()


def test_every_float16_is_read_and_written_exactly(library: Library, soc: Soc) -> None:
    values = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    a = np.zeros((1 << 16, 32), np.float16)
    a[:, 0] = np.where(np.isfinite(values), values, 0)
    b = np.zeros((32, 32), np.float16)
    b[0, 0] = 1
    for kind in (F16, F16_OUT):
        actual = product(library, soc, kind, a, b)[:, 0]
        assert np.array_equal(actual.astype(np.float16), a[:, 0])


def test_float16_results_are_rounded_to_even(library: Library, soc: Soc) -> None:
    rng = np.random.default_rng(2)
    a = (rng.standard_normal((500, 32)) * 10.0 ** rng.integers(-4, 4, (500, 1))).astype(np.float16)
    b = np.zeros((32, 32), np.float16)
    b[0, :2] = 1, 0.001
    exact = a.astype(np.float32) @ b.T.astype(np.float32)
    assert np.array_equal(product(library, soc, F16_OUT, a, b), exact.astype(np.float16))


@pytest.mark.parametrize("kind", [F16, I8])
def test_normal_order_is_copied_when_bound(library: Library, kind: MatmulType) -> None:
    a, b = operands(4, 5, 64, 32, kind)
    layouts = Layout.NORMAL, Layout.NORMAL
    with library.matmul((5, 64, 32), kind, layouts=layouts) as matmul:
        dtype = np.int32 if kind == I8 else np.float32
        memories = load(matmul, a, b.T, np.zeros((5, 32), dtype))
        matmul.bind(*memories)
        memories[0].array[:] = 0
        matmul.run()
        c = memories[2].array.view(dtype).reshape(5, 32)
        check(kind, c, a, b)
        matmul.bind(*memories)
        matmul.run()
        assert not c.any()


def test_incoherent_memory_needs_syncs(library: Library, soc: Soc) -> None:
    library.emulator_set("incoherent", 1)
    with library.matmul((4, 32, 32), F16) as matmul:
        a, b, c = (matmul.memory(4 * 32 * 32) for _ in range(3))
        a.array.view(np.float16)[:] = 1
        b.array.view(np.float16)[:] = 1
        matmul.bind(a, b, c)
        matmul.run()
        c.sync_from_device()
        assert not c.array.any()
        a.sync_to_device()
        b.sync_to_device()
        matmul.run()
        assert not c.array.any()
        c.sync_from_device()
        assert (c.array.view(np.float32)[:128] == 32).all()


def ones_times_ones(matmul: Matmul) -> tuple[Memory, Array]:
    """The result of a run, and the same for the host; operands are synchronised."""
    a, b, c = (matmul.memory(4 * 32 * 32) for _ in range(3))
    for memory in (a, b):
        memory.array.view(np.float16)[:] = 1
        memory.sync_to_device()
    matmul.bind(a, b, c)
    return c, c.array.view(np.float32)[:128]


def test_lines_that_the_host_wrote_land_on_the_result(library: Library) -> None:
    library.emulator_set("late_evict", 1)
    with library.matmul((4, 32, 32), F16) as matmul:
        c, result = ones_times_ones(matmul)
        assert result.any()  # new memory is rubbish
        c.array[:] = 0
        matmul.run()
        c.sync_from_device()
        assert not result.any()
        matmul.run()  # and only once: the lines are clean now
        c.sync_from_device()
        assert (result == 32).all()
        result[20] = 7  # one line of 16 numbers
        matmul.run()
        c.sync_from_device()
        assert np.flatnonzero(result != 32).tolist() == [20]


def test_a_sync_through_a_view_does_nothing(library: Library) -> None:
    library.emulator_set("view_nosync", 1)
    with library.matmul((4, 32, 32), F16) as matmul:
        c, result = ones_times_ones(matmul)
        matmul.run()
        view = matmul.slice(c, 0, c.size)
        view.sync_from_device()
        assert not result.any()
        c.sync_from_device()
        assert (result == 32).all()


def test_memory_has_an_end(library: Library) -> None:
    library.emulator_set("memory_limit", 10_000)
    with library.matmul((4, 32, 32), F16) as matmul:
        first = matmul.memory(8000)
        with pytest.raises(DeviceFault, match="no memory"):
            matmul.memory(4000)
        first.close()
        matmul.memory(4000)


def test_types_are_refused(library: Library) -> None:
    library.emulator_set("refuse", 1 << F16_OUT)
    with pytest.raises(DeviceFault, match="code -5"):
        library.matmul((4, 32, 32), F16_OUT)
    library.matmul((4, 32, 32), F16).close()


def test_a_shape_is_miscalculated(library: Library) -> None:
    library.emulator_trigger("wrong", (4, 0, 32))
    with library.matmul((4, 32, 32), F16) as matmul, library.matmul((5, 32, 32), F16) as other:
        _, result = ones_times_ones(matmul)
        matmul.run()
        assert not result.any()
        _, result = ones_times_ones(other)
        other.run()
        assert (result == 32).all()


BAD_SHAPES = [(4, 33, 32), (4, 32, 33), (0, 32, 32), (4, -32, 32), (4, 10272, 32), (4, 8, 32)]


@pytest.mark.parametrize("shape", BAD_SHAPES)
@pytest.mark.parametrize("kind", [F16, I8])
def test_wrong_sizes_are_refused(
    library: Library, shape: tuple[int, int, int], kind: MatmulType
) -> None:
    with pytest.raises(DeviceFault, match=r"matmul_create failed: invalid parameter \(code -5\)"):
        library.matmul(shape, kind)


def test_alignments_are_those_of_the_chip(library: Library, soc: Soc) -> None:
    for kind, order in ((F16, soc.orders["fp16"]), (I8, soc.orders["int8"])):
        library.matmul((1, order.align_k, order.align_n), kind).close()
        for k, n in ((order.align_k // 2, order.align_n), (order.align_k, order.align_n // 2)):
            with pytest.raises(DeviceFault, match="code -5"):
                library.matmul((1, k, n), kind)


def test_other_types_are_refused(library: Library) -> None:
    with pytest.raises(DeviceFault, match="code -5"):
        library.matmul((4, 32, 32), 5)  # type: ignore[arg-type]  # float16 x int8: not on these


def test_core_masks(library: Library, soc: Soc) -> None:
    if soc.cores == 1:
        with pytest.raises(DeviceFault, match=r"set_core_mask failed: failed \(code -1\)"):
            library.matmul((4, 32, 32), F16, core=0)
        return
    for core in range(soc.cores):
        library.matmul((4, 32, 32), F16, core=core).close()
    with library.matmul((4, 32, 32), F16) as matmul:
        for mask in (3, 7, 8, 0xFFFF):
            with pytest.raises(DeviceFault, match="code -1"):
                matmul._dll.rknn_matmul_set_core_mask(matmul._handle, mask)


def test_small_and_missing_memory_is_refused(library: Library) -> None:
    with library.matmul((4, 32, 32), F16) as matmul:
        with pytest.raises(DeviceFault, match=r"run failed: failed \(code -1\)"):
            matmul.run()
        big, small = matmul.memory(1 << 13), matmul.memory(64)
        with pytest.raises(DeviceFault, match=r"set_io_mem failed: invalid parameter"):
            matmul.bind(big, small, big)


def test_closed_contexts_are_refused(library: Library) -> None:
    matmul = library.matmul((4, 32, 32), F16)
    matmul.close()
    with pytest.raises(DeviceFault, match=r"invalid context \(code -7\)"):
        matmul.run()


def test_the_context_limit(library: Library) -> None:
    library.emulator_set("context_limit", 2)
    with (
        library.matmul((4, 32, 32), F16),
        library.matmul((4, 32, 32), F16),
        pytest.raises(DeviceFault, match="no memory"),
    ):
        library.matmul((4, 32, 32), F16)


def test_faults_go_on_as_long_as_told(library: Library) -> None:
    with library.matmul((4, 32, 32), F16) as matmul:
        memory = matmul.memory(1 << 13)
        matmul.bind(memory, memory, memory)
        library.emulator_fault("rknn_matmul_run", 1, -2, times=-1)
        for _ in range(3):
            with pytest.raises(DeviceFault, match="timed out"):
                matmul.run()
        library.emulator_reset()
        matmul.run()


def test_three_contexts_on_three_threads(library: Library, soc: Soc) -> None:
    cases = [operands(i, 64, 256, 64, F16) for i in range(3)]
    results: list[Array | None] = [None] * 3

    def work(i: int) -> None:
        for _ in range(5):
            results[i] = product(library, soc, F16, *cases[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result, (a, b) in zip(results, cases, strict=True):
        assert result is not None
        check(F16, result, a, b)


@pytest.mark.parametrize("kind", [F16, I8])
@pytest.mark.parametrize("shape", [(1500, 384, 128), (1500, 64, 1504), (1, 384, 32)])
def test_null_mode_models_time_as_the_table_says(
    library: Library, soc: Soc, shape: tuple[int, int, int], kind: MatmulType
) -> None:
    library.emulator_set("null", 1)
    core = 1 if soc.cores > 1 else None
    with library.matmul(shape, kind, core=core) as matmul:
        memory = matmul.memory(1 << 24)
        matmul.bind(memory, memory, memory)
        matmul.run()
        matmul.run()
        assert not memory.array.any()
    expected = 2 * soc.matmul_seconds(*shape, "int8" if kind == I8 else "fp16", 4)
    assert library.emulator_get(f"seconds{core or 0}") == pytest.approx(expected)
    assert library.emulator_get("runs") == 2
    assert library.emulator_get("calls") == (9 if core is None else 10)


def test_chips_without_an_emulator_are_refused() -> None:
    with pytest.raises(OptionError, match="no emulator for 'rk3576': use rk3588 or rk3566"):
        emulator.library("rk3576")
