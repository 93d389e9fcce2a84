"""What outlives the daemon: keys, sessions, usage, audit log, glossaries. Behind `records.py`'s plain values."""
