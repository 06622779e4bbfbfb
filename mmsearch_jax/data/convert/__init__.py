"""Other people's data into rows of ours: one module a source, `run.py` drives them.

A source gives `records(path)`, the raw records of a file in order, and `to_row(record, number)`, which raises `DataError` for a
record that cannot be used; `run.py` sets such a record aside with its number and reason.
"""
