"""The proof of limits: exact, fair, bounded when Redis is away, and cheap; `make limits-proof` runs it in full."""
