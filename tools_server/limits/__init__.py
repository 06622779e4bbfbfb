"""Rate limits, budgets and deadlines, which hold however the upstreams behave."""
