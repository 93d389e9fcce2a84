"""What operators do: checks, checklists, backup and restore, capacity. Runs beside the daemon, never inside it."""
