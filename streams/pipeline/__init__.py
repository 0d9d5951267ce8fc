"""Puts a whole pipeline together: broker, topics, scenario sets, supervised workers, a world fed in, figures out."""
