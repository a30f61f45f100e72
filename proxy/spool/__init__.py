"""The spool: what was recorded of requests, in files of this host, until PostgreSQL has it.

Owns the files and what they promise: a record is safe from the death of its process when it is written, and from the
death of the host when it was synced. Knows bytes, identities and kinds of records, and nothing of rows.
"""
