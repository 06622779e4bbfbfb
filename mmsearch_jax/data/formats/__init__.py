"""How records are laid down in files: one module a format, each with `read(path)` and `write(records, path)`.

A record is a dict of plain values, lists, dicts, and bytes for embedded images. `read` gives what a reader can still
recover: a record, the `DataError` that says why that place in the file holds none, or None where it is blank. None of
these modules knows what a row is.
"""
