"""`mmsearch <command>`: reads the command line and calls one part. Mistakes of the user end in one line and exit code 2.

JAX is imported only by the commands that compute.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mmsearch_jax import __version__
from mmsearch_jax.commands import cache as cache_cli
from mmsearch_jax.commands import data as data_cli
from mmsearch_jax.commands import eval as eval_cli
from mmsearch_jax.commands import index as index_cli
from mmsearch_jax.commands import plan as plan_command
from mmsearch_jax.commands import serve_mcp as mcp_cli
from mmsearch_jax.commands.examples import EPILOG, EXAMPLES
from mmsearch_jax.core.bundled import bundled
from mmsearch_jax.core.errors import ConfigError, MMSearchError, Preempted, ToolFailed
from tools_server.options import add_arguments as add_server_arguments

EXIT_PREEMPTED = 75
"""Stopped by SIGTERM with everything saved: run the same command again (EX_TEMPFAIL of sysexits.h)."""
CONFIGS = bundled("configs")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code (0 done, 2 something for the user to mend, 75 pre-empted, 130 interrupted)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options, rest = _parser().parse_known_args(arguments)
    try:
        options.overrides = [argument for argument in rest if argument.startswith("--config.")]
        unknown = [argument for argument in rest if not argument.startswith("--config.")]
        if unknown:
            raise ConfigError(f"unknown argument '{unknown[0]}': see mmsearch {options.command} --help")
        if options.overrides and not hasattr(options, "config"):
            raise ConfigError(f"mmsearch {options.command} takes no config, so no {options.overrides[0]}")
        if getattr(options, "compilation_cache", ""):
            _keep_programs(options.compilation_cache)
        options.run(options)
    except Preempted as error:
        print(f"stopped: {error}", file=sys.stderr)
        return EXIT_PREEMPTED
    except (MMSearchError, OSError) as error:
        if options.debug:
            raise  # the whole traceback, as asked
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from the last checkpoint, where it writes one", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mmsearch",
        description="Teaches a vision-language model to search the web: SFT, GRPO with live search, evaluation.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument("--version", action="version", version=f"mmsearch-jax {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], None], text: str, config: str = "", workdir: bool = True):
        command = commands.add_parser(
            name,
            help=text.splitlines()[0].rstrip("."),
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog="\n".join(["examples:", *(f"  {example}" for example in EXAMPLES[name])]),
        )
        command.set_defaults(run=run)
        # Without a default of its own, so that `mmsearch --debug COMMAND` is not undone here.
        command.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error"
        )
        if config:
            command.add_argument(
                "--config",
                type=Path,
                default=CONFIGS / config,
                metavar="FILE",
                help=f"config file, or FILE:TOPOLOGY (default: configs/{config}); set values with --config.KEY=VALUE",
            )
            command.add_argument(
                "--compilation-cache",
                default="",
                metavar="DIR",
                help="keep compiled programs there: the next start loads them (default: $JAX_COMPILATION_CACHE_DIR, or none)",
            )
        if config and workdir:
            command.add_argument(
                "--workdir",
                type=Path,
                default=Path(f"runs/{name}"),
                metavar="DIR",
                help="folder for metrics, checkpoints and results (default: %(default)s)",
            )
        return command

    quick = add(
        "quickstart",
        _quickstart,
        "Runs everything on one CPU: SFT, GRPO with live search, evaluation in four modes, report.\n"
        "Leaves quickstart.json, eval/*/summary.json and report.html in the work folder.",
        "quickstart.py",
    )
    quick.add_argument("--smoke", action="store_true", help="tiny budgets: the same path in a minute and a half")
    add(
        "pretrain",
        _pretrain,
        "Makes the tiny base policy from nothing.\nWrites a Hugging Face folder that transformers loads, too.",
        "tiny_pretrain.py",
    )
    sft = add(
        "sft",
        _sft,
        "Supervised fine-tuning on the teacher's conversations, made with the live tools.\n"
        "Writes policies/sft, metrics.jsonl, TensorBoard events and checkpoints to the work folder.",
        "tiny_sft.py",
    )
    grpo = add(
        "grpo",
        _grpo,
        "GRPO with live search, from an SFT policy.\n"
        "Writes policies/grpo, rollouts/, metrics.jsonl, TensorBoard events and checkpoints to the work folder.",
        "tiny_grpo.py",
    )
    for command in (sft, grpo):
        command.add_argument(
            "--profile",
            type=int,
            metavar="STEPS",
            help="trace so many steps into DIR/profile, for xprof (from the third on: config.run.profile_first)",
        )
        _add_processes(command)
    evaluation = add(
        "eval",
        _eval,
        "Evaluates a policy on one benchmark or many, and prints the table.\n"
        "Modes: policy (tools by tags), prompted (the same, untrained), direct (no tools), rag (fixed workflow).\n"
        "Writes summary.json and samples.jsonl (whole trajectories) below eval/<name>; the same command goes on after a kill.",
        "eval/miniworld.py",
    )
    eval_cli.add_arguments(evaluation)
    _add_processes(evaluation)
    compare = add(
        "compare",
        _compare,
        "Compares two evaluations of the same questions: difference, interval, McNemar's test.\n"
        "Takes the folders of two benchmarks' runs, or of two runs over many.",
    )
    eval_cli.add_compare_arguments(compare)
    ask = add(
        "ask",
        _ask,
        "Asks one question about one image and prints the episode as it goes; crops are saved to WORKDIR/crops.\n"
        "Searches the real mini-world, or the server named by --config.tools.url.",
        "eval/miniworld.py",
    )
    ask.add_argument("image", help="image file, or its URL")
    ask.add_argument("question", help="what to ask")
    ask.add_argument("--json", action="store_true", help="print the trajectory as one JSON object instead")
    chat = add(
        "serve",
        _serve,
        "Serves a policy to OpenAI clients: chat completions with images, streamed or whole, and search episodes.\n"
        "Prints its address once it can be asked, and runs until it is interrupted (docs/serving.md).",
        "serve.py",
        workdir=False,
    )
    chat.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    chat.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: %(default)s)")
    chat.add_argument("--tools-url", metavar="URL", help="offer search episodes with this server (config.tools.url)")
    serve = add(
        "serve-tools",
        _serve_tools,
        "Serves text search, image search and grounding: over the web, or over a corpus on this machine.\n"
        "It sees pixels and strings only, loads no JAX, and runs until it is interrupted.",
    )
    add_server_arguments(serve)
    mcp_cli.add_arguments(
        add(
            "serve-mcp",
            mcp_cli.run,
            "Offers text search, image search and grounding to agents over the Model Context Protocol.\n"
            "A thin adapter over a running tools server (mmsearch serve-tools); needs the extra 'mcp'.",
        )
    )
    cache_cli.add_arguments(
        add(
            "cache",
            cache_cli.run,
            "Takes the search server's kept answers out of its store, puts them in, counts them.\n"
            "With the mode 'replay' a run or an evaluation is repeated from them without any network.",
        )
    )
    for name, run, text in (
        ("import-hf", _import_hf, "Turns a Hugging Face Qwen2.5-VL folder into a policy folder of ours (Orbax)."),
        ("export-hf", _export_hf, "Turns a policy folder into a Hugging Face folder that transformers loads."),
    ):
        command = add(name, run, text)
        command.add_argument("source", type=Path, help="folder to read")
        command.add_argument("out", type=Path, help="folder to write")
    add(
        "datagen",
        _datagen,
        "Makes conversations with search from questions with answers: a teacher writes, the live tools answer.\n"
        "Writes rows.array_record, datasheet.md and datasheet.json; the same command goes on after a kill.",
        "datagen.py",
    )
    plan_command.add_arguments(
        add(
            "plan",
            plan_command.run,
            "Says what a job takes on chips that are not here: memory, operations, exchanges, time; and what fits instead.\n"
            "Compiles the config's own programs for the slice; needs no TPU, but libtpu: pip install 'mmsearch-jax[plan]'.",
        )
    )
    report = add(
        "report",
        _report,
        "Writes one self-contained HTML page about one run or several.\n"
        "It holds tables, comparisons, use of tools, learning curves and every trajectory with images, crops and results.",
    )
    report.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="work folders")
    report.add_argument("-o", "--out", type=Path, help="file to write (default: report.html in the first folder)")
    report.add_argument("--image-mib", type=int, default=14, help="MiB of images to embed (default: %(default)s)")
    report.add_argument(
        "--tokens", type=int, default=2_000_000, help="tokens to embed with origin and log-prob (default: %(default)s)"
    )
    data_cli.add_arguments(
        add(
            "data",
            data_cli.run,
            "Converts, validates, counts and shows rows.\nSources: MMSearch-R1, Search-R1, verl, ShareGPT.",
        )
    )
    index_cli.add_arguments(
        add(
            "index",
            index_cli.run,
            "Makes and searches indexes of your own passages and pictures.\nFor serve-tools --corpus.",
        )
    )
    return parser


def _add_processes(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("several processes (docs/training.md)")
    group.add_argument(
        "--distributed", action="store_true", help="find the other processes in the environment (TPU pod, Slurm, GKE)"
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="or name process 0,")
    group.add_argument("--num-processes", type=int, metavar="N", help="how many there are,")
    group.add_argument("--process-id", type=int, metavar="I", help="and which one this is")
    group.add_argument(
        "--heartbeat-timeout",
        type=int,
        default=60,
        metavar="SECONDS",
        help="stop when another process has been silent for so long (default: %(default)s)",
    )


def _keep_programs(folder: str) -> None:
    if "://" not in folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
    # JAX reads both when it is imported; it leaves out what compiled within a second, as most programs of a small policy do.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def _load(options: argparse.Namespace):
    from mmsearch_jax.core.config_files import load_config, save_config

    if options.workdir.parts[:1] and options.workdir.parts[0].endswith(":"):
        # pathlib takes a bucket's address for a local folder, which would be found out after the run.
        raise ConfigError(
            f"--workdir {options.workdir}: a bucket is no folder. Mount it (docs/launch.md, Buckets) and name a folder in it"
        )
    if hasattr(options, "coordinator"):
        from mmsearch_jax.distributed.processes import start

        start(
            options.coordinator,
            options.num_processes,
            options.process_id,
            from_environment=options.distributed,
            heartbeat_timeout_s=options.heartbeat_timeout,
        )
    profiled = (
        [f"--config.run.profile_steps={options.profile}"] if getattr(options, "profile", None) is not None else []
    )
    config = load_config(options.config, [*profiled, *options.overrides])
    save_config(config, options.workdir / "config.json")
    return config


def _quickstart(options: argparse.Namespace) -> None:
    from mmsearch_jax.core.config_files import load_config, set_overrides

    config = load_config(options.config)
    if options.smoke:
        from configs import quickstart as settings

        with config.unlocked():
            settings.smoke(config)
    set_overrides(config, options.overrides)
    from mmsearch_jax.jobs import quickstart

    quickstart.run(config, options.workdir)


def _pretrain(options: argparse.Namespace) -> None:
    config = _load(options)
    from mmsearch_jax.jobs.training import run_pretrain

    print(f"base policy: {run_pretrain(config, options.workdir)}")


def _sft(options: argparse.Namespace) -> None:
    config = _load(options)
    from mmsearch_jax.jobs.training import run_sft

    print(f"policy: {run_sft(config, options.workdir)}")


def _grpo(options: argparse.Namespace) -> None:
    config = _load(options)
    from mmsearch_jax.jobs.training import run_grpo

    print(f"policy: {run_grpo(config, options.workdir)}")


def _eval(options: argparse.Namespace) -> None:
    eval_cli.run(_load(options), options)


def _compare(options: argparse.Namespace) -> None:
    eval_cli.compare(options)


def _ask(options: argparse.Namespace) -> None:
    config = _load(options)
    from mmsearch_jax.jobs.parts import read_image_argument, run_ask

    # Before anything slow starts.
    encoded = read_image_argument(options.image)
    if options.json:
        trajectory = run_ask(config, options.workdir, encoded, options.question)
        print(json.dumps({"question": options.question, "image": options.image, **trajectory.to_json()}))
    else:
        from mmsearch_jax.evaluation.ask import EpisodePrinter
        from mmsearch_jax.images.processing import load_image

        printer = EpisodePrinter(image=load_image(encoded), crops=options.workdir / "crops")
        trajectory = run_ask(config, options.workdir, encoded, options.question, printer)
    if trajectory.infrastructure_failure:
        raise ToolFailed(trajectory.error or f"the episode ended with status {trajectory.status}")


def _serve(options: argparse.Namespace) -> None:
    from mmsearch_jax.core.config_files import load_config, set_key
    from mmsearch_jax.jobs.serve import serve

    config = load_config(options.config, options.overrides)
    if options.tools_url:
        set_key(config, "tools.url", options.tools_url)
    serve(config, options.host, options.port)


def _serve_tools(options: argparse.Namespace) -> None:
    from tools_server.options import config_of
    from tools_server.serve import serve

    serve(config_of(options, options.overrides))


def _import_hf(options: argparse.Namespace) -> None:
    from mmsearch_jax.models.policies import import_hf

    import_hf(options.source, options.out)
    print(f"policy: {options.out}")


def _export_hf(options: argparse.Namespace) -> None:
    from mmsearch_jax.models.policies import export_hf

    export_hf(options.source, options.out)
    print(f"Hugging Face folder: {options.out}")


def _datagen(options: argparse.Namespace) -> None:
    config = _load(options)
    from mmsearch_jax.jobs.datagen import ROWS, run_datagen

    sheet = run_datagen(config, options.workdir)
    for outcome, count in sheet["stages"].items():
        print(f"{count:>8} {outcome}")
    print(f"{sheet['stopped']}\n{sheet['set']['rows']} rows: {options.workdir / ROWS}, datasheet.md beside them")


def _report(options: argparse.Namespace) -> None:
    from mmsearch_jax.report.page import write_report
    from mmsearch_jax.report.viewer_data import PageBudget

    budget = PageBudget(image_bytes=options.image_mib << 20, tokens=options.tokens)
    out = options.out or options.runs[0] / "report.html"
    print(f"report: {write_report(options.runs, out, budget=budget)}")


if __name__ == "__main__":
    sys.exit(main())
