"""The command line: one file per command, with its arguments and its job. Slow imports happen only when a command runs."""
