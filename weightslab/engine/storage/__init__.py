"""Where bytes live: the `Store` protocol, a local folder, a dict in memory."""
