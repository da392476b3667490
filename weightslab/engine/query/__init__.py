"""Queries: the filter language, alike in Python, on the command line and on the web."""
