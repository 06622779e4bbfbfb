"""Makes conversations with search from questions with answers, by a teacher at a chat endpoint and the live tools.

mmsearch datagen --workdir runs/datagen --config.seeds.path=runs/data/infoseek.array_record \
    --config.teacher.url=http://localhost:8000/v1 --config.teacher.model=NAME --config.tools.url=http://localhost:8765 \
    --config.tokenizer=Qwen2.5-VL-7B-Instruct
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
            # Folder of the policy that is to be trained: its tokenizer counts tokens and cuts observations, as in GRPO.
            "tokenizer": "",
            # Give the values of the GRPO run that follows; these are those of configs/grpo_qwen2_5_vl_7b.py except for the two
            # limits named below.
            "episode": {
                "mode": "policy",
                "prompt_style": "paper",
                # The last turn must answer; the paper drops conversations of 10 turns or more.
                "max_tool_calls": 8,
                "max_image_searches": 1,
                "max_text_searches": 8,
                "max_turn_tokens": 1024,
                # Without the image, whose 1,280 tokens or fewer are not counted here: a row of SFT holds 8,192.
                "max_trajectory_tokens": 6912,
                "observation_max_tokens": 1024,
                "top_k_text": 5,
                "top_k_image": 5,
                "on_invalid": "end",
                "say_last_turn": True,
                "allow_text": True,
                "allow_image": True,
                "allow_crop": True,
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
