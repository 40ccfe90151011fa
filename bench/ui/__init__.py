"""Benchmarks of the pages: real Chromium against a dashboard whose database is large."""
