"""Faust agents: decode, call a pure transition, send. One thin file an agent."""
