"""File formats of records: one module per format, each with `read(path)` and `write(records, path)`.

A record is a dict of plain values, lists, dicts, and bytes for embedded images. `read` yields what can be recovered from each
place in the file: a record, the `DataError` that says why there is none, or None if the place is blank. These modules do not
depend on the definition of a row.
"""
