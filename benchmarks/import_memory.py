"""Measures how much host memory it takes to read a checkpoint of Qwen2.5-VL-7B's shapes.

    python -m benchmarks.import_memory [--layers 2] [--full] [--hosts 8] [--host-only] [--json FILE]

Writes a checkpoint of empty tensors (sparse files, so it takes no room on the disk) and reads it by
`hf.load_pretrained` in bf16 in processes of their own: whole on one device, whole over simulated devices, and as one of several
hosts, which holds only its own shards. The peak of a process is its `ru_maxrss`, minus its memory before reading (Python,
JAX).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import resource
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.table import Measured, command_line, report
from mmsearch_jax.models import hf
from mmsearch_jax.models.axes import placement
from mmsearch_jax.models.config import ModelConfig, TextConfig, VisionConfig

FILE_BYTES = 5 * 10**9
"""Size at which a checkpoint continues in another file, as the published ones do."""


def sizes(layers: int | None) -> ModelConfig:
    """The 7B, or the 7B with this number of layers in both towers."""
    if layers is None:
        return ModelConfig()
    text = dataclasses.replace(TextConfig(), num_hidden_layers=layers)
    return ModelConfig(text=text, vision=dataclasses.replace(VisionConfig(), depth=layers))


def write_checkpoint(folder: Path, config: ModelConfig, file_bytes: int = FILE_BYTES) -> int:
    """Writes config.json, an index and safetensors files whose bf16 tensors are holes; returns the tensors' bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    files: list[dict[str, Any]] = [{}]
    filled = total = 0
    for name, shape in hf.tensor_shapes(config).items():
        size = 2 * math.prod(shape)
        if filled and filled + size > file_bytes:
            files.append({})
            filled = 0
        files[-1][name] = {"dtype": "BF16", "shape": shape, "data_offsets": [filled, filled + size]}
        filled, total = filled + size, total + size
    index = {}
    for number, header in enumerate(files, 1):
        name = f"model-{number:05d}-of-{len(files):05d}.safetensors"
        index |= dict.fromkeys(header, name)
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with (folder / name).open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + max(entry["data_offsets"][1] for entry in header.values()))
    record = {"metadata": {"total_size": total}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(record), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(config.to_hf()), encoding="utf-8")
    return total


def read(folder: Path, devices: int, hosts: int, host: int, port: int) -> dict[str, int] | None:
    """In a child: reads this host's part. Returns `part` and `peak` in bytes; None from a host that is not measured."""
    import jax
    import jax.numpy as jnp

    from mmsearch_jax.distributed.mesh import make_mesh
    from mmsearch_jax.settings.policy import MeshConfig

    if hosts > 1:
        jax.distributed.initialize(f"localhost:{port}", num_processes=hosts, process_id=host)
    mesh = make_mesh(MeshConfig(), jax.devices())
    if host:
        # The shutdown waits for all hosts.
        jax.distributed.shutdown()
        return None
    before = _peak_bytes()
    model, _ = hf.load_pretrained(folder, jnp.bfloat16, place=placement(mesh) if devices * hosts > 1 else None)
    leaves = [leaf for leaf in jax.tree.leaves(model) if isinstance(leaf, jax.Array)]
    part = sum(shard.data.nbytes for leaf in leaves for shard in leaf.addressable_shards)
    peak = _peak_bytes() - before
    if hosts > 1:
        jax.distributed.shutdown()
    return {"part": part, "peak": peak}


def measure(folder: Path, devices: int = 1, hosts: int = 1) -> dict[str, int]:
    """Reads the checkpoint in children and returns what host 0 measured.

    Raises:
      RuntimeError: a child failed; it has said why.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    command = [sys.executable, "-m", "benchmarks.import_memory", "--child", str(folder)]
    children = [
        subprocess.Popen(
            [*command, *map(str, (devices, hosts, host, port))], env=environment, stdout=subprocess.PIPE, text=True
        )
        for host in range(hosts)
    ]
    outputs = [child.communicate()[0] for child in children]
    if any(child.returncode for child in children):
        raise RuntimeError(f"reading over {devices} devices on {hosts} hosts failed: see the child's error above")
    return json.loads(outputs[0].splitlines()[-1])


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints one table: peak memory over the size of what is read."""
    parser = command_line("Host memory taken by reading a checkpoint of the 7B's shapes.", "one layer in each tower")
    parser.add_argument("--layers", type=int, default=2, help="layers of each tower (2: a model of about 3 GB)")
    parser.add_argument(
        "--full", action="store_true", help="the whole 7B (takes about 22 GB of memory unless --host-only)"
    )
    parser.add_argument(
        "--hosts", type=int, default=8, help="devices that the model is spread over, or hosts of one device"
    )
    parser.add_argument("--host-only", action="store_true", help="read as one of several hosts only, never the whole")
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        folder, *numbers = options.child
        print(json.dumps(read(Path(folder), *map(int, numbers))))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "checkpoint"
        total = write_checkpoint(folder, sizes(None if options.full else 1 if options.quick else options.layers))
        figures = {f"one of {options.hosts} hosts": measure(folder, hosts=options.hosts)}
        if not options.host_only:
            figures["one device"] = measure(folder)
            figures[f"{options.hosts} devices of one host"] = measure(folder, devices=options.hosts)
    table = Table("read by", "its part, GB", "peak, GB", "peak / part", "peak / model")
    for name, figure in figures.items():
        part, peak = figure["part"], figure["peak"]
        table.add_row(name, f"{part / 1e9:.2f}", f"{peak / 1e9:.2f}", f"{peak / part:.2f}", f"{peak / total:.2f}")
    Console().print(table)
    rows = {
        f"reading, peak / part, {name}": Measured(figure["peak"] / figure["part"], "x", "", True)
        for name, figure in figures.items()
    }
    report(rows, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
