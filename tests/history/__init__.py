"""What clients do and what must be true of it, wherever the brokers run: simulated, or as real processes."""
