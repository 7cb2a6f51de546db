"""Downloads images from the URLs in lists, politely, and only from public addresses."""
