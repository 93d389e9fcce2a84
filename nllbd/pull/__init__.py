"""Model folders from a hub: what is there (hub), one download at a time (lease), files (fetch), all of it (pull)."""
