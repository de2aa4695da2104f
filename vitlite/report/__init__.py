"""Pictures of results: heat maps and overlays."""
