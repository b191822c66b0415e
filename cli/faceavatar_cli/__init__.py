"""The command line of faceavatar. It stands on the engine's public names; the engine knows nothing of it."""
