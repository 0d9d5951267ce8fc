"""The dpme command: one lazy module a command."""
