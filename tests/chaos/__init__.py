"""Chaos runs: a pipeline on a broker, killed, frozen and fed badly; every output compared with the pure engine."""
