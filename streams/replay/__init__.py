"""Recorded markets as input events."""
