"""The doors: what the network sees. WebSocket connections and the HTTP API; no SQL, no policy, no room is decided here."""
