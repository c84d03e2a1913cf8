"""The front end: stateless; knows who owns what, not the rules."""
