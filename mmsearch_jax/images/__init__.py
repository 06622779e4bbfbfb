"""Images on the host: reads, resizes, cuts into patches, and packs patches into rows."""
