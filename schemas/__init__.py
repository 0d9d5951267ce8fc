"""Messages, instruments, parameters and packed records: what crosses a process border."""
