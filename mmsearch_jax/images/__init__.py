"""Images on the host: reading, resizing, cutting into patches, packing patches into rows."""
