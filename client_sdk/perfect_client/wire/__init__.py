"""What crosses to the server: messages, WebSocket frames, the connection and its session."""
