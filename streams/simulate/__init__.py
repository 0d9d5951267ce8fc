"""Seeded synthetic worlds as input events."""
