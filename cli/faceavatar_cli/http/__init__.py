"""The HTTP service: `create_app(settings)` gives the ASGI app, `faceavatar serve` runs it."""
