"""Converts other projects' data to our rows: one module per source, driven by `conversion.py`.

A source defines `records(path)`, the raw records of a file in order, and `to_row(record, number)`, which raises `DataError` for
an unusable record; `conversion.py` rejects such a record with its number and reason.
"""
