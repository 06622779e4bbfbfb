"""Reading web pages: which URLs may be fetched (guard), how much (fetcher), and what of it is text (extraction, readers)."""
