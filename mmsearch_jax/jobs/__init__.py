"""Jobs: the work of each command, from its settings and a work directory to the files that it writes.

`commands` reads the command line and calls one job. Below the jobs, functions take records and arguments.
"""
