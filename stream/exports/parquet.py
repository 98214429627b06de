"""The table of trials as Parquet: typed columns, for pandas, polars, R and DuckDB."""

from pathlib import Path

from hvf_core.artifact import whole_file
from hvf_core.problem import Problem
from stream.exports.finished import FinishedSession


def export_parquet(session: FinishedSession, path: Path) -> int:
    """Writes the table of trials; how many rows it has.

    Raises:
        Problem: pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise Problem(
            "Parquet needs pyarrow, which is missing: install it with "
            '`pip install -c constraints.txt -e ".[export]"`'
        ) from None
    kinds = {int: pyarrow.int64(), float: pyarrow.float64(), bool: pyarrow.bool_()}
    table = session.table
    columns = {
        name: pyarrow.array(table.column(name), kinds.get(kind, pyarrow.string()))
        for name, kind in table.columns.items()
    }
    told = {"session": session.config.session, "simulated": str(session.is_simulated).lower()}
    with whole_file(path) as draft:
        parquet.write_table(pyarrow.table(columns, metadata=told), draft)
    return len(table.rows)
