"""WebSocket JSON-RPC gateway: public events with dense sequence numbers."""
