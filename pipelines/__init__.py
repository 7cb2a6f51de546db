"""The Beam pipelines: they connect the steps, and have no logic of their own."""
