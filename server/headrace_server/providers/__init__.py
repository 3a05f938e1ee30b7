"""The upstream side: one file a dialect, the SSE scanner, and the HTTP transport under them."""
