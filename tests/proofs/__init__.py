"""The long proofs: `make proofs` runs them in full length, `make test` in short."""
