"""PostgreSQL: the only importer of asyncpg. Knows rows and plain values, nothing of requests, routes or HTTP."""
