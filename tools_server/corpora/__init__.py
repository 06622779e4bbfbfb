"""A user's own corpus, searched offline: from files of passages to an index on disk (`mmsearch index`), and back.

`build.build_index` makes an index folder, `open.open_index` opens it. A folder holds `index.json`, the passages in SQLite, and
what its engine ranks by: FTS5 in the same file, a tantivy folder, vectors.
"""
