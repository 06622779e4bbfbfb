"""What `mmsearch --help` and `mmsearch COMMAND --help` show at their ends: commands to copy."""

EPILOG = """\
a first run:
  mmsearch quickstart                       everything below, on one CPU in about ten minutes
  mmsearch quickstart --smoke               the same path with tiny budgets

stage by stage:
  mmsearch sft  --workdir runs/sft
  mmsearch grpo --workdir runs/grpo --config.checkpoint=runs/sft/policies/sft
  mmsearch eval --workdir runs/eval --checkpoint runs/grpo/policies/grpo
  mmsearch report runs/eval

Any config value can be set: --config.sft.num_steps=100. `mmsearch COMMAND --help` says more."""
EXAMPLES = {
    "quickstart": (
        "mmsearch quickstart",
        "mmsearch quickstart --smoke --workdir /tmp/smoke",
        "mmsearch quickstart --workdir runs/seed1 --config.seed=1",
    ),
    "pretrain": ("mmsearch pretrain --workdir runs/base --config.out=runs/base/policy",),
    "sft": (
        "mmsearch sft --workdir runs/sft",
        "mmsearch sft --workdir runs/short --config.sft.num_steps=50 --config.sft.optimizer.learning_rate=1e-3",
    ),
    "grpo": (
        "mmsearch grpo --workdir runs/grpo --config.checkpoint=runs/sft/policies/sft",
        "mmsearch grpo --workdir runs/frugal --config.grpo.reward.search_penalty=0.05",
    ),
    "eval": (
        "mmsearch eval --workdir runs/eval --checkpoint runs/grpo/policies/grpo --config.eval.name=grpo",
        "mmsearch eval --workdir runs/eval --config.eval.mode=direct --config.eval.name=direct",
        "mmsearch eval --workdir runs/eval --config.eval.allow_crop=false --config.eval.name=no_crop",
        "mmsearch eval --config configs/eval/deepmmsearch.py --checkpoint runs/grpo/policies/grpo --workdir runs/eval",
        "mmsearch eval --config configs/eval/deepmmsearch.py --workdir runs/eval --rejudge --config.judge.url=...",
    ),
    "compare": ("mmsearch compare runs/eval/eval/sft runs/eval/eval/grpo",),
    "ask": (
        'mmsearch ask photo.jpg "What is the capital of the country of the flag on the left?" \\\n'
        "      --config.checkpoint=runs/grpo/policies/grpo",
        'mmsearch ask photo.jpg "What is this?" --json',
    ),
    "serve": (
        "mmsearch serve --config.checkpoint=runs/grpo/policies/grpo",
        "mmsearch serve --config.checkpoint=runs/grpo/policies/grpo --tools-url http://127.0.0.1:8765 --port 8001",
    ),
    "serve-tools": (
        "mmsearch serve-tools --corpus runs/quickstart/worlds/real/corpus",
        "mmsearch eval --config.tools.url=http://127.0.0.1:8765      (in another terminal)",
    ),
    "serve-mcp": (
        "mmsearch serve-mcp --tools-url http://127.0.0.1:8765      (started by an agent's host, over stdio)",
        "mmsearch serve-mcp --http --port 8766",
    ),
    "import-hf": ("mmsearch import-hf assets/tiny-base runs/imported",),
    "export-hf": ("mmsearch export-hf runs/quickstart/policies/grpo runs/exported",),
    "datagen": (
        "mmsearch datagen --config.seeds.path=infoseek.array_record --config.tools.url=http://localhost:8765 \\\n"
        "      --config.teacher.url=http://localhost:8000/v1 --config.teacher.model=NAME \\\n"
        "      --config.tokenizer=Qwen2.5-VL-7B-Instruct",
    ),
    "cache": ("mmsearch cache export answers.jsonl --config.cache.path=runs/tools/cache.sqlite",),
    "data": ("mmsearch data convert mmsearch-r1 fvqa_train.parquet fvqa.array_record",),
    "index": ("mmsearch index build runs/wiki wiki-18.jsonl.gz", "mmsearch serve-tools --corpus runs/wiki"),
    "plan": (
        "mmsearch plan --config configs/sft_qwen2_5_vl_7b.py --topology v5p:2x2x4 --config.mesh.fsdp=8 \\\n"
        "      --config.mesh.tensor=2",
        "mmsearch plan --config configs/grpo_qwen2_5_vl_7b.py --topology v5e:4x8 --programs grpo --search --json plan.json",
    ),
    "report": ("mmsearch report runs/quickstart", "mmsearch report runs/sft runs/grpo -o report.html"),
}
