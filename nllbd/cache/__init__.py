"""Translations of segments that are known already, in the process and in Redis. Knows no engine, document or HTTP."""
