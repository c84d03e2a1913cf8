"""The owner: has the core decide, commits what it decided, then replies."""
