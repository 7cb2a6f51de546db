"""Fetching what a list of URLs names from strangers' servers, politely, and from nowhere that is not public."""
