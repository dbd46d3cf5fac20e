"""The tables of a finished study, read back. Nothing of the engine is loaded for that."""

from pathlib import Path

import pandas as pd

from ntksim.study.errors import StageError
from ntksim.study.files.storage import read_frame


def read_table(results: str | Path, name: str) -> pd.DataFrame:
    """A table of a study as a data frame, its provenance in ``frame.attrs``.

    Parameters
    ----------
    results : the study's results folder.
    name : initial, convergence, spectrum, scaling_laws, and with training: training, ensemble, layers, modes, final, drift or
        lazy.

    Raises
    ------
    FileNotFoundError that lists the tables there are; ValueError for a damaged one.
    """
    folder = Path(results) / "tables"
    path = folder / f"{name}.parquet"
    if not path.is_file():
        present = sorted(p.stem for p in folder.glob("*.parquet"))
        known = f"there are {', '.join(present)}" if present else f"{folder} holds no tables; run the study first"
        raise FileNotFoundError(f"no table {name!r} in {results}: {known}")
    try:
        return read_frame(path)
    except StageError as error:
        raise ValueError(str(error)) from None
