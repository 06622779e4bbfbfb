"""Fills a YAML template of this folder: --set KEY=VALUE fills ${KEY}; --with NAME keeps a block (#+ NAME ... #- NAME).

python launch/fill.py FILE [--topology v5p:2x2x4:2] [--with BLOCK]... [--set KEY=VALUE]... [--args KEY COUNT WORD...]...

A value must not hold characters that are special in YAML. A list of words (--args) is written as JSON, which YAML reads.
--topology sets ACCELERATOR, SHAPE, SLICES, HOSTS, CHIPS and XPK_TYPE; with several slices it keeps the block `multislice`. FILE
may be -.

It needs only Python, without Jinja2 or other packages, because the machine that launches a run may have no environment.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.distributed.topologies import Topology, parse

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]*")
_BLOCK = re.compile(r"^ *#\+ (\w+)\n(.*?)^ *#- \1\n", re.MULTILINE | re.DOTALL)
# The chip in GKE's label cloud.google.com/gke-tpu-accelerator, and the start of XPK's --tpu-type.
_CLOUD_NAMES = {
    "v4": ("tpu-v4-podslice", "v4"),
    "v5e": ("tpu-v5-lite-podslice", "v5litepod"),
    "v5p": ("tpu-v5p-slice", "v5p"),
    "v6e": ("tpu-v6e-slice", "v6e"),
    "7x": ("tpu7x", "tpu7x"),
}


def main(words: list[str]) -> int:
    """Prints the filled file; returns the exit code (2 after an error, printed in one line)."""
    try:
        print(filled(words), end="")
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def filled(words: list[str]) -> str:
    """The filled text of the file that the command line names.

    Raises:
      ConfigError: a value is missing or holds special characters, or GKE does not have the topology.
    """
    file, *rest = words
    values, blocks = {}, set()
    while rest:
        option, word, *rest = rest
        if option == "--with":
            blocks.add(word)
        elif option == "--set":
            key, _, value = word.partition("=")
            if not _PLAIN.fullmatch(value):
                raise ConfigError(f"{key} is '{value}': only letters, digits and . _ : / @ - are allowed")
            values[key] = value
        elif option == "--topology":
            values |= _of_topology(parse(word))
            blocks |= {"multislice"} if int(values["SLICES"]) > 1 else set()
        elif option == "--args":
            count = int(rest[0])
            values[word], rest = json.dumps(rest[1 : 1 + count]), rest[1 + count :]
        else:
            raise ConfigError(f"unknown option '{option}'")
    text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    text = _without_comments(_chosen(text, blocks))
    missing = sorted(set(re.findall(r"\$\{(\w+)\}", text)) - set(values))
    if missing:
        raise ConfigError(f"{file} needs {', '.join(missing)}")
    return re.sub(r"\$\{(\w+)\}", lambda found: values[found.group(1)], text)


def _of_topology(topology: Topology) -> dict[str, str]:
    if not topology.is_tpu:
        raise ConfigError(
            f"{topology.name} are GPUs: this file is for TPU slices (launch/slurm.sbatch, launch/gpu_node.sh)"
        )
    hosts = topology.num_hosts // topology.num_slices
    if topology.num_slices > 1 and hosts == 1:
        raise ConfigError(
            f"{topology.name}: a run on several slices needs several hosts per slice, so more than {topology.slice_shape}"
        )
    accelerator, xpk = _CLOUD_NAMES[topology.chip.name]
    return {
        "ACCELERATOR": accelerator,
        "SHAPE": topology.slice_shape,
        "SLICES": str(topology.num_slices),
        "HOSTS": str(hosts),
        "CHIPS": str(topology.host.num_chips),
        "XPK_TYPE": f"{xpk}-{topology.slice_shape}",
    }


def _chosen(text: str, blocks: set[str]) -> str:
    while _BLOCK.search(text):
        text = _BLOCK.sub(lambda found: found.group(2) if found.group(1) in blocks else "", text)
    return text


def _without_comments(text: str) -> str:
    return re.sub(r"^ *#.*\n", "", text, flags=re.MULTILINE)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
