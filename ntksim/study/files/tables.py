"""Read the tables of a finished study, without loading the engine."""

from pathlib import Path

import pandas as pd

from ntksim.study.errors import StageError
from ntksim.study.files.storage import read_frame


def read_table(results: str | Path, name: str) -> pd.DataFrame:
    """Read a table of a study as a data frame, with its provenance in ``frame.attrs``.

    ``frame.attrs["columns"]`` says what each column means. Missing values are NaN in numbers; in the file they are null.

    Parameters
    ----------
    results : the study's results folder.
    name : initial, convergence, spectrum or scaling_laws; with training also training, ensemble, layers, modes, final, drift or
        lazy; where they are asked for dispersion or continuum, and of training.measures eigenvalues, mode_residuals, couplings,
        regression, profiles, predictions or freeze.

    Raises
    ------
    FileNotFoundError if there is no such table (the message lists the existing ones); ValueError if it is damaged.
    """
    folder = Path(results) / "tables"
    path = folder / f"{name}.parquet"
    if not path.is_file():
        present = sorted(p.stem for p in folder.glob("*.parquet"))
        known = f"its tables are {', '.join(present)}" if present else f"{folder} holds no tables; run the study first"
        raise FileNotFoundError(f"no table {name!r} in {results}: {known}")
    try:
        return read_frame(path)
    except StageError as error:
        raise ValueError(str(error)) from None
