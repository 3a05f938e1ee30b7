"""The one place that names the HTTP library, so that another with the same interface can take its place."""

import httpx

__all__ = ["httpx"]
