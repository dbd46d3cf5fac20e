"""A study whose files are damaged, exchanged or of another version, or whose processes are killed: the same command mends it."""

import shutil

import pytest
import studies

from ntksim.study import storage
from ntksim.study.provenance import code_identity


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    status, text = studies.run(folder, studies.TINY)
    assert status == 0, text
    return folder / "results"


@pytest.fixture(scope="module")
def folder(undisturbed, tmp_path_factory):
    """A folder of its own with that study's results, for tests to spoil."""
    copy = tmp_path_factory.mktemp("spoilt")
    shutil.copytree(undisturbed, copy / "results")
    return copy


def test_what_is_damaged_or_foreign_is_named_and_computed_again(undisturbed, folder):
    """A flipped bit, a truncation, another width's shard, and a damaged table, limit and data set: each alone is mended."""
    results = folder / "results"
    flipped, cut, exchanged, whole = (
        results / "initial" / f"tanh.width-{width}.seeds-{seeds}.parquet"
        for width, seeds in ((8, "0-1"), (8, "2-3"), (16, "0-1"), (16, "2-3"))
    )
    for path in (flipped, results / "limit" / "tanh.npz", results / "dataset.npz", results / "tables" / "initial.parquet"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 16
        path.write_bytes(content)
    cut.write_bytes(cut.read_bytes()[:1000])
    exchanged.write_bytes((results / "initial" / "tanh.width-16.seeds-2-3.parquet").read_bytes())
    before = whole.stat().st_mtime_ns
    status, text = studies.run(folder, studies.TINY)
    assert status == 0, text
    for path in (flipped, cut, results / "limit" / "tanh.npz", results / "dataset.npz", results / "tables" / "initial.parquet"):
        assert f"{path}: damaged, computed again" in text
    assert f"{exchanged}: computed for another configuration, computed again (seeds)" in text
    assert studies.numbers(results) == studies.numbers(undisturbed)
    assert whole.stat().st_mtime_ns == before  # a restored limit or data set makes no shard that hangs on it again


def test_files_of_another_version_are_refused_until_allowed(undisturbed, folder):
    results = folder / "results"
    path = results / "initial" / "tanh.width-8.seeds-0-1.parquet"
    table, metadata = storage.read_arrow(path)
    storage.write_table(path, table, metadata | {"identity": metadata["identity"] | {"source": "0123"}})
    content = path.read_bytes()
    status, text = studies.run(folder, studies.TINY)
    assert status == 1
    assert f"{results}: 1 files were computed by another version of ntksim than this one" in text
    assert f"the first {path}" in text
    assert "--recompute" in text
    assert path.read_bytes() == content
    status, text = studies.run(folder, studies.TINY, "--recompute")
    assert status == 0, text
    assert f"{path}: computed by another version of ntksim, computed again" in text
    assert storage.read_metadata(path)["identity"]["source"] == code_identity()["source"]
