"""Curate image-text pools into training sets: measure once, decide many times, with a reason for every sample."""

__version__ = "0.1.0"
