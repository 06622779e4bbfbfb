"""Puts images where a search provider can fetch them: on a route of this server, or in a bucket."""
