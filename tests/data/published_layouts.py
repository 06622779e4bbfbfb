"""Writes small files in the layouts of published sets."""

import json


def put(path, content):
    """A file, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write_jsonl(path, records):
    """JSON lines."""
    put(path, "".join(json.dumps(record) + "\n" for record in records).encode())
