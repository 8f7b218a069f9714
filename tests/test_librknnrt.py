"""The binding: declarations against a C compiler, versions by their symbols, every error named."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from whisper_npu.errors import DeviceError, DeviceFault
from whisper_npu.rknpu import emulator, librknnrt, tiling
from whisper_npu.rknpu.librknnrt import Layout, Library, MatmulType
from whisper_npu.rknpu.soc import SOCS

CC = shutil.which("cc")
needs_compiler = pytest.mark.skipif(CC is None, reason="no C compiler")

# struct in rknn.h, ours, size, and offsets of the fields in order
LAYOUTS = [
    (
        "rknn_matmul_info", librknnrt.MatmulInfo, 64,
        {"m": 0, "k": 4, "n": 8, "type": 12, "b_layout": 16, "b_quant_type": 18, "ac_layout": 20,
         "ac_quant_type": 22, "iommu_domain_id": 24, "group_size": 28, "reserved": 30},
    ),
    (
        "rknn_matmul_tensor_attr", librknnrt.TensorAttr, 332,
        {"name": 0, "n_dims": 256, "dims": 260, "size": 324, "type": 328},
    ),
    ("rknn_matmul_io_attr", librknnrt.IoAttr, 996, {"a": 0, "b": 332, "c": 664}),
    (
        "rknn_tensor_mem", librknnrt.TensorMem, 40,
        {"virt_addr": 0, "phys_addr": 8, "fd": 16, "offset": 20, "size": 24, "flags": 28,
         "priv_data": 32},
    ),
    ("rknn_sdk_version", librknnrt.SdkVersion, 512, {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "ours", "size", "offsets"), LAYOUTS)
def test_declarations_have_the_documented_layout(
    name: str, ours: type, size: int, offsets: dict[str, int]
) -> None:
    import ctypes

    assert ctypes.sizeof(ours) == size
    assert {field: getattr(ours, field).offset for field in offsets} == offsets


@needs_compiler
def test_the_compiler_agrees(tmp_path: Path) -> None:
    lines = ["#include <stddef.h>", "#include <stdio.h>", '#include "rknn.h"', "int main(void) {"]
    expected = []
    for name, _, size, offsets in LAYOUTS:
        lines.append(f'printf("%zu\\n", sizeof({name}));')
        lines += [f'printf("%zu\\n", offsetof({name}, {field}));' for field in offsets]
        expected += [size, *offsets.values()]
    (tmp_path / "sizes.c").write_text("\n".join([*lines, "return 0;", "}"]))
    include = Path(emulator.__file__).parent
    program = tmp_path / "sizes"
    subprocess.run(
        [str(CC), f"-I{include}", str(tmp_path / "sizes.c"), "-o", str(program)], check=True
    )
    done = subprocess.run([str(program)], check=True, capture_output=True, text=True)
    assert [int(line) for line in done.stdout.split()] == expected


def stub(folder: Path, *symbols: str) -> Path:
    """A library that only has these functions."""
    source, built = folder / "stub.c", folder / "librknnrt.so"
    source.write_text("\n".join(f"int {symbol}(void) {{ return 0; }}" for symbol in symbols))
    command = [str(CC), "-shared", "-fPIC", str(source), "-o", str(built)]
    subprocess.run(command, check=True)
    return built


@needs_compiler
@pytest.mark.parametrize(
    ("symbols", "message"),
    [
        (("other",), "has no matmul interface"),
        (("rknn_matmul_create",), "1.x, too old; install librknnrt.so 2"),
        (("rknn_matmul_create", "rknn_matmul_create_dynamic_shape"), "has no rknn_matmul_destroy"),
    ],
)
def test_old_and_foreign_libraries_are_refused(
    tmp_path: Path, symbols: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DeviceError, match=message):
        Library(stub(tmp_path, *symbols))


@needs_compiler
def test_2_0_is_accepted_without_the_function_that_changed_its_arguments(tmp_path: Path) -> None:
    names = [*librknnrt._SIGNATURES, "rknn_matmul_create_dyn_shape"]
    library = Library(stub(tmp_path, *names))
    assert not library.is_emulated
    assert library.tile_b(np.zeros((32, 16), np.float16), "fp16") is None


def test_the_search_goes_from_the_option_to_the_environment_to_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, named = tmp_path / "given.so", tmp_path / "named.so"
    given.touch()
    named.touch()
    monkeypatch.setenv(librknnrt.ENVIRONMENT, str(named))
    assert librknnrt.find_library(given) == given
    assert librknnrt.find_library() == named
    monkeypatch.delenv(librknnrt.ENVIRONMENT)
    assert librknnrt.find_library().name == "librknnrt.so"
    with pytest.raises(DeviceError, match="no such library"):
        librknnrt.find_library(tmp_path / "missing.so")


def test_a_missing_library_says_what_to_install() -> None:
    with pytest.raises(DeviceError, match=r"cannot load .*install librknnrt\.so"):
        Library(Path("/nowhere/librknnrt.so"))


@pytest.fixture(params=sorted(emulator.CHIPS))
def library(request: pytest.FixtureRequest) -> Iterator[Library]:
    library = Library(emulator.library(request.param))
    library.emulator_reset()
    yield library
    library.emulator_reset()
    assert library.emulator_get("contexts") == 0
    assert library.emulator_get("memory") == 0


F16 = MatmulType.F16_F16_F32


@pytest.mark.parametrize("code", sorted(librknnrt.ERRORS))
def test_every_code_is_named(library: Library, code: int) -> None:
    with library.matmul((4, 32, 32), F16) as matmul:
        library.emulator_fault("rknn_matmul_run", 2, code)
        memory = matmul.memory(1 << 14)
        matmul.bind(memory, memory, memory)
        matmul.run()
        words = librknnrt.ERRORS[code]
        with pytest.raises(DeviceFault, match=rf"rknn_matmul_run failed: {words} \(code {code}\)"):
            matmul.run()
        matmul.run()


@pytest.mark.parametrize(
    "function", ["rknn_create_mem", "rknn_create_mem_from_fd", "rknn_matmul_create"]
)
def test_refused_memory_leaves_nothing_behind(library: Library, function: str) -> None:
    library.emulator_fault(function, 1, -4)
    with (
        pytest.raises(DeviceFault, match="no memory"),
        library.matmul((4, 32, 32), F16) as matmul,
    ):
        matmul.slice(matmul.memory(4096), 0, 64)


def test_memory_beyond_32_bits_is_refused(library: Library) -> None:
    """The library would be asked for what is left of it."""
    with (
        library.matmul((4, 32, 32), F16) as matmul,
        pytest.raises(DeviceFault, match="4294967396 bytes of NPU memory are more than one piece"),
    ):
        matmul.memory((1 << 32) + 100)


def test_a_refused_core_closes_the_context(library: Library) -> None:
    library.emulator_fault("rknn_matmul_set_core_mask", 1, -1)
    with pytest.raises(DeviceFault, match="set_core_mask"):
        library.matmul((4, 32, 32), F16, core=0)
    assert library.n_contexts == 0


def test_contexts_are_counted(library: Library) -> None:
    contexts = [library.matmul((4, 32, 32), F16) for _ in range(librknnrt.MAX_CONTEXTS)]
    with pytest.raises(DeviceError, match="more than 127 matmul contexts"):
        library.matmul((4, 32, 32), F16)
    for matmul in contexts:
        matmul.close()
        matmul.close()


def test_the_version_says_emulated(library: Library) -> None:
    assert library.is_emulated
    with library.matmul((4, 32, 32), F16) as matmul:
        assert "emulated" in matmul.version()[0]


def test_slices_share_their_arena(library: Library) -> None:
    with library.matmul((4, 32, 32), F16) as keeper, library.matmul((8, 32, 32), F16) as other:
        arena = keeper.memory(4096)
        part = other.slice(arena, 256, 512)
        part.array[:] = 7
        assert arena.array[256:768].sum() == 7 * 512
        assert arena.array.sum() == 7 * 512
        with pytest.raises(DeviceFault, match="create_mem_from_fd"):
            other.slice(arena, 4000, 512)


@pytest.mark.parametrize("chip", sorted(emulator.CHIPS))
def test_the_library_tiles_b_as_we_do(chip: str) -> None:
    library, soc = Library(emulator.library(chip)), SOCS[chip]
    rng = np.random.default_rng(1)
    for precision, order in soc.orders.items():
        dtype = np.int8 if precision == "int8" else np.float16
        b = rng.integers(-100, 100, (64, 96)).astype(dtype)  # (K, N)
        theirs = library.tile_b(b, precision)
        assert theirs is not None
        assert np.array_equal(theirs, tiling.tile_weight(b.T, order.b, (96, 64)))


def test_layouts_are_what_the_library_states(library: Library) -> None:
    with library.matmul((4, 64, 32), F16, layouts=(Layout.NORMAL, Layout.NORMAL)) as matmul:
        assert [matmul.dims(x) for x in "abc"] == [(4, 64), (64, 32), (4, 32)]
