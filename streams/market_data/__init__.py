"""Recorded market data: read, checked, and written in one documented format (infra/docs/data.md)."""
