"""`mmsearch check`: prepared mistakes, each named in one line with the way out; and what is right passes."""

import http.server
import itertools
import json
import math
import shutil
import subprocess
import sys
import threading

import pytest

from mmsearch_jax.distributed.topologies import SLICES, parse
from mmsearch_jax.recipes.meshes import AS_LARGE_AS, MESHES
from tools_server.settings import environment

POD = ("--topology", "v5p:2x2x4", "--mount", "/mnt")
MODEL = "--config.checkpoint=/mnt/models/Qwen2.5-VL-7B-Instruct"
SETS = "--config.sft.data.sets=('/mnt/data/train.array_record',)"
SFT = ("sft", "--config", "configs/sft_qwen2_5_vl_7b.py:v5p:2x2x4", MODEL, SETS, "--workdir", "/mnt/runs/sft")
JUDGE = ("--config.grpo.judge.url=http://judge:8000/v1", "--config.grpo.judge.model=Qwen3-32B")
GRPO = (
    "grpo", "--config", "configs/grpo_qwen2_5_vl_7b.py:v5p:2x2x4", "--config.checkpoint=/mnt/runs/sft/policies/sft",
    "--config.grpo.rows=/mnt/data/fvqa.array_record", "--config.tools.url=http://search:8765",
    "--workdir", "/mnt/runs/grpo",
)  # fmt: skip
HERE = ("sft", "--workdir", "runs/none")
OTHER_TOPOLOGY = ("sft", "--config", "configs/sft_qwen2_5_vl_7b.py", *SFT[3:])


MISTAKES = {
    "a command": (("--", "sftt"), "unknown command 'sftt': did you mean 'sft'?"),
    "an argument": (("--", *HERE, "--foo"), "unknown argument '--foo': see mmsearch sft --help"),
    "an option's value": (("--", "serve", "--port", "x"), "--port: invalid int value: 'x'"),
    "no command": ((), "mmsearch check needs a command"),
    "a missing argument": (("--", "ask"), "mmsearch ask needs an image and a question"),
    "a key": (("--", *HERE, "--config.sft.num_stepps=3"), "did you mean 'sft.num_steps'?"),
    "a value": (("--", *HERE, "--config.sft.num_steps=many"), "sft.num_steps takes a whole number, got 'many'"),
    "a bound": (("--", *HERE, "--config.sft.num_steps=0"), "sft.num_steps is 0: must be at least 1"),
    "a section": (("--", *HERE, "--config.sft=3"), "'sft' is a section"),
    "two values together": (
        ("--", "grpo", "--config.grpo.group_size=1", "--workdir", "runs/none"),
        "grpo.group_size is 1, below min_group (2)",
    ),
    "a config": (("--", *HERE, "--config", "configs/none.py"), "no config file at configs/none.py: the bundled ones are"),
    "a config's topology": (
        ("--", *HERE, "--config", "configs/sft_qwen2_5_vl_7b.py:v5p:3x3x3"),
        "slices of v5p are 2x2x1",
    ),
    "a config of other machines": (
        (*POD, "--", *OTHER_TOPOLOGY),
        "needs 4 devices, there are 16: set one size to -1; or name the machines after the config's file: "
        "configs/sft_qwen2_5_vl_7b.py:v5p:2x2x4",
    ),
    "an accelerator type": (("--topology", "v5p-20", *POD[2:], "--", *SFT), "'v5p-20' cannot be ordered: the nearest"),
    "a hub id": (
        ("--", *HERE, "--config.checkpoint=Qwen/Qwen2.5-VL-7B-Instruct"),
        "`hf download Qwen/Qwen2.5-VL-7B-Instruct --local-dir",
    ),
    "a checkpoint that only this machine has": (
        (*POD, "--", *SFT, "--config.checkpoint=runs/sft/policies/sft"),
        "checkpoint is runs/sft/policies/sft, which the run's machines do not have: put it below /mnt",
    ),
    "rows": (
        ("--", *HERE, "--config.sft.data.sets=none.array_record"),
        "sft.data.sets names none.array_record, which does not exist here",
    ),
    "no judge": ((*POD, "--", *GRPO), "grpo.judge.url is empty, but reward.match is 'exact_or_judge'"),
    "a judge without a model": (
        (*POD, "--", *GRPO, JUDGE[0]),
        "grpo.judge.model is empty: name the model that the endpoint serves",
    ),
    "no search server": (
        (*POD, "--", *GRPO, *JUDGE, "--config.tools.url="),
        "tools.url is empty, but grpo.rows names your own rows",
    ),
    "a search server on the pods themselves": (
        (*POD, "--", *GRPO, *JUDGE, "--config.tools.url=http://127.0.0.1:8765"),
        "tools.url is http://127.0.0.1:8765, which each of the run's machines looks for on itself",
    ),
    "a mesh": (
        (*POD, "--", *SFT, "--config.mesh.data=1", "--config.mesh.fsdp=5"),
        "mesh dcn=1, data=1, fsdp=5, tensor=1, sequence=1 needs 5 devices, there are 16",
    ),
    "a row over several processes": (
        (*POD, "--", *SFT, "--config.mesh.data=1", "--config.mesh.fsdp=2", "--config.mesh.tensor=8"),
        "tensor=8 x sequence=1 splits a row over several processes, which have 4 devices each",
    ),
    "a batch": ((*POD, "--", *SFT, "--config.sft.batch.rows=6"), "sft.batch.rows is 6, but the mesh splits it 16 ways"),
    "prompts": (
        (*POD, "--", *GRPO, *JUDGE, "--config.grpo.prompts_per_step=6"),
        "grpo.prompts_per_step is 6, which 4 processes do not divide evenly",
    ),
    "slices": ((*POD, "--", *SFT, "--config.mesh.dcn=2", "--config.mesh.data=2"), "in 1 slices: set it to 1"),
    "memory": (
        (
            "--topology", "v5e:2x2", "--mount", "/mnt", "--", "sft", "--config", "configs/sft_qwen2_5_vl_3b.py:v5e:2x2",
            "--config.checkpoint=/mnt/Qwen2.5-VL-32B-Instruct", SETS, "--workdir", "/mnt/runs/a",
        ),
        "GiB a device are needed (hand count), v5e:2x2 has 16.0",
    ),
    "the engine's chips": (
        (*POD, "--", *GRPO, *JUDGE, "--config.engine.tensor=16"),
        "engine.tensor is 16, but a process has 4 devices: lower it",
    ),
    "a work directory on the pods' disks": (
        (*POD, "--", *SFT[:-1], "runs/sft"),
        "--workdir runs/sft is lost with the run's machines: give a directory below /mnt",
    ),
    "a work directory of one machine": (
        ("--topology", "h100:16", "--", *HERE),
        "must be on storage that all 2 machines share",
    ),
    "a bucket's address": (("--", "sft", "--workdir", "ftp://bucket/run"), "only gs://BUCKET/FOLDER, s3://BUCKET/FOLDER and"),
    "a key that is not set": (
        ("--", "serve", "--config.serve.token_env=NOT_SET_AT_ALL", "--config.checkpoint=assets/tiny-base"),
        "serve.token_env names the environment variable NOT_SET_AT_ALL, which is not set",
    ),
    "a provider's key": (
        ("--", "serve-tools", "--config", "configs/tools/serper.py"),
        "backends.serper.key_env names the environment variable SERPER_API_KEY, which is not set",
    ),
    "a server's setting": (("--", "serve-tools", "--config.text.bakends=3"), "did you mean 'text.backends'?"),
    "a corpus": (("--", "serve-tools", "--corpus", "/nowhere-at-all"), "corpus: there is no /nowhere-at-all"),
    "a benchmark that is not there": (
        (
            "--", "eval", "--config", "configs/eval/deepmmsearch.py", "--config.only=dynvqa", "--config.data=/nope",
            "--config.tools.url=http://search:8765", "--workdir", "runs/none",
        ),
        "the benchmark dynvqa has no data at /nope/dynvqa: get it from github.com",
    ),
    "a benchmark without a search server": (
        ("--", "eval", "--config", "configs/eval/deepmmsearch.py", "--config.only=dynvqa", "--workdir", "runs/none"),
        "the benchmark dynvqa needs a search server: start one with `mmsearch serve-tools`",
    ),
    "rows of one's own": (
        ("--", "eval", "--rows", "none.array_record", "--config.tools.url=http://search:8765", "--workdir", "runs/none"),
        "rows.path names none.array_record, which does not exist here: give the path of a file of rows",
    ),
    "rows of one's own without a search server": (
        ("--", "eval", "--config", "configs/eval/deepmmsearch.py", "--rows", "none.array_record", "--workdir", "runs/none"),
        "the benchmark none needs a search server: start one with `mmsearch serve-tools`",
    ),
    "a shard": (("--", "eval", "--shard", "4/4", "--workdir", "runs/none"), "--shard 4/4: write INDEX/COUNT"),
    "a benchmark's name": (
        ("--", "eval", "--config", "configs/eval/deepmmsearch.py", "--config.only=dynvqua", "--workdir", "runs/none"),
        "only names 'dynvqua', which is not a benchmark",
    ),
    "datagen's settings": (("--", "datagen", "--workdir", "runs/none"), "seeds.path is empty: set it with"),
    "two runs to compare": (("--", "compare", "/nowhere-at-all", "/nowhere"), "first: there is no /nowhere-at-all"),
    "an image": (("--", "ask", "/nowhere.jpg", "who?"), "image: there is no /nowhere.jpg"),
    "a plan's topology": (
        ("--", "plan", "--config", "configs/sft_qwen2_5_vl_7b.py", "--topology", "v5p:3x3"),
        "topology 'v5p:3x3' cannot be ordered: the nearest is",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_with_exit_code_2(name, check, monkeypatch):
    monkeypatch.delenv("SERPER_API_KEY", raising=False)
    words, message = MISTAKES[name]
    code, problems, _, out = check(*words)
    assert code == 2 and out == ""
    assert [line for line in problems if message in line], problems


@pytest.mark.parametrize("command", ["sft", "grpo", "eval", "ask", "serve", "quickstart"])
def test_a_config_that_cannot_be_read_is_the_only_mistake(check, command):
    """Rules about the settings have nothing to say where there are none."""
    words = (command, "docs/report.png", "who?") if command == "ask" else (command,)
    code, problems, _, _ = check(
        "--topology", "v5p:2x2x1", "--", *words, "--config", "configs/grpo_qwen2_5_vl_7b.py:h20:8"
    )
    assert code == 2 and len(problems) == 1 and "h20" in problems[0], problems


def test_no_consequence_of_missing_data_is_named(check):
    """SFT asks the search server only for the toy world."""
    code, problems, _, _ = check(*POD, "--", *SFT[:4], *SFT[5:])
    assert code == 2 and len(problems) == 1 and problems[0].startswith("sft.data.sets is empty"), problems


def test_only_the_wrong_one_of_two_values_that_belong_together_is_named(check):
    words = ("--rows", "data/rows.jsonl", "--name", "my set", "--config.tools.url=http://search:8765")
    code, problems, _, _ = check("--expect", "data", "--", "eval", *words, "--workdir", "runs/none")
    assert code == 2 and len(problems) == 1 and "rows.name is 'my set'" in problems[0], problems


def test_all_mistakes_of_a_line_are_said_at_once(check):
    line = (*GRPO[:-1], "runs/here", "--config.grpo.group_sise=4", "--config.mesh.fsdp=3", "--config.mesh.data=1", "-x")
    code, problems, _, _ = check(*POD, "--", *line)
    assert code == 2 and len(problems) == 5, problems


def test_nothing_that_takes_long_to_import_is_imported():
    """Most of a check's time is imports; launch scripts run it in a Python that has ml_collections alone."""
    words = ["check", *POD, "--", *GRPO, *JUDGE]
    code = f"import sys; from mmsearch_jax.commands.main import main; code = main({words!r}); "
    slow = (
        "jax",
        "flax",
        "grain",
        "transformers",
        "numba",
        "pyarrow",
        "aiohttp",
        "jaxtyping",
        "tqdm",
        "safetensors",
        "PIL",
    )
    code += f"print(code, [name for name in {slow} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []", done.stdout


def test_what_is_right_passes_with_what_was_found(check):
    code, problems, _, out = check(*POD, "--", *SFT)
    assert (code, problems) == (0, [])
    assert out.startswith("ready: sft; v5p:2x2x4: 16 devices, 4 processes; mesh data=4 fsdp=4; about ")
    assert check("--", *HERE)[0] == 0
    assert check(*POD, "--", *GRPO, *JUDGE)[0] == 0
    # Google's name of the same slice.
    assert check("--topology", "v5p-32", *POD[2:], "--", "mmsearch", *SFT)[0] == 0


def small_machines(stage, size):
    """The two smallest of each chip's topologies that hold a model."""
    table = MESHES[stage][size]
    for chip in (*table, *(chip for chip, like in AS_LARGE_AS.items() if like in table)):
        group = math.prod(table[AS_LARGE_AS.get(chip, chip)][:3])
        names = (f"{chip}:{shape}" for shape in SLICES.get(chip, ("8", "16", "32")))
        yield from itertools.islice((name for name in names if parse(name).num_devices % group == 0), 2)


@pytest.mark.parametrize("stage", MESHES)
def test_every_published_config_passes_on_its_machines(check, stage):
    own = SFT if stage == "sft" else (*GRPO, *JUDGE)
    for size in MESHES[stage]:
        for name in small_machines(stage, size):
            line = [word.replace("7b.py:v5p:2x2x4", f"{size}.py:{name}").replace("7B", size.upper()) for word in own]
            code, problems, _, _ = check("--topology", name, "--mount", "/mnt", "--", *line)
            assert code == 0, (name, size, problems)


def test_files_here_are_looked_into(check, tmp_path):
    folder = tmp_path / "policy"
    shutil.copytree("assets/tiny-base", folder)
    named = ("--", "sft", "--workdir", tmp_path / "run", f"--config.checkpoint={folder}")
    assert check(*named)[0] == 0
    (folder / "model.safetensors").unlink()
    assert "lacks model.safetensors: the download is incomplete" in check(*named)[1][0]
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert "describes a 'llama' model" in check(*named)[1][0]
    (tmp_path / "rows.txt").touch()
    (tmp_path / "rows.jsonl").touch()
    sets = f"--config.sft.data.sets=('{tmp_path}/rows.jsonl',)"
    assert "mmsearch data convert rows" in check("--", *HERE, sets)[1][0]
    assert (
        "unknown format" in check("--", "grpo", f"--config.grpo.rows={tmp_path}/rows.txt", "--workdir", "runs/a")[1][1]
    )
    (tmp_path / "file").touch()
    assert "is a file" in check("--", "sft", "--workdir", tmp_path / "file" / "run")[1][0]


def test_an_evaluation_of_all_sets_notes_each_set_without_data_once(check, tmp_path):
    line = (
        "--",
        "eval",
        "--config",
        "configs/eval/deepmmsearch.py",
        f"--config.data={tmp_path}",
        "--workdir",
        "runs/none",
    )
    code, problems, notes, _ = check(*line, "--config.checkpoint=assets/tiny-base")
    assert (code, problems) == (0, []) and len(notes) == len({note.split()[2] for note in notes}) == 10
    assert all("has no data at" in note for note in notes)
    (tmp_path / "dynvqa").mkdir()
    notes = check(*line, "--config.checkpoint=assets/tiny-base")[2]
    assert [note for note in notes if "dynvqa needs a search server" in note] and len(notes) == 10


def test_what_another_run_will_have_made_is_not_looked_for(check):
    line = ("--", "grpo", "--workdir", "runs/none", "--config.checkpoint=runs/no-sft/policies/sft")
    assert check(*line)[0] == 2
    assert check("--expect", "runs/no-sft", *line)[0] == 0


def test_shared_storage_and_buckets_may_hold_a_work_directory(check):
    line = ("--", "sft", "--workdir", "/scratch/run", "--config.sft.batch.rows=16", "--config.sft.batch.images=32")
    assert check("--topology", "h100:16", *line)[0] == 2
    assert check("--topology", "h100:16", "--shared", "/scratch", *line)[0] == 0
    assert check(*POD, "--", *SFT[:-1], "gs://bucket/run")[0] == 0
    assert "several processes need a shared directory or gs://" in check(*POD, "--", *SFT[:-1], "s3://bucket/run")[1][0]


def test_keys_are_compared_by_name_with_the_run_s_own_file(check, tmp_path):
    line = (*POD, "--", *GRPO, *JUDGE, "--config.tools.token_env=SEARCH_TOKEN")
    code, _, notes, _ = check(*line)
    assert code == 0 and "tools.token_env names SEARCH_TOKEN" in notes[0]
    keys = tmp_path / "keys.env"
    keys.write_text("# keys\nexport OTHER=1\n")
    assert "not among the run's keys" in check("--secrets", keys, *line)[1][0]
    keys.write_text("SEARCH_TOKEN=secret\n")
    code, problems, notes, out = check("--secrets", keys, *line)
    assert (code, problems) == (0, []) and "secret" not in "".join((*notes, out))


def test_a_server_elsewhere_has_its_own_keys_packages_and_models(check, monkeypatch):
    monkeypatch.delenv("SERPER_API_KEY", raising=False)
    monkeypatch.setattr(environment.importlib.util, "find_spec", lambda name: None)
    model = ("--config.grounder.kind=onnx", "--config.grounder.model=/mnt/models/grounding-dino")
    line = ("--", "serve-tools", "--config", "configs/tools/serper.py", *model)
    code, problems, notes, _ = check("--mount", "/mnt", *line)
    assert (code, problems) == (0, [])
    assert [note for note in notes if "SERPER_API_KEY" in note]
    assert [note for note in notes if "(on the run's machines)" in note]
    assert len(check(*line)[1]) >= 2


def test_services_are_asked_only_with_reach(check):
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/readyz" else 401)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        line = ("eval", "--workdir", "runs/none", f"--config.tools.url={url}", "--config.judge.model=m")
        up, down = f"--config.judge.url={url}/v1", "--config.judge.url=http://127.0.0.1:9/v1"
        assert check("--reach", "--", *line, up)[0] == 0
        assert check("--", *line, down)[0] == 0
        assert "judge.url: nothing answers at http://127.0.0.1:9/v1" in check("--reach", "--", *line, down)[1][0]
        server.shutdown()
