"""Builds metadata from what a user downloaded: Wikipedia's texts, its page views, and wordnets."""
