"""What would stop a command line, found without JAX and before anything is started: `findings.check` applies the rules.

Each rule is a generator over one `Run`. What a command checks itself is checked here by the same functions.
"""
