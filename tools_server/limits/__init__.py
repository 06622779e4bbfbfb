"""What keeps a run within rates, budgets and deadlines, whatever the upstreams do."""
