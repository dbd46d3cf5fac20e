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


@pytest.fixture(autouse=True)
def figures_are_closed():
    """Figures that a test draws and does not save would pile up."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


SLOW = ("test_workflow.py", "test_cuda.py", "test_kills.py", "test_faults.py")


def pytest_collection_modifyitems(items):
    """Files that take minutes come first: of two processes, none is left alone with one of them at the end."""
    items.sort(key=lambda item: item.path.name not in SLOW)
