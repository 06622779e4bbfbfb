"""`mmsearch serve` as a process: it prints its address, answers, and stops without an error."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import openai

ROOT = Path(__file__).parents[2]


def test_the_command_serves_the_tiny_base_until_it_is_told_to_stop():
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    small = [
        "engine.num_slots=2",
        "engine.extend_rows=(1,)",
        "engine.decode_rows=()",
        "engine.length_buckets=()",
        "max_pixels=12544",
        "serve.model=tiny",
    ]
    command = [
        sys.executable,
        "-m",
        "mmsearch_jax.commands.main",
        "serve",
        "--port",
        "0",
        *(f"--config.{each}" for each in small),
    ]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            address = process.stdout.readline().strip()
            assert address.startswith("http://127.0.0.1:"), process.stderr.read()
            client = openai.OpenAI(base_url=address + "/v1", api_key="none", timeout=60)
            messages = [{"role": "user", "content": "What is the capital of Peru?"}]
            reply = client.chat.completions.create(model="tiny", messages=messages, max_tokens=5, temperature=0)
            assert reply.choices[0].message.content and reply.usage.completion_tokens <= 5
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert "Traceback" not in process.stderr.read()
