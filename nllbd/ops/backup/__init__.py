"""Encrypted backups with restic: made, kept as long as the policy says, verified by a daemon that starts from them,
and restored. One run is committed by its manifest, the last snapshot that it writes.
"""
