import pytest

from mmsearch_jax.commands import main as cli


@pytest.fixture
def check(capsys):
    """Runs the command in this process; returns its exit code and its lines: problems, notes, others."""

    def run(*words):
        capsys.readouterr()
        code = cli.main(["check", *map(str, words)])
        done = capsys.readouterr()
        lines = done.err.splitlines()
        problems = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        notes = [line.removeprefix("note: ") for line in lines if line.startswith("note: ")]
        assert len(problems) + len(notes) == len(lines), done.err
        return code, problems, notes, done.out

    return run
