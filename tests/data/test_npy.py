"""Files of vectors that nobody vouches for: whatever their header claims, the answer is an array or one line."""

from __future__ import annotations

import io
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmrec.data.npy import map_npy
from mmrec.errors import DataError

VECTORS = np.arange(12, dtype=np.float32).reshape(3, 4)


def saved(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def claiming(header: str, content: bytes = bytes(48)) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + content


def shaped(shape: str, descr: str = "'<f4'", content: bytes = bytes(48)) -> bytes:
    return claiming(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n", content)


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f2", ">f2", "<f8", ">f8", "<i8", "|b1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_numbers_in_any_order_of_bytes_and_axes_are_the_numbers(tmp_path, dtype, order):
    array = np.asarray(VECTORS % 3, dtype=dtype, order=order)
    np.save(tmp_path / "v.npy", array)
    mapped = map_npy(tmp_path / "v.npy")
    assert isinstance(mapped, np.memmap)
    assert mapped.dtype == array.dtype
    np.testing.assert_array_equal(mapped, array)


@pytest.mark.parametrize(
    ("data", "words"),
    {
        "nothing": (b"", "it holds something else"),
        "text": (b"1.0,2.0 and more\n", "it holds something else"),
        "an archive": (b"PK\x03\x04", r"it holds an archive \(.npz\)"),
        "a pickle": (pickle.dumps([1.0]), "it holds pickled Python objects"),
        "objects": (saved(np.array([[{}]])), "holds object of shape"),
        "words": (saved(np.array([["a"]])), "must be numbers"),
        "records": (saved(np.zeros(3, [("a", "<f4")])), "no plain descr in its header"),
        "three dimensions": (saved(np.zeros((3, 2, 2))), r"shape \(3, 2, 2\); it must be numbers of shape"),
        "no dimension": (saved(np.float32(1)), r"shape \(\)"),
        "no rows": (saved(np.zeros((0, 4))), r"shape \(0, 4\)"),
        "cut off": (saved(VECTORS)[:-1], "is 48 bytes, and 47 follow the header"),
        "cut off in the header": (saved(VECTORS)[:100], "its header of 128 bytes is cut off"),
        "cut off in the magic": (saved(VECTORS)[:7], "it holds a few bytes"),
        "two arrays": (saved(VECTORS) * 2, r"is 48 bytes, and 224 follow"),
        "a terabyte": (shaped("(3, 100000000000)"), r"is 1,200,000,000,000 bytes, and 48 follow"),
        "more than memory has": (shaped("(3, 4611686018427387904)"), "a shape of 5e"),
        "a number of 60 digits": (shaped(f"(3, {10**60})"), "a shape of 1e"),
        "a number of 5,000 digits": (shaped(f"(3, {'9' * 5000})"), "in its header"),
        "less than nothing": (shaped("(-3, -4)"), "no plain shape in its header"),
        "a sum": (shaped("(1 + 2, 4)"), "no plain shape in its header"),
        "numbers of no size": (shaped("(3, 4)", "'|V0'"), "must be numbers"),
        "numbers of a size that is none": (shaped("(3, 4)", "'<f3'"), "not understood in its header"),
        "numbers that are arrays": (shaped("(3, 1)", "('<f4', (4,))"), "no plain descr in its header"),
        "a program": (shaped("(3, __import__('os').abort())"), "no plain shape in its header"),
        "nested brackets": (claiming("(" * 9_000), "no plain descr and fortran_order and shape"),
        "a header of 4 GB": (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{", "its header of 4,294,967,307 bytes is cut off"),
        "a version of the future": (b"\x93NUMPY\x09\x00" + bytes(64), "cannot be read as .npy"),
    }.values(),
    ids=lambda value: value[:20] if isinstance(value, str) else None,
)
def test_what_is_no_plain_array_of_numbers_is_one_line(tmp_path, data, words):
    (tmp_path / "v.npy").write_bytes(data)
    with pytest.raises(DataError, match=words) as caught:
        map_npy(tmp_path / "v.npy")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "v.npy") in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_file_that_is_not_there_or_a_folder_is_one_line(tmp_path):
    for path, words in ((tmp_path / "none.npy", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(DataError, match=rf"cannot be read: {words}"):
            map_npy(path)


def test_a_thousand_damaged_headers_are_arrays_or_lines(tmp_path, recwarn):
    """Nothing else is raised, nothing warns, and what is mapped has the bytes of the file and no more."""
    generator = np.random.default_rng(0)
    whole, path = saved(VECTORS), tmp_path / "v.npy"
    mapped, refused = 0, []
    for _ in range(1_000):
        data = bytearray(whole)
        for _ in range(int(generator.integers(1, 6))):
            data[int(generator.integers(0, 128))] = int(generator.integers(0, 256))
        path.write_bytes(data[: int(generator.integers(0, len(data)))] if generator.random() < 0.2 else data)
        try:
            assert np.array(map_npy(path)).nbytes == 48
            mapped += 1
        except DataError as error:
            refused.append(str(error))
    assert mapped + len(refused) == 1_000
    assert len(refused) > 700, "the others were hit where the header is padding"
    assert not [line for line in refused if "\n" in line or "\0" in line]
    assert not recwarn.list


def test_a_header_is_refused_before_memory_is_spent_on_it(tmp_path):
    """Under a limit of the address space far below what the headers claim, the answers are the same lines."""
    cases = (shaped("(3, 100000000000)"), b"\x93NUMPY\x02\x00\xff\xff\xff\xff{", claiming("(" * 9_000))
    for number, data in enumerate(cases):
        (tmp_path / f"{number}.npy").write_bytes(data)
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from mmrec.data.npy import map_npy\n"
        "from mmrec.errors import DataError\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20),) * 2)\n"
        "for name in sys.argv[1:]:\n"
        "    try:\n"
        "        map_npy(Path(name))\n"
        "    except DataError as error:\n"
        "        print(str(error).partition(': ')[2] or error)\n"
    )
    names = [str(tmp_path / f"{number}.npy") for number in range(len(cases))]
    done = subprocess.run(
        [sys.executable, "-c", program, *names], capture_output=True, text=True, check=False, cwd=Path.cwd()
    )
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == len(cases)
    assert "MemoryError" not in done.stdout
