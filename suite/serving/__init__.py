"""An exported model as an HTTP server."""
