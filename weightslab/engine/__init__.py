"""The engine: identity, storage, repository, training state. It knows no ledger and no door."""
