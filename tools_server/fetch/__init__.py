"""Reading pages of the web: who may be asked (guard), what is taken (fetcher), and what of it is text (extraction, readers)."""
