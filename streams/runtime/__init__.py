"""What runs the agents: transport seam, checkpoints, producer, watchdog, supervisor, development broker."""
