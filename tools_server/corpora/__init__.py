"""A user's own corpus, searched offline: from files of passages or pictures to an index on disk (`mmsearch index`), and back.

`passage_build.build_index` makes an index folder, `open.open_index` opens it; `picture_build` and `picture_index` do so for pictures. A
folder holds `index.json`, the passages in SQLite, and what it ranks by: FTS5, a tantivy folder, vectors.
"""
