"""Every setting of the server, by subject: the only place that states a setting's name, type, default and bounds.

`server.ServerSettings` is the whole tree. Nothing here reads a corpus, opens a store or starts a process.
"""
