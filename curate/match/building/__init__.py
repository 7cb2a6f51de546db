"""Builds metadata from downloaded files: Wikipedia's texts, its page views, and wordnets."""
