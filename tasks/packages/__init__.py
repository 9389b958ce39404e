"""One environment: layouts, metadata, requirements, installation."""
