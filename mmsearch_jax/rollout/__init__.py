"""The sampler: engine (device loop over slots), scheduler, episode (the agent's state machine) and tool client."""
