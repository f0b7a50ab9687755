"""Properties over inputs nobody wrote down: files after damage, and what comes back from what was written."""

from __future__ import annotations

import csv
import io
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.damage import damaged
from support.readers import CLEAN, READERS, Reader, sound_files

from kdistill.data.batch import pack
from kdistill.data.columns import read_rows
from kdistill.formats.safetensors import read_safetensors

# Machines are slow at times: no deadline for an example.
QUIET = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[bytes]]:
    return sound_files(tmp_path_factory.mktemp("sound"))


def check_reader(reader: Reader, data: bytes) -> None:
    """The reader reads, or raises an error that names a file of the directory."""
    message = None
    with TemporaryDirectory() as directory, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            reader(Path(directory), data)
        except CLEAN as error:
            message = str(error)
    assert message is None or directory in message, f"the message does not name the file: {message}"


@pytest.mark.parametrize("name", [name for name in READERS if not name.startswith("parquet")])
def test_damage_ends_in_a_clean_error(sound: dict[str, list[bytes]], name: str) -> None:
    @QUIET
    @given(damaged(sound[name]))
    def property_holds(data: bytes) -> None:
        check_reader(READERS[name], data)

    property_holds()


@pytest.mark.parametrize("name", READERS)
def test_any_bytes_end_in_a_clean_error(name: str) -> None:
    @settings(QUIET, max_examples=15)
    @given(st.binary(max_size=200))
    def property_holds(data: bytes) -> None:
        check_reader(READERS[name], data)

    property_holds()


ARRAYS = st.dictionaries(
    st.text(min_size=1, max_size=8),
    st.tuples(st.sampled_from(["<f4", "<f2", "<f8"]), st.lists(st.integers(0, 4), max_size=3)),
    max_size=4,
)


@QUIET
@given(ARRAYS, st.integers(0, 2**32 - 1))
def test_safetensors_come_back(kinds: dict[str, tuple[str, list[int]]], seed: int) -> None:
    from safetensors.numpy import save_file

    random = np.random.default_rng(seed)
    arrays = {name: random.standard_normal(shape).astype(kind) for name, (kind, shape) in kinds.items()}
    with TemporaryDirectory() as directory:
        save_file(arrays, Path(directory) / "w")
        found = read_safetensors(Path(directory) / "w")
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name].read(), array.astype(np.float32))


TEXTS = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=1, max_size=6)


@QUIET
@given(TEXTS)
def test_csv_rows_come_back(texts: list[str]) -> None:
    written = io.StringIO(newline="")
    csv.writer(written, quoting=csv.QUOTE_ALL).writerows([["sentence", "label"], *([text, "1"] for text in texts)])
    with TemporaryDirectory() as directory:
        path = Path(directory) / "rows.csv"
        path.write_text(written.getvalue(), encoding="utf-8", newline="")
        assert list(read_rows(path).texts) == texts


@QUIET
@given(st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=9), min_size=1, max_size=6), st.integers(0, 3))
def test_packing_a_padded_batch_is_packing_its_rows(rows: list[list[int]], more: int) -> None:
    width = max(map(len, rows)) + more
    ids = [row + [0] * (width - len(row)) for row in rows]
    mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
    packed, plain = pack({"input_ids": ids, "attention_mask": mask}), pack(rows)
    for found, expected in zip(packed, plain, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert [list(packed.ids[a:b]) for a, b in zip(packed.starts, packed.starts[1:], strict=False)] == rows
