#!/usr/bin/env python3
"""Reads lake tables with software that is not ours, and prints one JSON object per table.

    read_tables.py [--version N] TABLE_FOLDER...

A Delta table is read by DuckDB where its delta extension can be loaded, else by the `deltalake`
package; an Iceberg table by `pyiceberg`. Needs: pip install deltalake "pyiceberg[pyarrow]" duckdb

Prints: table, format, reader, rows, columns (name to type), non_null (name to count),
sums (integer and decimal columns, as text) and partitions (value to rows, where there are any).
"""

import argparse
import json
import os
import pathlib
import re
import sys


def read_delta(folder, version):
    if version is None:
        try:
            import duckdb

            connection = duckdb.connect()
            connection.execute("LOAD delta")
            rows = connection.execute("SELECT * FROM delta_scan(?)", [str(folder)]).arrow()
            if hasattr(rows, "read_all"):
                rows = rows.read_all()
            return "duckdb", rows, partition_columns_of_delta(folder)
        except ImportError:
            pass
        except Exception as reason:  # the extension is a download that may not be there
            print(f"duckdb cannot read delta here: {str(reason).splitlines()[0]}", file=sys.stderr)
    import deltalake
    import pyarrow

    table = deltalake.DeltaTable(str(folder), version=version)
    try:
        rows = table.to_pyarrow_table()
    except ImportError:
        rows = pyarrow.table(table.to_arrow())
    return "deltalake", rows, table.metadata().partition_columns


def partition_columns_of_delta(folder):
    import deltalake

    return deltalake.DeltaTable(str(folder)).metadata().partition_columns


def read_iceberg(folder, version):
    from pyiceberg.table import StaticTable

    numbered = {}
    for path in (folder / "metadata").iterdir():
        match = re.fullmatch(r"v(\d+)\.metadata\.json", path.name)
        if match:
            numbered[int(match[1])] = path
    table = StaticTable.from_metadata(str(numbered[max(numbered)]))
    snapshot = None
    if version is not None:
        snapshot = next(s.snapshot_id for s in table.snapshots() if s.sequence_number == version)
    rows = table.scan(snapshot_id=snapshot).to_arrow()
    by = table.properties.get("hydromesh.partition-by")
    return "pyiceberg", rows, [by] if by else []


def describe(folder, version):
    import pyarrow
    import pyarrow.compute

    folder = pathlib.Path(folder).resolve()
    is_delta = (folder / "_delta_log").is_dir()
    reader, rows, partition_by = (read_delta if is_delta else read_iceberg)(folder, version)
    sums = {}
    for name, column in zip(rows.column_names, rows.columns):
        if pyarrow.types.is_integer(column.type) or pyarrow.types.is_decimal(column.type):
            total = pyarrow.compute.sum(column).as_py()
            sums[name] = None if total is None else str(total)
    partitions = {}
    for by in partition_by:
        counts = pyarrow.compute.value_counts(rows.column(by))
        partitions = {str(one["values"]): one["counts"].as_py() for one in counts}
    return {
        "table": folder.name,
        "format": "delta" if is_delta else "iceberg",
        "reader": reader,
        "rows": rows.num_rows,
        "columns": {field.name: str(field.type) for field in rows.schema},
        "non_null": {name: len(column) - column.null_count for name, column in zip(rows.column_names, rows.columns)},
        "sums": sums,
        "partitions": dict(sorted(partitions.items())),
    }


def leave(code):
    """Ends the process with an exit code once all is printed.

    Arrow's threads may still run while Python takes itself down, which aborts a process that has done all of its work
    (apache/arrow#34314): its exit code would then say nothing of the tables.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--version", type=int, help="Delta version or Iceberg sequence number")
    parser.add_argument("table", nargs="+", help="folder of a table")
    arguments = parser.parse_args()
    for folder in arguments.table:
        print(json.dumps(describe(folder, arguments.version)))


if __name__ == "__main__":
    main()
    leave(0)
