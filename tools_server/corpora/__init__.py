"""A user's own corpus: builds an index on disk from files of passages or pictures (`mmsearch index`), and searches it.

`passage_build.build_index` makes an index folder and `open.open_index` opens it; `picture_build` and `picture_index` do the
same for pictures. The folder has `index.json`, the passages in SQLite, and the files for ranking: FTS5, a tantivy folder,
vectors.
"""
