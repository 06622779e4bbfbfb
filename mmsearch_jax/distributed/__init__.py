"""Where arrays live: the mesh, and the rules that map logical axes to it."""
