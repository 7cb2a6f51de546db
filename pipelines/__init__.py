"""Beam pipelines: which steps there are and how they hang together; no logic."""
