"""What can answer a search: web providers, a user's own services, and the corpus on this machine."""
