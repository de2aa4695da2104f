"""A server: images come in over HTTP, verdicts and overlays go out. Needs the extra ``serve``, and itself no torch."""
