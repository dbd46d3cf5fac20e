import sys
from pathlib import Path

# The oracle and the tolerances are plain modules beside the tests.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "engine")]
