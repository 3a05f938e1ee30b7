"""Keeping secrets: keys at rest."""
