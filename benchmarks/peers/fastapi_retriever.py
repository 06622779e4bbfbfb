"""A retriever as Search-R1 builds its own (FastAPI, a blocking handler in its thread pool), over the index that ours serves.

python fastapi_retriever.py CORPUS PORT
"""

import sys
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

sys.path.insert(0, str(Path(__file__).parents[2]))
from tools_server.text_index import TextIndex


class Asked(BaseModel):
    """The body of `/retrieve`."""

    queries: list[str]
    topk: int = 3
    return_scores: bool = False


def application(index: TextIndex) -> FastAPI:
    """The one route."""
    app = FastAPI()

    @app.post("/retrieve")
    def retrieve(asked: Asked) -> dict[str, Any]:
        found = [index.search(query, asked.topk) for query in asked.queries]
        return {
            "result": [
                [
                    {
                        "document": {"id": hit.page.url, "contents": f'"{hit.page.title}"\n{hit.page.text}'},
                        "score": hit.score,
                    }
                    for hit in hits
                ]
                for hits in found
            ]
        }

    return app


if __name__ == "__main__":
    uvicorn.run(
        application(TextIndex.from_corpus(Path(sys.argv[1]))),
        host="127.0.0.1",
        port=int(sys.argv[2]),
        log_level="warning",
    )
