"""Writes every public output into ClickHouse (chDB embedded) without loss or repeat."""
