"""docs/config.md agrees with the settings."""

from pathlib import Path

from mmsearch_jax.commands.config_page import page


def test_the_page_of_settings_is_what_the_settings_say():
    written = (Path(__file__).parents[2] / "docs" / "config.md").read_text(encoding="utf-8")
    assert written == page(), "write it again: python -m mmsearch_jax.commands.config_page > docs/config.md"
