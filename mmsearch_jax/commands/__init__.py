"""The command line: one file a command, with its arguments and what it runs. Nothing slow is imported before a command runs."""
