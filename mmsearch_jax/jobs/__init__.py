"""Jobs: what a command does, from its settings and a work directory to the files that it leaves.

`commands` reads the command line and calls one job. Below the jobs, functions take records and arguments.
"""
