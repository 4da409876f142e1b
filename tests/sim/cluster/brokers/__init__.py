"""Whole brokers and clients with the SDK, simulated."""
