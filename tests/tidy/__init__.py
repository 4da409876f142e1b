"""The style guide as tests: what can be checked by a machine is not left to people."""
