"""The durable event log behind SSE and WebSocket: written once, read from anywhere, resumed at any event."""
