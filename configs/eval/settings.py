"""What all evaluations share: mode, ablations, samples, endpoint, judge, budget. Not a config by itself."""

import ml_collections


def sections() -> dict:
    """The sections `eval`, `endpoint`, `judge` and `budget`."""

    def endpoint(key_env: str, **more) -> dict:
        return {"url": "", "model": "", "key_env": key_env, "deadline_s": 120.0, "max_concurrency": 32, **more}

    return {
        "eval": ml_collections.ConfigDict(
            {
                # Folder under <workdir>/eval.
                "name": "policy",
                # policy: tools by tags; prompted: the same with an untrained policy; direct: no tools; rag: fixed workflow.
                "mode": "policy",
                # Ablations. `max_text_searches` 0: as the episode's rules say. `oracle`: the row's own evidence in place of search.
                "allow_text": True,
                "allow_image": True,
                "allow_crop": True,
                "max_text_searches": 0,
                "oracle": False,
                "temperature": 0.0,
                # Of each question; more than one needs a temperature, and gives pass@k and the majority.
                "samples": 1,
                # Rows to ask, in order; 0 asks all.
                "limit": 0,
                # Name of a run in mode "direct" in this work folder: says which searches were needless. Empty: the rows' flags do.
                "direct": "",
                # Where the folder holds samples of other settings: "refuse", "new" (a folder beside it) or "replace".
                "if_changed": "refuse",
            }
        ),
        # A served policy in place of `checkpoint`: any OpenAI-compatible endpoint. Prices in dollars for a million tokens.
        "endpoint": ml_collections.ConfigDict(endpoint("POLICY_API_KEY", price_prompt=0.0, price_reply=0.0)),
        # The LLM judge; an empty url is no judge.
        "judge": ml_collections.ConfigDict(endpoint("JUDGE_API_KEY", max_tokens=512)),
        # Ends the run early, to be gone on with later; 0: no limit. Calls and dollars count over all runs of the folder.
        "budget": ml_collections.ConfigDict({"calls": 0, "dollars": 0.0, "minutes": 0.0}),
    }
