import sys
from pathlib import Path

import pytest

# The oracle and the tolerances are plain modules beside the tests; what compiles CUDA kernels serves a benchmark too.
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "engine"), str(HERE.parent / "benchmarks")]


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """The results of a tiny study that nothing happened to."""
    import studies

    folder = tmp_path_factory.mktemp("undisturbed")
    status, text = studies.run(folder, studies.TINY)
    assert status == 0, text
    return folder / "results"
