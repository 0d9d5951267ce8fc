"""The streaming application: pure engine, thin Faust agents, runtime, gateway, sink, replay, command line."""
