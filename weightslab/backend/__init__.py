"""In-process services; the ledger of live objects."""
