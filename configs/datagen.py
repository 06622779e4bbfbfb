"""Makes conversations with search from questions with answers, by a teacher at a chat endpoint and the live tools.

mmsearch datagen --workdir runs/datagen --config.seeds.path=runs/data/infoseek.array_record \
    --config.teacher.url=http://localhost:8000/v1 --config.teacher.model=NAME --config.tools.url=http://localhost:8765
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """The paper's rules and sizes (DeepMMSearch-R1, sec. 2)."""

    def endpoint(key_env: str, temperature: float) -> dict:
        return {
            "url": "",
            "model": "",
            "key_env": key_env,
            "deadline_s": 120.0,
            "max_concurrency": 16,
            "max_tokens": 2048,
            "temperature": temperature,
        }

    return ml_collections.ConfigDict(
        {
            "seed": 0,
            # Any file of rows; `share` of them are worked through, chosen by `seed`.
            "seeds": {"path": "", "share": 1.0},
            "teacher": endpoint("TEACHER_API_KEY", 0.7),
            # Asked where the rules of rewards/match.py do not accept an answer; empty: the rules alone.
            "judge": endpoint("JUDGE_API_KEY", 0.0),
            "tools": {"url": "", "deadline_s": 60.0, "max_concurrency": 16, "token_env": ""},
            # Seeds in work at one time.
            "concurrency": 16,
            # So many seeds in a row that break on an endpoint end the run.
            "max_failures": 50,
            # The last turn answers; the paper drops conversations of 10 turns or more.
            "rules": {
                "max_turns": 9,
                "max_image_searches": 1,
                "max_text_searches": 8,
                "top_k_text": 5,
                "top_k_image": 5,
                "observation_max_chars": 6000,
            },
            "labels": {
                # Level 1 of MMSearch-R1's taxonomy; the paper's names are not known.
                "categories": ("Arts", "Place", "People", "Industry", "Science", "Nature", "Entities", "Events"),
                # The policy that is to be trained, asked directly `samples` times; a search is required where fewer than
                # `required_below` of its answers are right. Empty: as the seed says, or else whether the teacher searched.
                "target": endpoint("TARGET_API_KEY", 1.0),
                "samples": 4,
                "required_below": 0.5,
            },
            # Over all runs in the work folder; 0: no limit.
            "budget": {"teacher_calls": 0, "teacher_tokens": 0, "tool_calls": 0, "target_calls": 0},
            # About uniform over categories; half the rows need a search. 0: as many as there are.
            "balance": {"size": 10_000, "search_share": 0.5},
        }
    )
